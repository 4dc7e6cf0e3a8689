"""Prompts to pictures with the recipe's own modules, and what the judge reads in them."""

import torch

from . import data
from .scenes import ATTRIBUTES


class Painter:
    def __init__(self, unet, first, second, autoencoder, tokens, size, device="cpu", precise=False):
        self.unet, self.first, self.second, self.autoencoder = unet, first, second, autoencoder
        self.tokens, self.size, self.device, self.precise = tokens, size, device, precise

    def tokenize(self, prompts):
        a = torch.tensor([self.tokens(p) for p in prompts], device=self.device)
        b = torch.tensor([self.tokens(p, pad=0) for p in prompts], device=self.device)
        return a, b

    def velocity(self, a, b, noise):
        x, _ = self.first(a)
        y, pooled = self.second(b)
        n = len(a)
        return self.unet(noise * (data.SIGMA * data.INPUT), torch.full((n,), 999, device=self.device),
                         torch.cat([x, y], -1), pooled, torch.tensor([data.IDS(self.size)] * n, device=self.device))

    def latents(self, prompts, noise):
        noise = noise.to(self.device)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=not self.precise):
            out = self.velocity(*self.tokenize(prompts), noise)
        return data.clean(out.float(), noise)

    @torch.no_grad()
    def paint(self, prompts, noise, batch=32):
        """-> pictures [n,3,s,s] in [-1,1]."""
        out = [self.autoencoder.decoder(self.latents(prompts[i:i + batch], noise[i:i + batch]))
               for i in range(0, len(prompts), batch)]
        return torch.cat(out).clamp(-1, 1)


def alignment(judge, pictures, requests):
    """The share of stated attributes that the judge reads correctly, over all and by name."""
    sizes = [len(v) for v in ATTRIBUTES.values()]
    with torch.no_grad():
        logits = torch.cat([judge((pictures[i:i + 64] + 1) / 2)[0] for i in range(0, len(pictures), 64)])
    read = [l.argmax(-1).tolist() for l in logits.float().split(sizes, -1)]
    right, stated = dict.fromkeys(ATTRIBUTES, 0), dict.fromkeys(ATTRIBUTES, 0)
    for i, request in enumerate(requests):
        for k, (name, values) in enumerate(ATTRIBUTES.items()):
            if name in request:
                stated[name] += 1
                right[name] += values[read[k][i]] == request[name]
    share = {n: right[n] / max(1, stated[n]) for n in ATTRIBUTES}
    return sum(right.values()) / max(1, sum(stated.values())), share


def sheet(pictures, columns):
    """uint8 pictures [n,h,w,3] as one contact sheet."""
    from PIL import Image
    n, h, w, _ = pictures.shape
    image = Image.new("RGB", (columns * w, -(-n // columns) * h), (255, 255, 255))
    for i, p in enumerate(pictures):
        image.paste(Image.fromarray(p), (i % columns * w, i // columns * h))
    return image
