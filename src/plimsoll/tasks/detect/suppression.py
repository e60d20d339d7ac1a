"""Non-maximum suppression: greedy as most networks are trained for, and weighted as MediaPipe does it.

Greedy suppression goes through the boxes in blocks: a block's overlaps with the boxes that stay, and among its own, are
each one matrix, so that Python sees a box only to mark those after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_CANDIDATES = 30_000
"""Suppression considers at most this many of the best boxes, as Ultralytics does; there are more only if the threshold
is near 0."""
_BLOCK = 64
_TINY = 1e-7


@dataclass(frozen=True)
class Candidates:
    """The boxes of one picture that reach the threshold, in the network's own coordinates."""

    boxes: Floats
    """`[N, 4]`: x0, y0, x1, y1."""
    scores: NDArray[np.float32]
    """`[N]`"""
    labels: NDArray[np.intp]
    """`[N]`, indices of the Spec's labels."""
    points: Floats | None = None
    """`[N, points, 2 or 3]`: x, y and, for three, how sure the network is of it."""
    coefficients: NDArray[np.float32] | None = None
    """`[N, prototypes]`: how much of each prototype mask is in the box's own."""
    masks: NDArray[np.float32] | None = None
    """`[N, height, width]`: the probability of each box's mask, over the box or over the input."""
    angles: Floats | None = None
    """`[N]`: by how much each box is turned clockwise about its centre, in radians."""

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Candidates:
        """Return these boxes alone, in this order."""
        return Candidates(
            self.boxes[chosen],
            self.scores[chosen],
            self.labels[chosen],
            None if self.points is None else self.points[chosen],
            None if self.coefficients is None else self.coefficients[chosen],
            None if self.masks is None else self.masks[chosen],
            None if self.angles is None else self.angles[chosen],
        )


def suppress(
    boxes: Floats,
    scores: NDArray[np.float32],
    labels: NDArray[np.intp] | None,
    iou: float,
    most: int | None = None,
) -> NDArray[np.intp]:
    """Return the indices of the boxes that stay, best first. Greedily, each box removes those after it that overlap it
    by more than `iou`.

    `boxes` `[N, 4]` holds x0, y0, x1, y1; the overlap is intersection / union. With `labels` `[N]`, only boxes of one
    label remove each other. Of equal scores the earlier box goes first, so the result is always the same. A box without
    an area overlaps nothing. `most` stops early.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    sides = np.ascontiguousarray(boxes[order].T)
    areas = np.maximum(sides[2] - sides[0], 0.0) * np.maximum(sides[3] - sides[1], 0.0)
    own = np.zeros(len(order), np.intp) if labels is None else labels[order]
    chosen = np.zeros(0, np.intp)
    for start in range(0, len(order), _BLOCK):
        if most is not None and len(chosen) >= most:
            break
        block = np.arange(start, min(start + _BLOCK, len(order)))
        if len(chosen):
            block = block[~_covered(sides, areas, own, chosen, block, iou).any(axis=0)]
        removes = _covered(sides, areas, own, block, block, iou)
        staying = np.ones(len(block), bool)
        for index in range(len(block)):
            if staying[index]:
                staying[index + 1 :] &= ~removes[index, index + 1 :]
        chosen = np.concatenate([chosen, block[staying]])
    return order[chosen[:most]]


def _covered(
    sides: Floats,
    areas: Floats,
    labels: NDArray[np.intp],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    iou: float,
) -> NDArray[np.bool_]:
    """Return `[first, second]`: whether two boxes of one label overlap by more than `iou`."""
    rows, columns = sides[:, first, np.newaxis], sides[:, np.newaxis, second]
    shared = np.minimum(rows[2], columns[2]) - np.maximum(rows[0], columns[0])
    np.maximum(shared, 0.0, out=shared)
    height = np.minimum(rows[3], columns[3]) - np.maximum(rows[1], columns[1])
    shared *= np.maximum(height, 0.0, out=height)
    # A product instead of a quotient: two boxes without an area would be 0 / 0.
    covers = shared > iou * (areas[first, np.newaxis] + areas[second] - shared)
    return np.asarray(covers & (labels[first, np.newaxis] == labels[second]))


def suppress_oriented(candidates: Candidates, iou: float, *, across_labels: bool = False) -> NDArray[np.intp]:
    """Return the indices of the turned boxes that stay, best first: those that no better box of the label overlaps by
    more than `iou`, whether that box itself stays or not (Fast NMS of Bolya et al. 2019, arXiv 1904.02689, as
    Ultralytics does it for oriented boxes). `across_labels`: boxes of any label."""
    order = np.argsort(-candidates.scores, kind="stable")[:MAX_CANDIDATES]
    own = candidates.take(order)
    assert own.angles is not None  # noqa: S101 - the head gives them
    moments = _moments(own.boxes, own.angles)
    staying = []
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        better = np.arange(block[-1] + 1)
        covers = _probabilistic_iou(moments[:, better, np.newaxis], moments[:, np.newaxis, block]) > iou
        covers &= better[:, np.newaxis] < block
        if not across_labels:
            covers &= own.labels[better, np.newaxis] == own.labels[block]
        staying.append(block[~covers.any(axis=0)])
    return order[np.concatenate(staying)] if staying else order


def _moments(boxes: Floats, angles: Floats) -> Floats:
    """Return `[5, N]`: the centre of each turned box, and the variances a, b and covariance c of what lies in it."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    along, across, cosine, sine = width**2 / 12, height**2 / 12, np.cos(angles), np.sin(angles)
    a, b = along * cosine**2 + across * sine**2, along * sine**2 + across * cosine**2
    return np.stack([x, y, a, b, (along - across) * cosine * sine])


