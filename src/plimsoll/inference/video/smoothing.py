"""The One-Euro filter (Casiez, Roussel and Vogel, 2012): points that stand still don't tremble, and points that move
don't lag.

A low-pass filter whose cut-off grows with the speed. Speeds are measured in sizes of the object a second, so the same
settings serve a face that fills the picture and one far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from plimsoll.tasks.detect import Detection
from plimsoll.tasks.landmarks import Points

Floats = NDArray[np.float64]
_LEAST_CUTOFF_HZ = 1.0
_GROWTH = 3.0
"""Hz of cut-off for a speed of one size of the object a second."""
_SPEED_CUTOFF_HZ = 1.0
_GAP_S = 0.5
"""After so long without points, the next ones begin anew."""


class OneEuro:
    """Smooths one series of values, each frame an array of the same shape."""

    def __init__(
        self,
        least_cutoff_hz: float = _LEAST_CUTOFF_HZ,
        growth: float = _GROWTH,
        speed_cutoff_hz: float = _SPEED_CUTOFF_HZ,
    ) -> None:
        self._least, self._growth, self._speed_cutoff = least_cutoff_hz, growth, speed_cutoff_hz
        self._time: float | None = None
        self._values: Floats = np.zeros(0)
        self._speed: Floats = np.zeros(0)

    def __call__(self, values: Floats, time: float, size: float = 1.0) -> Floats:
        """Return the smoothed values; `size` is that of the object, in their unit."""
        values = np.asarray(values, np.float64)
        if self._time is None or values.shape != self._values.shape or not 0 < time - self._time <= _GAP_S:
            self._time, self._values, self._speed = time, values, np.zeros_like(values)
            return values
        elapsed = time - self._time
        speed = (values - self._values) / elapsed
        self._speed = self._speed + _share(self._speed_cutoff, elapsed) * (speed - self._speed)
        cutoff = self._least + self._growth * np.abs(self._speed) / max(size, 1e-9)
        self._values = self._values + _share(cutoff, elapsed) * (values - self._values)
        self._time = time
        return self._values

    def recent(self, time: float) -> bool:
        """Tell whether values that come now still go on with the last ones."""
        return self._time is not None and 0 <= time - self._time <= _GAP_S


def _share(cutoff_hz: float | Floats, elapsed_s: float) -> float | Floats:
    """Return how much of a new value a low-pass filter of first order takes."""
    turns = 2 * np.pi * cutoff_hz * elapsed_s
    return turns / (turns + 1)


class PointSmoother:
    """Smooths the points of one clip: those of the picture, or those of each tracked box."""

    def __init__(self) -> None:
        self._filters: dict[int | None, OneEuro] = {}

    def update(self, points: Points, time: float) -> Points:
        """Return a frame's points, smoothed; none stay none."""
        if not points.points:
            return points
        return replace(points, points=self._smoothed(points.points, None, time))

    def update_boxes(self, detection: Detection, time: float) -> Detection:
        """Return a frame's boxes, the points in those that have a track smoothed."""
        self._filters = {track: each for track, each in self._filters.items() if each.recent(time)}
        boxes = []
        for box in detection.boxes:
            track = getattr(box, "track", None)
            if track is not None and box.points:
                places = self._smoothed([point[:2] for point in box.points], track, time)
                rest = [point[2:] for point in box.points]
                box = replace(box, points=tuple((*at, *more) for at, more in zip(places, rest, strict=True)))
            boxes.append(box)
        return Detection(tuple(boxes))

    def _smoothed(
        self, points: Sequence[tuple[float, ...]], track: int | None, time: float
    ) -> tuple[tuple[float, ...], ...]:
        values = np.array(points, np.float64)
        extent = float(np.ptp(values[:, :2], axis=0).max())
        smoothed = self._filters.setdefault(track, OneEuro())(values, time, extent)
        return tuple(map(tuple, smoothed.tolist()))
