"""What changed in the decisions: flips with exact bounds, the deviation of scores, and whether their order held.

Figures without an exact bound get one from the bootstrap (Efron and Tibshirani 1993), seeded, so that a proof repeats
itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]
"""From the pictures' weights (how often each was drawn) to the figure; NaN where a draw doesn't have one."""

RESAMPLES = 2_000
NORMAL_FROM = 20_000
"""From so many pictures on the mean is normally distributed to three digits, and drawing would only take time."""

_SEED = 20_160_930
_BLOCK = 4_000_000
_NORMAL = NormalDist()


def mean_upper_bound(values: Floats, confidence: float) -> float:
    """Return the one-sided upper bound of the mean of the population that `values` were drawn from.

    Bias-corrected and accelerated (Efron 1987), since absolute differences are skewed: few large ones among many small.
    The mean itself where all values are equal.
    """
    count, mean = values.size, float(values.mean())
    centred = values - mean
    spread = math.sqrt(float(np.square(centred).mean()))
    if count < 2 or spread <= 1e-12 * abs(mean):
        return mean
    if count >= NORMAL_FROM:
        return mean + _NORMAL.inv_cdf(confidence) * spread / math.sqrt(count - 1)
    means = np.concatenate([values[drawn].mean(axis=1) for drawn in _draws(count)])
    below = (float((means < mean).sum()) + float((means == mean).sum()) / 2) / RESAMPLES
    bias = _NORMAL.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    acceleration = float(np.power(centred / spread, 3).mean()) / (6 * math.sqrt(count))
    shifted = bias + _NORMAL.inv_cdf(confidence)
    level = _NORMAL.cdf(bias + shifted / max(1 - acceleration * shifted, 1e-6))
    return float(np.quantile(means, level))


def bounds(statistic: Statistic, count: int, confidence: float) -> tuple[float, float, float]:
    """Return (one-sided lower bound, two-sided low, two-sided high) of a figure of `count` pictures, by percentiles.

    All NaN where fewer than nine in ten draws have a figure at all (a class with one or two pictures).
    """
    figures = [
        statistic(np.bincount(pictures, minlength=count).astype(np.float64))
        for drawn in _draws(count)
        for pictures in drawn
    ]
    return _percentiles(np.array(figures), confidence)


def ratio_bounds(parts: Floats, wholes: Floats, confidence: float) -> tuple[float, float, float]:
    """Return `bounds` of the sum of `parts` over the sum of `wholes`, both one a picture."""
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = np.concatenate([parts[drawn].sum(axis=1) / wholes[drawn].sum(axis=1) for drawn in _draws(parts.size)])
    return _percentiles(figures, confidence)


def _draws(count: int) -> Iterator[NDArray[np.int64]]:
    """Yield RESAMPLES times `count` of `count` pictures, as blocks of indices `[draws, count]`."""
    generator = np.random.default_rng(_SEED)
    rows = max(1, _BLOCK // count)
    for start in range(0, RESAMPLES, rows):
        yield generator.integers(0, count, (min(rows, RESAMPLES - start), count))


def _percentiles(figures: Floats, confidence: float) -> tuple[float, float, float]:
    figures = figures[np.isfinite(figures)]
    if figures.size < 0.9 * RESAMPLES:
        return math.nan, math.nan, math.nan
    tail = 1 - confidence
    low, two_low, two_high = np.quantile(figures, [tail, tail / 2, 1 - tail / 2])
    return float(low), float(two_low), float(two_high)


Scores = NDArray[np.float64]

CONFIDENCE = 0.95

MINIMUM_COUNTS: Mapping[float, int] = MappingProxyType({50.0: 1, 90.0: 64, 95.0: 130, 99.0: 662, 99.9: 6_636})
"""How many samples support a percentile: the smallest query counts of MLPerf LoadGen's early stopping, for 99 %
confidence with a margin of a twentieth of the tail."""


@dataclass(frozen=True)
class Flips:
    """How many of `total` decisions differ from the reference's."""

    count: int
    total: int
    up: int = 0
    """Of these, how many went from below the threshold to above it."""
    down: int = 0

    @property
    def share(self) -> float:
        """The share in the sample; NaN where it is empty."""
        return self.count / self.total if self.total else math.nan

    def upper_bound(self, confidence: float = CONFIDENCE) -> float:
        """Return the largest share that the sample leaves possible, one-sided."""
        return upper_bound(self.count, self.total, confidence)


@dataclass(frozen=True)
class ScoreDeviation:
    """Absolute differences between scores, in the scores' unit; infinite where only one side is a number."""

    count: int
    maximum: float
    mean: float
    mean_upper: float
    """The mean's upper 95 % bound, one-sided, by the bootstrap."""
    p99: float | None
    """The 99th percentile; None below 662 pictures, which support none."""


