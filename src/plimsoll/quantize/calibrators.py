"""Calibrators: what is kept of a tensor over many pictures, and the ranges that five methods make of it: min–max,
moving average, percentile, entropy (KL) and mean squared error.

`TensorStatistics` has the same size however many pictures there are. Its histogram has `2 × BINS_A_SIDE` bins of equal
width from `-limit` to `limit`, zero always an edge, and `limit` always a power of two: `limit = 2^ceil(log2(max |x|))`
of the values so far. When a larger value comes, `limit` doubles as often as needed, and each doubling merges
neighbours: `new[j] = old[2j] + old[2j + 1]` on each side of zero. Doubled edges are edges of before, so merging loses
no count and the histogram is the same whatever the order and grouping of the pictures. At least half of a side's bins
lie below the largest value: its resolution is between `max |x| / 4096` and `max |x| / 2048`.

Exact zeros are counted by themselves: every quantizer represents them exactly, and after a ReLU they are mostly the
majority, which would drown the rest of the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.wording import unknown
from plimsoll.errors import InputError
from plimsoll.quantize.parameters import QuantizationParams, Symmetry

Range = tuple[float, float]
Floats = NDArray[np.float64]

DEFAULT_PERCENTILE = 99.999
LEVELS = 256
CANDIDATES = 128
"""Thresholds that entropy and mse try: this many equal steps up to the largest absolute value, from the 8th on."""

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
    """What a tensor held on the pictures so far."""

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
        """Return the statistics of one picture's tensor. NaN and infinity are not binned; they show as a `low` or
        `high` that is not finite."""
        flat = np.ascontiguousarray(values, np.float32).ravel()
        statistics = cls(pictures=1)
        if flat.size == 0:
            statistics.low = statistics.high = 0.0
            return statistics
        statistics.low, statistics.high = float(flat.min()), float(flat.max())  # Both are NaN where any value is.
        statistics.average_low, statistics.average_high = AVERAGING * statistics.low, AVERAGING * statistics.high
        largest = max(-statistics.low, statistics.high)
        if not math.isfinite(largest) or not math.isfinite(statistics.low):
            return statistics
        statistics.zeros = flat.size - int(np.count_nonzero(flat))
        if largest > 0:
            statistics.exponent = _exponent(largest)
            statistics._bin(flat)
        return statistics

    def _bin(self, flat: NDArray[np.float32]) -> None:
        assert self.exponent is not None  # noqa: S101 - set by the caller
        # A power of two: scaling is exact, and so is the bin of each value. The smallest numbers of float32 have no
        # inverse in it.
        kind = np.float32 if self.exponent > _LEAST_EXPONENT else np.float64
        scale = kind(math.ldexp(BINS_A_SIDE, -self.exponent))
        counts = np.zeros(2 * BINS_A_SIDE + 1, np.int64)
        for start in range(0, flat.size, _CHUNK):
            bins: NDArray[Any] = flat[start : start + _CHUNK].astype(kind)
            bins *= scale
            np.floor(bins, out=bins)
            bins += kind(BINS_A_SIDE)
            counts += np.bincount(bins.astype(np.intp), minlength=2 * BINS_A_SIDE + 1)
        counts[-2] += counts[-1]  # The largest value may be the limit itself.
        counts[BINS_A_SIDE] -= self.zeros
        self.counts = counts[:-1]

    def add(self, other: TensorStatistics) -> None:
        """Add another's counts and extremes; that `other` comes later matters to the moving average alone."""
        self.low, self.high = _least(self.low, other.low), -_least(-self.high, -other.high)
        decay = (1 - AVERAGING) ** other.pictures
        self.average_low = decay * self.average_low + other.average_low
        self.average_high = decay * self.average_high + other.average_high
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
        """How many values were counted."""
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


def range_of(
    statistics: TensorStatistics, method: str, parameter: float | None = None, symmetry: Symmetry = "auto"
) -> Range:
    """Return the range (low, high) of a tensor by a method of METHODS; low ≤ 0 ≤ high, for zero must be representable.

    `parameter` is the percentile of the method `percentile`, above 50 to 100 (default 99.999); the others take none.
    `symmetry` is the one that the network will be quantized with: `mse` measures the error with it, `entropy` on
    ranges symmetric around zero (`always`) or clipped to the values that occur. Raises InputError.
    """
    check_method(method, parameter)
    low, high = METHODS[method](statistics, parameter, symmetry)
    return min(low, 0.0), max(high, 0.0)


def check_method(method: str, parameter: float | None) -> None:
    """Raise InputError for an unknown method, or a parameter that it doesn't take."""
    if method not in METHODS:
        raise InputError(unknown("calibration method", method, METHODS))
    if parameter is not None and (method != "percentile" or not 50 < parameter <= 100):
        expected = "above 50 to 100" if method == "percentile" else "none"
        raise InputError(f"calibration method {method}: parameter {parameter}, expected {expected}")


