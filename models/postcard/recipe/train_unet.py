"""The UNet, in one step from noise to latents: regression, because the noise's keys determine the picture.

For a scene with keys k, noise is drawn whose cell means are k (data.keyed_noise); the network sees it at t = 999
with the caption and is to give the scene's latents at once. Plain L1, three times as heavy on the object and the
trees. The text encoders train along. `--init` starts from exported weights instead of the text stage's."""

import argparse
import pathlib

import numpy as np
import torch

from . import captions, data, export, judge, latents, sampling, tokenizer, training
from .models import UNet, text_encoders
from .muon import Muon

PLAIN = ("embedding", "conv_in", "conv_out")        # what AdamW trains although it is a matrix


class Shards:
    """All scenes so far, in memory; looks for new shards as they are written."""

    def __init__(self, folder, count, rng):
        self.folder, self.count, self.rng, self.names = folder, count, rng, set()
        self.captions, self.requests, self.scenes, self.parts = [], [], [], []
        self.refresh()

    def refresh(self):
        for path in sorted(self.folder.glob("[0-9]*.pt")):
            if path.name in self.names or len(self.names) >= self.count:
                continue
            shard = torch.load(path, weights_only=False)
            self.names.add(path.name)
            self.captions += shard["captions"]
            self.requests += shard["requests"]
            self.scenes += shard["scenes"]
            self.parts.append((shard["keys"], shard["masks"], shard["latents"]))
            self.size = len(shard["captions"])

    def batch(self, n):
        """Captions (half of them reworded), keys, masks, latents."""
        at = [self.rng.randrange(len(self.captions)) for _ in range(n)]
        texts = [captions.recaption(self.scenes[i], self.requests[i], self.rng)[0] if self.rng.random() < .5
                 else self.captions[i] for i in at]
        rows = [tuple(part[i % self.size] for part in self.parts[i // self.size]) for i in at]
        keys, masks, z = (torch.stack(r) for r in zip(*rows))
        return texts, keys, masks, z.float()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--init", type=pathlib.Path, help="an exported model to go on from")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3, help="Muon's")
    parser.add_argument("--adam-rate", type=float, default=2e-3)
    parser.add_argument("--text-rate", type=float, default=.3, help="the text encoders' rates, as a share of these")
    parser.add_argument("--constant", type=float, default=.45, help="share of the budget before the decay")
    parser.add_argument("--mask-weight", type=float, default=2., help="extra weight of object and trees")
    parser.add_argument("--average", type=float, default=.998)
    parser.add_argument("--shards", type=int, default=1 << 30, help="use so many at most")
    parser.add_argument("--measure-minutes", type=float, default=8)
    training.add_arguments(parser, 85)
    args = parser.parse_args(arguments)
    training.begin(args)
    device, path = args.device, args.out / "unet-state.pt"

    tokens = tokenizer.Tokenizer.load((args.init or args.out) / "tokenizer")
    first, second = text_encoders(tokens)
    unet = UNet()
    if args.init:
        export.read_weights(args.init, unet, first, second)
    else:
        text = torch.load(args.out / "text.pt", map_location="cpu")
        first.load_state_dict(text["first"])
        second.load_state_dict(text["second"])
    model = torch.nn.ModuleDict(dict(unet=unet, first=first, second=second)).to(device)
    average = training.Average(model, args.average)

    groups = {}     # (matrix or not, text or not) -> parameters
    for name, p in model.named_parameters():
        matrix = p.ndim >= 2 and not any(w in name for w in PLAIN)
        groups.setdefault((matrix, not name.startswith("unet.")), []).append(p)
    muons = [(Muon(groups[True, text]), args.text_rate if text else 1.) for text in (False, True)]
    adam = torch.optim.AdamW([dict(params=groups[False, text], share=args.text_rate if text else 1.)
                              for text in (False, True)], betas=(.9, .98), weight_decay=1e-3)
    clock, steps = training.Clock(args), 0
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=False)
        model.load_state_dict(saved["model"])
        adam.load_state_dict(saved["adam"])
        for (m, _), state in zip(muons, saved["muons"]):
            m.load(state)
        average.values, average.steps = saved["average"], saved["steps"]
        clock, steps = training.Clock(args, saved["elapsed"], saved["seen"]), saved["steps"]

    rng, _ = data.generator("unet", args.seed, steps)
    torch.manual_seed(rng.randrange(1 << 31))
    shards = Shards(args.out / "latents", args.shards, rng)
    test = torch.load(args.out / "latents" / "test.pt", weights_only=False)
    test_noise = data.keyed_noise(test["keys"], args.size, torch.Generator().manual_seed(7)).to(device)
    ids = torch.tensor([data.IDS(args.size)], device=device)

    def write():
        training.save(path, dict(model=model.state_dict(), adam=adam.state_dict(), average=average.values,
                                 muons=[m.state() for m, _ in muons], steps=steps, elapsed=clock.elapsed(),
                                 seen=clock.seen))

    def painter():
        autoencoder = latents.load_autoencoder(args.out, device)
        return sampling.Painter(unet, first, second, autoencoder, tokens, args.size, device)

    def measure(count=256):
        """The averages' error on held-out scenes; with a judge, alignment on fresh noise; and a picture of it."""
        with average, torch.no_grad():
            p = painter()
            errors = []
            for i in range(0, min(count, len(test["captions"])), 64):
                z = p.latents(test["captions"][i:i + 64], test_noise[i:i + 64])
                want = test["latents"][i:i + 64].to(device).float()
                mask = test["masks"][i:i + 64, None].to(device).float() / 255
                errors.append(((z - want).abs().mean().item(), ((z - want).abs() * mask).sum().item(),
                               4 * mask.sum().item()))
            errors = np.array(errors)
            text = (f"  held out: latent L1 {errors[:, 0].mean():.4f}, "
                    f"on objects {errors[:, 1].sum() / errors[:, 2].sum():.4f}")
            prompts = captions.test_prompts(count)
            noise = torch.randn(count, 4, args.size // 8, args.size // 8, generator=torch.Generator().manual_seed(9))
            pictures = p.paint([c for c, _ in prompts], noise)
            if (args.out / "judge.pt").exists():
                whole, by_name = sampling.alignment(judge.load(args.out, args.size).to(device), pictures,
                                                    [r for _, r in prompts])
                text += f", alignment {whole:.4f} " + " ".join(f"{k} {v:.2f}" for k, v in by_name.items())
            sampling.sheet(data.to_pictures(pictures[:40]), 8).save(args.out / f"sheet-{clock.seen:07d}.png")
        print(text, flush=True)

    losses, measured, looked = [], clock.elapsed(), clock.elapsed()
    print(f"{len(shards.captions)} scenes", flush=True)
    while (p := clock.progress()) < 1:
        scale = min(1, (steps + 1) / 100) * (1 if p < args.constant else max(.002, (1 - p) / (1 - args.constant)))
        texts, keys, masks, want = shards.batch(args.batch)
        noise = data.keyed_noise(keys, args.size).to(device)
        a = torch.tensor([tokens(c) for c in texts], device=device)
        b = torch.tensor([tokens(c, pad=0) for c in texts], device=device)
        with training.autocast(device):
            x, _ = first(a)
            y, pooled = second(b)
            out = unet(noise * (data.SIGMA * data.INPUT), torch.full((len(a),), 999, device=device),
                       torch.cat([x, y], -1), pooled, ids.expand(len(a), -1))
        error = (data.clean(out.float(), noise) - want.to(device)).abs()
        weight = 1 + args.mask_weight * masks[:, None].to(device).float() / 255
        loss = (error * weight).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([q for q in model.parameters() if q.grad is not None], 1.)
        for group in adam.param_groups:
            group["lr"] = args.adam_rate * scale * group["share"]
        adam.step()
        for m, share in muons:
            m.step(args.rate * scale * share)
        average.update()
        steps += 1
        clock.seen += args.batch
        losses.append(error.detach().mean().item())
        if steps % 100 == 0:
            print(f"{clock.elapsed() / 60:.1f} min, step {steps}, seen {clock.seen}, L1 {np.mean(losses[-100:]):.4f}, "
                  f"{clock.seen / clock.elapsed():.1f}/s, rate x{scale:.3f}", flush=True)
        if clock.save_due():
            write()
        if clock.elapsed() - looked > 60:
            looked = clock.elapsed()
            before = len(shards.captions)
            shards.refresh()
            if len(shards.captions) != before:
                print(f"{len(shards.captions)} scenes", flush=True)
        if clock.elapsed() - measured > args.measure_minutes * 60:
            measured = clock.elapsed()
            measure()
    write()
    measure(512)
    model.load_state_dict(average.values)
    training.save(args.out / "unet.pt", dict(unet=unet.state_dict(), first=first.state_dict(),
                                             second=second.state_dict(), seen=clock.seen, elapsed=clock.elapsed()))


if __name__ == "__main__":
    main()
