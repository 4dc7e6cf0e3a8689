"""Writes quantizer.json: MixDQ's min-max quantizers (arXiv 2405.17873) in PyTorch's float32, for weights per row and for
activations per tensor. Made with PyTorch 2.13.0: python make_quantizer_golden.py
"""

import json
from pathlib import Path

import torch


def symmetric(x, bits):
    n = 2 ** (bits - 1) - 1
    scale = x.abs().max() / n
    return scale, torch.tensor(0.0), torch.clamp(torch.round(x / scale), -n - 1, n)


def asymmetric(x, bits):
    low = torch.clamp(x.min(), max=0.0)
    high = torch.clamp(x.max(), min=0.0)
    scale = (high - low) / (2**bits - 1)
    zero = torch.round(-low / scale)
    return scale, zero, torch.clamp(torch.round(x / scale) + zero, 0, 2**bits - 1)


def case(x, bits, quantizer):
    scale, zero, codes = quantizer(x, bits)
    return {"bits": bits, "symmetric": quantizer is symmetric, "scale": scale.item(), "zeroPoint": int(zero), "codes": [int(c) for c in codes]}


def near_halves(low, high, scale):
    """Values that float32 division puts exactly halfway between codes, and exact division does not."""
    halves = (torch.arange(-100, 100) + 0.5).double() * scale.double()
    values = halves.float()
    quotients = values / scale
    exact = values.double() / scale.double()
    picked = (quotients.double() % 1 == 0.5) & (torch.round(exact) != torch.round(quotients).double())
    values = values[picked & (values > low) & (values < high)]
    assert len(values) >= 8
    return torch.cat([torch.tensor([low, high]), values[:: max(1, len(values) // 24)]])


torch.manual_seed(7)
rows = {
    "gaussian": torch.randn(48) * 0.05,
    "heavy tails": torch.randn(48) ** 3,
    "one sign": torch.rand(32) + 0.25,
    "other sign": -torch.rand(32) - 0.25,
    # Steps of 1/4 with 8 bits, so that every second value is halfway between two codes.
    "halves, symmetric": torch.arange(-31.75, 31.76, 1.375),
    "halves, odd zero point": torch.cat([torch.tensor([-16.25, 47.5]), torch.arange(-2.0, 2.0, 0.125)]),
    "nearly halves, symmetric": near_halves(-1.0, 1.0, torch.tensor(1.0) / 127),
    "nearly halves, asymmetric": near_halves(-1.0, 1.1, torch.tensor(2.1) / 255),
    "halves, asymmetric": torch.cat([torch.tensor([-16.0, 47.75]), torch.arange(-2.0, 2.0, 0.125)]),
    "constant": torch.full((4,), 0.3),
    "tiny": torch.randn(16) * 1e-30,
    "large": torch.randn(16) * 1e30,
}
golden = [
    {"name": name, "values": [float(v) for v in x], "cases": [case(x, bits, q) for q in (symmetric, asymmetric) for bits in (2, 3, 4, 8)]}
    for name, x in rows.items()
]
lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in golden)
Path(__file__).with_name("quantizer.json").write_text(f"[\n{lines}\n]\n")
