"""Boxes matched by hand: overlap, labels, scores near the threshold, the order of matching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from plimsoll.metrics.boxes import compare_boxes, lowered, match, overlaps

HALF = (0.5, 0.5)


@dataclass(frozen=True)
class Box:
    label: str
    score: float
    box: tuple[float, float, float, float]


def at(x: float, score: float = 0.9, label: str = "cat", size: float = 10) -> Box:
    return Box(label, score, (x, 0, x + size, size))


def test_overlap_is_intersection_over_union() -> None:
    first = np.array([[0, 0, 10, 10], [5, 5, 5, 5]])
    second = np.array([[5, 0, 15, 10], [20, 20, 30, 30], [5, 5, 5, 5]])
    assert overlaps(first, second).tolist() == [pytest.approx([1 / 3, 0, 0]), [0, 0, 0]]


def test_boxes_of_another_label_or_too_far_away_are_not_matched() -> None:
    changes = compare_boxes([at(0), at(50)], [at(0, label="dog"), at(56)], HALF)
    assert (changes.matched, changes.lost, changes.added, changes.changed) == (0, 2, 2, True)


def test_scores_and_boxes_of_pairs_are_measured() -> None:
    changes = compare_boxes([at(0, 0.9), at(50, 0.8)], [at(50, 0.7), at(1, 0.9)], HALF)
    assert (changes.reference, changes.other, changes.matched, changes.changed) == (2, 2, 2, False)
    assert changes.score_difference == pytest.approx(0.1)
    assert changes.bias == pytest.approx((0.1, 0, 0, 0)), "one box by a tenth of its width, one not at all"
    assert changes.largest_error == pytest.approx(1 - 90 / 110)


def test_a_score_that_crosses_the_threshold_is_told_from_a_box_that_is_not_found() -> None:
    changes = compare_boxes([at(0, 0.501), at(50, 0.9), at(99, 0.45)], [at(0, 0.499), at(99, 0.55)], HALF)
    assert (changes.reference, changes.other, changes.matched) == (2, 1, 0)
    assert (changes.fallen, changes.risen, changes.lost, changes.added) == (1, 1, 1, 0)
    assert changes.pairs == 2


def test_every_model_has_its_own_threshold() -> None:
    changes = compare_boxes([at(0, 0.4)], [at(0, 0.4)], (0.3, 0.5))
    assert (changes.reference, changes.other, changes.fallen) == (1, 0, 1)


def test_the_best_score_takes_the_box_that_it_overlaps_most_and_each_box_is_taken_once() -> None:
    reference, other = [at(0), at(2)], [at(2, 0.8), at(1, 0.9), at(0, 0.7)]
    assert [(i, j) for i, j, _ in match(reference, other, [True, True])] == [(0, 1), (1, 0)]
    assert [(i, j) for i, j, _ in match(reference, other[:2], [False, True])] == [(1, 1), (0, 0)], "preferred first"
    assert match([], other, []) == []


def test_boxes_are_matched_from_a_tenth_below_the_threshold_on() -> None:
    assert [lowered(threshold) for threshold in (0.5, 0.1, 0.0)] == pytest.approx([0.4, 0.05, 0.0])
