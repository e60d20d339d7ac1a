"""A sprite that follows what a model finds: a box of some label (a gesture), or a point."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError
from plimsoll.inference.drawing.canvas import Canvas, Sprite, paste, read_sprite, resized
from plimsoll.inference.drawing.face import points_of
from plimsoll.inference.video.smoothing import OneEuro
from plimsoll.tasks import Answer

_FADE_S = 0.25
"""How long a sprite takes to come and to go: what a detector loses for a frame doesn't flicker."""
_POINT_SIZE = 0.6
"""A sprite at a point is so large, of the extent of all points."""


@dataclass(frozen=True)
class _Anchor:
    centre: NDArray[np.float64]
    size: float
    """Of the object, in pixels."""


@dataclass
class EffectLayer:
    """Draws a sprite at an anchor: the label of a box, or the number of a point; `scale` is relative to the object."""

    sprite: Sprite
    anchor: str
    scale: float = 1.0
    _filter: OneEuro = field(default_factory=OneEuro)
    _last: NDArray[np.float64] | None = None
    _time: float | None = None
    _opacity: float = 0.0

    @classmethod
    def parse(cls, value: str) -> EffectLayer:
        """Read `FILE=ANCHOR` or `FILE=ANCHOR*SCALE`, such as `heart.png=pinch*1.5`; raises InputError."""
        path, equals, rest = value.rpartition("=")
        anchor, _, scale = rest.rpartition("*") if "*" in rest else (rest, "", "1")
        try:
            factor = float(scale)
        except ValueError:
            factor = 0.0
        if not equals or not path or not anchor or not 0.01 <= factor <= 100:
            raise InputError(
                f"'{value}' is not FILE=ANCHOR",
                "For example heart.png=pinch (a label of a box), hat.png=10 (a point), or with a size: hat.png=10*1.5.",
            )
        return cls(read_sprite(path), anchor, factor)

    def paint(self, canvas: Canvas, answer: Answer, time: float | None) -> Canvas:
        """Draw the sprite where its anchor is, or fades; returns the canvas."""
        anchor = self._found_in(answer)
        elapsed = 0.0 if time is None or self._time is None else time - self._time
        if time is None or elapsed < 0:  # a picture, or another clip
            self._opacity, self._last, self._filter, elapsed = 0.0, None, OneEuro(), _FADE_S if time is None else 0.0
        self._time = time
        change = elapsed / _FADE_S
        self._opacity = float(np.clip(self._opacity + (change if anchor is not None else -change), 0, 1))
        if anchor is not None:
            values = np.array([*anchor.centre, anchor.size])
            self._last = values if time is None else self._filter(values, time, anchor.size)
        if self._last is None or self._opacity == 0:
            return canvas
        x, y, size = self._last
        longest = size * self.scale
        factor = longest / max(self.sprite.shape[:2])
        sprite = resized(self.sprite, round(self.sprite.shape[1] * factor), round(self.sprite.shape[0] * factor))
        if self._opacity < 1:
            sprite = sprite.copy()
            sprite[:, :, 3] = (sprite[:, :, 3] * self._opacity).astype(np.uint8)
        paste(canvas, sprite, round(x - sprite.shape[1] / 2), round(y - sprite.shape[0] / 2))
        return canvas

    def _found_in(self, answer: Answer) -> _Anchor | None:
        box = next((box for box in getattr(answer, "boxes", ()) if box.label == self.anchor), None)
        if box is not None:
            x0, y0, x1, y1 = box.box
            return _Anchor(np.array([(x0 + x1) / 2, (y0 + y1) / 2]), max(x1 - x0, y1 - y0))
        points = points_of(answer)
        if self.anchor.isdecimal() and int(self.anchor) < len(points):
            places = np.array(points)[:, :2]
            return _Anchor(places[int(self.anchor)], _POINT_SIZE * float(np.ptp(places, axis=0).max()))
        return None
