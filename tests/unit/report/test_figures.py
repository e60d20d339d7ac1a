"""Figures in words: units, signs, rounding that never claims too much, and dashes for what was not measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plimsoll.report import figures

NAN, INF = math.nan, math.inf


def plain(text: str) -> str:
    """Return the text with the space between figure and unit as a common one."""
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.0182, "0.0182"), (0.05, "0.05"), (1.0, "1"), (1109.4, "1,109"), (20.0, "20"),
        (0.00021, "0.00021"), (4.2e-7, "4.2·10⁻⁷"), (-0.5, "−0.5"), (-4.2e-7, "−4.2·10⁻⁷"), (0.9996, "1"),
        (NAN, "–"), (INF, "∞"), (-INF, "−∞"), (123456.0, "123,456"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert figures.number(value) == text


@pytest.mark.parametrize(
    ("ratio", "low", "high", "text"),
    [
        (2.18, 2.15, 2.2, "2.18× (2.15 … 2.20)"),
        (2.1549, 2.1546, 2.2001, "2.15× (2.15 … 2.21)"),
        (12.94, 12.91, 13.049, "12.9× (12.9 … 13.1)"),
        (0.62, 0.6, 0.701, "0.62× (0.60 … 0.71)"),
        (0.0314, 0.03, 0.0329, "0.0314× (0.0300 … 0.0329)"),
        (1234.5, 1100.2, 1300.0, "1,234× (1,100 … 1,300)"),
        (9.999, 9.9, 10.1, "10.00× (9.90 … 10.10)"),
        (2.5, 2.6, 2.7, "2.50× (2.50 … 2.70)"),
        (2.5, NAN, 2.7, "2.50×"),
        (2.5, -INF, INF, "2.50×"),
        (0.0, 0.0, 0.0, "0.00× (0.00 … 0.00)"),
        (NAN, 1.0, 2.0, "–"),
    ],
)
def test_a_ratio_and_its_interval_have_the_same_decimals(ratio: float, low: float, high: float, text: str) -> None:
    assert figures.ratio_with_interval(ratio, low, high) == text


def test_a_ratio_as_written_lies_in_its_interval_which_is_never_narrower_than_the_true_one() -> None:
    rng = np.random.default_rng(12)
    true = np.sort(
        np.exp(rng.normal(0.0, 2.0, (10_000, 1)) + rng.normal(0.0, rng.choice([1e-4, 0.02, 0.5]), (10_000, 3)))
    )
    true[::3] = np.sort(true[::3].round(rng.integers(0, 4)))
    for low, ratio, high in true.tolist():
        written, interval = figures.ratio_and_interval(ratio, low, high)
        shown_low, shown_high = (float(end.replace(",", "")) for end in interval.split(" … "))
        assert shown_low <= low <= high <= shown_high
        assert shown_low <= float(written.replace(",", "")) <= shown_high
        words = figures.times_as_fast(ratio, low, high, other="A")
        assert words == f"{written} times as fast as A (95 % interval {interval})"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.02367, "2.37 %"),
        (0.02, "2 %"),
        (0.020101, "2.02 %"),
        (0.0126015, "1.27 %"),
        (0.07, "7 %"),
        (0.147, "14.7 %"),
        (1.0, "100 %"),
        (0.0, "0 %"),
        (NAN, "–"),
    ],
)
def test_a_bound_is_rounded_up(share: float, text: str) -> None:
    assert plain(figures.percent_at_most(share)) == text


def test_other_units() -> None:
    assert [plain(figures.size(size)) for size in (NAN, 512, 6.2e6, 341e6, 3.9e9)] == [
        "–",
        "512 B",
        "6.2 MB",
        "341 MB",
        "3.9 GB",
    ]
    assert [plain(figures.duration(time)) for time in (0.31, 4.2, 312.5, 7500, NAN)] == [
        "310 ms",
        "4.2 s",
        "5 min 12 s",
        "2 h 5 min",
        "–",
    ]
    assert [plain(figures.percent(share)) for share in (0.0, 0.0001, 0.649, 1.0)] == [
        "0.0 %",
        "<0.1 %",
        "64.9 %",
        "100.0 %",
    ]
    assert [figures.milliseconds(time) for time in (0.04, 20.1, 1040.0)] == ["0.04", "20.1", "1,040"]
    assert [figures.signed(change) for change in (0.018, -0.004, 0.0, NAN)] == ["+0.018", "−0.004", "0", "–"]
    assert [figures.counted(count, "picture") for count in (0, 1, 1250)] == [
        "0 pictures",
        "1 picture",
        "1,250 pictures",
    ]
