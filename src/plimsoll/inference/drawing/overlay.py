"""Answers drawn over their picture: boxes with labels and track numbers, points, masks, and a line for the rest; and
small pictures for reports, with the answers of two models."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plimsoll.core.wording import printable
from plimsoll.errors import ImageError
from plimsoll.inference.drawing.canvas import (
    BLACK,
    WHITE,
    Canvas,
    Colour,
    colour_of,
    discs,
    paste,
    polygon,
    rectangle,
    text,
    tint,
)
from plimsoll.preprocessing.decode import as_image, decode, read
from plimsoll.spec.steps import Decode
from plimsoll.tasks import Answer
from plimsoll.tasks.detect import Box, Detection
from plimsoll.tasks.landmarks import Points
from plimsoll.tasks.segment import Segmentation

_LONGEST = 60
"""Characters of a line; labels come from a model."""
_GREEN: Colour = (60, 230, 90)


class Layer(Protocol):
    """Something that is drawn over frames, and may change from frame to frame."""

    def paint(self, canvas: Canvas, answer: Answer, time: float | None) -> Canvas:
        """Draw over the canvas, or another one in its place; `time` is None for a picture. Returns the canvas."""
        ...


class Overlay:
    """Draws the answers themselves."""

    def paint(self, canvas: Canvas, answer: Answer, time: float | None) -> Canvas:
        """Draw the answer; returns the canvas."""
        del time
        draw(canvas, answer)
        return canvas


def draw(canvas: Canvas, answer: Answer, *, scale: float = 1.0, colour: Colour | None = None) -> None:
    """Draw an answer over the picture that it is to, whose pixels are the canvas.

    `scale` is the canvas's size as a share of that picture's: a thumbnail is drawn on after it was made small, so that
    lines stay sharp. `colour` draws everything in one colour, masks as outlines.
    """
    size = max(canvas.shape[0] // 36, 11)
    if isinstance(answer, Detection):
        for box in reversed(answer.boxes):  # The best one lies on top.
            _box(canvas, box, size, scale, colour)
    elif isinstance(answer, Points):
        if answer.points:
            _points(canvas, np.array(answer.points)[:, :2] * scale, colour or _GREEN)
    elif isinstance(answer, Segmentation) and colour is not None:
        _outline(canvas, answer.map.pixels(), colour)
    elif isinstance(answer, Segmentation):
        _masks(canvas, answer, size)
    else:
        line = text(printable(answer.brief())[:_LONGEST], size, WHITE, BLACK)
        paste(canvas, line, 0, 0)


def thumbnail(path: str, step: Decode, answers: Sequence[tuple[Answer, Colour]] = (), side: int = 240) -> str:
    """Return a JPEG of a picture as a data URI, its longer side so many pixels, with answers drawn on it, each in its
    colour; nothing for a picture that can't be shown."""
    if answers:  # Positions are those of the picture as it is stored.
        step = step.model_copy(update={"exif_orientation": False})
    try:
        image = as_image(decode(read(Path(path)), step)).convert("RGB")
    except ImageError:
        return ""
    width = image.width
    image.thumbnail((side, side))
    canvas = np.array(image)
    for answer, colour in answers:
        draw(canvas, answer, scale=image.width / width, colour=colour)
    stored = io.BytesIO()
    Image.fromarray(canvas).save(stored, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode()


def _box(canvas: Canvas, box: Box, size: int, scale: float, given: Colour | None) -> None:
    track = getattr(box, "track", None)
    colour = given or colour_of(track if track is not None else sum(box.label.encode()))
    if box.mask is not None and given is not None:
        _outline(canvas, box.mask.pixels().astype(np.uint16), colour)
    elif box.mask is not None and (box.mask.height, box.mask.width) == canvas.shape[:2]:
        tint(canvas, box.mask.pixels(), colour)
    x0, y0, x1, y1 = (value * scale for value in box.box)
    width = max(size // 8, 2) if given is None else 1
    if box.corners:
        polygon(canvas, np.array(box.corners) * scale, colour, width)
    else:
        rectangle(canvas, (x0, y0, x1, y1), colour, width)
    number = "" if track is None else f" #{track}"
    label = text(printable(f"{box.label}{number} {box.score:.2f}")[:_LONGEST], size, BLACK, colour)
    if box.points:
        _points(canvas, np.array([point[:2] for point in box.points]) * scale, given or _GREEN)
    top = round(y0) - label.shape[0]
    left = max(min(round(x0), canvas.shape[1] - label.shape[1]), 0)
    paste(canvas, label, left, top if top >= 0 else round(y0))


def _points(canvas: Canvas, points: NDArray[np.float64], colour: Colour) -> None:
    """Draw points as large as their distance allows: 468 on a face are smaller than 4 corners."""
    extent = max(float(np.ptp(points, axis=0).max()), 1.0)
    radius = int(np.clip(0.2 * extent / np.sqrt(len(points)), 0, max(canvas.shape[0] // 150, 2)))
    discs(canvas, points, colour, radius)


def _outline(canvas: Canvas, labels: NDArray[np.uint16], colour: Colour) -> None:
    """Draw where labels border on one another, of a mask that may be larger or smaller than the canvas."""
    rows, columns = (np.arange(own) * size // own for own, size in zip(canvas.shape[:2], labels.shape, strict=True))
    labels = labels[rows][:, columns]
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    canvas[edge] = colour


def _masks(canvas: Canvas, answer: Segmentation, size: int) -> None:
    labels = answer.map.pixels()
    top = 0
    for label in answer.map.areas():
        if answer.labels[label] in ("background", "none"):
            continue
        colour = colour_of(label)
        tint(canvas, labels == label, colour)
        name = answer.labels[label]
        line = text(printable(f"{name} {answer.shares[name]:.0%}")[:_LONGEST], size, BLACK, colour)
        paste(canvas, line, 0, top)
        top += line.shape[0]
