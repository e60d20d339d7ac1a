"""Figures in words: how the page writes numbers. What was not measured is a dash, never `nan` or `None`."""

from __future__ import annotations

import math

MISSING = "–"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SPACE = "\u00a0"
"""Between a figure and its unit: no line breaks there."""


def known(value: float | None) -> bool:
    """Whether there is a figure, and a finite one."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure with so many significant digits, without an exponent where it is of human size: 1,109, 0.0182,
    4.2·10⁻⁷."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-5 or size >= 1e15:
        factor, _, power = f"{value:.{digits - 1}e}".partition("e")
        factor = factor.rstrip("0").rstrip(".") if "." in factor else factor
        return f"{factor}·10{str(int(power)).translate(_RAISED)}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{size:,.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"−{text}" if value < 0 else text


def signed(value: float | None) -> str:
    """Return a difference with its sign: +0.018, −0.004, 0."""
    text = number(value, 2)
    return f"+{text}" if known(value) and value is not None and value > 0 else text


def score(value: float | None) -> str:
    """Return a score: three decimals, four below 0.1, fewer from a hundred on."""
    if value is None or not math.isfinite(value) or abs(value) >= 100:
        return number(value)
    return f"{value:.{3 if abs(value) >= 0.1 else 4}f}".replace("-", "−")


def times(value: float | None) -> str:
    """Return a ratio: 4.83×, 0.62×, 12.4×."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.2f}×" if abs(value) < 10 else f"{number(value)}×"


def interval(low: float | None, high: float | None) -> str:
    """Return the interval of a ratio: 4.69–5.02."""
    return f"{times(low).removesuffix('×')}–{times(high).removesuffix('×')}"


def roughly_times(value: float | None) -> str:
    """Return a ratio as a headline has it: 4.8×, 12×; cut, not rounded, so that it never claims more than was measured."""
    if value is None or not math.isfinite(value):
        return MISSING
    # 4.8 is stored as 4.7999…: the smallest addition keeps the cut from taking a tenth away.
    return f"{math.floor(value * 10 + 1e-9) / 10:.1f}×" if value < 10 else f"{math.floor(value):,}×"


def percent(share: float | None) -> str:
    """Return a share in per cent: 0.024 → 2.4 %."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"<0.1{_SPACE}%" if 0 < share < 0.0005 else f"{share * 100:.1f}{_SPACE}%"


def less(value: float | None, than: float | None) -> str:
    """Return by how much one is less than another, in whole per cent, cut so that it never claims too much: 73 %."""
    if value is None or than is None or not math.isfinite(value) or not math.isfinite(than) or than <= 0:
        return MISSING
    return f"{math.floor(100 * (1 - value / than) + 1e-9)}{_SPACE}%"


def percent_at_most(share: float | None) -> str:
    """Return an upper bound in per cent, rounded up: what is written must still be a bound."""
    if share is None or not math.isfinite(share):
        return MISSING
    per_cent = share * 100
    step = 10 ** (math.floor(math.log10(per_cent)) - 1) if per_cent > 0 else 1.0
    return f"{number(math.ceil(per_cent / step - 1e-9) * step, 2)}{_SPACE}%"


def count(value: float | None) -> str:
    """Return a whole number with thousands set apart."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) else MISSING


def counted(value: int, noun: str) -> str:
    """Return a number and its noun: 1 picture, 125 pictures."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def rate(value: float | None) -> str:
    """Return images a second: whole from ten on."""
    if value is None or not math.isfinite(value):
        return MISSING
    return count(value) if value >= 10 else number(value, 2)


def size(value: float | None) -> str:
    """Return bytes in decimal units: 6.2 MB."""
    if value is None or not math.isfinite(value):
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return (
                f"{value / scale:,.0f}{_SPACE}{unit}" if value >= 100 * scale else f"{value / scale:.1f}{_SPACE}{unit}"
            )
    return f"{value:.0f}{_SPACE}B"


def milliseconds(value: float | None) -> str:
    """Return milliseconds, as a bare number: 0.61, 8.6, 104."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else count(value)


def duration(seconds: float | None) -> str:
    """Return a time: 310 ms, 4.2 s, 5 min 12 s, 2 h 5 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{seconds * 1000:.0f}{_SPACE}ms"
    if seconds < 60:
        return f"{seconds:.1f}{_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
