"""Writes minifloat.json: what PyTorch's cast to float8_e4m3fn makes of float32 values within its range. Every value of the
format, every middle between two neighbours and the float32 on either side of it, and some of all magnitudes and both signs.
Made with PyTorch 2.13.0: python make_minifloat_golden.py
"""

import json
from pathlib import Path

import torch

torch.manual_seed(7)
codes = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
middles = (codes[1:] + codes[:-1]) / 2
beside = [torch.nextafter(middles, torch.tensor(to)) for to in (-torch.inf, torch.inf)]
others = torch.randn(64) * torch.exp2(torch.randint(-13, 7, (64,)).float())
inputs = torch.cat([codes, middles, *beside, -codes[1::4], -middles[::4], others.clamp(-448, 448)])
outputs = inputs.to(torch.float8_e4m3fn).float()
golden = {"inputs": inputs.tolist(), "outputs": (outputs + 0.0).tolist()}
Path(__file__).with_name("minifloat.json").write_text(json.dumps(golden) + "\n")
