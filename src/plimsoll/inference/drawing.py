"""Draw an answer on its picture: boxes with labels, points, masks, texts.

Positions are those of the picture as it was sent (`docs/tasks.md`), so what is drawn on must be the decoded picture,
not turned by EXIF where the Spec doesn't follow it.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from plimsoll.errors import ImageError
from plimsoll.preprocessing.decode import as_image, decode, read
from plimsoll.spec.steps import Decode
from plimsoll.tasks import Answer
from plimsoll.tasks.detect import Box, Detection
from plimsoll.tasks.landmarks import Points
from plimsoll.tasks.segment import NO_LABEL, Segmentation

Colour = tuple[int, int, int]

_GOLDEN = 0.618033988749895
"""Steps of the golden ratio around the colour circle: neighbours in a list of labels never look alike."""
_OPACITY = 0.45


def colour_of(index: int) -> Colour:
    """Return the colour of the label, or of the track, with that number: always the same, bright, unlike its
    neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb((0.33 + index * _GOLDEN) % 1.0, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(image: Image.Image, answer: Answer, *, scale: float = 1.0, colour: Colour | None = None) -> Image.Image:
    """Return an RGB copy of a picture with an answer drawn on it.

    `scale` is the picture's size as a share of the one that the answer's positions are in: a thumbnail is drawn on
    after it was made small, so that lines stay sharp. `colour` draws everything in one colour, masks as outlines;
    without it each label has its own, and masks are filled.
    """
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    if isinstance(answer, Segmentation):
        return _with_mask(drawn, answer.pixels(), colour)
    if isinstance(answer, Detection):
        drawn = _with_objects(drawn, answer.boxes, colour)
    canvas = ImageDraw.Draw(drawn)
    if isinstance(answer, Detection):
        names = sorted({box.label for box in answer.boxes})
        for box in reversed(answer.boxes):  # The best lies on top.
            _box(canvas, drawn.size, box, scale, colour or colour_of(names.index(box.label)))
    elif isinstance(answer, Points):
        _points(canvas, drawn.size, answer.points, scale, colour or colour_of(0))
    elif answer.brief():
        _text(canvas, (0.0, 0.0), answer.brief()[:120], colour or colour_of(0), drawn.size)
    return drawn


def thumbnail(path: str, step: Decode, answers: Sequence[tuple[Answer, Colour]] = (), side: int = 240) -> str:
    """Return a JPEG of a picture as a data URI, its longer side so many pixels, with answers drawn on it, each in its
    colour; nothing for a picture that can't be shown."""
    if answers:  # Positions are those of the picture as it is stored.
        step = step.model_copy(update={"exif_orientation": False})
    try:
        image = as_image(decode(read(Path(path)), step)).copy()
    except ImageError:
        return ""
    width = image.width
    image.thumbnail((side, side))
    for answer, colour in answers:
        image = draw(image, answer, scale=image.width / width, colour=colour)
    stored = io.BytesIO()
    image.convert("RGB").save(stored, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode()


def line_width(size: tuple[int, int]) -> int:
    """Return how wide lines are drawn in a picture of this size."""
    return max(1, round(min(size) / 240))


def _box(canvas: ImageDraw.ImageDraw, size: tuple[int, int], box: Box, scale: float, colour: Colour) -> None:
    x0, y0, x1, y1 = (value * scale for value in box.box)
    canvas.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=line_width(size))
    _points(canvas, size, box.points, scale, colour)
    _text(canvas, (x0, y0), f"{box.label} {box.score:.2f}", colour, size)


def _points(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    points: Sequence[Sequence[float]],
    scale: float,
    colour: Colour,
) -> None:
    radius = line_width(size) * (1.0 if len(points) > 100 else 1.6)
    for x, y, *_ in points:
        canvas.ellipse((x * scale - radius, y * scale - radius, x * scale + radius, y * scale + radius), fill=colour)


def _text(
    canvas: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, colour: Colour, size: tuple[int, int]
) -> None:
    """Write on a ground of the colour, above the corner where there is room, else below it."""
    font = ImageFont.load_default(max(10, round(min(size) / 32)))
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    x = min(max(corner[0], 0.0), max(0.0, size[0] - (right - left) - 4))
    y = corner[1] - (bottom - top) - 4
    y = y if y >= 0 else max(corner[1], 0.0)
    canvas.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140
    canvas.text((x + 2 - left, y + 2 - top), text, fill=(255, 255, 255) if dark else (0, 0, 0), font=font)


def _with_objects(image: Image.Image, boxes: Sequence[Box], colour: Colour | None) -> Image.Image:
    """Draw the masks of single objects, each in a colour of its own."""
    for index, box in enumerate(boxes):
        if box.mask is None:
            continue
        labels = np.where(box.mask.pixels(), np.uint16(index), np.uint16(NO_LABEL))
        image = _with_mask(image, labels, colour)
    return image


def _with_mask(image: Image.Image, labels: NDArray[np.uint16], colour: Colour | None) -> Image.Image:
    if labels.shape != (image.height, image.width):
        rows, columns = (
            (np.arange(drawn) * stored // drawn)
            for drawn, stored in zip((image.height, image.width), labels.shape, strict=True)
        )
        labels = labels[rows][:, columns]
    pixels = np.array(image)
    if colour is not None:
        edge = np.zeros(labels.shape, bool)
        edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        edge[1:] |= labels[1:] != labels[:-1]
        for _ in range(line_width(image.size) - 1):
            edge[:, 1:] |= edge[:, :-1]
            edge[1:] |= edge[:-1]
        pixels[edge] = colour
    else:
        for label in np.unique(labels[labels != NO_LABEL]):
            own = labels == label
            pixels[own] = (1 - _OPACITY) * pixels[own] + _OPACITY * np.array(colour_of(int(label)))
    return Image.fromarray(pixels)
