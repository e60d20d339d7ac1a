"""Landmarks: named points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec.spec import Landmarks
from plimsoll.tasks.base import Answer, Outputs, Task, along, decimal, geometry_at, output, position, require_finite

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry


@dataclass(frozen=True)
class Points(Answer):
    """The points of one picture."""

    points: tuple[tuple[float, ...], ...]
    """(x, y) or (x, y, z) in the picture's pixels; z has the scale of x and the network's own zero. They may lie
    outside the picture. Empty if the presence stays below the threshold."""
    presence: float | None
    """The network's confidence that the object is there; None if the Spec names no such output."""

    def row(self, top: int | None = None) -> dict[str, Any]:
        del top
        return {"points": [[position(value) for value in point] for point in self.points], "presence": self.presence}

    def brief(self) -> str:
        presence = "" if self.presence is None else f", presence {self.presence:.4f}"
        return f"{len(self.points)} points{presence}"

    def readings(self) -> Sequence[str]:
        return ("with points" if self.points else "without points",)


class LandmarksTask(Task):
    """Decodes `[N, …]` with points x dimensions values a picture, point by point."""

    needs_geometry: ClassVar[bool] = True

    def __init__(self, spec: Landmarks) -> None:
        self.spec = spec

    def decode(
        self,
        outputs: Outputs,
        threshold: float | None = None,
        geometries: Sequence[ImageGeometry | None] | None = None,
    ) -> list[Points]:
        raw = output(outputs, self.spec.tensor)
        shape = (self.spec.points, self.spec.dimensions)
        if raw.ndim < 2 or raw[:1].size != self.spec.points * self.spec.dimensions:
            raise ModelError(
                f"the network's output is {list(raw.shape)}, the Spec has {shape[0]} points of {shape[1]} values",
                "Correct `output.points`, `output.dimensions` or `output.tensor` in the Spec.",
            )
        require_finite(raw, "points")
        points = raw.reshape(len(raw), *shape).astype(np.float64)
        presences = self._presences(outputs, len(raw))
        answers = []
        for index, (coordinates, presence) in enumerate(zip(points, presences, strict=True)):
            if threshold is not None and presence is not None and presence < threshold:
                answers.append(Points((), presence))
            else:
                in_picture = self._to_picture(coordinates, geometry_at(geometries, index))
                answers.append(Points(tuple(tuple(point) for point in in_picture.tolist()), presence))
        return answers

    def _presences(self, outputs: Outputs, count: int) -> list[float] | list[None]:
        if self.spec.presence is None:
            return [None] * count
        values = outputs.get(self.spec.presence)
        if values is None or values.size != count:
            shape = "absent" if values is None else str(list(values.shape))
            raise ModelError(
                f"the output '{self.spec.presence}' is {shape}; expected one value for each of {count} pictures",
                "Correct `output.presence` in the Spec.",
            )
        require_finite(values, "presences")
        return [decimal(value) for value in values.reshape(-1).astype(np.float32)]

    def _to_picture(self, points: NDArray[np.float64], geometry: ImageGeometry | None) -> NDArray[np.float64]:
        """Map points to the picture's pixels. z has the scale of x, as MediaPipe defines it."""
        if geometry is None:
            return points
        size = (
            (geometry.input_width, geometry.input_height, geometry.input_width)
            if self.spec.normalized
            else (1.0, 1.0, 1.0)
        )
        scaled = points * size[: self.spec.dimensions]
        return np.concatenate([geometry.points(scaled[:, :2]), scaled[:, 2:] * geometry.scale[0]], axis=1)

    def columns(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {}
        points, axes = output(outputs, self.spec.tensor), ("x", "y", "z")[: self.spec.dimensions]
        for name, values in outputs.items():
            if values is points and values[:1].size == self.spec.points * self.spec.dimensions:
                columns |= along(values.reshape(len(values), self.spec.points, len(axes)), 2, name, axes)
            else:
                columns[f"{name}, presence" if name == self.spec.presence else name] = values
        return columns

    def empty_row(self) -> dict[str, Any]:
        return {"points": None, "presence": None}


DECODER = LandmarksTask
