"""Landmarks: named points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec.spec import Landmarks
from plimsoll.tasks.base import (
    Answer,
    Outputs,
    Task,
    activate,
    along,
    decimal,
    geometry_at,
    output,
    position,
    require_finite,
    require_scaled,
)

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
    visibility: tuple[float, ...] = ()
    """How sure the network is of each point; empty if it doesn't say."""

    def row(self, top: int | None = None) -> dict[str, Any]:
        del top
        row = {"points": [[position(value) for value in point] for point in self.points], "presence": self.presence}
        return {**row, "visibility": list(self.visibility)} if self.visibility else row

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
        names = self.spec.value_columns
        shape = (self.spec.points, len(names))
        if raw.ndim < 2 or raw[:1].size != shape[0] * shape[1]:
            raise ModelError(
                f"the network's output is {list(raw.shape)}, the Spec has {shape[0]} points of {shape[1]} values",
                "Correct `output.points`, `output.dimensions`, `output.columns` or `output.tensor` in the Spec.",
            )
        require_scaled(raw, "points")
        require_finite(raw, "points")
        values = raw.reshape(len(raw), *shape)
        points = values[..., [names.index(name) for name in names_of(names)]].astype(np.float64)
        seen = self._visibility(values, names)
        presences = self._presences(outputs, len(raw))
        answers = []
        for index, (coordinates, presence) in enumerate(zip(points, presences, strict=True)):
            if threshold is not None and presence is not None and presence < threshold:
                answers.append(Points((), presence))
            else:
                in_picture = self._to_picture(coordinates, geometry_at(geometries, index))
                visibility = tuple(map(decimal, seen[index])) if seen is not None else ()
                answers.append(Points(tuple(tuple(point) for point in in_picture.tolist()), presence, visibility))
        return answers

    def _visibility(self, values: NDArray[Any], names: Sequence[str]) -> NDArray[np.float32] | None:
        if "visibility" not in names:
            return None
        return activate(values[..., names.index("visibility")].astype(np.float32), self.spec.activation)

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
        return [decimal(value) for value in activate(values.reshape(-1).astype(np.float32), self.spec.activation)]

    def _to_picture(self, points: NDArray[np.float64], geometry: ImageGeometry | None) -> NDArray[np.float64]:
        """Map points to the picture's pixels. z has the scale of x, as MediaPipe defines it."""
        if geometry is None:
            return points
        size = (
            (geometry.input_width, geometry.input_height, geometry.input_width)
            if self.spec.normalized
            else (1.0, 1.0, 1.0)
        )
        scaled = points * size[: points.shape[-1]]
        return np.concatenate([geometry.points(scaled[:, :2]), scaled[:, 2:] * geometry.scale[0]], axis=1)

    def columns(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {}
        points, axes = output(outputs, self.spec.tensor), _distinct(self.spec.value_columns)
        for name, values in outputs.items():
            if values is points and values[:1].size == self.spec.points * len(axes):
                columns |= along(values.reshape(len(values), self.spec.points, len(axes)), 2, name, axes)
            else:
                columns[f"{name}, presence" if name == self.spec.presence else name] = values
        return columns

    def empty_row(self) -> dict[str, Any]:
        return {"points": None, "presence": None}


def names_of(columns: Sequence[str]) -> tuple[str, ...]:
    """Return which of a point's values are its position, in the order of x, y, z."""
    return tuple(name for name in ("x", "y", "z") if name in columns)


def _distinct(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"column {index}" if name == "-" else name for index, name in enumerate(columns))


DECODER = LandmarksTask
