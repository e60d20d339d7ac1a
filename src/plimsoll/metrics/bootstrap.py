"""Bounds for figures that have no exact one: the bootstrap (Efron and Tibshirani 1993), seeded, so that a proof repeats
itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

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
    generator = np.random.default_rng(_SEED)
    rows = max(1, _BLOCK // count)
    means = np.concatenate(
        [
            values[generator.integers(0, count, (min(rows, RESAMPLES - start), count))].mean(axis=1)
            for start in range(0, RESAMPLES, rows)
        ]
    )
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
    generator = np.random.default_rng(_SEED)
    drawn = np.array(
        [
            statistic(np.bincount(generator.integers(0, count, count), minlength=count).astype(np.float64))
            for _ in range(RESAMPLES)
        ]
    )
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size < 0.9 * RESAMPLES:
        return math.nan, math.nan, math.nan
    tail = 1 - confidence
    low, two_low, two_high = np.quantile(drawn, [tail, tail / 2, 1 - tail / 2])
    return float(low), float(two_low), float(two_high)
