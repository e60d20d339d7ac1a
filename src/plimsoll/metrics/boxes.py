"""Two detectors' boxes for one picture, matched: what both find, what one alone finds, and how far apart they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_IOU = 0.5
"""From this overlap on, two boxes of one label are one object: PASCAL VOC's criterion (Everingham et al. 2010)."""


_NEAR = 0.1


def lowered(threshold: float) -> float:
    """Return the score from which boxes are matched that lie below a threshold: 0.1 below it, or half of it."""
    return max(threshold / 2, threshold - _NEAR)


class LabelledBox(Protocol):
    """A box with its label and score."""

    @property
    def label(self) -> str:
        """What it is."""

    @property
    def score(self) -> float:
        """From 0 to 1."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1."""


@dataclass(frozen=True)
class BoxChanges:
    """What became of one picture's boxes. Boxes that reach their model's threshold are counted; those just below it are
    matched too, so that a score that crosses the threshold is told from a box that isn't found."""

    reference: int
    """The reference's boxes."""
    other: int
    matched: int
    """Found by both."""
    fallen: int = 0
    """The reference's boxes that the other finds with a score just below its threshold."""
    risen: int = 0
    """The other's boxes that the reference finds with a score just below its threshold."""
    score_difference: float = 0.0
    """The sum of |score - reference's score| over all pairs: matched, fallen and risen."""
    largest_score_difference: float = 0.0
    error: float = 0.0
    """The sum of 1 - IoU over all pairs."""
    largest_error: float = 0.0
    bias: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Sums over all pairs, with their signs: how far the centre moves along x and y, as a share of the reference's
    width and height, and the logarithms of the ratios of widths and heights. Noise cancels out, a shift adds up."""

    @property
    def pairs(self) -> int:
        """The boxes that both find, whatever their score."""
        return self.matched + self.fallen + self.risen

    @property
    def lost(self) -> int:
        """The reference's boxes that the other doesn't find at all."""
        return self.reference - self.matched - self.fallen

    @property
    def added(self) -> int:
        """The other's boxes that the reference doesn't find at all."""
        return self.other - self.matched - self.risen

    @property
    def changed(self) -> bool:
        """Whether a box was lost or added."""
        return self.matched < max(self.reference, self.other)


def compare_boxes(
    reference: Sequence[LabelledBox], other: Sequence[LabelledBox], thresholds: tuple[float, float]
) -> BoxChanges:
    """Match the boxes of one picture and count what changed; `thresholds` are the reference's and the other's.

    As COCO's evaluation matches (pycocotools, `evaluateImg`): the other's boxes in order of their scores, each with the
    free box of the reference that it overlaps most, of the same label and by at least LEAST_IOU; boxes below the
    threshold are taken only where no other is free.
    """
    first, second = (
        [box.score >= least for box in boxes] for boxes, least in zip((reference, other), thresholds, strict=True)
    )
    pairs = match(reference, other, first)
    counted = [(i, j, iou) for i, j, iou in pairs if first[i] or second[j]]
    scores = [abs(other[j].score - reference[i].score) for i, j, _ in counted]
    errors = [1.0 - iou for *_, iou in counted]
    return BoxChanges(
        reference=sum(first),
        other=sum(second),
        matched=sum(first[i] and second[j] for i, j, _ in counted),
        fallen=sum(first[i] and not second[j] for i, j, _ in counted),
        risen=sum(second[j] and not first[i] for i, j, _ in counted),
        score_difference=sum(scores),
        largest_score_difference=max(scores, default=0.0),
        error=sum(errors),
        largest_error=max(errors, default=0.0),
        bias=_bias(corners_of([reference[i] for i, *_ in counted]), corners_of([other[j] for _, j, _ in counted])),
    )


def _bias(reference: Floats, other: Floats) -> tuple[float, float, float, float]:
    sizes, other_sizes = (np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6) for boxes in (reference, other))
    moved = (other[:, :2] + other[:, 2:] - reference[:, :2] - reference[:, 2:]) / 2 / sizes
    x, y, width, height = (float(sum_) for sum_ in [*moved.sum(axis=0), *np.log(other_sizes / sizes).sum(axis=0)])
    return x, y, width, height


def match(
    reference: Sequence[LabelledBox], other: Sequence[LabelledBox], preferred: Sequence[bool]
) -> list[tuple[int, int, float]]:
    """Return (index in the reference, index in the other, IoU) of each pair of one label; `preferred` says of each of
    the reference's boxes whether it is taken before those that are not."""
    if not reference or not other:
        return []
    overlap = box_overlaps(reference, other)
    same = np.array([[a.label == b.label for b in other] for a in reference])
    usable = np.where(same & (overlap >= LEAST_IOU), overlap + np.array(preferred, float)[:, np.newaxis], -1.0)
    pairs = []
    for j in sorted(range(len(other)), key=lambda index: -other[index].score):
        i = int(usable[:, j].argmax())
        if usable[i, j] >= 0:
            pairs.append((i, j, float(overlap[i, j])))
            usable[i] = -1.0
    return pairs


