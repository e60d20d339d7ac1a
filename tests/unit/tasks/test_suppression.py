"""Suppression against a slow, plain one; and its corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.tasks.detect import MAX_CANDIDATES, suppress

Boxes = list[tuple[float, float, float, float]]


def slow(boxes: Boxes, scores: list[float], labels: list[int] | None, iou: float, most: int | None) -> list[int]:
    """The definition: take the best that is left, remove what overlaps it too much, begin again."""

    def area(box: tuple[float, ...]) -> float:
        return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)

    def overlap(candidate: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, float]:
        shared = area(
            (
                max(candidate[0], other[0]),
                max(candidate[1], other[1]),
                min(candidate[2], other[2]),
                min(candidate[3], other[3]),
            )
        )
        return shared, area(candidate) + area(other) - shared

    left = list(range(len(boxes)))
    chosen: list[int] = []
    while left and (most is None or len(chosen) < most):
        best = max(left, key=lambda index: (scores[index], -index))
        chosen.append(best)
        left.remove(best)
        for index in list(left):
            shared, union = overlap(boxes[best], boxes[index])
            if (labels is None or labels[index] == labels[best]) and shared > iou * union:
                left.remove(index)
    return chosen


corner = st.integers(0, 12).map(float)
box = st.tuples(corner, corner, corner, corner)
candidate = st.tuples(box, st.sampled_from([0.1, 0.25, 0.5, 0.5, 0.75, 1.0]), st.integers(0, 2))


@given(
    st.lists(candidate, max_size=25),
    st.sampled_from([0.0, 0.2, 0.45, 0.5, 1.0]),
    st.booleans(),
    st.none() | st.integers(1, 5),
)
def test_it_is_the_greedy_definition(
    candidates: list[tuple[Any, float, int]], iou: float, by_label: bool, most: int | None
) -> None:
    """Also for boxes without an area, turned inside out, or equal, and for equal scores."""
    boxes, scores, labels = (
        [candidate[0] for candidate in candidates],
        [candidate[1] for candidate in candidates],
        [candidate[2] for candidate in candidates],
    )
    chosen = suppress(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.intp) if by_label else None,
        iou,
        most,
    )
    assert chosen.tolist() == slow(boxes, scores, labels if by_label else None, iou, most)


@pytest.mark.parametrize("seed", range(3))
def test_many_random_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 300, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 120, (300, 2))], axis=1)
    scores, labels = rng.uniform(size=300).astype(np.float32), rng.integers(0, 4, 300)
    chosen = suppress(boxes, scores, labels, 0.45)
    assert chosen.tolist() == slow(
        [tuple(candidate) for candidate in boxes.tolist()], scores.tolist(), labels.tolist(), 0.45, None
    )
    assert 0 < len(chosen) < 300


def test_an_overlap_of_exactly_the_limit_stays() -> None:
    boxes = np.array([[0, 0, 2, 1], [1, 0, 3, 1]], np.float64)  # 1 of 3
    scores = np.array([0.9, 0.8], np.float32)
    assert suppress(boxes, scores, None, 1 / 3).tolist() == [0, 1]
    assert suppress(boxes, scores, None, 0.33).tolist() == [0]


def test_very_many_candidates_are_cut_to_the_best() -> None:
    count = MAX_CANDIDATES + 10
    boxes = np.tile(np.array([0.0, 0.0, 1.0, 1.0]), (count, 1))
    scores = np.linspace(0, 1, count, dtype=np.float32)
    assert suppress(boxes, scores, None, 0.5).tolist() == [count - 1]
    assert suppress(np.zeros((0, 4)), np.zeros(0, np.float32), None, 0.5).tolist() == []
