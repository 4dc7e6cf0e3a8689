"""Figures for the model card, from an exported folder: what the judge reads in its pictures and in the true ones,
whether CLIP's outlier token appears, and what naive quantization costs.

"Naive": every convolution and matrix of the UNet; weights symmetric per output channel, min to max; activations per
tensor, static range from other prompts; nothing treated specially."""

import argparse
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

from . import captions, data, export, judge, sampling


def noise_for(count, size, seed):
    return torch.randn(count, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))


def ssim(a, b):
    """Mean SSIM of luma, 7x7 box window, pictures in [-1,1]."""
    weights = torch.tensor([.299, .587, .114])[None, :, None, None]
    x, y = ((a + 1) / 2 * weights).sum(1, keepdim=True), ((b + 1) / 2 * weights).sum(1, keepdim=True)
    mean = lambda v: F.avg_pool2d(v, 7, 1)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = .01 ** 2, .03 ** 2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).mean().item()


def psnr(a, b):
    return (10 * torch.log10(4 / (a - b).pow(2).mean((1, 2, 3)).clamp_min(1e-10))).mean().item()


def outliers(painter, prompts):
    """The largest |x| per position, mean over prompts, in what the UNet is given by each encoder."""
    with torch.no_grad():
        a, b = painter.tokenize(prompts)
        states = painter.first(a)[0], painter.second(b)[0]
    return [s.abs().amax(-1).mean(0).tolist() for s in states]


class Quantized:
    """Within the block every Conv2d and Linear of the module computes on rounded weights and, with ranges known,
    rounded inputs."""

    def __init__(self, module, weight_bits, activation_bits, ranges):
        self.layers = [(n, m) for n, m in module.named_modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
        self.weight_bits, self.activation_bits, self.ranges = weight_bits, activation_bits, ranges

    def __enter__(self):
        self.kept, self.hooks = [], []
        for name, m in self.layers:
            self.kept.append(m.weight.data)
            top = 2 ** (self.weight_bits - 1) - 1
            scale = m.weight.data.flatten(1).abs().amax(1).clamp_min(1e-12) / top
            scale = scale.view(-1, *[1] * (m.weight.ndim - 1))
            m.weight.data = (m.weight.data / scale).round().clamp(-top - 1, top) * scale
            low, high = self.ranges[name]
            step = max(high - low, 1e-12) / (2 ** self.activation_bits - 1)
            zero = round(-low / step)

            def quantize(module, inputs, step=step, zero=zero):
                q = (inputs[0] / step).round().add(zero).clamp(0, 2 ** self.activation_bits - 1)
                return ((q - zero) * step,) + inputs[1:]
            self.hooks.append(m.register_forward_pre_hook(quantize))

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()
        for (_, m), weight in zip(self.layers, self.kept):
            m.weight.data = weight


def calibrate(painter, prompts, noise):
    """The least and the largest input of every layer (including 0)."""
    ranges, hooks = {}, []
    for name, m in painter.unet.named_modules():
        if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)):
            def watch(module, inputs, name=name):
                low, high = ranges.get(name, (0., 0.))
                ranges[name] = min(low, inputs[0].min().item()), max(high, inputs[0].max().item())
            hooks.append(m.register_forward_pre_hook(watch))
    painter.paint(prompts, noise)
    for hook in hooks:
        hook.remove()
    return ranges


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, required=True, help="an exported folder")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="the training's folder (for the judge)")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--quantized-count", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    painter, reader = export.painter(args.model, args.size), judge.load(args.run, args.size)
    out = {}

    def note(name, value):
        out[name] = value
        print(name + ":", json.dumps(value), flush=True)

    def alignment(name, pictures, requests):
        whole, by_name = sampling.alignment(reader, pictures, requests)
        note(name, {"all": round(whole, 4), **{k: round(v, 4) for k, v in by_name.items()}})

    prompts = captions.test_prompts(args.count)
    texts, requests = [c for c, _ in prompts], [r for _, r in prompts]
    pictures = painter.paint(texts, noise_for(args.count, args.size, 1))
    alignment("alignment, one step, float32", pictures, requests)
    objects = {}
    for kind in captions.OBJECT:
        at = [i for i, r in enumerate(requests) if r.get("object") == kind]
        objects[kind] = round(sampling.alignment(reader, pictures[at], [{"object": kind} for _ in at])[0], 4)
    note("object read, by kind", objects)

    # What is true of these prompts: the renderer's own pictures, and those through the autoencoder.
    from . import scenes
    _, numbers = data.generator("measure")
    keys = numbers.standard_normal((args.count, 4, 4, 4)).astype(np.float32)
    renders = np.stack([scenes.render(scenes.complete(r), k, args.size)[0] for r, k in zip(requests, keys)])
    truth = data.to_tensor(renders)
    alignment("alignment of true renders", truth, requests)
    through = torch.cat([painter.autoencoder.decoder(painter.autoencoder.encoder(truth[i:i + 64])).clamp(-1, 1)
                         for i in range(0, args.count, 64)])
    alignment("alignment of renders through the autoencoder", through, requests)
    note("autoencoder PSNR", round(psnr(through, truth), 2))
    keyed = painter.paint(texts, data.keyed_noise(torch.from_numpy(keys), args.size, torch.Generator().manual_seed(3)))
    note("one step against the true render of the same noise", {"psnr": round(psnr(keyed, truth), 2),
                                                                 "ssim": round(ssim(keyed, truth), 4)})
    other = painter.paint(texts[:256], noise_for(256, args.size, 2))
    note("two seeds of one prompt", {"psnr": round(psnr(pictures[:256], other), 2),
                                     "ssim": round(ssim(pictures[:256], other), 4)})

    first, second = outliers(painter, texts[:256])
    for name, values in (("first", first), ("second", second)):
        note(f"largest |x| by position, {name} encoder", {"0-7": [round(v, 2) for v in values[:8]],
                                                          "8-76 mean": round(float(np.mean(values[8:])), 2),
                                                          "8-76 max": round(max(values[8:]), 2)})
    n = args.quantized_count
    other = captions.test_prompts(64, seed=5)
    ranges = calibrate(painter, [c for c, _ in other], noise_for(64, args.size, 6))
    for weights, activations in ((8, 8), (4, 8), (4, 4)):
        with_bits = Quantized(painter.unet, weights, activations, ranges)
        with_bits.__enter__()
        rounded = painter.paint(texts[:n], noise_for(args.count, args.size, 1)[:n])
        with_bits.__exit__()
        name = f"naive W{weights}A{activations}"
        alignment(name + ", alignment", rounded, requests[:n])
        note(name + " against float32", {"psnr": round(psnr(rounded, pictures[:n]), 2),
                                         "ssim": round(ssim(rounded, pictures[:n]), 4)})
    alignment(f"float32 on the same {n} prompts", pictures[:n], requests[:n])
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
