"""Where labels of points go so that none covers another, a point, or the edge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]

_NARROW = frozenset("iljftr.,:;|'!()[]-·I ")
_WIDE = frozenset("mwMW@%×")
_DIRECTIONS: tuple[tuple[float, float], ...] = (
    (1, 0), (-1, 0), (0.7, -0.7), (-0.7, -0.7), (0.7, 0.7), (-0.7, 0.7), (0, -1), (0, 1), (0.95, -0.3), (-0.95, -0.3),
    (0.3, -0.95), (-0.3, -0.95), (0.3, 0.95), (-0.3, 0.95),
)  # fmt: skip
_NEAR = (4.0, 12.0, 24.0)
_DISTANCES = (*_NEAR, 38.0, 54.0, 74.0, 100.0)
_PADDING = 1.5
"""What stays free around a label, in pixels."""
_LEADER_FROM = 12.0
"""From this distance on a line leads from the point to its label."""


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether both share any area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        """Whether this one lies wholly inside the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class LabelRequest:
    """A point that wants a label: the first of its texts for which there is room."""

    texts: tuple[str, ...]
    x: float
    y: float
    radius: float
    size: float
    """Font size, in pixels."""
    required: bool = False
    """Whether the first text may cover thin lines where nothing else is free."""


@dataclass(frozen=True)
class Label:
    """A label that was placed."""

    text: str
    x: float
    y: float
    """The text's anchor; y is its baseline."""
    anchor: Anchor
    box: Box
    leader: tuple[float, float, float, float] | None
    """From the point's rim to the label: x1, y1, x2, y2."""


def text_width(text: str, size: float) -> float:
    """Estimate a text's width in pixels, rather too wide than too narrow: the page's font is the reader's."""
    ems = sum(0.34 if char in _NARROW else 0.92 if char in _WIDE else 0.62 for char in text)
    return ems * size


def place_labels(requests: Sequence[LabelRequest], frame: Box, lines: Sequence[Box] = ()) -> list[Label | None]:
    """Place labels within the frame, in the order of the requests; None where there is no room, which is better than a
    label nobody can read.

    `lines` are kept clear too, except for required labels.
    """
    occupied = [_point_box(request) for request in requests]
    placed: list[Label | None] = []
    for request in requests:
        others = [box for box in occupied if box != _point_box(request)]
        if request.required:
            label = _first_fit(_positions(request, request.texts[:1], _NEAR), frame, [*others, *lines]) or _first_fit(
                _positions(request, request.texts), frame, others
            )
        else:
            label = _first_fit(_positions(request, request.texts), frame, [*others, *lines])
        placed.append(label)
        if label is not None:
            occupied.append(label.box)
    return placed


def _point_box(request: LabelRequest) -> Box:
    return Box(
        request.x - request.radius, request.y - request.radius, request.x + request.radius, request.y + request.radius
    )


def _fits(label: Label, frame: Box, others: Sequence[Box]) -> bool:
    if not label.box.within(frame) or any(label.box.meets(box) for box in others):
        return False
    return label.leader is None or not any(_crosses(label.leader, box) for box in others)


def _first_fit(labels: Iterable[Label], frame: Box, others: Sequence[Box]) -> Label | None:
    return next((label for label in labels if _fits(label, frame, others)), None)


def _positions(request: LabelRequest, texts: Sequence[str], distances: Sequence[float] = _DISTANCES) -> Iterator[Label]:
    for text in texts:
        for distance in distances:
            for direction in _DIRECTIONS:
                yield _label(request, text, direction, distance)


def _label(request: LabelRequest, text: str, direction: tuple[float, float], distance: float) -> Label:
    dx, dy = direction
    x, y = request.x + dx * (request.radius + distance), request.y + dy * (request.radius + distance)
    width, ascent, descent = text_width(text, request.size), 0.78 * request.size, 0.24 * request.size
    anchor: Anchor = "start" if dx > 0.1 else "end" if dx < -0.1 else "middle"
    left = x if anchor == "start" else x - width if anchor == "end" else x - width / 2
    middle = y + dy * (ascent + descent) / 2
    top = middle - (ascent + descent) / 2
    box = Box(left - _PADDING, top - _PADDING, left + width + _PADDING, top + ascent + descent + _PADDING)
    rim = request.radius + 1
    leader = (request.x + dx * rim, request.y + dy * rim, x - dx * 2, y - dy * 2) if distance >= _LEADER_FROM else None
    return Label(text, x, top + ascent, anchor, box, leader)


def _crosses(line: tuple[float, float, float, float], box: Box) -> bool:
    """Whether a line passes through a box, looked at in steps of 3 pixels: labels are taller than that."""
    x1, y1, x2, y2 = line
    steps = max(1, math.ceil(math.hypot(x2 - x1, y2 - y1) / 3))
    points = ((x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps) for step in range(steps + 1))
    return any(box.left < x < box.right and box.top < y < box.bottom for x, y in points)
