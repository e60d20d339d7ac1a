"""Stratified shares: hand values, limits at the ends, and intervals that contain the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plimsoll.errors import InputError
from plimsoll.metrics.decisions import interval
from plimsoll.metrics.stratified import Cells, Estimate

ALL = np.array([True])


def test_a_cell_has_the_clopper_pearson_lower_and_the_jeffreys_upper_limit() -> None:
    estimate = Cells.of([10**9], [10], [1]).mean(ALL)
    assert estimate.value == 0.1
    assert estimate.low == pytest.approx(interval(1, 10)[0], abs=1e-6)
    assert estimate.high == pytest.approx(0.3814, abs=1e-4)  # Brown, Cai and DasGupta 2001, table 5: n = 10, x = 1
    assert Cells.of([10**9], [20], [0]).mean(ALL).low == 0.0
    assert Cells.of([10**9], [20], [20]).mean(ALL).high == 1.0


def test_a_cell_that_was_counted_whole_has_no_interval_and_one_that_was_not_sampled_has_all() -> None:
    assert Cells.of([10], [10], [3]).mean(ALL) == Estimate(0.3, 0.3, 0.3)
    assert Cells.of([10, 10], [0, 10], [0, 0]).mean(np.array([True, True])) == Estimate(0.25, 0.0, 0.5)
    unknown = Cells.of([10, 10], [0, 10], [0, 0]).mean(np.array([True, False]))
    assert unknown.as_list() == [None, 0.0, 1.0]


def test_sums_add_distances_in_quadrature_by_the_sign_of_their_weight() -> None:
    cells = Cells.of([10**9, 10**9], [10, 40], [1, 10])
    first, second = Cells.of([10**9], [10], [1]).mean(ALL), Cells.of([10**9], [40], [10]).mean(ALL)
    difference = cells.total([1.0, -1.0])
    assert difference.value == pytest.approx(-0.15)
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    assert difference.low == pytest.approx(difference.value - below)
    assert difference.high == pytest.approx(difference.value + above)


def test_a_part_of_the_positive_is_a_ratio_within_0_and_1() -> None:
    cells = Cells.of([900, 100], [90, 50], [0, 25])
    below = cells.part(np.array([True, False]))
    assert (below.value, below.low) == (0.0, 0.0)
    # At the upper end t: (1 - t) * 900 * p - t * 100 * 0.5 is just above 0 with the distances at that end.
    t = below.high
    assert math.hypot((1 - t) * 900 * cells.above[0], t * 100 * cells.below[1]) == pytest.approx(t * 50, rel=1e-8)
    above = cells.part(np.array([False, True]))
    assert above.low == pytest.approx(1 - below.high)
    assert above.high == 1.0
    nothing = Cells.of([100, 100], [10, 10], [0, 0]).part(np.array([True, False]))
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (0.0, 1.0)
    assert nothing.as_list() == [None, 0.0, 1.0]


@pytest.mark.parametrize("counts", [([5], [6], [1]), ([5], [3], [4]), ([5, 5], [3], [1]), ([5], [3], [-1])])
def test_impossible_counts_are_refused(counts: tuple[list[int], list[int], list[int]]) -> None:
    with pytest.raises(InputError, match="0 <= positive <= sampled <= population"):
        Cells.of(*counts)


@pytest.mark.parametrize("stratified", [True, False])
def test_95_percent_intervals_contain_the_truth_in_about_95_of_100_samples(stratified: bool) -> None:
    """Bands cut through strata; a percent of the population is positive."""
    fine = np.array([70_000, 20_000, 5_000, 3_000, 900, 100])
    positive = np.array([60, 60, 130, 200, 250, 300])
    strata = [[0, 1], [2, 3], [4, 5]] if stratified else [list(range(6))]
    sizes = [600, 300, 300] if stratified else [1200]
    population, low, high = fine + positive, np.arange(6) < 3, np.arange(6) >= 5
    truths = {
        "missed": positive[low].sum() / positive.sum(),
        "precision": positive[high].sum() / population[high].sum(),
        "share": positive.sum() / population.sum(),
    }
    generator = np.random.default_rng(20_261_201)
    hits = dict.fromkeys(truths, 0)
    repetitions = 200
    for _ in range(repetitions):
        drawn = np.zeros((2, 6), np.int64)
        for cells, size in zip(strata, sizes, strict=True):
            colours = np.concatenate([fine[cells], positive[cells]])
            drawn[:, cells] = generator.multivariate_hypergeometric(colours, size).reshape(2, -1)
        sample = Cells.of(population, drawn.sum(axis=0), drawn[1])
        estimates = {"missed": sample.part(low), "precision": sample.mean(high), "share": sample.mean(low | ~low)}
        for name, truth in truths.items():
            hits[name] += estimates[name].low <= truth <= estimates[name].high
    # Two standard deviations of 200 repetitions at 95 % are 3 points.
    assert all(0.92 <= count / repetitions <= 0.99 for count in hits.values()), hits
