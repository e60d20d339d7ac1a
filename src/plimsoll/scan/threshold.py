"""Thresholds from reviewed pictures: what each band of scores holds and costs, the curves, and the choice of bands.

All intervals are two-sided, of 95 % each (`metrics.stratified`); the end of an interval is a bound of 97.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import CheckError, InputError
from plimsoll.metrics.stratified import Cells, Estimate
from plimsoll.scan.decisions import ReviewedTable

SAFE, REVIEW, UNSAFE = "safe", "review", "unsafe"
_LOW = (0.001, 0.002, 0.003, 0.004, 0.005, 0.007)
CANDIDATES = (
    *_LOW,
    *(number / 100 for number in range(1, 100)),
    *(round(1 - low, 3) for low in reversed(_LOW)),
)
"""Thresholds that curves show and that bands are chosen from."""

Named = tuple[str, float | None]
"""A band's label, and the score below which it ends; the last has no end."""


@dataclass(frozen=True)
class BandFigures:
    """What a band holds."""

    label: str
    low: float | None
    """The first score in it; None where it has no lower end."""
    below: float | None
    """The score where it ends; None where it doesn't."""
    pictures: int
    share: float
    """Of all pictures with a score."""
    reviewed: int
    bad_reviewed: int
    bad: Estimate
    """Which share of its pictures is bad."""
    of_bad: Estimate
    """Which share of all bad pictures lies in it."""
    unseen: int
    """Pictures in it of cells that nobody reviewed: half of them count as bad, and none or all in the interval."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {**self.__dict__, "bad": self.bad.as_list(), "of_bad": self.of_bad.as_list()}


@dataclass(frozen=True)
class CurvePoint:
    """What a threshold does if all pictures from it on are called bad: a point of the PR and of the ROC curve."""

    threshold: float
    flagged: float
    """Which share of the pictures reaches it."""
    precision: Estimate
    recall: Estimate
    false_positives: Estimate
    """Which share of the fine pictures reaches it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        estimates = {name: getattr(self, name).as_list() for name in ("precision", "recall", "false_positives")}
        return {"threshold": self.threshold, "flagged": self.flagged, **estimates}


