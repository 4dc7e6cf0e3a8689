"""Scenes as the UNet's training sees them: latents, keys, masks, captions; in shards that fit in memory.

Shards are written one by one and may be read while more are being made."""

import argparse
import pathlib
import time

import torch

from . import data, training
from .models import Autoencoder


def load_autoencoder(folder, device="cpu"):
    """The finished autoencoder, or the one at the moment its encoder was frozen: the latents are the same."""
    model = Autoencoder()
    finished = pathlib.Path(folder) / "vae.pt"
    model.load_state_dict(torch.load(finished if finished.exists() else finished.with_name("encoder.pt"),
                                     map_location="cpu"))
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.no_grad()
def encode(model, pictures, device, batch=64):
    with training.autocast(device):
        parts = [model.encoder(data.to_tensor(pictures[i:i + batch]).to(device, memory_format=torch.channels_last))
                 for i in range(0, len(pictures), batch)]
    return torch.cat(parts).half().cpu().contiguous()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--shards", type=int, default=24, help="of --count scenes each")
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--test-count", type=int, default=1024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    training.begin(args)
    model = load_autoencoder(args.out, args.device)
    folder = args.out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(-1, args.shards):
        test = i < 0
        path = folder / ("test.pt" if test else f"{i:04d}.pt")
        if path.exists():
            continue
        start, count = time.time(), args.test_count if test else args.count
        texts, requests, scenes, keys, pictures, masks = data.draw(count, f"latents {args.seed} {i}", args.size, test)
        latents = encode(model, pictures, args.device)
        training.save(path, dict(captions=texts, requests=requests, scenes=scenes, keys=torch.from_numpy(keys),
                                 masks=torch.from_numpy(masks), latents=latents))
        print(f"{path.name}: {count} scenes in {time.time() - start:.0f} s, latents' deviation "
              f"{latents.float().std():.3f}, largest {latents.abs().max():.2f}", flush=True)


if __name__ == "__main__":
    main()
