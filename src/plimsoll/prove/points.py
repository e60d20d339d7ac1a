"""Landmarks, compared: how far points lie from the reference's, against the size of what they are on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from plimsoll.core.budget import BoundedFigure, Evidence
from plimsoll.metrics.distances import extent, point_errors
from plimsoll.metrics.labelled import MetricChange
from plimsoll.prove.comparison import (
    Change,
    Comparer,
    Comparison,
    against_labels,
    change_details,
    changed_figure,
    complement,
    label_notes,
    mean_figure,
    settings_that_differ,
)
from plimsoll.prove.labels import Truth
from plimsoll.prove.marked import point_changes
from plimsoll.spec.spec import Landmarks
from plimsoll.tasks import Answer
from plimsoll.tasks.landmarks import Points

PRESENT = 0.5
"""Points are compared where the reference's presence is no less: where nothing is there, they mean nothing."""
FAILED_FROM = 0.07
"""Points whose mean error is larger are not where they should be, and errors beyond it count as much as it: the
threshold of Bulat and Tzimiropoulos, arXiv 1703.07332, whose normalization is nearly this one."""
_ONE_POINT = 100.0
_EXPLAINED = 0.25
"""A movement explains the points if no more than this share of the error is left."""
_NAMES = frozenset({"tensor", "presence", "batch_axis"})

Coordinates = NDArray[np.float64]


@dataclass(frozen=True)
class PicturePoints:
    """What is kept of a picture; errors are shares of the extent of the reference's points."""

    error: float
    """The mean distance in x and y."""
    worst: float
    depth_error: float
    """The mean difference in z; 0 for points of two dimensions."""
    moved: dict[str, float]
    """The mean distance after each movement of the other's points."""
    shift: tuple[float, float]
    """In the picture's pixels."""
    order: tuple[int, ...]
    """For each of the reference's points, the other's nearest."""
    presence: tuple[float, float] | None
    points: tuple[Coordinates, Coordinates] | None = None
    """Both models', in x and y, where pictures are labelled."""

    @property
    def compared(self) -> bool:
        return self.presence is None or self.presence[0] >= PRESENT


class PointComparer(Comparer):
    """Compares points one by one."""

    answer_type: ClassVar[type[Answer]] = Points

    def __init__(self, output: Landmarks, other: Landmarks, *, labelled: bool = False) -> None:
        self._labelled = labelled
        self._settings = tuple(settings_that_differ(output, other, _NAMES))

    def measure(self, reference: Points, other: Points, scale: tuple[float, float] = (1.0, 1.0)) -> PicturePoints:
        first, second = (np.array(answer.points, np.float64) for answer in (reference, other))
        presence = None
        if reference.presence is not None:
            presence = (reference.presence, math.nan if other.presence is None else other.presence)
        # A single point has no extent: pixels of the network's input stand in for shares of it.
        size = extent(first) or _ONE_POINT * scale[0]
        errors = point_errors(first[:, :2], second[:, :2]) / size
        distances = np.linalg.norm(first[:, np.newaxis, :2] - second[np.newaxis, :, :2], axis=2)
        depth = float(np.abs(first[:, 2] - second[:, 2]).mean()) / size if first.shape[1] > 2 else 0.0
        shift = np.median(second[:, :2] - first[:, :2], axis=0)
        return PicturePoints(
            float(errors.mean()),
            float(errors.max()),
            depth,
            {
                name: float(point_errors(first[:, :2], moved).mean()) / size
                for name, moved in _movements(first[:, :2], second, scale)
            },
            (float(shift[0]), float(shift[1])),
            tuple(int(index) for index in distances.argmin(axis=1)),
            presence,
            (first[:, :2], second[:, :2]) if self._labelled else None,
        )

    def change(self, measured: PicturePoints) -> Change:
        presence = ""
        if measured.presence is not None:
            presence = f"; presence {measured.presence[0]:.3f} → {measured.presence[1]:.3f}"
        if not measured.compared:
            return Change(0.0, f"nothing is there{presence}")
        return Change(
            measured.error,
            f"points moved by {100 * measured.error:.2g} % of their extent, at most"
            f" {100 * measured.worst:.2g} %{presence}",
        )

    def comparison(
        self, measured: Sequence[PicturePoints], failed: int, truths: Sequence[Truth | None] | None = None
    ) -> PointComparison:
        changes, labelled = point_changes(truths or (), [each.points for each in measured])
        return PointComparison(len(measured) + failed, failed, tuple(measured), self._settings, changes, labelled)


