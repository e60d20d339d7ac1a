"""Segmentation masks, compared: how far labels and boundaries agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from plimsoll.core.budget import BoundedFigure, Evidence
from plimsoll.metrics.decisions import CONFIDENCE, Floats, bounds
from plimsoll.metrics.labelled import MetricChange
from plimsoll.metrics.masks import compare_masks, overlap
from plimsoll.prove.comparison import (
    Change,
    Comparer,
    Comparison,
    against_labels,
    change_details,
    complement,
    label_notes,
    mean_figure,
    settings_that_differ,
)
from plimsoll.prove.labels import Truth
from plimsoll.prove.marked import mask_changes
from plimsoll.spec.spec import Segment
from plimsoll.tasks import Answer
from plimsoll.tasks.segment import LabelMap, Segmentation

_LONGEST = 512
"""Masks are compared on a grid of at most so many rows and columns: every n-th pixel of the picture."""
_SMALL = 64
"""… and their movements on one of so many."""
_RARE = 0.001
"""Labels with a smaller share of the reference's pixels are left out of the means: a few pixels would decide."""
_MOVED_FROM = 0.05
_NAMES = frozenset({"tensor", "layout", "batch_axis"})

Map = NDArray[np.uint16]


@dataclass(frozen=True)
class PictureMasks:
    """What is kept of a picture."""

    pixels: int
    changed: int
    cells: NDArray[np.int32]
    """Which cells of the confusion `[labels + 1, labels + 1]`, laid flat, are not 0: few, where there are many
    labels."""
    counts: NDArray[np.int64]
    """Their pixels."""
    overlap: NDArray[np.int64]
    """`[labels, 4]`: the intersection and the union of each label's pixels, then of its boundaries."""
    moved: dict[str, float] = field(default_factory=dict)
    """How far the other's mask agrees with the reference's after a movement; only where much changed."""
    masks: tuple[LabelMap, LabelMap] | None = None
    """Both, where pictures are labelled."""


class MaskComparer(Comparer):
    """Compares the labels of all pixels."""

    answer_type: ClassVar[type[Answer]] = Segmentation

    def __init__(self, output: Segment, other: Segment, *, labelled: bool = False) -> None:
        self._labels, self._labelled = output.labels, labelled
        # What the other's labels are called by the reference: their order may be another.
        self._renumbered = np.arange(2**16, dtype=np.uint16)
        self._renumbered[: len(other.labels)] = [output.labels.index(label) for label in other.labels]
        self._settings = tuple(settings_that_differ(output, other, _NAMES))

    def dump(self, answer: Segmentation) -> JsonValue:
        """Return the runs of the mask on the grid on which masks are compared."""
        grid = LabelMap.of(thinned(answer.pixels()))
        return {
            "size": [grid.height, grid.width],
            "values": grid.values.tolist(),
            "lengths": grid.lengths.tolist(),
        }

    def load(self, data: JsonValue) -> Segmentation:
        runs: Any = data
        height, width = runs["size"]
        values, lengths = np.array(runs["values"], np.uint16), np.array(runs["lengths"], np.int64)
        return Segmentation(self._labels, LabelMap(height, width, values, lengths))

    def measure(
        self, reference: Segmentation, other: Segmentation, scale: tuple[float, float] = (1.0, 1.0)
    ) -> PictureMasks:
        del scale
        first, second = (thinned(answer.pixels()) for answer in (reference, other))
        second = self._renumbered[second]
        changes = compare_masks(first, second, len(self._labels))
        much = changes.changed > _MOVED_FROM * changes.pixels
        cells = np.flatnonzero(changes.confusion)
        return PictureMasks(
            changes.pixels,
            changes.changed,
            cells.astype(np.int32),
            changes.confusion.ravel()[cells],
            np.column_stack([*overlap(changes.confusion), changes.boundary]),
            _movements(thinned(first, _SMALL), thinned(second, _SMALL)) if much else {},
            (LabelMap.of(first), LabelMap.of(second)) if self._labelled else None,
        )

    def change(self, measured: PictureMasks) -> Change:
        share = measured.changed / measured.pixels
        return Change(share, f"{100 * share:.2g} % of the pixels change their label")

    def comparison(
        self, measured: Sequence[PictureMasks], failed: int, truths: Sequence[Truth | None] | None = None
    ) -> MaskComparison:
        changes, labelled = mask_changes(truths or (), [each.masks for each in measured], len(self._labels), thinned)
        return MaskComparison(
            len(measured) + failed, failed, self._labels, tuple(measured), self._settings, changes, labelled
        )