def flips(reference: NDArray[Any], other: NDArray[Any], threshold: float) -> Flips:
    """Compare the decisions `score >= threshold` of two rows of scores; a score that is NaN on one side only counts
    as flipped.

    Raises InputError where the rows differ in length.
    """
    first, second = _pair(reference, other)
    before, after = first >= threshold, second >= threshold
    one_is_nan = np.isnan(first) != np.isnan(second)
    up, down = int((after & ~before & ~one_is_nan).sum()), int((before & ~after & ~one_is_nan).sum())
    return Flips(up + down + int(one_is_nan.sum()), first.size, up, down)


def score_deviation(reference: NDArray[Any], other: NDArray[Any]) -> ScoreDeviation:
    """Measure how far scores lie from the reference's. Raises InputError for rows of different length or no rows."""
    first, second = _pair(reference, other)
    if not first.size:
        raise InputError("no scores to compare", "Give pictures that both models can answer.")
    finite = np.isfinite(first) & np.isfinite(second)
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return ScoreDeviation(
            first.size, math.inf, math.inf, math.inf, math.inf if first.size >= MINIMUM_COUNTS[99.0] else None
        )
    difference = np.zeros(first.shape)
    difference[finite] = np.abs(first[finite] - second[finite])
    return ScoreDeviation(
        difference.size,
        float(difference.max()),
        float(difference.mean()),
        mean_upper_bound(difference, CONFIDENCE),
        percentile(difference, 99.0),
    )


def percentile(values: NDArray[Any], rank: float) -> float | None:
    """Return the smallest value that at least `rank` percent of the values don't exceed (nearest rank, nothing
    interpolated), or None where there are too few values for it (see MINIMUM_COUNTS)."""
    if values.size < MINIMUM_COUNTS[rank]:
        return None
    return float(np.percentile(values, rank, method="inverted_cdf"))


def spearman(reference: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None where one side is constant, not finite, or
    shorter than 2."""
    first, second = _pair(reference, other)
    if first.size < 2 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    first, second = ranks(first), ranks(second)
    first, second = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return min(1.0, max(-1.0, float(first @ second) / scale)) if scale else None


def ranks(values: NDArray[Any]) -> Scores:
    """Return each value's rank from 1, equal values at the mean of their ranks."""
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[indices], np.float64)


def _pair(reference: NDArray[Any], other: NDArray[Any]) -> tuple[Scores, Scores]:
    first, second = np.asarray(reference, np.float64).ravel(), np.asarray(other, np.float64).ravel()
    if first.size != second.size:
        raise InputError(f"{first.size} scores against {second.size}: they can't be compared one by one")
    return first, second


def upper_bound(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided upper bound of a share after `count` of `total`: at a larger one, so few would be seen in
    fewer than 1 - confidence of all samples.

    Clopper and Pearson, Biometrika 26 (1934): the quantile `confidence` of Beta(count + 1, total - count). 1 where
    nothing was seen.
    """
    _check(count, total, confidence)
    return 1.0 if count == total else beta_quantile(confidence, count + 1, total - count)


def interval(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson interval of a share."""
    _check(count, total, confidence)
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else beta_quantile(tail, count, total - count + 1)
    return low, 1.0 if count == total else beta_quantile(1 - tail, count + 1, total - count)


def pictures_needed(share: float, count: int = 0, confidence: float = CONFIDENCE) -> int:
    """Return the least number of pictures of which `count` may flip while the one-sided bound stays at or below
    `share`."""
    low, high = count, count + 1
    while upper_bound(count, high, confidence) > share:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if upper_bound(count, middle, confidence) > share else (low, middle)
    return high


def _check(count: int, total: int, confidence: float) -> None:
    if not 0 <= count <= total or not 0 < confidence < 1:
        raise InputError(
            f"{count} of {total} at a confidence of {confidence}: expected 0 <= count <= total and a confidence between"
            " 0 and 1"
        )


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return x with I_x(a, b) = probability, by bisection to the last bit of a float."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if incomplete_beta(middle, a, b) < probability else (low, middle)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), a, b > 0, by its continued fraction (DLMF 8.17.22,
    Lentz's method)."""
    if x <= 0.0 or x >= 1.0:
        return min(1.0, max(0.0, x))
    if x > (a + 1) / (a + b + 2):  # The fraction converges quickly on the other side.
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    ratio, c, d = 1.0, 1.0, 0.0
    for step in range(20_000):
        half = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        d = 1.0 + term * d
        d = 1.0 / (d if abs(d) > tiny else tiny)
        c = 1.0 + term / c
        c = c if abs(c) > tiny else tiny
        ratio *= c * d
        if abs(1.0 - c * d) < 1e-15:
            break
    return front * (ratio - 1.0)
