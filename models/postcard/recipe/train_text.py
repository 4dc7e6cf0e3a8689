"""The text encoders, before the UNet: from a caption alone, name everything it states.

Heads that are thrown away afterwards read every attribute (or "not said") from both encoders' last position and
from the pooled output. Captions are drawn without end, so there is nothing to overfit."""

import argparse
import pathlib

import torch
import torch.nn.functional as F

from . import captions, data, tokenizer, training
from .models import text_encoders
from .scenes import ATTRIBUTES


def labels(request):
    """Per attribute: 0 for unsaid, else 1 + the value's index."""
    return [ATTRIBUTES[n].index(request[n]) + 1 if n in request else 0 for n in ATTRIBUTES]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=2e-3)
    training.add_arguments(parser, 8)
    args = parser.parse_args(arguments)
    training.begin(args)
    args.out.mkdir(parents=True, exist_ok=True)
    device, path = args.device, args.out / "text-state.pt"

    tokens = tokenizer.learn()
    tokens.save(args.out / "tokenizer", tokenizer.END)
    tokens.save(args.out / "tokenizer_2", "!")
    first, second = text_encoders(tokens)
    sizes = [len(v) + 1 for v in ATTRIBUTES.values()]
    heads = torch.nn.ModuleList(torch.nn.Linear(w, sum(sizes)) for w in (64, 96, 96))
    model = torch.nn.ModuleList([first, second, heads]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), args.rate, betas=(.9, .98), weight_decay=1e-2)
    clock, steps = training.Clock(args), 0
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        clock, steps = training.Clock(args, saved["elapsed"], saved["seen"]), saved["steps"]

    def write():
        training.save(path, dict(model=model.state_dict(), optimizer=optimizer.state_dict(), steps=steps,
                                 elapsed=clock.elapsed(), seen=clock.seen))

    def read(batch):
        """-> for each of the three readings, logits per attribute."""
        a = torch.tensor([tokens(c) for c, _ in batch], device=device)
        b = torch.tensor([tokens(c, pad=0) for c, _ in batch], device=device)
        rows, end = torch.arange(len(a), device=device), (a == tokens.end).int().argmax(-1)
        with training.autocast(device):
            x, _ = first(a)
            y, pooled = second(b)
            logits = [heads[0](x[rows, end]), heads[1](y[rows, end]), heads[2](pooled)]
        return [l.float().split(sizes, -1) for l in logits]

    def target(batch):
        return torch.tensor([labels(r) for _, r in batch], device=device)

    rng, _ = data.generator("captions", args.seed, steps)
    while (p := clock.progress()) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (steps + 1) / 50) * (1 - p) + 1e-6
        batch = [captions.sample(rng) for _ in range(args.batch)]
        want = target(batch)
        loss = sum(F.cross_entropy(l, want[:, k]) for read_ in read(batch) for k, l in enumerate(read_)) / 3
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([q for q in model.parameters() if q.grad is not None], 1.)
        optimizer.step()
        steps += 1
        clock.seen += args.batch
        if steps % 50 == 0:
            print(f"{clock.elapsed() / 60:.1f} min, step {steps}, loss {loss.item():.4f}", flush=True)
        if clock.save_due():
            write()
    write()
    held_out = captions.test_prompts(512, seed=1)
    with torch.no_grad():
        readings, want = read(held_out), target(held_out)
    exact = [torch.stack([l.argmax(-1) == want[:, k] for k, l in enumerate(r)]).all(0).float().mean().item()
             for r in readings]
    print("held-out captions read without any error: first encoder %.3f, second %.3f, pooled %.3f" % tuple(exact))
    training.save(args.out / "text.pt", dict(first=first.state_dict(), second=second.state_dict()))


if __name__ == "__main__":
    main()