def _probabilistic_iou(first: Floats, second: Floats) -> Floats:
    """Return 1 - the Hellinger distance of two boxes as Gaussians (Llerena et al. 2021, arXiv 2106.06072)."""
    x, y, a, b, c = first[0] - second[0], first[1] - second[1], *(first[2:] + second[2:])
    product = a * b - c**2
    own, other = (np.maximum(each[2] * each[3] - each[4] ** 2, 0.0) for each in (first, second))
    distance = (a * y**2 + b * x**2 - 2 * c * x * y) / (product + _TINY) / 4
    distance += np.log(product / (4 * np.sqrt(own * other) + _TINY) + _TINY) / 2
    return np.asarray(1.0 - np.sqrt(1.0 - np.exp(-np.clip(distance, _TINY, 100.0)) + _TINY))


def blend(candidates: Candidates, iou: float, most: int) -> Candidates:
    """Return one box for each group of boxes that overlap its best: the mean of their positions, and of their points,
    weighted by their scores. The score is the best's, and so is the label.

    MediaPipe's `NonMaxSuppressionCalculator` with the algorithm WEIGHTED.
    """
    left = candidates.take(np.argsort(-candidates.scores, kind="stable")[:MAX_CANDIDATES])
    boxes, points = [], []
    best: list[int] = []
    remaining = np.arange(len(left.scores))
    sides = np.ascontiguousarray(left.boxes.T)
    areas = np.maximum(sides[2] - sides[0], 0.0) * np.maximum(sides[3] - sides[1], 0.0)
    while remaining.size and len(best) < most:
        group = _covered(sides, areas, left.labels, remaining[:1], remaining, iou)[0]
        group[0] = True
        members = remaining[group]
        weights = left.scores[members].astype(np.float64)
        weights /= weights.sum()
        boxes.append(weights @ left.boxes[members])
        if left.points is not None:
            points.append(np.tensordot(weights, left.points[members], 1))
        best.append(int(remaining[0]))
        remaining = remaining[~group]
    best_boxes = left.take(np.array(best, np.intp))
    return Candidates(
        np.array(boxes, np.float64).reshape(-1, 4),
        best_boxes.scores,
        best_boxes.labels,
        None if best_boxes.points is None else np.array(points, np.float64).reshape(best_boxes.points.shape),
        best_boxes.coefficients,
    )
