"""Shares of a population from a stratified random sample of it, with intervals that hold for rare classes too.

The population is divided into cells of known size; of each, some members were drawn at random and judged. The interval
of a cell's share has the Clopper-Pearson lower and the Jeffreys upper limit (Brown, Cai and DasGupta, Statistical
Science 16, 2001), whose distances from the share shrink by the finite population correction sqrt(1 - n / N). Sums over
cells get their interval by MOVER, the method of variance estimates recovery (Zou and Donner, Statistics in Medicine 27,
2008), and ratios by inverting it, as Fieller's method does for normal variables. `benchmarks/threshold.py` simulates
how often these intervals contain the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plimsoll.errors import InputError
from plimsoll.metrics.decisions import CONFIDENCE, beta_quantile

Floats = NDArray[np.float64]
_STEPS = 40
"""Bisections of a share: to 1e-12."""


@dataclass(frozen=True)
class Estimate:
    """A figure of the population, and its two-sided interval."""

    value: float
    """NaN where the sample has nothing to say."""
    low: float
    high: float

    def as_list(self) -> list[float | None]:
        """Return value, low, high for JSON, which has no NaN."""
        return [None if math.isnan(self.value) else self.value, self.low, self.high]


@dataclass(frozen=True)
class Cells:
    """Cells of a population: `[cells]` each, float64."""

    population: Floats
    """How many members each cell has."""
    share: Floats
    """Which share of the sampled members is positive; 1/2 where none was sampled."""
    below: Floats
    """From the share down to its lower limit."""
    above: Floats
    """From the share up to its upper limit."""
    seen: NDArray[np.bool_]
    """Whether any member was sampled."""

    @classmethod
    def of(
        cls, population: ArrayLike, sampled: ArrayLike, positive: ArrayLike, confidence: float = CONFIDENCE
    ) -> Cells:
        """Return cells of which `sampled` members were drawn, `positive` of them positive.

        Raises InputError unless positive <= sampled <= population.
        """
        whole, drawn, hits = (np.asarray(values, np.int64).ravel() for values in (population, sampled, positive))
        if not (whole.size == drawn.size == hits.size and ((hits >= 0) & (hits <= drawn) & (drawn <= whole)).all()):
            raise InputError("cells of a sample: expected 0 <= positive <= sampled <= population in each")
        limits = np.array([_limits(int(x), int(n), confidence) for x, n in zip(hits, drawn, strict=True)])
        low, high = limits.reshape(-1, 2).T
        share = np.where(drawn > 0, hits / np.maximum(drawn, 1), 0.5)
        finite = np.sqrt(1 - drawn / np.maximum(whole, 1))
        return cls(whole.astype(np.float64), share, (share - low) * finite, (high - share) * finite, drawn > 0)

    def total(self, weights: ArrayLike) -> Estimate:
        """Return the sum of weight * share over the cells; `weights` is a number for each, of either sign."""
        factors = np.asarray(weights, np.float64)
        down = np.where(factors > 0, factors * self.below, factors * self.above)
        up = np.where(factors > 0, factors * self.above, factors * self.below)
        value = float(factors @ self.share)
        return Estimate(value, value - math.sqrt(float(down @ down)), value + math.sqrt(float(up @ up)))

    def mean(self, chosen: NDArray[np.bool_]) -> Estimate:
        """Return which share of the members of the chosen cells is positive; NaN, 0 to 1, where none was sampled."""
        members = np.where(chosen, self.population, 0.0)
        if not (self.seen & (members > 0)).any():
            return Estimate(math.nan, 0.0, 1.0)
        estimate = self.total(members / members.sum())
        return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high))

    def part(self, chosen: NDArray[np.bool_]) -> Estimate:
        """Return which share of all positive members lies in the chosen cells.

        The interval holds each share for which that of (1 - share) * chosen - share * others contains 0.
        """
        inside = np.where(chosen, self.population, 0.0)
        outside = self.population - inside
        positive = float(self.population @ self.share)
        value = float(inside @ self.share) / positive if positive else math.nan

        def excess(share: float) -> Estimate:
            return self.total((1 - share) * inside - share * outside)

        return Estimate(
            value,
            _last(lambda share: excess(share).low > 0, rising=True),
            _last(lambda share: excess(share).high < 0, rising=False),
        )


def _last(outside: Callable[[float], bool], *, rising: bool) -> float:
    """Return the end of an interval in 0 … 1: the last share, coming from 0 (`rising`) or from 1, that is outside."""
    start, end = (0.0, 1.0) if rising else (1.0, 0.0)
    if not outside(start):
        return start
    for _ in range(_STEPS):
        middle = (start + end) / 2
        start, end = (middle, end) if outside(middle) else (start, middle)
    return start


@lru_cache(1 << 16)
def _limits(positive: int, sampled: int, confidence: float) -> tuple[float, float]:
    tail, others = (1 - confidence) / 2, sampled - positive
    low = 0.0 if positive == 0 else beta_quantile(tail, positive, others + 1)
    return low, 1.0 if others == 0 else beta_quantile(1 - tail, positive + 0.5, others + 0.5)
