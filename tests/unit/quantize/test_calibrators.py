"""Each calibration method against a plain statement of its definition on known data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.errors import InputError
from plimsoll.quantize.calibrators import BINS_A_SIDE, METHODS, TensorStatistics, range_of
from plimsoll.quantize.parameters import QuantizationParams, Symmetry

Values = NDArray[np.float32]
RNG = np.random.default_rng(5)
NORMAL: Values = RNG.normal(0, 1, 300_000).astype(np.float32)
RECTIFIED: Values = np.maximum(NORMAL, 0)
OUTLIERS: Values = np.concatenate([NORMAL, np.array([80.0, -60.0], np.float32)])


def seen(values: Values) -> TensorStatistics:
    return TensorStatistics.of(values)


def width(values: Values) -> float:
    return seen(values).width


@pytest.mark.parametrize("values", [NORMAL, RECTIFIED, OUTLIERS], ids=["normal", "rectified", "outliers"])
def test_minmax_is_exact(values: Values) -> None:
    assert range_of(seen(values), "minmax") == (min(0.0, float(values.min())), max(0.0, float(values.max())))


def test_moving_average_lies_between_the_pictures_extremes() -> None:
    total = TensorStatistics()
    for high in (1.0, 2.0, 9.0):
        total.add(seen(np.array([0.5, high], np.float32)))
    low, high = range_of(total, "moving_average")
    assert low == 0
    assert high == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.999, 100.0])
@pytest.mark.parametrize("values", [NORMAL, RECTIFIED, OUTLIERS], ids=["normal", "rectified", "outliers"])
def test_percentile_is_numpys_to_a_bin(values: Values, percentile: float) -> None:
    half = (100 - percentile) / 2
    expected = np.percentile(values.astype(np.float64), [half, 100 - half], method="inverted_cdf")
    assert range_of(seen(values), "percentile", percentile) == pytest.approx(tuple(expected), abs=2 * width(values))


def naive_mse(values: Values, low: float, high: float, symmetry: Symmetry = "auto") -> float:
    return float(
        ((QuantizationParams.of_range(low, high, symmetry=symmetry).fake_quantize(values) - values) ** 2).mean()
    )


@pytest.mark.parametrize("values", [NORMAL, RECTIFIED, OUTLIERS], ids=["normal", "rectified", "outliers"])
@pytest.mark.parametrize("symmetry", ["auto", "always", "never"])
def test_mse_finds_the_range_with_the_least_error_on_the_values_themselves(values: Values, symmetry: Symmetry) -> None:
    chosen = naive_mse(values, *range_of(seen(values), "mse", symmetry=symmetry), symmetry)
    largest = float(np.abs(values).max())
    others = []
    for share in np.linspace(0.05, 1, 40):
        end = share * largest
        low, high = (
            (-end, end) if symmetry == "always" else (max(-end, float(values.min())), min(end, float(values.max())))
        )
        others.append(naive_mse(values, low, high, symmetry))
    assert chosen <= 1.02 * min(others)


def naive_divergence(values: Values, low: float, high: float, step: float) -> float:
    """The definition, with loops: outliers into the outermost bins, 256 groups, each group's count evenly over its
    non-empty bins."""
    first, last = round(low / step), round(high / step)
    bins = np.floor(values[values != 0].astype(np.float64) / step).astype(int)
    inside, truth = np.zeros(last - first), np.zeros(last - first)
    for bin_ in bins:
        truth[min(max(bin_, first), last - 1) - first] += 1
        if first <= bin_ < last:
            inside[bin_ - first] += 1
    other = np.zeros_like(truth)
    edges = [index * len(truth) // 256 for index in range(257)]
    for start, end in pairwise(edges):
        filled = [bin_ for bin_ in range(start, end) if truth[bin_] > 0]
        for bin_ in filled:
            other[bin_] = inside[start:end].sum() / len(filled)
    exact, two = (np.maximum(row, 1e-4) / np.maximum(row, 1e-4).sum() for row in (truth, other))
    return float((exact * np.log(exact / two)).sum())


@pytest.mark.parametrize("symmetry", ["auto", "always"])
def test_entropy_finds_the_range_with_the_least_divergence(symmetry: Symmetry) -> None:
    values = OUTLIERS[-20_000:]
    step = width(values)
    low, high = range_of(seen(values), "entropy", symmetry=symmetry)
    largest = float(np.abs(values).max())
    divergences = {}
    for index in range(8, 129, 4):
        end = index / 128 * largest
        ends = (-end, end) if symmetry == "always" else (max(-end, float(values.min())), min(end, float(values.max())))
        rounded = np.floor(ends[0] / step) * step, np.ceil(ends[1] / step) * step
        if rounded[1] - rounded[0] > 256.5 * step:
            divergences[end] = naive_divergence(values, *rounded, step)
    least = min(divergences.values())
    chosen = naive_divergence(values, float(np.floor(low / step) * step), float(np.ceil(high / step) * step), step)
    assert chosen <= least + 1e-9
    assert high < 0.5 * largest


def test_entropy_and_mse_cut_far_outliers_and_minmax_does_not() -> None:
    assert range_of(seen(OUTLIERS), "minmax")[1] == 80
    for method, most in (("entropy", 20), ("percentile", 20), ("mse", 60)):
        assert range_of(seen(OUTLIERS), method)[1] < most, method


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize(
    ("values", "low", "high"),
    [(np.zeros(50), 0, 0), (np.full(50, 3.0), 0, 3), (np.full(50, -2.5), -2.5, 0), (np.full(50, 1e-42), 0, 1e-42)],
    ids=["zeros", "constant", "negative constant", "subnormal"],
)
def test_ranges_of_constants_hold_the_constant_and_zero(method: str, values: Values, low: float, high: float) -> None:
    ends = range_of(seen(values.astype(np.float32)), method)
    assert ends[0] <= 0 <= ends[1]
    assert ends == pytest.approx((low, high), rel=1e-2, abs=1e-38)


@pytest.mark.parametrize(
    ("method", "parameter", "word"),
    [("kl", None, "kl"), ("percentile", 50.0, "above 50"), ("percentile", 101.0, "above 50"), ("mse", 3.0, "none")],
)
def test_a_wrong_method_or_parameter_is_named(method: str, parameter: float | None, word: str) -> None:
    with pytest.raises(InputError, match=word):
        range_of(seen(NORMAL), method, parameter)


def test_resolution_is_never_less_than_half_a_side() -> None:
    for largest in (1.0, 1.0001, 1.9, 2.0):
        assert width(np.array([largest], np.float32)) <= largest * 2 / BINS_A_SIDE
