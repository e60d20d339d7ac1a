"""Calibration tables of other tools, read and written: ranges that were found once serve every runtime.

Ranges here are `{tensor: (low, high)}`. Most other formats know one number a tensor, the largest absolute value; read
back, that is the range (−t, t).
"""

from __future__ import annotations

from collections.abc import Mapping

Range = tuple[float, float]
Ranges = Mapping[str, Range]

MAX_BYTES = 64_000_000
"""A larger file is not read as a table."""


def threshold(low: float, high: float) -> float:
    """Return the largest absolute value of a range."""
    return max(-low, high, 0.0)


def symmetric(thresholds: Mapping[str, float]) -> dict[str, Range]:
    """Return the ranges around zero that thresholds mean."""
    return {name: (-value, value) for name, value in thresholds.items()}
