"""Figures in words: how the page and the terminal write numbers. What was not measured is a dash, never `nan` or
`None`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from plimsoll.core.budget import Check

MISSING = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NO_BREAK = "\u00a0"
"""Between a figure and its unit: no line breaks there."""


def number(value: float, digits: int = 3) -> str:
    """Return a figure with so many significant digits, without an exponent where it is of human size: 1,109, 0.0182,
    4.2·10⁻⁷."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-5 or size >= 1e15:
        factor, _, power = f"{value:.{digits - 1}e}".partition("e")
        factor = factor.rstrip("0").rstrip(".") if "." in factor else factor
        return f"{factor}·10{str(int(power)).translate(_SUPERSCRIPTS)}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{size:,.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"−{text}" if value < 0 else text


def with_unit(value: float, unit: str) -> str:
    """Return a figure and its unit, where it has one: 2.37 %."""
    return f"{number(value)}{_NO_BREAK}{unit}" if unit else number(value)


def bound(value: float, unit: str = "", *, upper: bool = True) -> str:
    """Return a bound with its unit, with three significant digits: an upper one rounded up, a lower one down, so that
    what is written is still a bound: 1.26 %."""
    if not math.isfinite(value) or value == 0:
        return with_unit(value, unit) if math.isfinite(value) else number(value)
    exact = Decimal(f"{value:.12g}")  # 100 × 0.07 is no more than 7.
    step = Decimal(1).scaleb(exact.adjusted() - 2)
    return with_unit(float(exact.quantize(step, ROUND_CEILING if upper else ROUND_FLOOR)), unit)


@dataclass(frozen=True)
class CheckInWords:
    """A check as it is written everywhere: on the page, in the terminal, on the page of a service."""

    name: str
    measured: str
    """In the sample; a dash where it is not known."""
    bound: str
    """The 95 % bound, which is judged; a dash where the measured figure is."""
    limit: str
    result: str

    @property
    def judged(self) -> str:
        """What is held against the limit."""
        return self.measured if self.bound == MISSING else self.bound

    @property
    def judged_name(self) -> str:
        """What is held against the limit, by its name."""
        return "the measured figure" if self.bound == MISSING else f"the 95{_NO_BREAK}% bound"

    @property
    def evidence(self) -> str:
        """The figures by their names: `flips at 0.8: measured 0 %, 95 % bound 2.37 %`."""
        figures = (("measured", self.measured), (f"95{_NO_BREAK}% bound", self.bound))
        return f"{self.name}: " + ", ".join(f"{name} {text}" for name, text in figures if text != MISSING)


def check_in_words(check: Check) -> CheckInWords:
    """Return a check in words; its bound is rounded towards the limit, so that what is written is still a bound."""
    upper = check.direction == "at_most"
    return CheckInWords(
        name=check.name,
        measured=with_unit(check.measured, check.unit) if math.isfinite(check.measured) else number(check.measured),
        bound=MISSING if check.bound is None else bound(check.bound, check.unit, upper=upper),
        limit=f"{'≤' if upper else '≥'}{_NO_BREAK}{with_unit(check.limit, check.unit)}",
        result=f"✓{_NO_BREAK}passed" if check.passed else f"✗{_NO_BREAK}failed",
    )


def missed(check: Check) -> str:
    """Return a failed check in words, with the limit that was missed, and by how much: `flips at 0.8: measured 1 %,
    95 % bound 6.2 %; the limit is 4 %, missed by 2.2 %`."""
    if not math.isfinite(check.judged):
        return f"{check.name}: {check.detail or 'not measured'}"
    by = with_unit(abs(check.judged - check.limit), check.unit)
    limit = with_unit(check.limit, check.unit)
    return f"{check_in_words(check).evidence}; the limit is {limit}, missed by {by}"


def signed(value: float) -> str:
    """Return a difference with its sign: +0.018, −0.004, 0."""
    return f"+{number(value, 2)}" if math.isfinite(value) and value > 0 else number(value, 2)


def score(value: float) -> str:
    """Return a score: three decimals, four below 0.1, fewer from a hundred on."""
    if not math.isfinite(value) or abs(value) >= 100:
        return number(value)
    return f"{value:.{3 if abs(value) >= 0.1 else 4}f}".replace("-", "−")


