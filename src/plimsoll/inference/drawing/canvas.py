"""Drawing into the pixels of a frame, in NumPy: rectangles, discs, lines, text, and pictures with an alpha channel.

A canvas is an array `[height, width, 3]`, RGB, uint8, that is drawn into; of a frame in the order BGR, the reversed
view is one. Text is rendered by Pillow once and then pasted.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from plimsoll.errors import InputError
from plimsoll.preprocessing import PixelArray

Canvas = NDArray[np.uint8]
Sprite = NDArray[np.uint8]
"""RGBA, `[height, width, 4]`."""
Colour = tuple[int, int, int]

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
_MEGAPIXELS = 50
_GOLDEN = 0.618033988749895
_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "DroidSansFallbackFull.ttf",
    "DejaVuSans.ttf",
)
"""Tried in this order where no font is given: those with Chinese, Japanese and Korean first."""


def canvas_of(pixels: PixelArray) -> Canvas:
    """Return a frame's pixels to draw into: a view, RGB whatever their order is."""
    samples = pixels.samples
    return samples[:, :, ::-1] if pixels.colour == "BGR" else samples


@cache
def colour_of(index: int) -> Colour:
    """Return a colour for a number: bright, and far from those of the numbers beside it."""
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def rectangle(canvas: Canvas, box: Sequence[float], colour: Colour, width: int) -> None:
    """Draw the outline of x0, y0, x1, y1, inside of it."""
    height, across = canvas.shape[:2]
    x0, x1 = (int(np.clip(round(value), 0, across)) for value in (box[0], box[2]))
    y0, y1 = (int(np.clip(round(value), 0, height)) for value in (box[1], box[3]))
    canvas[y0 : min(y0 + width, y1), x0:x1] = colour
    canvas[max(y1 - width, y0) : y1, x0:x1] = colour
    canvas[y0:y1, x0 : min(x0 + width, x1)] = colour
    canvas[y0:y1, max(x1 - width, x0) : x1] = colour


def polygon(canvas: Canvas, corners: NDArray[np.float64], colour: Colour, width: int) -> None:
    """Draw the outline of a polygon `[corners, 2]` (x, y)."""
    limit = 4.0 * max(canvas.shape)  # What lies far outside is not seen, and would be drawn pixel by pixel.
    image = Image.fromarray(np.ascontiguousarray(canvas))
    closed = [tuple(point) for point in np.clip([*corners, corners[0]], -limit, limit).tolist()]
    ImageDraw.Draw(image).line(closed, fill=colour, width=width, joint="curve")
    canvas[:] = np.asarray(image)


def discs(canvas: Canvas, points: NDArray[np.float64], colour: Colour, radius: int) -> None:
    """Draw a filled disc at each point `[N, 2]`."""
    sprite = _disc(radius, colour)
    for x, y in points[np.isfinite(points).all(axis=1)]:
        paste(canvas, sprite, round(float(x)) - radius, round(float(y)) - radius)


@cache
def _disc(radius: int, colour: Colour) -> Sprite:
    scale = 4
    image = Image.new("L", ((2 * radius + 1) * scale,) * 2)
    ImageDraw.Draw(image).ellipse((0, 0, image.width - 1, image.height - 1), fill=255)
    alpha = np.asarray(image.resize((2 * radius + 1,) * 2, Image.Resampling.BOX))
    return np.dstack([np.broadcast_to(np.array(colour, np.uint8), (*alpha.shape, 3)), alpha])


def paste(canvas: Canvas, sprite: Sprite, left: int, top: int, opacity: NDArray[np.uint8] | None = None) -> None:
    """Lay a sprite over the canvas, cut at its borders; `opacity` `[height, width]` of the canvas, 0 to 255, is what
    of it shows where."""
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + sprite.shape[1], width), min(top + sprite.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    part = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[:, :, 3:].astype(np.uint16)
    if opacity is not None:
        alpha = alpha * opacity[y0:y1, x0:x1, None] // 255
    below = canvas[y0:y1, x0:x1]
    mixed = below * (255 - alpha) + part[:, :, :3] * alpha + 127
    canvas[y0:y1, x0:x1] = (mixed // 255).astype(np.uint8)


def tint(canvas: Canvas, mask: NDArray[np.bool_], colour: Colour, share: float = 0.45) -> None:
    """Mix a colour into the pixels of a mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return
    span = slice(int(rows[0]), int(rows[-1]) + 1)
    inside = mask[span]
    part = canvas[span]
    part[inside] = (part[inside] * (1 - share) + np.array(colour) * share).astype(np.uint8)


@lru_cache(maxsize=512)
def text(words: str, size: int, colour: Colour, background: Colour | None = None, font: str | None = None) -> Sprite:
    """Return a line of text as a sprite: on a background, or with a dark outline."""
    face, border = _font(size, font), 0 if background is not None else max(size // 12, 1)
    left, top, right, bottom = face.getbbox(words, stroke_width=border)
    pad = max(size // 6, 1) if background is not None else 1
    shape = (max(int(right - left), 1) + 2 * pad, max(int(bottom - top), 1) + 2 * pad)
    image = Image.new("RGBA", shape, (*background, 255) if background is not None else (*BLACK, 0))
    ImageDraw.Draw(image).text(
        (pad - left, pad - top), words, font=face, fill=(*colour, 255), stroke_width=border, stroke_fill=(*BLACK, 255)
    )
    return np.asarray(image)


def lacks(char: str, font: str | None = None) -> bool:
    """Tell whether a font has no glyph for a character: it draws the same box as for one that no font has."""
    return not char.isascii() and not char.isspace() and _drawn(char, font) == _drawn("\U0010ffff", font)


@lru_cache(maxsize=4096)
def _drawn(char: str, font: str | None) -> bytes:
    image = Image.new("L", (24, 24))
    ImageDraw.Draw(image).text((2, 2), char, font=_font(16, font), fill=255)
    return image.tobytes()


@lru_cache(maxsize=32)
def _font(size: int, given: str | None) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in [given] if given else _FONTS:
        try:
            return ImageFont.truetype(str(name), size)
        except OSError as error:
            if given:
                raise InputError(
                    f"no font can be read from {given}: {error}", "Give a .ttf, .otf or .ttc file."
                ) from error
    return ImageFont.load_default(size)


def read_sprite(path: str | Path) -> Sprite:
    """Read a picture with its transparency; raises InputError."""
    return np.asarray(_opened(path, "RGBA"))


def read_picture(path: str | Path) -> Canvas:
    """Read a picture to draw over, as its file stores it; raises InputError."""
    return np.array(_opened(path, "RGB"))


def _opened(path: str | Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MEGAPIXELS * 1e6:
                raise InputError(f"{path}: {image.width} x {image.height} pixels; at most {_MEGAPIXELS} megapixels")
            return image.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: no picture that can be drawn: {error}") from error


def resized(sprite: Sprite, width: int, height: int) -> Sprite:
    """Return a sprite in another size."""
    size = max(width, 1), max(height, 1)
    return np.asarray(Image.fromarray(sprite).resize(size, Image.Resampling.BILINEAR))