class ThresholdStudy:
    """The figures of a table that people have reviewed a sample of."""

    def __init__(self, reviewed: ReviewedTable) -> None:
        self.reviewed = reviewed

    @cached_property
    def bad(self) -> Estimate:
        """Which share of all pictures is bad."""
        cells, group, _ = self._cells(())
        return cells.mean(group == 0)

    def bands(self, named: Sequence[Named]) -> list[BandFigures]:
        """Return the figures of bands, which meet at scores that the table was counted at."""
        ends = [below for _, below in named if below is not None]
        cells, group, counts = self._cells(ends)
        population = self.reviewed.population
        figures = []
        for number, (label, below) in enumerate(named):
            inside = group == number
            pictures, sampled, positive = (int(part[inside].sum()) for part in counts)
            figures.append(
                BandFigures(
                    label=label,
                    low=ends[number - 1] if number else None,
                    below=below,
                    pictures=pictures,
                    share=pictures / population,
                    reviewed=sampled,
                    bad_reviewed=positive,
                    bad=cells.mean(inside),
                    of_bad=cells.part(inside),
                    unseen=int(counts[0][inside & (counts[1] == 0)].sum()),
                )
            )
        return figures

    @cached_property
    def curve(self) -> list[CurvePoint]:
        """The points of the curves at all candidates, by rising threshold."""
        points = []
        for threshold in CANDIDATES:
            cells, group, (population, sampled, positive) = self._cells([threshold])
            above = group == 1
            fine = Cells.of(population, sampled, sampled - positive)
            flagged = int(population[above].sum()) / self.reviewed.population
            points.append(CurvePoint(threshold, flagged, cells.mean(above), cells.part(above), fine.part(above)))
        return points

    def choose(self, largest_pass: float | None, precision: float | None) -> list[Named]:
        """Return the bands that keep the limits, each by the end of its interval.

        The safe band ends at the highest threshold up to which at most `largest_pass` of the bad pictures lie below;
        the unsafe band begins at the lowest from which on at least `precision` of the pictures are bad, and each
        threshold is judged by itself. What lies between is for people. Raises CheckError where no threshold does.
        """
        low = None if largest_pass is None else self._highest_safe(largest_pass)
        high = None if precision is None else self._lowest_unsafe(precision, 0.0 if low is None else low)
        if low is None:
            return [(REVIEW, high), (UNSAFE, None)]
        if high is None:
            return [(SAFE, low), (REVIEW, None)]
        return [(SAFE, low), (UNSAFE, None)] if high == low else [(SAFE, low), (REVIEW, high), (UNSAFE, None)]

    def _highest_safe(self, limit: float) -> float:
        chosen, least = None, (math.inf, 0.0)
        for threshold, passed in ((point.threshold, 1 - point.recall.low) for point in self.curve):
            least = min(least, (passed, threshold))
            if passed > limit and chosen is not None:
                break
            if passed <= limit:
                chosen = threshold
        if chosen is None:
            raise CheckError(
                f"no threshold keeps the bad pictures that pass at or below {limit:.2%}: at {least[1]:g} up to"
                f" {least[0]:.2%} may pass",
                "Review more pictures of low scores, or allow more with --pass.",
            )
        return chosen

    def _lowest_unsafe(self, limit: float, low: float) -> float:
        points = [(point.threshold, point.precision.low) for point in self.curve if point.threshold >= low]
        for threshold, precise in points:
            if precise >= limit:
                return threshold
        best = max(points, key=lambda point: point[1])
        raise CheckError(
            f"no threshold keeps the precision at or above {limit:.1%}: at {best[0]:g} it is at least {best[1]:.1%}",
            "Review more pictures of high scores, or ask for less with --precision.",
        )

    def _cells(
        self, thresholds: Sequence[float]
    ) -> tuple[Cells, NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Return the cells, stratum by band, the number of each cell's band, and each cell's pictures, reviewed and
        bad."""
        table = self.reviewed
        ends = np.asarray(thresholds, np.float64)
        edges = np.union1d(table.strata, ends)
        bounds = np.searchsorted(table.edges, edges)  # each of them is an edge of the table
        total = np.concatenate([[0], np.cumsum(table.counts)])
        population = np.diff(total[np.concatenate([[0], bounds + 1, [table.counts.size]])])
        cell = np.searchsorted(edges, table.scores, side="right")
        sampled = np.bincount(cell, minlength=population.size)
        positive = np.bincount(cell[table.bad], minlength=population.size)
        group = np.searchsorted(ends, np.concatenate([[-np.inf], edges]), side="right")
        return Cells.of(population, sampled, positive), group, (population, sampled, positive)


def named_bands(ends: Sequence[float]) -> list[Named]:
    """Return the bands that meet at one or two scores; raises InputError for any other number, and where they don't
    rise."""
    if len(ends) not in (1, 2) or list(ends) != sorted(set(ends)) or not 0 < ends[0] <= ends[-1] <= 1:
        raise InputError(
            f"bands at {', '.join(f'{end:g}' for end in ends) or 'no score'}: expected one or two rising scores above"
            " 0 and up to 1",
            "For example 0.2,0.8: safe below 0.2, for people below 0.8, unsafe from there on.",
        )
    labels = (SAFE, UNSAFE) if len(ends) == 1 else (SAFE, REVIEW, UNSAFE)
    return list(zip(labels, (*ends, None), strict=True))


def cost(bands: Sequence[BandFigures]) -> str:
    """Return in a sentence what people have to look at, and what passes unseen: `at 0.27-0.81 people look at 3.1 % of
    pictures and 0.2 % (≤ 0.4 %) of bad ones pass`."""
    looked = [band for band in bands if band.label == REVIEW] or list(bands[1:-1])
    passing = [band for band in bands[:1] if band not in looked]
    parts = []
    if looked:
        low, high = looked[0].low, looked[-1].below
        where = f"below {high:g}" if low is None else f"from {low:g} on" if high is None else f"at {low:g}-{high:g}"
        parts.append(f"{where} people look at {_percent(sum(band.share for band in looked))} of pictures")
    elif passing:
        parts.append(f"at {passing[0].below:g} people look at no picture")
    if passing:
        missed = passing[0].of_bad
        parts.append(f"{_percent(missed.value)} (≤\u00a0{_percent(missed.high, up=True)}) of bad ones pass")
    return " and ".join(parts)


def _percent(share: float, *, up: bool = False) -> str:
    """Return a share in per cent with two figures; a bound is rounded up."""
    if not math.isfinite(share):
        return "an unknown share"
    value = 100 * share
    digits = 1 if value >= 1 else 2 if value >= 0.1 else 3
    scale = 10**digits
    rounded = math.ceil(value * scale - 1e-9) / scale if up else round(value, digits)
    return f"{rounded:g}\u00a0%"


__all__ = ["BandFigures", "CurvePoint", "Estimate", "Named", "ThresholdStudy", "cost", "named_bands"]
