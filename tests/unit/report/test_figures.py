"""Figures in words: units, signs, rounding that never claims too much, and dashes for what was not measured."""

from __future__ import annotations

import math

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
    ("ratio", "text"),
    [(4.89, "4.8×"), (4.8, "4.8×"), (5.0, "5.0×"), (0.71, "0.7×"), (12.9, "12×"), (NAN, "–")],
)
def test_a_headline_never_claims_more_than_was_measured(ratio: float, text: str) -> None:
    assert figures.ratio_rounded_down(ratio) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.02367, "2.4 %"), (0.02, "2 %"), (0.0201, "2.1 %"), (0.147, "15 %"), (1.0, "100 %"), (0.0, "0 %"), (NAN, "–")],
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
