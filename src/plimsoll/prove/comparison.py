"""Compare two models' answers to the same pictures, from their scores alone: what changed, and what the sample says of
all others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from plimsoll.core.budget import Bounded, Evidence
from plimsoll.metrics.bootstrap import Floats
from plimsoll.metrics.decisions import Flips, ScoreDeviation, flips, pictures_needed, score_deviation, spearman
from plimsoll.metrics.labelled import Change, binary, multiclass
from plimsoll.spec.output import Classify

Scores = Mapping[str, float]
Pair = tuple[Scores, Scores | None]
"""The reference's scores, label → score, and the other's; None where it has no answer."""

_TOP = 5
_ALIASES = {"top1": "accuracy", "accuracy": "top1"}
"""With a positive label the accuracy is that of its threshold; elsewhere it is top-1."""


@dataclass(frozen=True)
class Comparison:
    """What became of the answers."""

    pictures: int
    """Answered by the reference."""
    lost: int
    """Of these, how many the other has no answer to: each counts as a flipped decision."""
    flips: tuple[tuple[float | None, Flips], ...]
    """(threshold, flips); the threshold is None where the decision is the best label."""
    deviation: ScoreDeviation | None
    """Of the positive label's score, else of the label that the reference finds best. None where nothing was answered
    by both."""
    rank_correlation: float | None
    """Spearman's; None where it is not defined."""
    changes: tuple[Change, ...] = ()
    """With labels: each metric."""
    labelled: int = 0

    @property
    def headline(self) -> str:
        """The verdict on the decisions with its sample, in one line: the threshold with the most flips."""
        if not self.flips or not self.pictures:
            return "no decision was compared"
        threshold, worst = max(self.flips, key=lambda one: one[1].count)
        several = len(self.flips) > 1
        where = "" if threshold is None else f" at {threshold:g}" if worst.count or not several else " at any threshold"
        return f"{worst.count:,} of {worst.total:,} decisions flipped{where}; {confidence_in_words(worst)}"

    def evidence(self) -> Evidence:
        """Return the figures with the bounds that a budget is judged by."""
        found: dict[str, list[Bounded]] = {"flips": [_flips_figure(threshold, one) for threshold, one in self.flips]}
        if self.deviation is not None:
            mean = Bounded(
                "mean score deviation",
                self.deviation.mean,
                self.deviation.mean_upper,
                f"{self.deviation.mean:.2g} in the sample",
            )
            covered = 0.05 ** (1 / self.deviation.count)
            told = f"with 95 % confidence {100 * covered:.3g} % of all pictures deviation no more"
            largest = Bounded("largest score deviation", self.deviation.maximum, self.deviation.maximum, told)
            found |= {"deviation": [mean], "max_deviation": [largest]}
        for change in self.changes:
            figures = [_change_figure(change)]
            found[change.name] = figures
            if (alias := _ALIASES.get(change.name)) is not None:
                found.setdefault(alias, figures)
        return found

    def details(self) -> dict[str, JsonValue]:
        """Return everything as plain data."""
        deviation = self.deviation
        return {
            "count": self.pictures,
            "lost": self.lost,
            "deviation": (
                None
                if deviation is None
                else {
                    "max": deviation.maximum,
                    "mean": deviation.mean,
                    "mean_upper": deviation.mean_upper,
                    "p99": deviation.p99,
                }
            ),
            "flips": [
                {
                    "threshold": at,
                    "count": one.total,
                    "flipped": one.count,
                    "up": one.up,
                    "down": one.down,
                    "upper": one.upper_bound() if one.total else None,
                }
                for at, one in self.flips
            ],
            "rank_correlation": self.rank_correlation,
            "labelled": {
                change.name: {
                    "reference": change.reference,
                    "other": change.other,
                    "change": change.change,
                    "lower": change.lower,
                    "low": change.interval[0] if change.interval else None,
                    "high": change.interval[1] if change.interval else None,
                }
                for change in self.changes
            },
            "labelled_pictures": self.labelled,
        }


def default_thresholds(output: Classify) -> tuple[float, ...]:
    """Return the scores at which decisions are compared: the Spec's threshold first, then 0.5 and the edges of the
    bands, each once."""
    if output.positive is None:
        return ()
    first = 0.5 if output.threshold is None else output.threshold
    return tuple(dict.fromkeys((first, 0.5, *(band.below for band in output.bands if band.below is not None))))


