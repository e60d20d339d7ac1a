"""Axes: from a figure to its coordinate, and which figures get a tick."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """`low` … `high` on `start` … `end` (pixels; `end` may lie before `start`)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a figure; figures outside lie at the nearer end."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return about so many round figures within the axis."""
        step = _round_step((self.high - self.low) / max(1, about))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def covering(values: Iterable[float], start: float, end: float, about: int = 5) -> Linear:
    """Return a linear axis that covers the values and ends on round figures."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / about)
    return Linear(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, start, end)


SPAN = 20_000.0
"""What is smaller than the largest by more than this factor lies at zero: it is rounding, not deviation, and would push
all else together."""


@dataclass(frozen=True)
class Decades:
    """A logarithmic axis with a column of its own for zero, left of a gap.

    Deviations span decades, and the reference's is exactly 0: neither a linear nor a plain logarithmic axis shows both.
    """

    low: float
    high: float
    zero: float
    """Where 0 lies, and all that is smaller than `low` (pixels)."""
    start: float
    end: float

    @classmethod
    def of(cls, values: Iterable[float], limit: float | None, zero: float, start: float, end: float) -> Decades:
        """Return the axis for these figures; a limit is shown with room behind it."""
        known = [value for value in values if math.isfinite(value) and value > 0]
        if limit is not None and limit > 0:
            known += [limit / 3, limit * 2.5]
        if not known:
            known = [0.001, 1.0]
        high = max(known) * 1.5
        return cls(min(value for value in known if value > high / SPAN) / 2.5, high, zero, start, end)

    def __call__(self, value: float) -> float:
        """Return the coordinate of a figure."""
        if value < self.low:
            return self.zero
        share = math.log(min(value, self.high) / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return 1, 2 and 5 of each decade on a short axis, 1 and 3 on a longer one, else the decades."""
        span = math.log10(self.high / self.low)
        parts = (1, 2, 5) if span < 2.2 else (1, 3) if span < 3.3 else (1,)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [tick for decade in decades for part in parts if self.low <= (tick := part * 10.0**decade) <= self.high]


@dataclass(frozen=True)
class LogOdds:
    """Shares between `low` and `high`, spaced by log(p / (1 - p)): as much room for 0.001 … 0.01 and 0.99 … 0.999 as
    they have between them."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, shares: Iterable[float], start: float, end: float) -> LogOdds:
        """Return the axis for these shares; those beyond 0.0001 and 0.9999 lie at its ends."""
        known = [share for share in shares if 0 < share < 1] or [0.5]
        edge = 1e-4
        return cls(
            min(0.1, max(edge, min(known) / 1.5)), max(0.9, min(1 - edge, 1 - (1 - max(known)) / 1.5)), start, end
        )

    def __call__(self, value: float) -> float:
        """Return the coordinate of a share."""
        low, high = _log_odds(self.low), _log_odds(self.high)
        share = (_log_odds(min(self.high, max(self.low, value))) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return the round shares within the axis; `about` is accepted so that it can stand in for Linear."""
        del about
        return [
            tick for tick in (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999) if self.low <= tick <= self.high
        ]


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 × a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))
