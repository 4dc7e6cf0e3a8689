"""The autoencoder: pictures to 4 latents per 8x8 pixels and back, on freshly rendered scenes.

At `--freeze` of the budget the encoder stops: its latents are normalised to mean 0 and deviation 1 (folded into
the weights), `encoder.pt` is written for the next stages to go on with, and only the decoder trains further, on
latents with a little noise, since the UNet's latents will not be exact either."""

import argparse
import math
import pathlib

import numpy as np
import torch

from . import data, training
from .models import Autoencoder


def gradients(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


class Pool:
    """Rendered pictures in memory, replaced one by one as they are used."""

    def __init__(self, count, size, seed):
        self.count, self.size, self.seed, self.round, self.due = count, size, seed, 0, 0.
        _, _, _, _, self.pictures, self.masks = data.draw(count, f"pool {seed}", size)
        _, self.random = data.generator("crops", seed)

    def batch(self, n, crop, fresh=.25):
        """n crops; meanwhile `fresh` new scenes are rendered per picture used."""
        self.due += fresh * n * (crop / self.size) ** 2
        if self.due >= 64:
            self.due -= 64
            self.round += 1
            _, _, _, _, pictures, masks = data.draw(64, f"pool {self.seed} {self.round}", self.size)
            at = (self.round * 64 + np.arange(64)) % self.count
            self.pictures[at], self.masks[at] = pictures, masks
        x, m = np.empty((n, crop, crop, 3), np.uint8), np.empty((n, crop // 8, crop // 8), np.uint8)
        for i, k in enumerate(self.random.integers(self.count, size=n)):
            a, b = self.random.integers(0, (self.size - crop) // 8 + 1, 2)
            x[i] = self.pictures[k, a * 8:a * 8 + crop, b * 8:b * 8 + crop]
            m[i] = self.masks[k, a:a + crop // 8, b:b + crop // 8]
        weight = 1 + 1.5 * torch.from_numpy(m).float().div(255)[:, None].repeat_interleave(8, 2).repeat_interleave(8, 3)
        return data.to_tensor(x), weight


@torch.no_grad()
def measure(model, pictures, device, batch=64):
    """-> PSNR in dB over clamped pictures, the deviation of the latents."""
    error, latents = [], []
    for i in range(0, len(pictures), batch):
        x = data.to_tensor(pictures[i:i + batch]).to(device)
        z = model.encoder(x)
        y = model.decoder(z).clamp(-1, 1)
        error.append((y - x).pow(2).mean((1, 2, 3)))
        latents.append(z.transpose(0, 1).flatten(1))
    latents = torch.cat(latents, 1)
    return (10 * torch.log10(4 / torch.cat(error))).mean().item(), latents.mean(1), latents.std(1)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--freeze", type=float, default=.45)
    parser.add_argument("--noise", type=float, default=.12)
    parser.add_argument("--pool", type=int, default=8192)
    training.add_arguments(parser, 25)
    args = parser.parse_args(arguments)
    training.begin(args)
    args.out.mkdir(parents=True, exist_ok=True)
    device, path = args.device, args.out / "autoencoder.pt"

    model = Autoencoder().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), args.rate, betas=(.9, .98), weight_decay=1e-3)
    average = training.Average(model, .998)
    clock, frozen = training.Clock(args), False
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.values, average.steps = saved["average"], saved["steps"]
        clock, frozen = training.Clock(args, saved["elapsed"], saved["seen"]), saved["frozen"]
        model.encoder.requires_grad_(not frozen)
    pool = Pool(args.pool, args.size, f"{args.seed} {average.steps}")
    *_, held_out, _ = data.draw(256, "autoencoder", args.size, test=True)
    print("pool ready", flush=True)

    def write():
        training.save(path, dict(model=model.state_dict(), optimizer=optimizer.state_dict(), average=average.values,
                                 steps=average.steps, elapsed=clock.elapsed(), seen=clock.seen, frozen=frozen))

    losses = []
    while (p := clock.progress()) < 1:
        if p >= args.freeze and not frozen:
            frozen = True
            model.load_state_dict(average.values)
            psnr, mean, std = measure(model, held_out, device)
            model.normalize(mean, std)
            average.values = {k: v.detach().clone() for k, v in model.state_dict().items()}
            model.encoder.requires_grad_(False)
            for q in model.encoder.parameters():
                q.grad = None
            print(f"encoder frozen at {psnr:.2f} dB, mean {mean.tolist()} deviation {std.tolist()}", flush=True)
            training.save(args.out / "encoder.pt", average.values)
            write()
        # Crops first: more variety per second; whole pictures later.
        crop, n = (args.size // 2, args.batch * 3) if p < .3 else (args.size, args.batch)
        rate = args.rate * min(1, average.steps / 100) * (.5 + .5 * math.cos(math.pi * p)) + 1e-6
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, weight = pool.batch(n, crop)
        x, weight = x.to(device, memory_format=torch.channels_last), weight.to(device)
        with training.autocast(device):
            z = model.encoder(x).float()
            scale = 1 if frozen else z.std((0, 2, 3), keepdim=True).detach()
            y = model.decoder(z + args.noise * scale * torch.randn_like(z)).float()
        error = (weight * (y - x).abs()).mean()
        edges = sum((a - b).abs().mean() for a, b in zip(gradients(y), gradients(x)))
        loss = error + .5 * edges + (0 if frozen else 2e-3 * z.pow(2).mean())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([q for q in model.parameters() if q.grad is not None], 1.)
        optimizer.step()
        average.update()
        clock.seen += n
        losses.append((y - x).abs().mean().item())
        if average.steps % 100 == 0:
            print(f"{clock.elapsed() / 60:.1f} min, step {average.steps}, seen {clock.seen}, L1 "
                  f"{np.mean(losses[-100:]):.4f}", flush=True)
        if average.steps % 1000 == 0:
            with average:
                print(f"  held out {measure(model, held_out, device)[0]:.2f} dB", flush=True)
        if clock.save_due():
            write()
    write()
    model.load_state_dict(average.values)
    print(f"held out {measure(model, held_out, device)[0]:.2f} dB, seen {clock.seen}", flush=True)
    training.save(args.out / "vae.pt", average.values)


if __name__ == "__main__":
    main()
