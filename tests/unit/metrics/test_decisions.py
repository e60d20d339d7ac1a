"""Decisions: bounds against published values, ties, constants, NaN, and percentiles that are withheld."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.errors import InputError
from plimsoll.metrics.decisions import (
    Flips,
    beta_quantile,
    bounds,
    flips,
    incomplete_beta,
    interval,
    percentile,
    pictures_needed,
    ranks,
    ratio_bounds,
    score_deviation,
    spearman,
    upper_bound,
)

NAN, INF = math.nan, math.inf

# scipy 1.17.1: beta.ppf(0.95, count + 1, total - count), and binomtest(count, total).proportion_ci(0.95, "exact").
UPPER = {
    (0, 58): 0.050339338330420105,
    (0, 500): 0.005973551516349557,
    (1, 125): 0.03738729411961728,
    (3, 40): 0.18258685001590122,
    (499, 500): 0.999897418673049,
    (7, 100_000): 0.00013147709623909264,
}
TWO_SIDED = {
    (0, 10): (0.0, 0.30849710781876294),
    (5, 10): (0.1870860284474045, 0.8129139715525955),
    (10, 10): (0.6915028921812371, 1.0),
}


@pytest.mark.parametrize(("sample", "expected"), UPPER.items())
def test_one_sided_bound(sample: tuple[int, int], expected: float) -> None:
    assert upper_bound(*sample) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("sample", "expected"), TWO_SIDED.items())
def test_two_sided_interval(sample: tuple[int, int], expected: tuple[float, float]) -> None:
    assert interval(*sample) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 40), st.integers(1, 40))
def test_the_bound_is_where_the_binomial_tail_is_five_percent(count: int, more: int) -> None:
    total = count + more
    share = upper_bound(count, total)
    tail = sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count + 1))
    assert tail == pytest.approx(0.05, abs=1e-9)


def test_no_flip_at_all_is_the_closed_form_and_nothing_seen_proves_nothing() -> None:
    assert upper_bound(0, 125) == pytest.approx(1 - 0.05 ** (1 / 125))
    assert upper_bound(0, 0) == upper_bound(9, 9) == 1.0
    for wrong in [(2, 1), (-1, 4)]:
        with pytest.raises(InputError, match="expected 0 <= count"):
            upper_bound(*wrong)


def test_beta_function_and_its_inverse() -> None:
    assert incomplete_beta(0.0, 2, 3) == 0.0
    assert incomplete_beta(1.0, 2, 3) == 1.0
    assert incomplete_beta(0.3, 1, 1) == pytest.approx(0.3)
    assert incomplete_beta(0.5, 20_000, 20_000) == pytest.approx(0.5)
    assert beta_quantile(0.25, 2.5, 0.5) == pytest.approx(0.7471084962443981)  # scipy 1.17.1: beta.ppf


def test_how_many_pictures_a_share_takes() -> None:
    assert [pictures_needed(0.04, count) for count in (0, 1)] == [74, 117]
    assert pictures_needed(0.005) == 598
    assert upper_bound(0, 597) > 0.005 >= upper_bound(0, 598)


def test_flips_by_hand() -> None:
    flipped = flips(np.array([0.1, 0.5, 0.9, 0.49]), np.array([0.6, 0.49, 0.8, 0.2]), 0.5)
    assert flipped == Flips(2, 4, up=1, down=1)
    assert flipped.share == 0.5


def test_a_score_that_is_not_a_number_on_one_side_has_flipped() -> None:
    assert flips(np.array([0.1, 0.9, NAN, NAN]), np.array([NAN, NAN, 0.4, NAN]), 0.5).count == 3
    assert math.isnan(flips(np.zeros(0), np.zeros(0), 0.5).share)
    with pytest.raises(InputError, match="1 scores against 2"):
        flips(np.zeros(1), np.zeros(2), 0.5)


def test_score_drift_by_hand() -> None:
    moved = score_deviation(np.array([0.0, 0.5, 1.0]), np.array([0.1, 0.5, 0.8]))
    assert moved.maximum == pytest.approx(0.2)
    assert moved.mean == pytest.approx(0.1)
    assert moved.mean < moved.mean_upper <= 0.2
    assert moved.p99 is None


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
def test_deviation_to_what_is_not_a_number_is_infinite(odd: float) -> None:
    moved = score_deviation(np.array([0.1, 0.2]), np.array([0.1, odd]))
    assert (moved.maximum, moved.mean, moved.mean_upper) == (INF, INF, INF)
    same = score_deviation(np.array([0.1, odd]), np.array([0.1, odd]))
    assert (same.maximum, same.mean_upper) == (0.0, 0.0)


def test_no_scores_are_refused() -> None:
    with pytest.raises(InputError, match="no scores"):
        score_deviation(np.zeros(0), np.zeros(0))


def test_percentile_is_withheld_below_loadgens_count() -> None:
    assert percentile(np.arange(661), 99.0) is None
    assert percentile(np.arange(1, 663), 99.0) == 656.0  # the 656th of 662: nearest rank
    assert percentile(np.arange(63), 90.0) is None


def test_ranks_put_ties_at_their_mean() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


def test_spearman() -> None:
    rising = np.array([0.1, 0.2, 0.3, 0.9])
    assert spearman(rising, rising**3) == 1.0
    assert spearman(rising, -rising) == -1.0
    # scipy 1.17.1: spearmanr([1, 2, 2, 4, 5], [2, 1, 3, 3, 9])
    assert spearman(np.array([1, 2, 2, 4, 5]), np.array([2, 1, 3, 3, 9])) == pytest.approx(0.7631578947368421)


@pytest.mark.parametrize("other", [[0.5, 0.5, 0.5], [0.1, NAN, 0.3], [0.1, INF, 0.3]])
def test_spearman_is_not_defined_for_constants_and_what_is_not_a_number(other: list[float]) -> None:
    assert spearman(np.array([0.1, 0.2, 0.3]), np.array(other)) is None
    assert spearman(np.array(other), np.array([0.1, 0.2, 0.3])) is None


def test_spearman_of_one_is_not_defined() -> None:
    assert spearman(np.array([0.1]), np.array([0.2])) is None


def test_bounds_of_a_ratio_are_those_of_the_bootstrap_in_general() -> None:
    generator = np.random.default_rng(5)
    parts, wholes = generator.random(40), generator.integers(0, 3, 40).astype(np.float64)
    general = bounds(lambda weights: float(weights @ parts) / float(weights @ wholes), 40, 0.95)
    assert ratio_bounds(parts, wholes, 0.95) == pytest.approx(general, rel=1e-9)
    assert all(map(math.isnan, ratio_bounds(np.ones(3), np.array([0.0, 0.0, 1.0]), 0.95)))
