"""Writes noise.json: what PyTorch's seeded CPU generator draws. Made with PyTorch 2.13.0 (AVX-512): python make_noise_golden.py

A case draws `sizes` one after the other from one generator; of each draw the file keeps the sum and the values at
`indices` (first, middle and the last sixteen, which a size that is no multiple of 16 draws a second time).
"""

import json
import math
from pathlib import Path

import torch

CASES = [
    (0, [5, 5, 16]),
    (0, [1, 1, 1, 16, 1]),
    (7, [3, 21, 3, 17]),
    (42, [16, 31]),
    (42, [100, 15, 100]),
    (2147483653, [17, 4, 64]),
    (2**40 + 5, [31, 31]),
    (5, [4 * 17 * 23, 4 * 17 * 23]),
    (2**53 - 1, [4 * 64 * 64, 7, 4 * 64 * 64]),
    (123456789, [1, 0, 33]),
    (-1, [5, 31]),
    (-(2**63) + 7, [17]),
    (2**63 + 3, [16]),
    (2**64 - 2, [17]),
]

cases = []
for seed, sizes in CASES:
    generator = torch.Generator("cpu").manual_seed(seed)
    draws = []
    for size in sizes:
        values = torch.randn(size, generator=generator)
        indices = sorted({*range(min(size, 4)), *range(size // 2, min(size, size // 2 + 2)), *range(max(0, size - 16), size)})
        draws.append(
            {
                "size": size,
                "sum": round(math.fsum(values.tolist()), 6),
                "indices": indices,
                "values": [round(v, 7) for v in values[indices].tolist()],
            }
        )
    cases.append({"seed": seed if abs(seed) < 2**53 else str(seed), "draws": draws})
Path(__file__).with_name("noise.json").write_text(json.dumps({"torch": torch.__version__, "cases": cases}) + "\n")
