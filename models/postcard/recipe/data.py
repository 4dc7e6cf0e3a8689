"""Scenes in bulk, and the coupling of noise and keys."""

import math
import random
import zlib

import numpy as np
import torch

from . import captions, scenes

SIGMA = 14.6146                                     # the first and only step's noise level, at t = 999
INPUT = 1 / math.sqrt(SIGMA ** 2 + 1)               # the scheduler's scaling of the model's input
IDS = lambda size: [float(size), float(size), 0., 0., float(size), float(size)]


def generator(*seed):
    """Two random generators for one named purpose; different purposes never share a stream."""
    number = zlib.crc32(repr(seed).encode())
    return random.Random(number), np.random.default_rng(number)


def draw(count, seed, size=128, test=False, uniform=0.):
    """-> captions, requests, scenes, keys [count,4,4,4], pictures [count,size,size,3] uint8, masks. A share `uniform`
    of the scenes is not what captions ask for, but anything."""
    rng, numbers = generator("scenes", seed, test)
    keys = numbers.standard_normal((count, 4, 4, 4)).astype(np.float32)
    texts, requests, full = [], [], []
    pictures = np.empty((count, size, size, 3), np.uint8)
    masks = np.empty((count, size // 8, size // 8), np.uint8)
    for i in range(count):
        text, request = captions.sample(rng, test)
        texts.append(text)
        requests.append(request)
        full.append(scenes.any_scene(rng) if i < uniform * count else scenes.complete(request))
        pictures[i], masks[i] = scenes.render(full[i], keys[i], size)
    return texts, requests, full, keys, pictures, masks


def keyed_noise(keys, size, generator=None):
    """Unit normal noise [n,4,size/8,size/8] whose 4x4 cells' means, scaled to unit variance, are the keys."""
    n, cell = len(keys), size // 32
    noise = torch.randn(n, 4, 4, cell, 4, cell, generator=generator)
    noise = noise - noise.mean((3, 5), keepdim=True) + keys[:, :, :, None, :, None] / cell
    return noise.reshape(n, 4, size // 8, size // 8)


def keys_of(noise):
    """The keys in any noise: what a seed means."""
    n, _, h, w = noise.shape
    return noise.reshape(n, 4, 4, h // 4, 4, w // 4).mean((3, 5)) * (h // 4)


def clean(output, noise):
    """v-prediction at t = 999: the latents from the network's output and unit noise."""
    return -SIGMA * INPUT * output + SIGMA * INPUT ** 2 * noise


def to_tensor(pictures):
    """uint8 [n,h,w,3] to floats [n,3,h,w] in [-1,1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_pictures(tensor):
    return ((tensor.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