def _minmax(statistics: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    del parameter, symmetry
    return statistics.low, statistics.high


def _moving_average(statistics: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    """Return the exponential moving average of each picture's extremes."""
    del parameter, symmetry
    return statistics.average()


def _percentile(statistics: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    """Cut the tails so that the share `parameter` of all values lies between, half of the rest on each side (as ONNX
    Runtime does)."""
    del symmetry
    outside = (1 - (DEFAULT_PERCENTILE if parameter is None else parameter) / 100) / 2
    return _quantile(statistics, outside), _quantile(statistics, 1 - outside)


def _quantile(statistics: TensorStatistics, share: float) -> float:
    """Return the value below which `share` of all values lie, by straight lines within the bins; at least `low`, at
    most `high`."""
    below = int(statistics.counts[:BINS_A_SIDE].sum())
    target = share * statistics.total
    if below <= target <= below + statistics.zeros:
        return 0.0
    if target > below:
        target -= statistics.zeros
    # Counted from the nearer end: from the far one the rounding of a sum of millions would swallow a tail of a few
    # values.
    upper = share > 0.5
    tail = statistics.counts[::-1] if upper else statistics.counts
    rest = int(statistics.counts.sum()) - target if upper else target
    sums = np.cumsum(tail)
    index = min(int(np.searchsorted(sums, rest, side="left")), len(tail) - 1)
    before = int(sums[index - 1]) if index else 0
    inside = (rest - before) / max(int(tail[index]), 1)
    distance = (index + inside - BINS_A_SIDE) * statistics.width
    return min(max(-distance if upper else distance, statistics.low), statistics.high)


def _thresholds(statistics: TensorStatistics) -> Floats:
    largest = max(-statistics.low, statistics.high)
    return np.linspace(0, largest, CANDIDATES + 1)[8:]


def _clipped(statistics: TensorStatistics, threshold: float, symmetry: Symmetry) -> Range:
    """Return the range that a threshold means: both sides of zero, or only as far as values occur."""
    return (
        (-threshold, threshold)
        if symmetry == "always"
        else (max(-threshold, statistics.low), min(threshold, statistics.high))
    )


def _mse(statistics: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    """Return the range with the least mean squared error of quantizing, each bin standing for its middle."""
    del parameter
    if statistics.exponent is None:
        return 0.0, 0.0
    used = np.flatnonzero(statistics.counts)
    middles = (used - BINS_A_SIDE + 0.5) * statistics.width
    weights = statistics.counts[used]
    best, least = (statistics.low, statistics.high), math.inf
    for threshold in _thresholds(statistics)[::-1]:
        candidate = _clipped(statistics, float(threshold), symmetry)
        error = float(
            weights @ (QuantizationParams.of_range(*candidate, symmetry=symmetry).fake_quantize(middles) - middles) ** 2
        )
        if error < least:
            best, least = candidate, error
    return best


def _entropy(statistics: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    """Return the range with the least Kullback–Leibler divergence between the values and what quantizing leaves of
    them.

    S. Migacz, "8-bit Inference with TensorRT" (GTC 2017), in the two-sided form of MXNet's `_get_optimal_threshold`:
    outliers are counted into the outermost bins, bins are gathered into as many groups as the grid has steps inside the
    range, and a group's count is spread evenly over those of its bins that are not empty.
    """
    del parameter
    if statistics.exponent is None:
        return 0.0, 0.0
    best, least = (statistics.low, statistics.high), math.inf
    for threshold in _thresholds(statistics)[::-1]:
        candidate = _clipped(statistics, float(threshold), symmetry)
        divergence = _divergence(statistics, candidate)
        if divergence < least:
            best, least = candidate, divergence
    return best


def _divergence(statistics: TensorStatistics, candidate: Range) -> float:
    first = max(0, BINS_A_SIDE + math.floor(candidate[0] / statistics.width))
    last = min(2 * BINS_A_SIDE, BINS_A_SIDE + math.ceil(candidate[1] / statistics.width))
    inside = statistics.counts[first:last].astype(np.float64)
    if len(inside) <= LEVELS:
        return math.inf  # Fewer bins than steps: nothing would be lost, by the histogram's coarseness alone.
    truth = inside.copy()
    truth[0] += statistics.counts[:first].sum()
    truth[-1] += statistics.counts[last:].sum()
    starts = np.arange(LEVELS) * len(inside) // LEVELS
    filled = truth > 0
    sizes = np.diff(np.append(starts, len(inside)))
    members = np.maximum(np.add.reduceat(filled.astype(np.float64), starts), 1)
    spread = np.where(filled, np.repeat(np.add.reduceat(inside, starts) / members, sizes), 0.0)
    return _kullback_leibler(truth, spread)


_FLOOR = 1e-4
"""What an empty bin counts, as in MXNet's smoothing, so that the logarithm exists."""


def _kullback_leibler(truth: Floats, other: Floats) -> float:
    if not other.any():
        return math.inf
    first, second = (np.maximum(counts, _FLOOR) / np.maximum(counts, _FLOOR).sum() for counts in (truth, other))
    return float(np.sum(first * np.log(first / second)))


METHODS: dict[str, Callable[[TensorStatistics, float | None, Symmetry], Range]] = {
    "minmax": _minmax,
    "moving_average": _moving_average,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
"""The calibrators by their names."""