def _movements(own: Coordinates, second: Coordinates, pixel: tuple[float, float]) -> list[tuple[str, Coordinates]]:
    other = second[:, :2]
    centre, other_centre = own.mean(axis=0), other.mean(axis=0)
    spread = np.linalg.norm(own - centre), np.linalg.norm(other - other_centre)
    scale = float(spread[0] / spread[1]) if spread[1] else 1.0
    flat = (second[:, :2] / pixel).ravel().reshape(2, -1).T * pixel
    return [
        ("x and y are exchanged", (other / pixel)[:, ::-1] * pixel),
        ("points are in reverse order", other[::-1]),
        ("points are mirrored left to right", np.array([-1.0, 1.0]) * (other - other_centre) + other_centre),
        ("points are mirrored top to bottom", np.array([1.0, -1.0]) * (other - other_centre) + other_centre),
        ("points are shifted", other - np.median(other - own, axis=0)),
        ("points are scaled", (other - other_centre) * scale + centre),
        ("values come dimension by dimension, not point by point", flat),
    ]


@dataclass(frozen=True)
class PointComparison(Comparison):
    """How the other model's points differ from the reference's."""

    pictures: int
    failed: int
    measured: tuple[PicturePoints, ...]
    settings: tuple[str, ...] = ()
    """How the Specs read the outputs otherwise."""
    changes: tuple[MetricChange, ...] = ()
    labelled: int = 0

    @property
    def _compared(self) -> list[PicturePoints]:
        return [each for each in self.measured if each.compared]

    @property
    def nothing_compared(self) -> str:
        if self._compared or not self.measured:
            return ""
        return (
            f"the reference's presence is below {PRESENT:g} in all {len(self.measured):,} pictures: give pictures that"
            " hold what it finds points on"
        )

    @property
    def headline(self) -> str:
        if self.nothing_compared:
            return f"nothing was compared: {self.nothing_compared}"
        error = self.evidence()["nme"][0]
        return (
            f"points lie {100 * error.value:.2g} % of their extent from the reference's on average, with 95 %"
            f" confidence at most {100 * error.bound:.2g} %, in {len(self._compared):,} pictures"
        )

    def evidence(self) -> Evidence:
        compared = self._compared
        ones = [1.0] * len(compared)
        worst = max((each.worst for each in compared), default=math.nan)
        figures = [
            mean_figure(
                "normalized mean error of points",
                [each.error for each in compared],
                ones,
                f"of the extent of the reference's points; {100 * worst:.2g} % at most",
            )
        ]
        if any(each.depth_error for each in compared):
            depth = [each.depth_error for each in compared]
            figures.append(mean_figure("normalized mean error of z", depth, ones, f"{len(compared):,} pictures"))
        failed = sum(each.error > FAILED_FROM for each in compared)
        failures = changed_figure("pictures whose points are off by more than 7 %", failed, len(compared))
        shares = [min(1.0, each.error / FAILED_FROM) for each in compared]
        over = mean_figure("", shares, ones, f"up to 7 %, {len(compared):,} pictures")
        evidence: dict[str, Sequence[BoundedFigure]] = {
            "nme": figures,
            "failure_rate": [failures],
            "agreement": [complement("pictures whose points agree within 7 %", failures)],
            "point_auc": [complement("area under the curve of point errors", over)],
        }
        presences = [each.presence for each in self.measured if each.presence is not None]
        if presences:
            differences = [abs(other - first) if math.isfinite(other) else math.inf for first, other in presences]
            evidence["presence_deviation"] = [
                mean_figure(
                    "mean deviation of the presence",
                    differences,
                    [1.0] * len(presences),
                    f"largest {max(differences):.2g}",
                )
            ]
        return {**evidence, **against_labels(self)}

    @property
    def notes(self) -> list[str]:
        return label_notes(self)

    @property
    def cause(self) -> str:
        causes = list(self.settings)
        compared = self._compared
        error = float(np.mean([each.error for each in compared])) if compared else 0.0
        if error > 1e-4:
            left = {name: float(np.mean([each.moved[name] for each in compared])) for name in compared[0].moved}
            name = min(left, key=lambda key: left[key])
            if permuted := _permuted(compared, error):
                causes.append(permuted)
            elif left[name] <= _EXPLAINED * error:
                shift = np.median([each.shift for each in compared], axis=0)
                by = f" by {shift[0]:.3g}, {shift[1]:.3g} pixels" if name == "points are shifted" else ""
                causes.append(f"{name}{by}")
        return "; ".join(causes[:3])

    def details(self) -> dict[str, JsonValue]:
        return {
            "task": "landmarks",
            "count": self.pictures,
            "failed": self.failed,
            "compared": len(self._compared),
            "largest_error": max((each.worst for each in self._compared), default=0.0),
            **change_details(self),
        }


def _permuted(compared: Sequence[PicturePoints], error: float) -> str:
    """Say that points stand in another order, where the same order would set most pictures right."""
    orders = [each.order for each in compared]
    order = max(set(orders), key=orders.count)
    same = tuple(range(len(order)))
    if order == same or sorted(order) != list(same) or orders.count(order) < 0.6 * len(orders) or error < 0.02:
        return ""
    moved = [(index, other) for index, other in enumerate(order) if index != other]
    pairs = ", ".join(f"point {other} for {index}" for index, other in moved[:4])
    return f"points stand in another order: {pairs}"
