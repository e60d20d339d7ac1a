"""Pillow's resize as Pillow 12.3 did it: the pictures and sizes behind `unit/preprocessing/data/pillow_resize.json`,
and how that file is written.

With Pillow 12.3, whose single call resizes horizontally first: `python tests/helpers/pillow_reference.py >
tests/unit/preprocessing/data/pillow_resize.json`
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys

import numpy as np
import PIL
from PIL import Image

SIZES = {
    "333x500 to 256x256": ((333, 500), (256, 256)),
    "375x500 to 256x256": ((375, 500), (256, 256)),
    "1080x1920 to 256x256": ((1080, 1920), (256, 256)),
    "400x3000 to 256x256": ((400, 3000), (256, 256)),
    "128x160 to 200x150": ((128, 160), (200, 150)),
    "20x90 to 37x20": ((20, 90), (37, 20)),
    "256x1000 to 500x500": ((256, 1000), (500, 500)),
    "400x500 to 256x256": ((400, 500), (256, 256)),
    "500x333 to 256x256": ((500, 333), (256, 256)),
    "29x37 to 61x50": ((29, 37), (61, 50)),
    "29x90 to 29x37": ((29, 90), (29, 37)),
    "90x29 to 37x29": ((90, 29), (37, 29)),
    "1x50 to 7x7": ((1, 50), (7, 7)),
}
"""(width, height) before and after. Of the first seven, Pillow 13 changes the height first."""
MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Return noise that is the same everywhere: SplitMix64 of each sample's position."""
    width, height = size
    mixed = np.arange(width * height * MODES[mode], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return Image.frombytes(mode, size, (mixed >> np.uint64(56)).astype(np.uint8).tobytes())


def digest(image: Image.Image) -> str:
    """Return a short hash of the image's samples."""
    return hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest()


def main() -> None:
    """Print the digests of Pillow 12.3's own resizes."""
    if not PIL.__version__.startswith("12.3."):
        sys.exit(f"the digests are those of Pillow 12.3, not {PIL.__version__}")
    digests = {
        f"{mode} {name}": {
            size: digest(picture(mode, before).resize(after, filter_)) for size, (before, after) in SIZES.items()
        }
        for mode, (name, filter_) in itertools.product(MODES, FILTERS.items())
    }
    sys.stdout.write(json.dumps(digests, indent=1) + "\n")


if __name__ == "__main__":
    main()
