"""Large pictures with real detail, made of small photographs: what `benchmarks/large.py` and the table of scaled
decoding read.

A small photograph that is only enlarged has no detail of its own at full size, so every way of shrinking it gives the
same. These pictures have it. What a network sees is one photograph, enlarged to the size; onto it goes the detail of
many others: a mosaic of them at their own size, less its own blur (the mean over 17 × 17 pixels), so that edges and
texture stay and brightness goes. Then comes a camera's noise: Gaussian, with a variance that grows with brightness, as
photon noise does. JPEG files are written as phones do: 4:2:0, quality 92, and a progressive one among eight."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZES = {
    "0.2": (500, 400),
    "4": (2304, 1728),
    "8": (3264, 2448),
    "12": (4000, 3000),
    "24": (6000, 4000),
    "48": (8000, 6000),
}
"""Width and height of what cameras give, by megapixels."""


def picture(photos: Sequence[Path], number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return uint8 `[height, width, 3]`, RGB; the same for the same photos, number and size."""
    random = np.random.default_rng(number)
    with Image.open(photos[number % len(photos)]) as base:
        content = np.asarray(base.convert("RGB"))
    large = cv2.resize(content, (width, height), interpolation=cv2.INTER_CUBIC)
    mosaic = _mosaic(photos, random, width, height)
    blurred = cv2.blur(mosaic, (17, 17))
    strength = float(random.uniform(0.4, 0.9))
    for top in range(0, height, 256):  # in strips, for memory
        rows = slice(top, min(height, top + 256))
        values = large[rows].astype(np.float32)
        values += strength * (mosaic[rows].astype(np.float32) - blurred[rows])
        noise = random.standard_normal(values.shape, np.float32)
        values += noise * np.sqrt(0.6 + np.maximum(values, 0) * np.float32(0.015))
        large[rows] = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(large)


def _mosaic(photos: Sequence[Path], random: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    out = np.zeros((height, width, 3), np.uint8)
    top = 0
    while top < height:
        left, tallest = 0, height
        while left < width:
            with Image.open(photos[int(random.integers(len(photos)))]) as photo:
                tile = np.asarray(photo.convert("RGB"))[: height - top, : width - left]
            out[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
            left += tile.shape[1]
            tallest = min(tallest, tile.shape[0])
        top += tallest
    return out


def screenshot(photos: Sequence[Path], number: int) -> NDArray[np.uint8]:
    """Return a phone's screen, `[2532, 1170, 3]`: plain areas, lines like text, and two photographs."""
    random = np.random.default_rng(number)
    screen = np.full((2532, 1170, 3), int(random.integers(225, 256)), np.uint8)
    for top in range(200, 2300, 46):
        left = 60
        while left < 1000:
            width = int(random.integers(20, 140))
            glyphs = random.integers(0, 2, (22, width, 1), np.uint8) * np.uint8(200)
            word = screen[top : top + 22, left : left + width]
            np.minimum(word, glyphs, out=word)
            left += width + 18
    for top in (500, 1500):
        with Image.open(photos[int(random.integers(len(photos)))]) as photo:
            screen[top : top + 700, 35:1135] = np.asarray(photo.convert("RGB").resize((1100, 700)))
    return screen


def encode(
    pixels: NDArray[np.uint8], kind: str, *, orientation: int = 1, progressive: bool = False, quality: int = 92
) -> bytes:
    """Return a file's bytes; `kind` is jpeg, cmyk (a JPEG of four inks), png, rgba png, webp or bmp."""
    image = Image.fromarray(pixels)
    stored = io.BytesIO()
    if kind in ("jpeg", "cmyk"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"exif": exif} if orientation != 1 else {}
        source = image.convert("CMYK") if kind == "cmyk" else image
        source.save(stored, "JPEG", quality=quality, subsampling=2, progressive=progressive, **options)
    elif kind == "webp":
        image.save(stored, "WEBP", quality=85, method=2)
    elif kind in ("png", "rgba png"):
        (image.convert("RGBA") if kind == "rgba png" else image).save(stored, "PNG", compress_level=3)
    else:
        image.save(stored, "BMP")
    return stored.getvalue()
