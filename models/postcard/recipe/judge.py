"""The judge: a small network that reads every attribute off a picture, and lends its features to a Frechet distance.

It is trained on renders and on renders that went through the autoencoder (so that the decoder's blur alone does not
fool it), with small changes of brightness and noise. It never sees a picture the UNet made."""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from . import captions, data, latents, training
from .models import Judge
from .scenes import ATTRIBUTES

SIZES = [len(v) for v in ATTRIBUTES.values()]


def labels(scenes):
    """Class indices; -1 where an attribute does not apply (the colour of no object)."""
    return torch.tensor([[v.index(s[n]) if n in s else -1 for n, v in ATTRIBUTES.items()] for s in scenes])


def accuracy(model, pictures, want, device):
    with torch.no_grad():
        logits = torch.cat([model((data.to_tensor(pictures[i:i + 64]).to(device) + 1) / 2)[0].cpu()
                            for i in range(0, len(pictures), 64)])
    out = {}
    for k, (name, l) in enumerate(zip(ATTRIBUTES, logits.split(SIZES, -1))):
        valid = want[:, k] >= 0
        out[name] = (l.argmax(-1) == want[:, k])[valid].float().mean().item()
    return {"mean": sum(out.values()) / len(out), **out}


def load(folder, size=128):
    model = Judge(sum(SIZES), size)
    model.load_state_dict(torch.load(pathlib.Path(folder) / "judge.pt", map_location="cpu"))
    return model.eval().requires_grad_(False)


def reconstruct(autoencoder, pictures, device):
    with torch.no_grad():
        out = [autoencoder.decoder(autoencoder.encoder(data.to_tensor(pictures[i:i + 64]).to(device)))
               for i in range(0, len(pictures), 64)]
    return data.to_pictures(torch.cat(out))


def export(model, out, size, held_out):
    """judge.onnx, judge.json, statistics.safetensors, prompts.jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    model = model.eval().cpu()
    torch.onnx.export(model, torch.rand(2, 3, size, size), str(out / "judge.onnx"), dynamo=False, opset_version=17,
                      input_names=["pixels"], output_names=["logits", "features"],
                      dynamic_axes={"pixels": {0: "N"}, "logits": {0: "N"}, "features": {0: "N"}})
    features, right, count = [], [], 0
    for i in range(math.ceil(held_out / 1024)):
        _, _, full, _, pictures, _ = data.draw(1024, f"statistics {i}", size, test=True)
        with torch.no_grad():
            parts = [model((data.to_tensor(pictures[j:j + 64]) + 1) / 2)[1] for j in range(0, 1024, 64)]
        features.append(torch.cat(parts))
        right.append(accuracy(model, pictures, labels(full), "cpu"))
        count += 1024
    features = torch.cat(features).double()
    save_file({"mean": features.mean(0).float(), "covariance": features.T.cov().float()},
              str(out / "statistics.safetensors"), {"count": str(count)})
    shares = {k: round(float(np.mean([r[k] for r in right])), 5) for k in right[0]}
    lines = ",\n    ".join(json.dumps({"name": n, "values": v}) for n, v in ATTRIBUTES.items())
    (out / "judge.json").write_text(
        '{\n  "format": "mixdq-judge",\n  "version": 1,\n'
        f'  "size": {size},\n  "attributes": [\n    {lines}\n  ],\n  "features": {features.shape[1]},\n'
        f'  "accuracy": {json.dumps(shares)},\n  "heldOut": {count}\n}}\n')
    with open(out / "prompts.jsonl", "w") as f:
        for prompt, request in captions.test_prompts(1024):
            f.write(json.dumps({"prompt": prompt, "attributes": request}) + "\n")
    return shares


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--held-out", type=int, default=8192)
    training.add_arguments(parser, 10)
    args = parser.parse_args(arguments)
    training.begin(args)
    device, path = args.device, args.out / "judge-state.pt"
    autoencoder = latents.load_autoencoder(args.out, device)
    model = Judge(sum(SIZES), args.size).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), args.rate, weight_decay=1e-2)
    clock, steps = training.Clock(args), 0
    average = training.Average(model, .998)
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.values, average.steps = saved["average"], saved["steps"]
        clock, steps = training.Clock(args, saved["elapsed"], saved["seen"]), saved["steps"]

    def write():
        training.save(path, dict(model=model.state_dict(), optimizer=optimizer.state_dict(), steps=steps,
                                 average=average.values, elapsed=clock.elapsed(), seen=clock.seen))

    while (p := clock.progress()) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (steps + 1) / 100) * (.5 + .5 * math.cos(math.pi * p)) + 1e-6
        _, _, full, _, pictures, _ = data.draw(args.batch, f"judge {args.seed} {steps}", args.size, uniform=.5)
        order = np.random.default_rng(steps).permutation(args.batch)
        full, pictures = [full[i] for i in order], pictures[order]
        want = labels(full).to(device)
        x = data.to_tensor(pictures).to(device)
        with torch.no_grad(), training.autocast(device):
            n = args.batch // 2
            z = autoencoder.encoder(x[:n].to(memory_format=torch.channels_last)).float()
            z = z + torch.rand(n, 1, 1, 1, device=device) * .3 * torch.randn_like(z)
            x[:n] = autoencoder.decoder(z).float().clamp(-1, 1)
        shape = (args.batch, 1, 1, 1)
        x = x * (1 + .06 * torch.randn(shape, device=device)) + .04 * torch.randn(shape, device=device)
        x = (x + .04 * torch.rand(shape, device=device) * torch.randn_like(x)).clamp(-1, 1)
        with training.autocast(device):
            logits, _ = model((x + 1) / 2)
        parts = logits.float().split(SIZES, -1)
        loss = sum(F.cross_entropy(l, want[:, k], ignore_index=-1) for k, l in enumerate(parts))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.)
        optimizer.step()
        average.update()
        steps += 1
        clock.seen += args.batch
        if steps % 50 == 0:
            print(f"{clock.elapsed() / 60:.1f} min, step {steps}, seen {clock.seen}, loss {loss.item():.3f}",
                  flush=True)
        if clock.save_due():
            write()
    write()
    model.load_state_dict(average.values)
    model.eval()
    training.save(args.out / "judge.pt", model.state_dict())
    shares = export(model, args.out / "judge", args.size, args.held_out)
    print("held-out renders:", shares)
    _, _, full, _, pictures, _ = data.draw(1024, "statistics 0", args.size, test=True)
    autoencoder = autoencoder.cpu()
    print("reconstructed:", accuracy(model, reconstruct(autoencoder, pictures, "cpu"), labels(full), "cpu"))


if __name__ == "__main__":
    main()
