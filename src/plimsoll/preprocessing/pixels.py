"""The two forms that a picture has between steps: Pillow's `Image`, or a NumPy array height x width x channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Pixels = Image.Image | Array


def as_array(pixels: Pixels) -> Array:
    """Return height x width x channels, uint8 for an `Image`; a grey picture has one channel."""
    array = np.asarray(pixels)
    return array[:, :, np.newaxis] if array.ndim == 2 else array


def as_image(pixels: Pixels) -> Image.Image:
    """Return Pillow's form of uint8 pixels with 1 or 3 channels, in whatever colour order they are."""
    if isinstance(pixels, Image.Image):
        return pixels
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def size_of(pixels: Pixels) -> tuple[int, int]:
    """Return (width, height)."""
    if isinstance(pixels, Image.Image):
        return pixels.size
    return pixels.shape[1], pixels.shape[0]