def thinned(pixels: Map, longest: int = _LONGEST) -> Map:
    """Return every n-th row and column of a mask, at most `longest` of each."""
    step = max(1, math.ceil(max(pixels.shape) / longest))
    return pixels[step // 2 :: step, step // 2 :: step]


def turned(pixels: Map) -> dict[str, Map]:
    """Return a mask `[height, width]` mirrored and turned, by what that is called, each of the same size."""
    height, width = pixels.shape
    rows, columns = (np.arange(height) * width // height, np.arange(width) * height // width)
    return {
        "upside down": pixels[::-1],
        "mirrored": pixels[:, ::-1],
        "turned by 180°": pixels[::-1, ::-1],
        "transposed (x and y exchanged)": pixels.T[rows][:, columns],
    }


def _movements(first: Map, second: Map) -> dict[str, float]:
    """Return how large a share of pixels agrees as the masks are, and after each movement of the other's."""
    readings = {"": second, **turned(second)}
    for axis, names in enumerate((("down", "up"), ("to the right", "to the left"))):
        for share in (1 / 32, 1 / 16, 1 / 8, 1 / 4):
            by = max(1, round(share * first.shape[axis]))
            for sign, name in ((1, names[0]), (-1, names[1])):
                readings[f"shifted {name} by about {share:.0%} of the picture"] = np.roll(second, -sign * by, axis)
    return {name: float((pixels == first).mean()) for name, pixels in readings.items()}


@dataclass(frozen=True)
class MaskComparison(Comparison):
    """How the other model's masks differ from the reference's."""

    pictures: int
    failed: int
    labels: tuple[str, ...]
    measured: tuple[PictureMasks, ...]
    settings: tuple[str, ...] = ()
    """How the Specs read the outputs otherwise."""
    changes: tuple[MetricChange, ...] = ()
    labelled: int = 0

    @cached_property
    def _confusion(self) -> NDArray[np.int64]:
        """Of all pictures, `[labels + 1, labels + 1]`."""
        size = len(self.labels) + 1
        total = np.zeros(size * size, np.int64)
        for each in self.measured:
            total[each.cells] += each.counts
        return total.reshape(size, size)

    @cached_property
    def _overlap(self) -> NDArray[np.int64]:
        """`[pictures, labels, 4]`"""
        return np.array([each.overlap for each in self.measured], np.int64).reshape(-1, len(self.labels), 4)

    def _counted(self) -> NDArray[np.bool_]:
        """Return which labels count: those that the reference shows on more than a few pixels."""
        pixels = self._confusion.sum(axis=1)
        return np.asarray((pixels >= max(1.0, _RARE * float(pixels.sum())))[:-1])

    @property
    def nothing_compared(self) -> str:
        shown = self._confusion.sum(axis=1)
        if not self.measured or np.count_nonzero(shown) > 1:
            return ""
        index = int(shown.argmax())
        what = f"the label '{self.labels[index]}'" if index < len(self.labels) else "no label"
        return (
            f"the reference gives all pixels of {len(self.measured):,} pictures {what}: give pictures that hold what it"
            " segments"
        )

    @property
    def headline(self) -> str:
        if self.nothing_compared:
            return f"nothing was compared: {self.nothing_compared}"
        miou, changes = self._overlaps()[0], self._pixel_changes()
        return (
            f"mean IoU {100 * miou.value:.3g} % with the reference's masks, with 95 % confidence at least"
            f" {100 * miou.bound:.3g} %; {100 * changes.value:.2g} % of the pixels change their label"
        )

    def evidence(self) -> Evidence:
        miou, boundary = self._overlaps()
        changes = self._pixel_changes()
        agreement = complement("pixels that agree", changes)
        figures = {"agreement": [agreement], "miou": [miou], "boundary_iou": [boundary], "pixel_changes": [changes]}
        return {**figures, **against_labels(self)}

    def _overlaps(self) -> tuple[BoundedFigure, BoundedFigure]:
        counted = self._counted()
        shared, union, boundary, boundary_union = np.moveaxis(self._overlap, 2, 0)
        names = ", ".join(np.array(self.labels)[counted][:6])
        return (
            _mean_iou(
                "mean IoU of masks", shared[:, counted], union[:, counted], f"over {counted.sum()} labels: {names}"
            ),
            _mean_iou(
                "mean IoU of boundaries",
                boundary[:, counted],
                boundary_union[:, counted],
                "within 2 % of the picture's diagonal",
            ),
        )

    def _pixel_changes(self) -> BoundedFigure:
        shares = [each.changed / each.pixels for each in self.measured]
        worst = max(shares, default=math.nan)
        return mean_figure(
            "pixels that change their label", shares, [1.0] * len(shares), f"at most {100 * worst:.2g} % of a picture"
        )

    @property
    def cause(self) -> str:
        causes = list(self.settings)
        if moved := _moved([each.moved for each in self.measured if each.moved]):
            causes.append(moved)
        else:
            causes += self._labels()
        return "; ".join(causes[:3])

    def _labels(self) -> list[str]:
        confusion = self._confusion
        names = [*(f"label '{label}'" for label in self.labels), "no label"]
        swapped = []
        for index in np.flatnonzero(self._counted()):
            row = confusion[index]
            other = int(row.argmax())
            if other != index and row[other] > row.sum() / 2:
                share = 100 * row[other] / row.sum()
                swapped.append(f"{names[other]} where the reference has {names[index]} ({share:.0f} % of the pixels)")
        return swapped[:3]

    @property
    def notes(self) -> list[str]:
        rare = [
            label
            for label, counted, pixels in zip(
                self.labels, self._counted(), self._confusion.sum(axis=1)[:-1], strict=True
            )
            if pixels and not counted
        ]
        return [*label_notes(self), *([f"Too rare to count: {', '.join(rare[:12])}"] if rare else [])]

    def details(self) -> dict[str, JsonValue]:
        shared, union = overlap(self._confusion)
        return {
            "task": "segment",
            "count": self.pictures,
            "failed": self.failed,
            "iou": {
                label: float(part / whole)
                for label, part, whole in zip(self.labels, shared, union, strict=True)
                if whole
            },
            **change_details(self),
        }


def _moved(readings: Sequence[dict[str, float]]) -> str:
    """Say how all masks were moved, where one movement explains them."""
    if not readings:
        return ""
    means = {name: float(np.mean([reading.get(name, 0.0) for reading in readings])) for name in readings[0]}
    name = max(means, key=lambda key: means[key])
    # Half of what is wrong has to be explained.
    return f"masks are {name}" if name and 1 - means[name] < (1 - means[""]) / 2 else ""


def _mean_iou(name: str, shared: NDArray[np.int64], union: NDArray[np.int64], detail: str) -> BoundedFigure:
    """Return the mean over labels `[pictures, labels]` of intersection / union over all pictures, with its lower bound
    by the bootstrap over pictures."""
    if not union.sum():
        return BoundedFigure(name, math.nan, math.nan, "nothing was compared")

    def mean(weights: Floats) -> float:
        parts, wholes = weights @ shared, weights @ union
        return float((parts[wholes > 0] / wholes[wholes > 0]).mean()) if wholes.any() else math.nan

    lower, *_ = bounds(mean, len(shared), CONFIDENCE)
    return BoundedFigure(name, mean(np.ones(len(shared))), lower, detail)
