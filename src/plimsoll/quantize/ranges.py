"""Ranges out of statistics: the calibrators min–max, moving average, percentile, entropy (KL) and mean squared error."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError
from plimsoll.quantize import parameters
from plimsoll.quantize.histogram import BINS_A_SIDE, TensorStatistics
from plimsoll.quantize.parameters import Symmetry

Range = tuple[float, float]
Floats = NDArray[np.float64]

DEFAULT_PERCENTILE = 99.999
LEVELS = 256
CANDIDATES = 128
"""Thresholds that entropy and mse try: this many equal steps up to the largest absolute value, from the 8th on."""


def range_of(seen: TensorStatistics, method: str, parameter: float | None = None, symmetry: Symmetry = "auto") -> Range:
    """Return the range (low, high) of a tensor by a method of METHODS; low ≤ 0 ≤ high, since zero must be on the grid.

    `parameter` is the percentile of the method `percentile`, above 50 to 100 (default 99.999); the others take none.
    `symmetry` is the one that the network will be quantized with: `mse` measures the error on that grid, `entropy` on
    ranges symmetric around zero (`always`) or clipped to the values that occur. Raises InputError.
    """
    check_method(method, parameter)
    low, high = METHODS[method](seen, parameter, symmetry)
    return min(low, 0.0), max(high, 0.0)


def check_method(method: str, parameter: float | None) -> None:
    """Raise InputError for a method that isn't there, or a parameter that it doesn't take."""
    if method not in METHODS:
        raise InputError(f"'{method}' is no calibration method", f"Choose one of {', '.join(METHODS)}.")
    if parameter is not None and (method != "percentile" or not 50 < parameter <= 100):
        expected = "above 50 to 100" if method == "percentile" else "none"
        raise InputError(f"calibration method {method}: parameter {parameter}, expected {expected}")


def _minmax(seen: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    del parameter, symmetry
    return seen.low, seen.high


def _moving_average(seen: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    """Return the exponential moving average of each picture's extremes."""
    del parameter, symmetry
    return seen.average()


def _percentile(seen: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    """Cut the tails so that the share `parameter` of all values lies between, half of the rest on each side (as ONNX
    Runtime does)."""
    del symmetry
    outside = (1 - (DEFAULT_PERCENTILE if parameter is None else parameter) / 100) / 2
    return _quantile(seen, outside), _quantile(seen, 1 - outside)


def _quantile(seen: TensorStatistics, share: float) -> float:
    """Return the value below which `share` of all values lie, by straight lines within the bins; at least `low`, at
    most `high`."""
    below = int(seen.counts[:BINS_A_SIDE].sum())
    wanted = share * seen.total
    if below <= wanted <= below + seen.zeros:
        return 0.0
    if wanted > below:
        wanted -= seen.zeros
    # Counted from the nearer end: from the far one the rounding of a sum of millions would swallow a tail of a few
    # values.
    upper = share > 0.5
    tail = seen.counts[::-1] if upper else seen.counts
    rest = int(seen.counts.sum()) - wanted if upper else wanted
    sums = np.cumsum(tail)
    place = min(int(np.searchsorted(sums, rest, side="left")), len(tail) - 1)
    before = int(sums[place - 1]) if place else 0
    inside = (rest - before) / max(int(tail[place]), 1)
    distance = (place + inside - BINS_A_SIDE) * seen.width
    return min(max(-distance if upper else distance, seen.low), seen.high)


def _thresholds(seen: TensorStatistics) -> Floats:
    largest = max(-seen.low, seen.high)
    return np.linspace(0, largest, CANDIDATES + 1)[8:]


def _clipped(seen: TensorStatistics, threshold: float, symmetry: Symmetry) -> Range:
    """Return the range that a threshold means: both sides of zero, or only as far as values occur."""
    return (-threshold, threshold) if symmetry == "always" else (max(-threshold, seen.low), min(threshold, seen.high))


def _mse(seen: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    """Return the range whose grid has the least mean squared error, each bin standing for its middle."""
    del parameter
    if seen.exponent is None:
        return 0.0, 0.0
    used = np.flatnonzero(seen.counts)
    middles = (used - BINS_A_SIDE + 0.5) * seen.width
    weights = seen.counts[used]
    best, least = (seen.low, seen.high), math.inf
    for threshold in _thresholds(seen)[::-1]:
        candidate = _clipped(seen, float(threshold), symmetry)
        error = float(weights @ (parameters.grid(*candidate, symmetry=symmetry).snap(middles) - middles) ** 2)
        if error < least:
            best, least = candidate, error
    return best


def _entropy(seen: TensorStatistics, parameter: float | None, symmetry: Symmetry) -> Range:
    """Return the range with the least Kullback–Leibler divergence between the values and what quantizing leaves of
    them.

    S. Migacz, "8-bit Inference with TensorRT" (GTC 2017), in the two-sided form of MXNet's `_get_optimal_threshold`:
    outliers are counted into the outermost bins, bins are gathered into as many groups as the grid has steps inside the
    range, and a group's count is spread evenly over those of its bins that are not empty.
    """
    del parameter
    if seen.exponent is None:
        return 0.0, 0.0
    best, least = (seen.low, seen.high), math.inf
    for threshold in _thresholds(seen)[::-1]:
        candidate = _clipped(seen, float(threshold), symmetry)
        divergence = _divergence(seen, candidate)
        if divergence < least:
            best, least = candidate, divergence
    return best


def _divergence(seen: TensorStatistics, candidate: Range) -> float:
    first = max(0, BINS_A_SIDE + math.floor(candidate[0] / seen.width))
    last = min(2 * BINS_A_SIDE, BINS_A_SIDE + math.ceil(candidate[1] / seen.width))
    inside = seen.counts[first:last].astype(np.float64)
    if len(inside) <= LEVELS:
        return math.inf  # Fewer bins than steps: nothing would be lost, by the histogram's coarseness alone.
    truth = inside.copy()
    truth[0] += seen.counts[:first].sum()
    truth[-1] += seen.counts[last:].sum()
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
    first, second = (np.maximum(one, _FLOOR) / np.maximum(one, _FLOOR).sum() for one in (truth, other))
    return float(np.sum(first * np.log(first / second)))


METHODS: dict[str, Callable[[TensorStatistics, float | None, Symmetry], Range]] = {
    "minmax": _minmax,
    "moving_average": _moving_average,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
"""The calibrators by their names."""