def compare(
    output: Classify,
    pairs: Sequence[Pair],
    *,
    truths: Sequence[str | None] | None = None,
    thresholds: Iterable[float] | None = None,
) -> Comparison:
    """Compare answers picture by picture; `truths` holds each picture's right label or None.

    `thresholds` replace those of the Spec, for Specs with a positive label; labelled metrics are taken at the first.
    """
    at = default_thresholds(output) if thresholds is None or output.positive is None else tuple(thresholds)
    both = [(first, second) for first, second in pairs if second is not None]
    lost = len(pairs) - len(both)
    ours, theirs = compared_scores(output, both)
    if output.positive is not None:
        counted: list[tuple[float | None, Flips]] = [(threshold, flips(ours, theirs, threshold)) for threshold in at]
    else:
        changed = sum(
            _decision(first, output.threshold) != _decision(second, output.threshold) for first, second in both
        )
        counted = [(None, Flips(changed, len(both)))]
    with_lost = tuple(
        (threshold, Flips(one.count + lost, one.total + lost, one.up, one.down)) for threshold, one in counted
    )
    changes, labelled = _labelled(output, pairs, truths, at)
    return Comparison(
        pictures=len(pairs),
        lost=lost,
        flips=with_lost,
        deviation=score_deviation(ours, theirs) if both else None,
        rank_correlation=spearman(ours, theirs),
        changes=changes,
        labelled=labelled,
    )


def compared_scores(output: Classify, both: Sequence[tuple[Scores, Scores]]) -> tuple[Floats, Floats]:
    """Return reference and other `[N]`: the positive label's score, else that of the label which the reference finds
    best."""
    labels = [output.positive or _best(first) for first, _ in both]
    return (
        np.array([first[label] for label, (first, _) in zip(labels, both, strict=True)], np.float64),
        np.array([second[label] for label, (_, second) in zip(labels, both, strict=True)], np.float64),
    )


def _best(scores: Scores) -> str:
    return max(scores, key=lambda label: scores[label])


def _decision(scores: Scores, threshold: float | None) -> str | None:
    best = _best(scores)
    return best if threshold is None or scores[best] >= threshold else None


def _labelled(
    output: Classify, pairs: Sequence[Pair], truths: Sequence[str | None] | None, thresholds: tuple[float, ...]
) -> tuple[tuple[Change, ...], int]:
    known = [
        (first, second, truth)
        for (first, second), truth in zip(pairs, truths or (), strict=False)
        if second is not None and truth is not None
    ]
    if not known:
        return (), 0
    if output.positive is not None:
        positive = output.positive
        truth = np.array([one == positive for _, _, one in known])
        ours, theirs = np.array([one[0][positive] for one in known]), np.array([one[1][positive] for one in known])
        return binary(truth, ours, theirs, thresholds[0]), len(known)
    place = {label: count for count, label in enumerate(output.labels)}
    truth = np.array([place[one] for _, _, one in known])
    sides = [[one[0] for one in known], [one[1] for one in known]]
    chosen = [np.array([place.get(_decision(scores, output.threshold) or "", -1) for scores in side]) for side in sides]
    hits = [
        np.array([_is_among(scores, one[2], _TOP) for scores, one in zip(side, known, strict=True)]) for side in sides
    ]
    return multiclass(truth, chosen[0], chosen[1], {_TOP: hits} if len(output.labels) > _TOP else {}), len(known)


def _is_among(scores: Scores, label: str, best: int) -> bool:
    return sum(value > scores[label] for value in scores.values()) < best


def _flips_figure(threshold: float | None, one: Flips) -> Bounded:
    name = "flips of the label" if threshold is None else f"flips at {threshold:g}"
    if not one.total:
        return Bounded(name, math.nan, math.nan, "no decision was compared")
    moved = f": {one.up:,} up, {one.down:,} down" if one.up or one.down else ""
    return Bounded(name, one.share, one.upper_bound(), f"{one.count:,} of {one.total:,}{moved}")


def _change_figure(change: Change) -> Bounded:
    if change.change is None or change.lower is None or change.reference is None or change.other is None:
        why = f"not defined on these {change.count:,} labelled pictures: too few of a class, or none flagged"
        return Bounded(f"change of {change.name}", math.nan, math.nan, why)
    detail = f"{change.reference:.4g} → {change.other:.4g} on {change.count:,} labelled pictures"
    return Bounded(f"change of {change.name}", change.change, change.lower, detail)


def confidence_in_words(one: Flips) -> str:
    """Say what a sample of decisions proves of all others: `with 95 % confidence fewer than 0.6 % do`."""
    return f"with 95 % confidence fewer than {percent_above(one.upper_bound())} do"


def percent_above(share: float) -> str:
    """Write a share in percent with two digits, rounded up: it is a bound."""
    if share <= 0:
        return "0 %"
    step = 10 ** (math.floor(math.log10(100 * share)) - 1)
    return f"{math.ceil(100 * share / step - 1e-9) * step:.3g} %"


def too_few(limit: float, one: Flips) -> str:
    """Say how many pictures a bound on flips would need, where no number of them flipped or the sample is too small for
    the limit; else nothing."""
    share_seen = one.share
    needed = pictures_needed(limit, one.count)
    if share_seen <= limit < one.upper_bound():
        return (
            f"{one.total:,} pictures are too few to prove {100 * limit:g} %: with {one.count:,} flipped it takes"
            f" {needed:,}"
        )
    return ""
