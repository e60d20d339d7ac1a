"""Non-maximum suppression: of boxes that lie on one another, the best stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_CANDIDATES = 30_000
"""The best so many boxes are compared with one another, as in Ultralytics' procedure; a network gives more only where
the threshold is near 0."""


def suppress(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float32],
    labels: NDArray[np.intp] | None,
    iou: float,
    most: int | None = None,
) -> NDArray[np.intp]:
    """Return which boxes stay, best first: greedily, each one removes those after it that overlap it by more than
    `iou`.

    `boxes` `[N, 4]` holds x0, y0, x1, y1; the overlap is intersection / union. With `labels` `[N]`, only boxes of one
    label remove each other. Of equal scores the earlier box goes first, so the result is always the same. A box without
    an area overlaps nothing. `most` stops early.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    x0, y0, x1, y1 = boxes[order].T
    areas = np.maximum(x1 - x0, 0.0) * np.maximum(y1 - y0, 0.0)
    own = np.zeros(len(order), np.intp) if labels is None else labels[order]
    waiting = np.arange(len(order))
    kept: list[int] = []
    while waiting.size and (most is None or len(kept) < most):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        width = np.minimum(x1[best], x1[waiting]) - np.maximum(x0[best], x0[waiting])
        height = np.minimum(y1[best], y1[waiting]) - np.maximum(y0[best], y0[waiting])
        shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        # A product instead of a quotient: two boxes without an area would be 0 / 0.
        covered = shared > iou * (areas[best] + areas[waiting] - shared)
        waiting = waiting[~(covered & (own[waiting] == own[best]))]
    return order[kept]