def ratio(value: float) -> str:
    """Return a ratio: 4.83×, 0.62×, 12.4×."""
    return f"{ratio_and_interval(value)[0]}×" if math.isfinite(value) else MISSING


def ratio_and_interval(value: float, low: float = math.nan, high: float = math.nan) -> tuple[str, str]:
    """Return a ratio and its interval with the same number of decimals: `("2.18", "2.15 … 2.21")`.

    The ends are rounded outwards: the interval as written covers the true one, and the ratio as written lies in it. It
    is empty where an end is unknown.
    """
    if not math.isfinite(value):
        return MISSING, ""
    decimals = 2 if value == 0 or 0.1 <= abs(value) < 10 else max(0, 2 - math.floor(math.log10(abs(value))))
    written = _rounded(value, decimals, ROUND_HALF_EVEN)
    if not math.isfinite(low) or not math.isfinite(high):
        return written, ""
    ends = _rounded(min(low, value), decimals, ROUND_FLOOR), _rounded(max(high, value), decimals, ROUND_CEILING)
    return written, " … ".join(ends)


def _rounded(value: float, decimals: int, direction: str) -> str:
    # The shortest decimal that reads as this number: 2.3 is no 2.29999….
    rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), direction)
    return f"{rounded:,}".replace("-", "−")


def ratio_with_interval(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Return a ratio with its interval, where it has one: 2.18× (2.15 … 2.21)."""
    written, interval = ratio_and_interval(value, low, high)
    return f"{written}× ({interval})" if interval else ratio(value)


def times_as_fast(value: float, low: float = math.nan, high: float = math.nan, *, other: str = "") -> str:
    """Return a ratio of speeds in words: `2.18 times as fast as A (95 % interval 2.15 … 2.21)`."""
    written, interval = ratio_and_interval(value, low, high)
    versus = f" as {other}" if other else ""
    return f"{written} times as fast{versus}" + (f" (95 % interval {interval})" if interval else "")


def percent(share: float) -> str:
    """Return a share in per cent: 0.024 → 2.4 %."""
    if not math.isfinite(share):
        return MISSING
    return f"<0.1{_NO_BREAK}%" if 0 < share < 0.0005 else f"{share * 100:.1f}{_NO_BREAK}%"


def reduction(value: float, baseline: float) -> str:
    """Return by how much a value is below its baseline, in whole per cent, rounded down: 73 %."""
    if not math.isfinite(value) or not math.isfinite(baseline) or baseline <= 0:
        return MISSING
    return f"{math.floor(100 * (1 - value / baseline) + 1e-9)}{_NO_BREAK}%"


def percent_at_most(share: float) -> str:
    """Return an upper bound in per cent, rounded up: what is written must still be a bound."""
    return bound(100 * share, "%")


def count(value: float) -> str:
    """Return a whole number with thousands separators."""
    return f"{value:,.0f}" if math.isfinite(value) else MISSING


def counted(value: int, noun: str) -> str:
    """Return a number and its noun: 1 picture, 125 pictures."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def rate(value: float) -> str:
    """Return images a second: whole from ten on."""
    return count(value) if not math.isfinite(value) or value >= 10 else number(value, 2)


def size(value: float) -> str:
    """Return bytes in decimal units: 6.2 MB."""
    if not math.isfinite(value):
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:,.{0 if value >= 100 * scale else 1}f}{_NO_BREAK}{unit}"
    return f"{value:.0f}{_NO_BREAK}B"


def milliseconds(value: float) -> str:
    """Return milliseconds, as a bare number: 0.61, 8.6, 104."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else count(value)


def duration(seconds: float) -> str:
    """Return a time: 310 ms, 4.2 s, 5 min 12 s, 2 h 5 min."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{seconds * 1000:.0f}{_NO_BREAK}ms"
    if seconds < 60:
        return f"{seconds:.1f}{_NO_BREAK}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def decibels(value: float) -> str:
    """Return a ratio in dB; equal tensors have an infinite one."""
    if value == math.inf:
        return "equal"
    return f"{value:.1f} dB".replace("-", "−") if math.isfinite(value) else number(value)
