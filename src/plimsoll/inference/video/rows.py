"""Follow the rows of a clip's frames, as `Follower` does their answers: what a service's workers send is plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plimsoll.inference.gestures import GESTURES
from plimsoll.inference.video.answers import Follower
from plimsoll.spec import Spec
from plimsoll.spec.files import validate
from plimsoll.tasks import Task, decoder
from plimsoll.tasks.detect import Box, BoxMask, Detection
from plimsoll.tasks.landmarks import Points

_MOST_BOXES = 100
"""Of a frame, the surest; the others have no track. Matching takes time with the square of their number, and callers
choose what frames show."""


@dataclass(frozen=True)
class _WrittenMask(BoxMask):
    """A mask that is written already; nobody looks at its pixels."""

    written: Any = None

    def row(self) -> Any:
        return self.written


@dataclass(frozen=True)
class _Described:
    """What `Follower` asks of a predictor."""

    spec: Spec
    task: Task


class RowFollower:
    """Makes of the rows of single frames those of a clip: boxes have a `track`, points don't tremble."""

    def __init__(
        self, spec: Mapping[str, Any], threshold: float | None, *, track: bool = False, smooth: bool = False
    ) -> None:
        """`spec` is the model's, as plain data. Raises InputError where its task has no boxes, or no points."""
        described = validate(dict(spec))
        task = decoder(described)
        task.labels_stay = getattr(described.output, "labels", ()) != GESTURES
        self._follower = Follower(_Described(described, task), threshold, track=track, smooth=smooth)
        self._confidence = (task.threshold or 0.0) if threshold is None else threshold

    @property
    def threshold(self) -> float | None:
        """What the model is asked for: weak boxes continue tracks."""
        return self._follower.threshold

    def update(self, row: Mapping[str, Any], time: float) -> dict[str, Any]:
        """Return a frame's row as a part of its clip's; `time` is in seconds and grows."""
        if "boxes" in row:
            followed = self._follower.follow(Detection(tuple(map(_box, row["boxes"][:_MOST_BOXES]))), time).row()
            others = [box for box in row["boxes"][_MOST_BOXES:] if box["score"] >= self._confidence]
            return {**row, "boxes": [*followed["boxes"], *({**box, "track": None} for box in others)]}
        points = Points(_positions(row["points"]), row["presence"], tuple(row.get("visibility", ())))
        return {**row, **self._follower.follow(points, time).row()}


def _box(row: Mapping[str, Any]) -> Box:
    x0, y0, x1, y1 = row["box"]
    mask = _WrittenMask(0, 0, (), row["mask"]) if "mask" in row else None
    corners = tuple((x, y) for x, y in row.get("corners", ()))
    return Box(row["label"], row["score"], (x0, y0, x1, y1), _positions(row.get("points", ())), mask, corners)


def _positions(points: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(point) for point in points)
