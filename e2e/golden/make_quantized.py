"""Fake-quantized UNets: what diffusers computes when every layer's weight and input are rounded to integers and back.

    python make_quantized.py            (needs torch, safetensors, transformers and diffusers' source, as make_golden.py)

For every case below: picks bit-widths at random, records the ranges of all inputs in a float run, writes them as
mixdq.json, and runs the model with rounded weights and inputs. Formulas: MixDQ (arXiv 2405.17873) and its code,
    q = clamp(round(x / s) + z, 0, 2^b - 1),  x' = s (q - z)

A value that float rounding moves over the edge between two codes changes by a whole code. About one in four thousand does
so between float32 and float64, which makes two right answers differ by some five percent of what quantization changes.
Cases are therefore made so that this is little: inputs in floats, or few layers, or many bits; and of five choices of bits
the one is taken with which float64 agrees best.
"""

import json
import pathlib
import random

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent

# name: (folder, symmetric weights, group, BOS cache, bits, share of layers, share of those with a float input)
CASES = {
    "w2to8a16": ("unet-sdxl-odd", False, None, True, (2, 3, 4, 8), 0.9, 1),
    "w4a16-groups": ("unet-ssd1b", True, 64, False, (4,), 0.9, 1),
    "w4a8": ("unet-ssd1b", False, None, True, (2, 4), 0.15, 0),
    "w4a8-groups": ("unet-sdxl-odd", False, 64, True, (4, 8), 0.15, 0),
    "w8a8-symmetric": ("unet-ssd1b", True, None, True, (8,), 0.25, 0.1),
}


def layers_of(unet):
    return {name: module for name, module in unet.named_modules() if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))}


def first_halves(unet):
    """conv_shortcut of the up blocks -> channels that come from below, before the skip connection's."""
    widths = list(reversed(unet.config.block_out_channels))
    halves = {}
    for block, up in enumerate(unet.up_blocks):
        for layer in range(len(up.resnets)):
            below = widths[max(block - 1, 0)] if layer == 0 else widths[block]
            halves[f"up_blocks.{block}.resnets.{layer}.conv_shortcut"] = below
    return halves


def is_cross_kv(name):
    return name.endswith(("attn2.to_k", "attn2.to_v"))


def quantize_weight(weight, bits, symmetric):
    rows = weight.reshape(weight.shape[0], -1)
    shape = [-1] + [1] * (weight.dim() - 1)
    low, high = rows.min(1)[0].clamp(max=0).view(shape), rows.max(1)[0].clamp(min=0).view(shape)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scale = torch.maximum(-low, high) / top
        return torch.clamp(torch.round(weight / scale), -top - 1, top) * scale
    scale = (high - low) / (2**bits - 1)
    zero = torch.round(-low / scale)
    return (torch.clamp(torch.round(weight / scale) + zero, 0, 2**bits - 1) - zero) * scale


def quantize_input(x, act):
    scale, zero = act["scale"], act["zeroPoint"]
    return (torch.clamp(torch.round(x / scale) + zero, 0, 255) - zero) * scale


def patch(module, name, entry, half, group, symmetric, bos):
    """Makes the layer compute with rounded weights and inputs; the text's first token stays exact in keys and values."""
    exact, forward = module.weight.data.clone(), module.forward
    pieces = exact.split(group, 1) if group else [exact]
    if half and ("act2" in entry or "act" not in entry):
        pieces = [piece for part in (exact[:, :half], exact[:, half:]) for piece in (part.split(group, 1) if group else [part])]
    rounded = torch.cat([quantize_weight(piece, entry["weightBits"], symmetric) for piece in pieces], 1)

    def run(x, *args, **kwargs):
        seen = x
        if "act2" in entry:
            seen = torch.cat([quantize_input(x[:, :half], entry["act"]), quantize_input(x[:, half:], entry["act2"])], 1)
        elif "act" in entry:
            seen = quantize_input(x, entry["act"])
        module.weight.data = rounded
        y = forward(seen)
        if bos and is_cross_kv(name):
            module.weight.data = exact
            y = torch.cat([forward(x[:, :1]), y[:, 1:]], 1)
        return y

    module.forward = run


def load(folder, dtype):
    """The UNet, and a function that runs it on the folder's inputs."""
    unet = UNet2DConditionModel.from_pretrained(HERE / folder / "unet").to(dtype).eval()
    io = load_file(HERE / folder / "io.safetensors")
    given = {key: io[key].to(dtype) for key in ("text_embeds", "time_ids") if key in io}
    extra = {"added_cond_kwargs": given} if given else {}

    def run():
        with torch.no_grad():
            return unet(io["sample"].to(dtype), io["timestep"], io["encoder_hidden_states"].to(dtype), **extra).sample

    return unet, run


def ranges_of(folder, bos):
    """Module path -> range of its input, or of both halves of it."""
    unet, run = load(folder, torch.float32)
    halves, ranges = first_halves(unet), {}

    def record(path):
        def hook(module, inputs):
            x = inputs[0][:, 1:] if bos and is_cross_kv(path) else inputs[0]
            parts = [x[:, : halves[path]], x[:, halves[path] :]] if path in halves else [x]
            ranges[path] = [(min(part.min().item(), 0.0), max(part.max().item(), 0.0)) for part in parts]

        return hook

    for path, module in layers_of(unet).items():
        module.register_forward_pre_hook(record(path))
    run()
    return ranges


def choose_bits(folder, ranges, widths, share, floats, choose):
    entries = {}
    unet, _ = load(folder, torch.float32)
    for path, module in layers_of(unet).items():
        if choose.random() > share or module.weight.shape[1] % 4:
            continue  # stays in floats
        entry = {"weightBits": choose.choice(widths), "actBits": 16 if choose.random() < floats else 8}
        if entry["actBits"] == 8:
            for key, (low, high) in zip(("act", "act2"), ranges[path]):
                scale = torch.tensor((high - low) / 255).clamp(min=1e-8).item()
                entry[key] = {"scale": scale, "zeroPoint": round(-low / scale)}
        entries[path] = entry
    return entries


def quantized(folder, entries, symmetric, group, bos, dtype):
    unet, run = load(folder, dtype)
    layers, halves = layers_of(unet), first_halves(unet)
    for path, entry in entries.items():
        patch(layers[path], path, entry, halves.get(path), group, symmetric, bos)
    return run()


def make(name, folder, symmetric, group, bos, widths, share, floats):
    ranges = ranges_of(folder, bos)
    best = None
    for seed in range(5):
        entries = choose_bits(folder, ranges, widths, share, floats, random.Random(seed))
        result, exact = (quantized(folder, entries, symmetric, group, bos, dtype) for dtype in (torch.float32, torch.float64))
        error = ((result - exact).norm() / exact.norm()).item()
        if best is None or error < best[0]:
            best = error, seed, entries, result
    error, seed, entries, result = best
    config = {
        "format": "mixdq-config", "version": 1, "model": folder,
        "weights": {"symmetric": symmetric, "range": "minmax", "group": group},
        "layers": entries, "bos": bos, "provenance": {"seed": seed, "float64": error},
    }
    out = HERE / "quantized"
    out.mkdir(exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(config, separators=(",", ":")) + "\n")
    save_file({"out_sample": result.contiguous()}, out / f"{name}.safetensors")
    print(f"{name}: seed {seed}, {len(entries)} layers, float64 agrees within {error:.1e}", flush=True)


for name, case in CASES.items():
    make(name, *case)
