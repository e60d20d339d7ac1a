"""Statistics are bounded in size, exact in their counts, and don't depend on how the pictures come."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.quantize.calibrators import AVERAGING, BINS_A_SIDE, TensorStatistics


def gathered(*parts: np.ndarray) -> TensorStatistics:
    total = TensorStatistics()
    for part in parts:
        total.add(TensorStatistics.of(part))
    return total


def test_counts_are_numpys_over_the_range_of_a_power_of_two() -> None:
    values = np.random.default_rng(0).normal(0, 3, 200_000).astype(np.float32)
    seen = TensorStatistics.of(values)
    limit = 2.0 ** math.ceil(math.log2(float(np.abs(values).max())))
    expected, _ = np.histogram(values.astype(np.float64), bins=2 * BINS_A_SIDE, range=(-limit, limit))
    assert seen.exponent is not None
    assert 2.0**seen.exponent == limit
    np.testing.assert_array_equal(seen.counts, expected)
    assert (seen.low, seen.high) == (float(values.min()), float(values.max()))


def test_a_wider_part_doubles_the_range_and_loses_no_count() -> None:
    rng = np.random.default_rng(1)
    parts = [(rng.normal(0, 10.0**power, 5_000)).astype(np.float32) for power in (-3, 0, 2, -1)]
    streamed, at_once = gathered(*parts), TensorStatistics.of(np.concatenate(parts))
    np.testing.assert_array_equal(streamed.counts, at_once.counts)
    assert streamed.total == at_once.total == 20_000
    assert streamed.exponent == at_once.exponent


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), min_size=2, max_size=6), st.randoms()
)
def test_the_order_of_the_pictures_changes_nothing_but_the_moving_average(
    rows: list[list[float]], random: object
) -> None:
    parts = [np.array(row, np.float32) for row in rows]
    first = gathered(*parts)
    random.shuffle(parts)  # type: ignore[attr-defined]
    second = gathered(*parts)
    np.testing.assert_array_equal(first.counts, second.counts)
    assert (first.low, first.high, first.zeros, first.exponent) == (
        second.low,
        second.high,
        second.zeros,
        second.exponent,
    )


def test_zeros_are_counted_by_themselves() -> None:
    seen = TensorStatistics.of(np.array([0, 0, -0.0, 1, 2], np.float32))
    assert seen.zeros == 3
    assert seen.counts.sum() == 2
    assert seen.total == 5


def test_a_largest_value_that_is_the_limit_itself_is_kept() -> None:
    seen = TensorStatistics.of(np.array([4.0, -4.0], np.float32))
    assert seen.exponent == 2
    assert seen.counts[-1] == 1
    assert seen.counts[0] == 1


def test_the_smallest_numbers_of_float32_are_binned() -> None:
    tiny = np.array([1e-45, 3e-40, -2e-42], np.float32)
    seen = TensorStatistics.of(tiny)
    assert seen.total == 3
    assert seen.counts.sum() == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows(bad: float) -> None:
    total = gathered(np.array([1.0], np.float32), np.array([bad, 1.0], np.float32), np.array([1.0], np.float32))
    assert not (math.isfinite(total.low) and math.isfinite(total.high))


def test_the_moving_average_is_the_textbooks_and_free_of_its_start() -> None:
    rows = [np.array([-low, high], np.float32) for low, high in ((1, 2), (3, 1), (2, 8))]
    low = high = 0.0
    for row in rows:
        low, high = low + AVERAGING * (row[0] - low), high + AVERAGING * (row[1] - high)
    weight = 1 - (1 - AVERAGING) ** len(rows)
    assert gathered(*rows).average() == pytest.approx((low / weight, high / weight))
    constant = gathered(*[np.array([-2.0, 5.0], np.float32)] * 7)
    assert constant.average() == pytest.approx((-2, 5))
