"""Make `tests/unit/image/data/tensorflow_resize.npz` with real TensorFlow: its own answers to every way of resizing it
has.

The picture is 29 x 37 pixels of noise over a gradient, from a fixed seed. Of every result the last channel is stored,
as float32 (as uint8 where that loses nothing), under `method/coordinates/antialias/height x width`, beside the picture
itself. `tests/unit/image/test_resample.py` compares Plimsoll's NumPy resampling with these arrays, so the tests need no
TensorFlow.

    python benchmarks/tensorflow_resize.py tests/unit/image/data/tensorflow_resize.npz

Needs tensorflow (2.21 made the stored file) and numpy.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 29, 37
SIZES = ((16, 12), (45, 51), (29, 37), (41, 20))
"""(height, width): shrink, grow, leave alone, grow one side and shrink the other."""

HALF_PIXEL = {
    "bilinear": (False, True),
    "bicubic": (False, True),
    "lanczos3": (False, True),
    "area": (False,),
    "nearest": (False,),
}
"""The methods of tf.image.resize, each with the values of `antialias` that matter to it."""

LEGACY = ("bilinear", "bicubic", "nearest", "area")
"""The methods of tf.compat.v1.image.resize, whose pixel centres are the corners (align_corners) or asymmetric."""


def picture() -> NDArray[np.uint8]:
    """Return the picture that is resized: uint8, height x width x 3."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    gradient = np.stack([rows * 4, columns * 3, rows * 2 + columns * 2], axis=2)
    noise = np.random.default_rng(20160930).integers(0, 120, (HEIGHT, WIDTH, 3))
    return (gradient + noise).astype(np.uint8)


def resized(tensorflow: Any) -> dict[str, Any]:
    """Return the last channel of every resize, as TensorFlow does it."""
    image = tensorflow.constant(picture(), tensorflow.float32)
    out: dict[str, Any] = {}
    for height, width in SIZES:
        size = f"{height}x{width}"
        for method, choices in HALF_PIXEL.items():
            for antialias in choices:
                result = tensorflow.image.resize(image, (height, width), method=method, antialias=antialias)
                out[f"{method}/half_pixel/{antialias}/{size}"] = _small(result.numpy())
        for method in LEGACY:
            for coordinates in ("align_corners", "asymmetric"):
                result = tensorflow.compat.v1.image.resize(
                    image, (height, width), method=method, align_corners=coordinates == "align_corners"
                )
                out[f"{method}/{coordinates}/False/{size}"] = _small(result.numpy())
    return out


def _small(result: NDArray[np.float32]) -> NDArray[Any]:
    channel = result[:, :, -1]
    levels = np.clip(channel, 0, 255).astype(np.uint8)
    return levels if np.array_equal(levels, channel) else channel


def main() -> None:
    """Parse the arguments and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the .npz file to write")
    out: Path = parser.parse_args().out
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    tensorflow = importlib.import_module("tensorflow")
    arrays = resized(tensorflow)
    np.savez_compressed(out, picture=picture(), **arrays)
    print(f"TensorFlow {tensorflow.__version__}: {len(arrays)} arrays, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
