"""`TensorStatistics`: what calibration keeps of a tensor that it saw on many pictures; its size doesn't depend on how
many.

Bins. A histogram has `2 × BINS_A_SIDE` bins of equal width from `-limit` to `limit`, zero always an edge, and `limit`
always a power of two: `limit = 2^ceil(log2(max |x|))` of what it has seen. When a larger value comes, `limit` doubles
as often as needed, and each doubling merges neighbours: `new[j] = old[2j] + old[2j + 1]` on each side of zero. Doubled
edges are edges of before, so merging loses no count and the histogram is the same whatever the order and grouping of
the pictures. At least half of a side's bins lie below the largest value: its resolution is between `max |x| / 4096` and
`max |x| / 2048`.

Exact zeros are counted by themselves: every quantizer hits them exactly, and after a ReLU they are mostly the majority,
which would drown the rest of the distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

BINS_A_SIDE = 4096
AVERAGING = 0.01
"""The constant of the moving average, as in PyTorch's MovingAverageMinMaxObserver and in Jacob et al. 2018 (arXiv
1712.05877, section 3.1)."""

_LEAST_EXPONENT = -100
_CHUNK = 1 << 16
"""Values binned at once: the temporaries stay in the processor's cache and small however large the tensor."""

Counts = NDArray[np.int64]


@dataclass
class TensorStatistics:
    """What was seen of a tensor."""

    low: float = math.inf
    high: float = -math.inf
    """The extremes of all values."""
    average_low: float = 0.0
    average_high: float = 0.0
    """Exponential moving averages over the pictures' extremes, not yet divided by `1 - (1 - AVERAGING)^pictures`."""
    pictures: int = 0
    zeros: int = 0
    exponent: int | None = None
    """`limit = 2^exponent`; None until a value other than zero came."""
    counts: Counts = field(default_factory=lambda: np.zeros(2 * BINS_A_SIDE, np.int64))

    @classmethod
    def of(cls, values: NDArray[Any]) -> Self:
        """Take one picture's tensor. NaN and infinity show as a `low` or `high` that is not finite, and are not binned."""
        flat = np.ascontiguousarray(values, np.float32).ravel()
        one = cls(pictures=1)
        if flat.size == 0:
            one.low = one.high = 0.0
            return one
        one.low, one.high = float(flat.min()), float(flat.max())  # Both are NaN where any value is.
        one.average_low, one.average_high = AVERAGING * one.low, AVERAGING * one.high
        largest = max(-one.low, one.high)
        if not math.isfinite(largest) or not math.isfinite(one.low):
            return one
        one.zeros = flat.size - int(np.count_nonzero(flat))
        if largest > 0:
            one.exponent = _exponent(largest)
            one._bin(flat)
        return one

    def _bin(self, flat: NDArray[np.float32]) -> None:
        assert self.exponent is not None  # noqa: S101 - set by the caller
        # A power of two: scaling is exact, and so is the bin of each value. The smallest numbers of float32 have no
        # inverse in it.
        kind = np.float32 if self.exponent > _LEAST_EXPONENT else np.float64
        scale = kind(math.ldexp(BINS_A_SIDE, -self.exponent))
        counts = np.zeros(2 * BINS_A_SIDE + 1, np.int64)
        for start in range(0, flat.size, _CHUNK):
            places: NDArray[Any] = flat[start : start + _CHUNK].astype(kind)
            places *= scale
            np.floor(places, out=places)
            places += kind(BINS_A_SIDE)
            counts += np.bincount(places.astype(np.intp), minlength=2 * BINS_A_SIDE + 1)
        counts[-2] += counts[-1]  # The largest value may be the limit itself.
        counts[BINS_A_SIDE] -= self.zeros
        self.counts = counts[:-1]

    def add(self, other: TensorStatistics) -> None:
        """Take what another one saw; `other` comes after this one, which matters to the moving average alone."""
        self.low, self.high = _least(self.low, other.low), -_least(-self.high, -other.high)
        keep = (1 - AVERAGING) ** other.pictures
        self.average_low = keep * self.average_low + other.average_low
        self.average_high = keep * self.average_high + other.average_high
        self.pictures += other.pictures
        self.zeros += other.zeros
        if other.exponent is None:
            return
        own = other.exponent if self.exponent is None else self.exponent
        self.exponent = max(own, other.exponent)
        self.counts = _widened(self.counts, self.exponent - own) + _widened(
            other.counts, self.exponent - other.exponent
        )

    @property
    def total(self) -> int:
        """How many values were seen."""
        return self.zeros + int(self.counts.sum())

    @property
    def width(self) -> float:
        """How wide a bin is; 0 where all values are zero."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent) / BINS_A_SIDE

    def average(self) -> tuple[float, float]:
        """Return the moving averages of the pictures' extremes, free of their start at zero (Kingma & Ba, arXiv
        1412.6980, section 3)."""
        weight = 1 - (1 - AVERAGING) ** self.pictures
        return self.average_low / weight, self.average_high / weight


def _least(first: float, second: float) -> float:
    """Return the smaller; NaN where either is."""
    return math.nan if math.isnan(first) or math.isnan(second) else min(first, second)


def _exponent(largest: float) -> int:
    mantissa, exponent = math.frexp(largest)  # largest = mantissa × 2^exponent, mantissa from 0.5 to below 1
    return exponent - 1 if mantissa == 0.5 else exponent


def _widened(counts: Counts, doublings: int) -> Counts:
    """Return the counts over a range `2^doublings` times as wide."""
    if doublings == 0:
        return counts
    size = BINS_A_SIDE >> min(doublings, BINS_A_SIDE.bit_length() - 1)
    negative, positive = (side.reshape(size, -1).sum(axis=1) for side in (counts[:BINS_A_SIDE], counts[BINS_A_SIDE:]))
    wide = np.zeros_like(counts)
    wide[BINS_A_SIDE - size : BINS_A_SIDE] = negative
    wide[BINS_A_SIDE : BINS_A_SIDE + size] = positive
    return wide
