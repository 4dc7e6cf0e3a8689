"""Writes quality.json: SSIM and PSNR by scikit-image, Fréchet distances by SciPy, of pictures and features that both
sides make from the same formulas. Made with scikit-image 0.26.0, SciPy 1.17.1, NumPy 2.4.6:
python make_quality_golden.py
"""

import json
from pathlib import Path

import numpy as np
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def pictures(width, height, strength):
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    a = (7 * x + 13 * y + 29 * c + x * y) % 256
    b = np.clip(a + strength * ((5 * x + 3 * y + 11 * c) % 17 - 8), 0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


def features(count, size, phase):
    i, j = np.mgrid[0:count, 0:size].astype(np.float64)
    return np.sin(1.7 * i + 0.9 * j * j + phase) + 0.5 * np.cos(0.37 * i * j + phase) + 0.1 * phase * j / size


def frechet(a, b):
    s, t = np.cov(a.T), np.cov(b.T)
    # With s = x^T x and t = y^T y, the trace of (s t)^(1/2) is the sum of the singular values of x y^T: exact for
    # covariances without full rank, too, where sqrtm loses half of its digits.
    x, y = [(v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (a, b)]
    shared = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    if min(len(a), len(b)) > a.shape[1]:
        assert abs(shared - np.trace(sqrtm(s @ t)).real) < 1e-8 * shared
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * shared)


similarity = []
for width, height, strength in [(24, 24, 1), (24, 20, 1), (31, 17, 4), (21, 21, 9), (128, 128, 3)]:
    a, b = pictures(width, height, strength)
    side = (min(width, height) - 1) // 2 * 2 + 1
    similarity.append({
        "width": width, "height": height, "strength": strength,
        "ssim": structural_similarity(a, b, win_size=side, channel_axis=2),
        "ssim11": structural_similarity(a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
        "psnr": peak_signal_noise_ratio(a, b),
    })

distances = []
for count, other, size, phase in [(40, 60, 3, 1.0), (200, 300, 24, 0.5), (300, 200, 64, 2.0), (10, 300, 24, 0.5)]:
    distance = frechet(features(count, size, 0.0), features(other, size, phase))
    distances.append({"count": count, "other": other, "size": size, "phase": phase, "distance": distance})

result = {"similarity": similarity, "distances": distances}
Path(__file__).with_name("quality.json").write_text(json.dumps(result, indent=2) + "\n")