def corners_of(boxes: Sequence[LabelledBox]) -> Floats:
    """Return `[N, 4]`."""
    return np.array([box.box for box in boxes], np.float64).reshape(-1, 4)


def box_overlaps(first: Sequence[LabelledBox], second: Sequence[LabelledBox]) -> Floats:
    """Return `[N, M]`: intersection / union of the boxes of two models; of turned ones as the polygons that they
    are."""
    overlap = overlaps(corners_of(first), corners_of(second))
    polygons = [[np.array(getattr(box, "corners", ()), np.float64) for box in boxes] for boxes in (first, second)]
    for i, j in np.argwhere(overlap > 0):
        if len(polygons[0][i]) and len(polygons[1][j]):
            overlap[i, j] = _polygon_iou(polygons[0][i], polygons[1][j])
    return overlap


def _polygon_iou(first: Floats, second: Floats) -> float:
    """Return intersection / union of two convex polygons `[corners, 2]` (Sutherland and Hodgman 1974)."""
    turn = 1.0 if _signed_area(second) > 0 else -1.0
    shared = first
    for start, end in zip(second, np.roll(second, -1, axis=0), strict=True):
        side = end - start
        if not len(shared):
            return 0.0
        distances = turn * (side[0] * (shared[:, 1] - start[1]) - side[1] * (shared[:, 0] - start[0]))
        following, next_distances = np.roll(shared, -1, axis=0), np.roll(distances, -1)
        corners = []
        for point, distance, after, next_distance in zip(shared, distances, following, next_distances, strict=True):
            if distance >= 0:
                corners.append(point)
            if distance * next_distance < 0:
                corners.append(point + (after - point) * (distance / (distance - next_distance)))
        shared = np.array(corners, np.float64).reshape(-1, 2)
    intersection = abs(_signed_area(shared))
    union = abs(_signed_area(first)) + abs(_signed_area(second)) - intersection
    return intersection / union if union > 0 else 0.0


def _signed_area(polygon: Floats) -> float:
    following = np.roll(polygon, -1, axis=0)
    return float((polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]).sum()) / 2


def overlaps(first: NDArray[Any], second: NDArray[Any]) -> Floats:
    """Return `[N, M]`: intersection / union of boxes `[N, 4]` and `[M, 4]` (x0, y0, x1, y1); 0 where both are empty."""
    rows, columns = first[:, np.newaxis].astype(np.float64), second[np.newaxis].astype(np.float64)
    sides = np.minimum(rows[..., 2:], columns[..., 2:]) - np.maximum(rows[..., :2], columns[..., :2])
    shared = np.maximum(sides, 0.0).prod(axis=-1)
    union = _area(rows) + _area(columns) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def _area(boxes: Floats) -> Floats:
    return np.asarray(np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0).prod(axis=-1))
