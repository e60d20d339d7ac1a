"""Answers drawn over their picture: boxes with labels and track numbers, points, masks, and a line for the rest."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from plimsoll.core.wording import printable
from plimsoll.inference.drawing.canvas import (
    BLACK,
    WHITE,
    Canvas,
    Colour,
    colour_of,
    discs,
    paste,
    rectangle,
    text,
    tint,
)
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


def draw(canvas: Canvas, answer: Answer) -> None:
    """Draw an answer over the picture that it is to, whose pixels are the canvas."""
    size = max(canvas.shape[0] // 36, 11)
    if isinstance(answer, Detection):
        for box in reversed(answer.boxes):  # The best one lies on top.
            _box(canvas, box, size)
    elif isinstance(answer, Points):
        if answer.points:
            _points(canvas, np.array(answer.points)[:, :2])
    elif isinstance(answer, Segmentation):
        _masks(canvas, answer, size)
    else:
        line = text(printable(answer.brief())[:_LONGEST], size, WHITE, BLACK)
        paste(canvas, line, 0, 0)


def _box(canvas: Canvas, box: Box, size: int) -> None:
    track = getattr(box, "track", None)
    colour = colour_of(track if track is not None else sum(box.label.encode()))
    if box.mask is not None and (box.mask.height, box.mask.width) == canvas.shape[:2]:
        tint(canvas, box.mask.pixels(), colour)
    rectangle(canvas, box.box, colour, max(size // 8, 2))
    number = "" if track is None else f" #{track}"
    label = text(printable(f"{box.label}{number} {box.score:.2f}")[:_LONGEST], size, BLACK, colour)
    if box.points:
        _points(canvas, np.array([point[:2] for point in box.points]))
    top = round(box.box[1]) - label.shape[0]
    left = max(min(round(box.box[0]), canvas.shape[1] - label.shape[1]), 0)
    paste(canvas, label, left, top if top >= 0 else round(box.box[1]))


def _points(canvas: Canvas, points: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    """Draw points as large as their distance allows: 468 on a face are smaller than 4 corners."""
    extent = max(float(np.ptp(points, axis=0).max()), 1.0)
    radius = round(np.clip(0.2 * extent / np.sqrt(len(points)), 1, max(canvas.shape[0] // 150, 2)))
    discs(canvas, points, _GREEN, int(radius))


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
