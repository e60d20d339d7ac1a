"""What measured times support: percentiles that their count allows, and ratios with an interval and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError
from plimsoll.metrics import decisions as metrics
from plimsoll.metrics.decisions import CONFIDENCE, MINIMUM_COUNTS
from plimsoll.report import figures

MARGIN = 0.01
"""A ratio nearer to 1 than this is no difference, however surely it is measured: nobody deploys for one percent."""

MINIMUM_ROUNDS = 6
"""Fewer paired rounds have no 95 % interval: even their extremes cover the median in 1 - 2 * 0.5^5 = 93.75 % of cases.
"""

Verdict = Literal["faster", "slower", "no difference"]


def percentile(values: Sequence[float] | NDArray[Any], rank: float) -> float:
    """Return the nearest-rank percentile; raises InputError for a rank that has no minimum count, and for fewer values
    than that."""
    needed = MINIMUM_COUNTS.get(rank)
    if needed is None:
        raise InputError(f"percentile {rank:g}: allowed are {', '.join(f'{allowed:g}' for allowed in MINIMUM_COUNTS)}")
    value = metrics.percentile(np.asarray(values, np.float64), rank)
    if value is None:
        raise InputError(
            f"P{rank:g} of {len(values):,} values: it takes at least {needed:,}",
            "Measure longer, or raise the minimum count.",
        )
    return value


def percentiles(values: Sequence[float] | NDArray[Any]) -> dict[str, float]:
    """Return all percentiles that the count supports, by name: `p50`, `p90` …"""
    return {f"p{rank:g}": percentile(values, rank) for rank, needed in MINIMUM_COUNTS.items() if len(values) >= needed}


@dataclass(frozen=True)
class Estimate:
    """A median and the interval that covers the true one with at least 95 % confidence."""

    median: float
    low: float
    high: float

    @property
    def uncertainty(self) -> float:
        """How far the interval reaches from the median, as a share of it: a smaller difference can't be detected."""
        return max(self.high - self.median, self.median - self.low) / self.median if self.median > 0 else math.inf


def estimate(values: Sequence[float]) -> Estimate:
    """Return the median with its sign-test interval (Conover, Practical Nonparametric Statistics, section 3.2).

    Of n values in order, the k-th from either end bound the median unless more than n-k of them fall on one side, which
    a fair coin does with a probability of 2 * P(Bin(n, 1/2) < k). It holds for noise of any shape, so that rounds in
    which something else ran cost width, not truth. Below MINIMUM_ROUNDS values the interval is infinite.
    """
    if not values:
        return Estimate(math.nan, -math.inf, math.inf)
    ordered = sorted(values)
    count, tail, cut = len(ordered), 0.0, 0
    while cut < count:
        tail += math.comb(count, cut) * 0.5**count
        if 2 * tail > 1 - CONFIDENCE:
            break
        cut += 1
    median = statistics.median(ordered)
    return Estimate(median, ordered[cut - 1], ordered[count - cut]) if cut else Estimate(median, -math.inf, math.inf)


@dataclass(frozen=True)
class SpeedComparison:
    """A candidate against the baseline, round by round."""

    baseline: str
    candidate: str
    ratios: tuple[float, ...]
    """How many times as fast as the baseline the candidate was, in each round."""
    speed: Estimate
    """Their median and its interval."""

    @property
    def verdict(self) -> Verdict:
        """`faster` or `slower` where the whole interval lies beyond 1 and the margin."""
        if self.speed.low > 1 + MARGIN:
            return "faster"
        if self.speed.high < 1 / (1 + MARGIN):
            return "slower"
        return "no difference"

    def sentence(self) -> str:
        """Return the headline, for example `B is 1.84 times as fast as A (95 % interval 1.79 … 1.90): faster`."""
        if not math.isfinite(self.speed.low):
            return (
                f"{self.candidate} against {self.baseline}: {len(self.ratios)} rounds are too few for a verdict, at"
                f" least {MINIMUM_ROUNDS} are needed"
            )
        speed = figures.times_as_fast(self.speed.median, self.speed.low, self.speed.high, other=self.baseline)
        return f"{self.candidate} is {speed}: {self.verdict}"


def compare_speeds(baseline: str, candidate: str, before: Sequence[float], after: Sequence[float]) -> SpeedComparison:
    """Compare speeds (higher is faster) that were measured in the same rounds; a round where the baseline had none is
    left out."""
    ratios = tuple(new / old for old, new in zip(before, after, strict=True) if old > 0)
    return SpeedComparison(baseline, candidate, ratios, estimate(ratios))


def spread(values: Sequence[float]) -> float:
    """Return the interquartile range as a share of the median: 0 for a still machine; NaN below 4 values."""
    if len(values) < 4 or not statistics.median(values):
        return math.nan
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / statistics.median(values)
