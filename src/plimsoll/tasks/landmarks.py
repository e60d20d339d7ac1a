"""Landmarks: named points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec.output import Landmarks
from plimsoll.tasks.base import Answer, Outputs, Task, decimal, output, position, require_finite, view_of

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry


@dataclass(frozen=True)
class Points(Answer):
    """The points of one picture."""

    points: tuple[tuple[float, ...], ...]
    """(x, y) or (x, y, z) in the picture's pixels; z on the scale of x, its zero the network's own. They may lie
    outside of the picture. None at all where the presence stays below the threshold."""
    presence: float | None
    """How sure the network is that the object is there, as it says so; None where the Spec names no such output."""

    def row(self, top: int | None = None) -> dict[str, Any]:
        del top
        return {"points": [[position(value) for value in point] for point in self.points], "presence": self.presence}

    def brief(self) -> str:
        sure = "" if self.presence is None else f", presence {self.presence:.4f}"
        return f"{len(self.points)} points{sure}"

    def readings(self) -> Sequence[str]:
        return ("with points" if self.points else "without points",)


class LandmarksTask(Task):
    """Decodes `[N, …]` with points x dimensions values a picture, point by point."""

    needs_views: ClassVar[bool] = True

    def __init__(self, spec: Landmarks) -> None:
        self.spec = spec

    def decode(
        self, outputs: Outputs, threshold: float | None = None, views: Sequence[ImageGeometry | None] | None = None
    ) -> list[Points]:
        raw = output(outputs, self.spec.tensor)
        wanted = (self.spec.points, self.spec.dimensions)
        if raw.ndim < 2 or raw[:1].size != self.spec.points * self.spec.dimensions:
            raise ModelError(
                f"the network's output is {list(raw.shape)}, the Spec has {wanted[0]} points of {wanted[1]} values",
                "Correct `output.points`, `output.dimensions` or `output.tensor` in the Spec.",
            )
        require_finite(raw, "points")
        points = raw.reshape(len(raw), *wanted).astype(np.float64)
        presences = self._presences(outputs, len(raw))
        answers = []
        for place, (own, presence) in enumerate(zip(points, presences, strict=True)):
            missing = threshold is not None and presence is not None and presence < threshold
            found = (
                () if missing else tuple(tuple(point) for point in self._placed(own, view_of(views, place)).tolist())
            )
            answers.append(Points(found, presence))
        return answers

    def _presences(self, outputs: Outputs, count: int) -> list[float] | list[None]:
        if self.spec.presence is None:
            return [None] * count
        found = outputs.get(self.spec.presence)
        if found is None or found.size != count:
            shape = "absent" if found is None else str(list(found.shape))
            raise ModelError(
                f"the output '{self.spec.presence}' is {shape}; expected is one value for each of {count} pictures",
                "Correct `output.presence` in the Spec.",
            )
        require_finite(found, "presences")
        return [decimal(value) for value in found.reshape(-1).astype(np.float32)]

    def _placed(self, points: NDArray[np.float64], view: ImageGeometry | None) -> NDArray[np.float64]:
        """Bring points into the picture's pixels. z is on the scale of x (as MediaPipe defines it), so it grows as x
        does."""
        if view is None:
            return points
        size = (view.input_width, view.input_height, view.input_width) if self.spec.normalized else (1.0, 1.0, 1.0)
        scaled = points * size[: self.spec.dimensions]
        return np.concatenate([view.points(scaled[:, :2]), scaled[:, 2:] * view.scale[0]], axis=1)

    def empty_row(self) -> dict[str, Any]:
        return {"points": None, "presence": None}


DECODER = LandmarksTask
