"""What is said of measured times holds: verdicts on planted ratios, few false alarms, percentiles with their count."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest

from plimsoll.benchmark.statistics import compare_speeds, estimate, percentile, percentiles, spread
from plimsoll.errors import InputError
from plimsoll.metrics.decisions import MINIMUM_COUNTS


def rounds(
    seed: int, ratio: float, noise: float = 0.03, count: int = 20, deviation: float = 0.0
) -> tuple[list[float], list[float]]:
    """Speeds of a baseline and of a candidate `ratio` times as fast, each with its own noise and both with the
    machine's deviation."""
    rng = np.random.default_rng(seed)
    machine = 1 + deviation * np.linspace(0, 1, count)
    before = 100 * machine * np.exp(rng.normal(0, noise, count))
    after = 100 * ratio * machine * np.exp(rng.normal(0, noise, count))
    return list(before), list(after)


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.84, "faster"), (1.08, "faster"), (1.0, "no difference"), (0.92, "slower"), (0.5, "slower")],
)
def test_planted_ratios_get_the_right_verdict(ratio: float, verdict: str) -> None:
    comparison = compare_speeds("A", "B", *rounds(1, ratio))
    assert comparison.verdict == verdict
    assert comparison.speed.low < comparison.speed.median < comparison.speed.high
    assert comparison.speed.low - 0.02 < ratio < comparison.speed.high + 0.02


def test_a_drift_of_the_machine_changes_no_verdict() -> None:
    assert compare_speeds("A", "B", *rounds(2, 1.0, deviation=3.0)).verdict == "no difference"
    assert compare_speeds("A", "B", *rounds(2, 1.2, deviation=-0.8)).verdict == "faster"


def test_identical_noise_is_seldom_called_a_difference() -> None:
    alarms = sum(
        compare_speeds("A", "B", *rounds(seed, 1.0, noise=0.1)).verdict != "no difference" for seed in range(500)
    )
    assert alarms <= 0.05 * 500


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(400):
        # Noise as machines have it: mostly little, now and then a burst in which all takes twice as long.
        rng = np.random.default_rng(seed)
        values = (
            1.3
            * np.exp(rng.normal(0, 0.02, 25))
            / np.where(rng.random(25) < 0.1, 2.0, 1.0)
            * np.where(rng.random(25) < 0.1, 2.0, 1.0)
        )
        interval = estimate(list(values))
        covered += interval.low <= 1.3 <= interval.high
    assert covered >= 0.93 * 400, "95.7 % are expected of 25 rounds"


@pytest.mark.parametrize("count", range(6, 60))
def test_the_interval_is_the_narrowest_that_the_sign_test_allows(count: int) -> None:
    interval = estimate([float(value) for value in range(count)])
    below = int(interval.low) + 1
    tail = sum(comb(count, heads) for heads in range(below)) / 2**count
    wider = tail + comb(count, below) / 2**count
    assert 2 * tail <= 0.05 < 2 * wider
    assert interval.low + interval.high == count - 1


def test_few_rounds_tell_nothing() -> None:
    comparison = compare_speeds("A", "B", [1.0] * 5, [3.0] * 5)
    assert comparison.verdict == "no difference"
    assert "5 rounds are too few" in comparison.sentence()
    assert compare_speeds("A", "B", [1.0] * 6, [3.0] * 6).verdict == "faster"
    assert math.isnan(estimate([]).median)


def test_a_real_difference_within_the_margin_does_not_count() -> None:
    assert compare_speeds("A", "B", [100.0] * 20, [100.5] * 20).verdict == "no difference"
    assert compare_speeds("A", "B", [100.0] * 20, [99.5] * 20).verdict == "no difference"
    assert compare_speeds("A", "B", [100.0] * 20, [102.0] * 20).verdict == "faster"


def test_the_headline() -> None:
    comparison = compare_speeds("A", "B", [1.0] * 10, [1.79, *[1.84] * 8, 1.90])
    assert comparison.sentence() == "B is 1.84 times as fast as A (95 % interval 1.84 … 1.84): faster"


@pytest.mark.parametrize(("rank", "needed"), [(90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_a_percentile_is_refused_below_its_count(rank: float, needed: int) -> None:
    values = list(np.random.default_rng(0).random(needed))
    assert 0 < percentile(values, rank) <= 1
    with pytest.raises(InputError, match=f"at least {needed:,}"):
        percentile(values[:-1], rank)
    assert f"p{rank:g}" in percentiles(values)
    assert f"p{rank:g}" not in percentiles(values[:-1])


def test_a_percentile_is_a_measured_value() -> None:
    values = [float(value) for value in range(1, 1001)]
    assert [percentile(values, rank) for rank in (50, 90, 95, 99)] == [500, 900, 950, 990]
    assert percentiles([]) == {}
    with pytest.raises(InputError, match="allowed are 50, 90, 95, 99"):
        percentile(values, 97)
    assert list(MINIMUM_COUNTS) == [50, 90, 95, 99, 99.9]


def test_spread() -> None:
    assert spread([1.0] * 10) == 0
    assert spread([1, 2, 3, 4, 5]) == pytest.approx(2 / 3)
    assert math.isnan(spread([1.0, 2.0]))
