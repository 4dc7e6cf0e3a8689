"""Writes resize.json: SHA-256 of pictures that Pillow 12.3.0 has resized, of e2e/golden/editing's: python make_resize_golden.py

`fill` is diffusers 0.40.0.dev0 (58eb52c0)'s VaeImageProcessor._resize_and_fill of a part of the picture, `grey` its conversion
of a resized picture to grey, `crop` its get_crop_region of the mask.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

HERE = Path(__file__).parent
EDITING = HERE / "../../../e2e/golden/editing"
processor = VaeImageProcessor()
picture, mask = Image.open(EDITING / "picture.png"), Image.open(EDITING / "mask.png")


def digest(image):
    return hashlib.sha256(np.array(image).tobytes()).hexdigest()


def resized(width, height, resample=Image.Resampling.LANCZOS, box=None):
    filters = {Image.Resampling.LANCZOS: "lanczos", Image.Resampling.BICUBIC: "bicubic"}
    return {
        "width": width,
        "height": height,
        "filter": filters[resample],
        "box": box,
        "sha256": digest(picture.resize((width, height), resample, box)),
        "grey": digest(picture.resize((width, height), resample, box).convert("L")),
    }


sizes = [(90, 70), (40, 24), (64, 48), (90, 35), (45, 70), (7, 3), (1, 1), (200, 150), (333, 71)]
region = lambda width, height, pad: {
    "width": width,
    "height": height,
    "pad": pad,
    "region": (coords := processor.get_crop_region(mask, width, height, pad=pad)),
    "fill": digest(processor._resize_and_fill(picture.crop(coords), width, height)),
}
golden = {
    "resized": [resized(*size) for size in sizes]
    + [resized(40, 24, Image.Resampling.BICUBIC), resized(40, 2, Image.Resampling.BICUBIC, (0, 0, 90, 0))]
    + [resized(30, 20, box=(10, 5, 70, 66))],
    "regions": [region(*each) for each in [(40, 24, 0), (40, 24, 6), (64, 64, 32), (24, 64, 3), (72, 40, 500), (41, 27, 1)]],
}
(HERE / "resize.json").write_text(json.dumps(golden, indent=1) + "\n")
