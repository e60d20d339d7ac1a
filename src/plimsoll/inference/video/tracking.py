"""`Tracker`: the same object has the same number in every frame of a clip.

Boxes are associated with tracks by their overlap with where constant velocity takes each track, in two stages, after
ByteTrack (Zhang et al., 2022): first those that the detector is sure of; then, with the tracks that are left, those
that it is less sure of, since what is half hidden scores low. Thresholds are the detector's own: sure is what reaches
its confidence, and a detector that answers for a tracker is asked for boxes from `LOW` of that on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.inference.video.assignment import overlaps, pairs
from plimsoll.tasks.detect import Box, Detection

Corners = tuple[float, float, float, float]

LOW = 0.4
"""The share of the detector's confidence from which on a box may continue a track."""
_FIRST_STAGE, _SECOND_STAGE = 0.2, 0.4
"""Least overlap of a box with a track's expected place."""
_LOST_S = 1.5
"""A track that has no box for so long ends."""
_MOST_TRACKS = 1000
"""Objects beyond are not followed: what a frame costs is limited, whatever it shows."""
_CONFIRMED = 2
"""A track has a number from its second box on: a box that comes up once is no object."""
_POSITION_GAIN, _SPEED_GAIN = 0.75, 0.25
"""An alpha-beta filter: what of a box's deviation from where it was expected is taken as its place, and as a change of
its speed. Its steady state is that of a Kalman filter of constant velocity."""
_SIZE_GAIN = 0.4


@dataclass(frozen=True)
class TrackedBox(Box):
    """A box with the number of its object; None for what was seen once so far."""

    track: int | None = None

    def row(self) -> dict[str, Any]:
        """Return it as plain data, with `track`."""
        return {**super().row(), "track": self.track}


class _Track:
    """An object: its place, size and speed, at the time of its last box. In plain floats: arrays of two numbers take
    ten times as long."""

    __slots__ = ("height", "hits", "label", "number", "speed_x", "speed_y", "time", "width", "x", "y")

    def __init__(self, box: Corners, label: str, time: float) -> None:
        self.x, self.y, self.width, self.height = _centred(box)
        self.speed_x = self.speed_y = 0.0
        self.label, self.time, self.hits = label, time, 1
        self.number: int | None = None

    def expected(self, time: float) -> Corners:
        """Return the box where constant velocity takes it."""
        elapsed = time - self.time
        x, y = self.x + self.speed_x * elapsed, self.y + self.speed_y * elapsed
        return x - self.width / 2, y - self.height / 2, x + self.width / 2, y + self.height / 2

    def take(self, box: Corners, time: float) -> None:
        """Continue it with a box."""
        x, y, width, height = _centred(box)
        elapsed = max(time - self.time, 1e-6)
        if self.hits == 1:
            self.speed_x, self.speed_y = (x - self.x) / elapsed, (y - self.y) / elapsed
            self.x, self.y = x, y
        else:
            off_x, off_y = x - self.x - self.speed_x * elapsed, y - self.y - self.speed_y * elapsed
            self.x, self.y = x - (1 - _POSITION_GAIN) * off_x, y - (1 - _POSITION_GAIN) * off_y
            self.speed_x += _SPEED_GAIN * off_x / elapsed
            self.speed_y += _SPEED_GAIN * off_y / elapsed
        self.width += _SIZE_GAIN * (width - self.width)
        self.height += _SIZE_GAIN * (height - self.height)
        self.time, self.hits = time, self.hits + 1


class Tracker:
    """Numbers the objects of one clip, from 1. `confidence` is the detector's threshold; with `by_label` boxes of
    different labels share no track."""

    def __init__(self, confidence: float, *, by_label: bool = True) -> None:
        self._confidence, self._by_label = confidence, by_label
        self._tracks: list[_Track] = []
        self._next = 1
        self._began = False

    def update(self, detection: Detection, time: float) -> Detection:
        """Return a frame's boxes with their tracks, best first: those that the detector is sure of, and those below
        that continue a track. `time` is in seconds and grows."""
        self._tracks = [track for track in self._tracks if time - track.time <= _LOST_S]
        boxes = list(detection.boxes)
        corners = np.array([box.box for box in boxes], np.float64).reshape(-1, 4)
        sure = [index for index, box in enumerate(boxes) if box.score >= self._confidence]
        unsure = [index for index, box in enumerate(boxes) if box.score < self._confidence]
        owners: dict[int, _Track] = {}
        # Tracks that have a number go first: a new one beside them must not take their box.
        confirmed = [track for track in self._tracks if track.number is not None]
        fresh = [track for track in self._tracks if track.number is None]
        left, sure = self._match(confirmed, sure, boxes, corners, time, _FIRST_STAGE, owners)
        self._match(left, unsure, boxes, corners, time, _SECOND_STAGE, owners)
        _, sure = self._match(fresh, sure, boxes, corners, time, _FIRST_STAGE, owners)
        for index in sure[: max(_MOST_TRACKS - len(self._tracks), 0)]:
            owners[index] = track = _Track(boxes[index].box, boxes[index].label, time)
            if not self._began:
                self._confirm(track)
            self._tracks.append(track)
        self._began = True
        return Detection(
            tuple(
                _tracked(box, owners[index].number)
                for index, box in enumerate(boxes)
                if index in owners and (box.score >= self._confidence or owners[index].number is not None)
            )
        )

    def _match(  # noqa: PLR0913 - the same for each stage
        self,
        tracks: Sequence[_Track],
        indices: Sequence[int],
        boxes: Sequence[Box],
        corners: NDArray[np.float64],
        time: float,
        least: float,
        owners: dict[int, _Track],
    ) -> tuple[list[_Track], list[int]]:
        """Continue tracks with boxes; return the tracks and boxes that are left."""
        if not tracks or not indices:
            return list(tracks), list(indices)
        expected = np.array([track.expected(time) for track in tracks])
        gains = overlaps(expected, corners[list(indices)])
        labels = {track.label for track in tracks} | {boxes[index].label for index in indices}
        if self._by_label and len(labels) > 1:
            rows, columns = [track.label for track in tracks], [boxes[index].label for index in indices]
            gains = np.where(np.array(rows)[:, None] == np.array(columns)[None], gains, 0.0)
        matched, left, fresh = pairs(gains, least)
        for row, column in matched:
            track, index = tracks[row], indices[column]
            track.take(boxes[index].box, time)
            owners[index] = track
            if track.number is None and track.hits >= _CONFIRMED:
                self._confirm(track)
        return [tracks[row] for row in left], [indices[column] for column in fresh]

    def _confirm(self, track: _Track) -> None:
        track.number, self._next = self._next, self._next + 1


def _centred(box: Corners) -> Corners:
    """Return centre x, centre y, width and height."""
    x0, y0, x1, y1 = box
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _tracked(box: Box, number: int | None) -> TrackedBox:
    return TrackedBox(**{field.name: getattr(box, field.name) for field in fields(Box)}, track=number)
