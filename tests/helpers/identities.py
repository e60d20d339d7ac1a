"""IDF1 of tracks against the truth (Ristani et al., 2016): how much of the objects' boxes the best one-to-one pairing
of tracks and objects explains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from plimsoll.inference.video.assignment import overlaps

Boxes = dict[int, tuple[float, float, float, float]]
"""The boxes of a frame by the number of their object or track."""


def idf1(truth: Sequence[Boxes], tracks: Sequence[Boxes], least_overlap: float = 0.5) -> float:
    """Return IDF1: 1 where every object has one track, whose boxes are all its own."""
    together: Counter[tuple[int, int]] = Counter()
    for actual, tracked in zip(truth, tracks, strict=True):
        for number, box in actual.items():
            for track, other in tracked.items():
                overlap = overlaps(np.array([box], np.float64), np.array([other], np.float64))[0, 0]
                together[number, track] += int(overlap >= least_overlap)
    objects = sorted({number for number, _ in together})
    numbers = sorted({track for _, track in together})
    shared = np.array([[together[number, track] for track in numbers] for number in objects])
    explained = shared[linear_sum_assignment(-shared)].sum() if shared.size else 0
    return 2 * float(explained) / (sum(map(len, truth)) + sum(map(len, tracks)))


def switches(truth: Sequence[Boxes], tracks: Sequence[Boxes], least_overlap: float = 0.5) -> int:
    """Return how often an object goes on under another track, where each frame's boxes are paired one to one."""
    last: dict[int, int] = {}
    count = 0
    for actual, tracked in zip(truth, tracks, strict=True):
        if not actual or not tracked:
            continue
        objects, numbers = [*actual], [*tracked]
        shared = overlaps(np.array([*actual.values()], np.float64), np.array([*tracked.values()], np.float64))
        for row, column in zip(*linear_sum_assignment(-shared), strict=True):
            if shared[row, column] >= least_overlap:
                count += last.get(objects[row], numbers[column]) != numbers[column]
                last[objects[row]] = numbers[column]
    return count
