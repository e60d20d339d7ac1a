"""Labelled metrics: figures by hand, single classes, ties, and what a sample without a change still can't prove."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plimsoll.errors import InputError
from plimsoll.metrics.decisions import bounds, mean_upper_bound, upper_bound
from plimsoll.metrics.labelled import MetricChange, Ranking, binary, multiclass


def by_name(changes: tuple[MetricChange, ...]) -> dict[str, MetricChange]:
    return {change.name: change for change in changes}


def auc(truth: list[int], scores: list[float]) -> float:
    return Ranking(np.array(truth, np.bool_), np.array(scores)).auc(np.ones(len(truth)))


def test_binary_by_hand() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    ours = np.array([0.9, 0.8, 0.7, 0.6, 0.1, 0.2, 0.3, 0.4])
    theirs = np.array([0.9, 0.8, 0.4, 0.3, 0.1, 0.2, 0.3, 0.4])
    changes = by_name(binary(truth, ours, theirs, 0.5))
    assert (changes["accuracy"].reference, changes["accuracy"].other) == (7 / 8, 7 / 8)
    assert (changes["precision"].reference, changes["precision"].other) == (3 / 4, 1.0)
    assert (changes["recall"].reference, changes["recall"].other) == (1.0, 2 / 3)
    assert changes["recall"].change == pytest.approx(-1 / 3)
    assert changes["auc"].reference == 1.0
    assert changes["auc"].other == pytest.approx(14.5 / 15)


def test_auc_counts_ties_half_and_constants_as_nothing_known() -> None:
    assert auc([1, 0], [0.5, 0.5]) == 0.5
    assert auc([1, 1, 0, 0, 1], [0.3, 0.3, 0.3, 0.3, 0.3]) == 0.5
    # Of the nine pairs of a true and a false one, six are in order, two are tied and one is not.
    assert auc([0, 1, 1, 0, 1, 0], [0.2, 0.2, 0.5, 0.5, 0.9, 0.1]) == pytest.approx(7 / 9)


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class_have_no_auc(label: int) -> None:
    changes = by_name(binary(np.full(4, label), np.array([0.1, 0.2, 0.7, 0.9]), np.array([0.1, 0.2, 0.7, 0.9]), 0.5))
    assert changes["auc"] == MetricChange("auc", None, None, None, None, 4)
    assert changes["auc"].change is None
    assert (changes["recall"].reference is None) is (label == 0)
    assert changes["accuracy"].reference == 0.5


def test_precision_is_not_defined_where_nothing_is_flagged() -> None:
    changes = by_name(binary(np.array([1, 0, 1, 0]), np.full(4, 0.9), np.full(4, 0.1), 0.5))
    assert changes["precision"].reference == 0.5
    assert changes["precision"].other is None
    assert changes["precision"].lower is None


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_score_that_is_not_a_number_has_no_auc_and_is_not_flagged(odd: float) -> None:
    changes = by_name(
        binary(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.8, 0.2]), np.array([odd, 0.1, 0.8, 0.2]), 0.5)
    )
    assert changes["auc"].other is None
    assert changes["recall"].other == (0.5 if math.isnan(odd) else 1.0)


def test_without_a_change_the_exact_bound_stands_in() -> None:
    truth, scores = np.arange(200) % 2, np.linspace(0.01, 0.99, 200)
    changes = by_name(binary(truth, scores, scores, 0.5))
    assert changes["accuracy"].change == 0.0
    assert changes["accuracy"].lower == -upper_bound(0, 200)
    assert changes["recall"].lower == -upper_bound(0, 100)
    assert changes["accuracy"].interval == (-upper_bound(0, 200, 0.975), 0.0)


def test_the_interval_is_paired_and_seeded() -> None:
    generator = np.random.default_rng(3)
    truth = generator.random(400) < 0.5
    ours = np.where(truth, 0.7, 0.3) + generator.normal(0, 0.2, 400)
    theirs = ours.copy()
    theirs[:8] = 1 - theirs[:8]
    first, again = (by_name(binary(truth, ours, theirs, 0.5))["accuracy"] for _ in range(2))
    assert first == again
    assert first.change is not None
    assert first.lower is not None
    assert first.interval is not None
    assert first.interval[0] <= first.change <= first.interval[1]
    # Eight decisions that differ: unpaired, the interval of 400 decisions would be four times as wide.
    assert first.interval[1] - first.interval[0] < 0.03
    assert first.interval[0] <= first.lower <= first.change


def test_multiclass_by_hand() -> None:
    truth = np.array([0, 1, 2, 2])
    hits = [np.array([True, True, True, True]), np.array([True, True, True, False])]
    changes = by_name(multiclass(truth, np.array([0, 1, 2, 1]), np.array([0, -1, 2, 1]), {5: hits}))
    assert (changes["top1"].reference, changes["top1"].other) == (0.75, 0.5)
    assert (changes["top5"].reference, changes["top5"].other) == (1.0, 0.75)
    assert changes["recall"].reference == pytest.approx((1 + 1 + 0.5) / 3)
    assert changes["recall"].other == pytest.approx((1 + 0 + 0.5) / 3)
    assert changes["precision"].reference == pytest.approx((1 + 0.5 + 1) / 3)
    assert changes["precision"].other == pytest.approx((1 + 0 + 1) / 3)


def test_other_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="2, 3, 3 pictures"):
        binary(np.zeros(2), np.zeros(3), np.zeros(3), 0.5)
    with pytest.raises(InputError, match="at least 1"):
        binary(np.zeros(0), np.zeros(0), np.zeros(0), 0.5)


def test_bound_of_a_mean() -> None:
    assert mean_upper_bound(np.full(9, 0.25), 0.95) == 0.25
    assert mean_upper_bound(np.array([0.5]), 0.95) == 0.5
    values = np.random.default_rng(5).normal(1.0, 0.1, 400)
    assert mean_upper_bound(values, 0.95) == pytest.approx(values.mean() + 1.645 * 0.1 / 20, abs=0.002)
    many = np.random.default_rng(5).normal(1.0, 0.1, 20_000)
    assert mean_upper_bound(many, 0.95) == pytest.approx(many.mean() + 1.645 * 0.1 / math.sqrt(20_000), abs=1e-4)


def test_bound_of_a_skewed_mean_covers_nearly_what_it_says() -> None:
    generator = np.random.default_rng(7)
    covered = sum(mean_upper_bound(np.exp(generator.normal(0, 1, 125)), 0.95) >= math.exp(0.5) for _ in range(200))
    assert 0.88 <= covered / 200 <= 0.98


def test_bounds_are_withheld_where_most_draws_have_no_figure() -> None:
    assert all(math.isnan(bound) for bound in bounds(lambda weights: math.nan if weights[0] == 0 else 1.0, 5, 0.95))
