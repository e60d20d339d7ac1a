"""Two classifiers' answers to the same pictures, compared from their scores alone: what changed, what the sample says
of all other pictures, and which answers are right where labels are given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import JsonValue

from plimsoll.core.budget import BoundedFigure, Evidence
from plimsoll.metrics.decisions import Flips, Floats, ScoreDeviation, flips, pictures_needed, score_deviation, spearman
from plimsoll.metrics.labelled import MetricChange, binary, multiclass
from plimsoll.prove.comparison import (
    Change,
    Comparer,
    Comparison,
    change_details,
    change_figure,
    complement,
    label_notes,
)
from plimsoll.prove.labels import Truth
from plimsoll.report import figures
from plimsoll.spec.spec import Classify
from plimsoll.tasks import Answer
from plimsoll.tasks.classify import Classification

Scores = Mapping[str, float]
Pair = tuple[Scores, Scores | None]
"""The reference's scores, label → score, and the other's; None where it has no answer."""

_TOP = 5
_SAME = 1e-6
"""Two labels' scores that add up to 1 deviate alike, but for rounding."""
_ALIASES = {"top1": "accuracy", "accuracy": "top1"}
"""With a positive label the accuracy is that of its threshold; elsewhere it is top-1."""


@dataclass(frozen=True)
class ClassificationComparison(Comparison):
    """How the other model's scores and decisions differ from the reference's."""

    pictures: int
    failed: int
    """Each counts as a flipped decision."""
    flips: tuple[tuple[float | None, Flips], ...]
    """(threshold, flips); the threshold is None where the decision is the best label."""
    deviation: ScoreDeviation | None
    """Of the positive label's score, else of the label that the reference finds best. None where nothing was answered
    by both."""
    rank_correlation: float | None
    """Spearman's; None where it is not defined."""
    changes: tuple[MetricChange, ...] = ()
    labelled: int = 0
    other_label: tuple[str, ScoreDeviation] | None = None
    """The label whose scores deviate most on average, where they deviate more than the compared ones."""
    confusion: str = ""
    """Which labels stand in for others, in words."""

    @property
    def cause(self) -> str:
        return self.confusion

    @property
    def notes(self) -> list[str]:
        deviation, rank = self.deviation, self.rank_correlation
        if deviation is None:
            return []
        p99 = f", 99th percentile {deviation.p99:.2g}" if deviation.p99 is not None else ""
        order = "" if rank is None else f"; rank correlation {rank:.5f}"
        mean, most = figures.number(deviation.mean), figures.number(deviation.maximum)
        return [f"Scores deviate by {mean} on average{p99}, {most} at most{order}", *label_notes(self)]

    @property
    def headline(self) -> str:
        if not self.flips or not self.pictures:
            return "no decision was compared"
        threshold, worst = max(self.flips, key=lambda item: item[1].count)
        several = len(self.flips) > 1
        where = "" if threshold is None else f" at {threshold:g}" if worst.count or not several else " at any threshold"
        return f"{worst.count:,} of {worst.total:,} decisions flipped{where}; {confidence_in_words(worst)}"

    def evidence(self) -> Evidence:
        evidence: dict[str, list[BoundedFigure]] = {
            "flips": [_bounded_flips(threshold, flipped) for threshold, flipped in self.flips]
        }
        if evidence["flips"]:
            worst_flips = max(evidence["flips"], key=lambda figure: figure.bound)
            evidence["agreement"] = [complement("decisions that agree", worst_flips)]
        if self.deviation is not None:
            mean = BoundedFigure("mean deviation", self.deviation.mean, self.deviation.mean_upper)
            covered = 0.05 ** (1 / self.deviation.count)
            detail = f"with 95 % confidence {100 * covered:.3g} % of all pictures deviate no more"
            largest = BoundedFigure("max deviation", self.deviation.maximum, self.deviation.maximum, detail)
            evidence |= {"mean_deviation": [mean], "max_deviation": [largest]}
        if self.other_label is not None:
            label, worst = self.other_label
            evidence["mean_deviation"].append(
                BoundedFigure(
                    f"mean deviation of '{label}'", worst.mean, worst.mean_upper, "the label that deviates most"
                )
            )
        for change in self.changes:
            bounded = [change_figure(change)]
            evidence[change.name] = bounded
            if (alias := _ALIASES.get(change.name)) is not None:
                evidence.setdefault(alias, bounded)
        return evidence

    def details(self) -> dict[str, JsonValue]:
        deviation = self.deviation
        return {
            "count": self.pictures,
            "failed": self.failed,
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
                    "threshold": threshold,
                    "count": flipped.total,
                    "flipped": flipped.count,
                    "up": flipped.up,
                    "down": flipped.down,
                    "upper": flipped.upper_bound() if flipped.total else None,
                }
                for threshold, flipped in self.flips
            ],
            "rank_correlation": self.rank_correlation,
            **change_details(self),
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
) -> ClassificationComparison:
    """Compare answers picture by picture; `truths` holds each picture's right label or None.

    `thresholds` replace those of the Spec, for Specs with a positive label; labelled metrics are taken at the first.
    """
    if thresholds is None or output.positive is None:
        thresholds = default_thresholds(output)
    thresholds = tuple(thresholds)
    both = [(first, second) for first, second in pairs if second is not None]
    failed = len(pairs) - len(both)
    reference, other = compared_scores(output, both)
    if output.positive is not None:
        answered: list[tuple[float | None, Flips]] = [
            (threshold, flips(reference, other, threshold)) for threshold in thresholds
        ]
    else:
        changed = sum(
            _decision(first, output.threshold) != _decision(second, output.threshold) for first, second in both
        )
        answered = [(None, Flips(changed, len(both)))]
    with_failed = tuple(
        (threshold, Flips(flipped.count + failed, flipped.total + failed, flipped.up, flipped.down))
        for threshold, flipped in answered
    )
    changes, labelled = _labelled(output, pairs, truths, thresholds)
    deviation = score_deviation(reference, other) if both else None
    return ClassificationComparison(
        pictures=len(pairs),
        failed=failed,
        flips=with_failed,
        deviation=deviation,
        rank_correlation=spearman(reference, other),
        changes=changes,
        labelled=labelled,
        other_label=None if deviation is None else _other_label(output, both, deviation.mean),
    )


def _other_label(
    output: Classify, both: Sequence[tuple[Scores, Scores]], least: float
) -> tuple[str, ScoreDeviation] | None:
    """Return the label whose scores deviate most on average, if by more than `least`: a bias on a label that is rarely
    the best, or isn't the positive one, shows nowhere else."""
    first, second = (
        np.array([[pair[side][label] for label in output.labels] for pair in both], np.float64) for side in (0, 1)
    )
    means = np.abs(second - first).mean(axis=0)
    worst = int(means.argmax())
    if not means[worst] > least * (1 + _SAME) + _SAME:
        return None
    return output.labels[worst], score_deviation(first[:, worst], second[:, worst])


@dataclass(frozen=True)
class ScorePair:
    """What is kept of a picture: both models' scores, and their decisions by their own Specs."""

    reference: Scores
    other: Scores
    decisions: tuple[str | None, str | None]


class ClassificationComparer(Comparer):
    """Compares scores and decisions."""

    answer_type: ClassVar[type[Answer]] = Classification
    measures_parts = True

    def __init__(self, output: Classify, other: Classify, thresholds: Sequence[float] | None) -> None:
        self._output, self._thresholds = output, thresholds
        self._same_decision = (output.threshold, output.bands) == (other.threshold, other.bands)

    def measure(
        self, reference: Classification, other: Classification, scale: tuple[float, float] = (1.0, 1.0)
    ) -> ScorePair:
        del scale
        decisions = tuple(
            answer.label if answer.band is None else f"{answer.label}, {answer.band}" for answer in (reference, other)
        )
        return ScorePair(dict(reference.scores), dict(other.scores), (decisions[0], decisions[1]))

    def dump(self, answer: Classification) -> JsonValue:
        return {"label": answer.label, "score": answer.score, "scores": dict(answer.scores), "band": answer.band}

    def change(self, measured: ScorePair) -> Change:
        label = self._output.positive or _best(measured.reference)
        first, second = measured.reference[label], measured.other[label]
        return Change(abs(second - first), f"{label} {first:.4f} → {second:.4f}")

    def comparison(
        self, measured: Sequence[ScorePair], failed: int, truths: Sequence[Truth | None] | None = None
    ) -> ClassificationComparison:
        pairs: list[Pair] = [(picture.reference, picture.other) for picture in measured]
        unanswered: list[Pair] = [({}, None)] * failed
        labels = [truth if isinstance(truth, str) else None for truth in truths or ()]
        compared = compare(self._output, [*pairs, *unanswered], truths=labels, thresholds=self._thresholds)
        own = () if self._same_decision else ((None, _own_flips(measured)),)
        return replace(compared, flips=(*compared.flips, *own), confusion=_swapped_labels(self._output, measured))


def _own_flips(measured: Sequence[ScorePair]) -> Flips:
    """Return the decisions that differ where each model decides by its own Spec's threshold and bands."""
    return Flips(sum(first != second for first, second in (pair.decisions for pair in measured)), len(measured))


_SWAPPED_FROM = 0.01
_SWAPPED_SHARE = 0.25
"""A label's scores are those of another label if they lie at least this far from their own, and this much nearer to the
other's."""
_MOST_LABELS = 200


def _swapped_labels(output: Classify, measured: Sequence[ScorePair]) -> str:
    """Say which label's scores are another label's in the reference."""
    if not measured or len(output.labels) > _MOST_LABELS:
        return ""
    first, second = (
        np.array([[getattr(pair, side)[label] for label in output.labels] for pair in measured])
        for side in ("reference", "other")
    )
    if not second.any():
        return "all its scores are 0"
    swapped = []
    for index, label in enumerate(output.labels):
        distances = np.abs(first - second[:, [index]]).mean(axis=0)
        nearest = int(distances.argmin())
        if distances[index] >= _SWAPPED_FROM and distances[nearest] <= _SWAPPED_SHARE * distances[index]:
            swapped.append(f"label '{label}' has the scores that the reference has for '{output.labels[nearest]}'")
    return "; ".join(swapped[:3])


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
) -> tuple[tuple[MetricChange, ...], int]:
    known = [
        (first, second, truth)
        for (first, second), truth in zip(pairs, truths or (), strict=False)
        if second is not None and truth is not None
    ]
    if not known:
        return (), 0
    if output.positive is not None:
        positive = output.positive
        is_positive = np.array([label == positive for _, _, label in known])
        reference = np.array([scores[positive] for scores, _, _ in known])
        other = np.array([scores[positive] for _, scores, _ in known])
        return binary(is_positive, reference, other, thresholds[0]), len(known)
    index = {label: number for number, label in enumerate(output.labels)}
    both = [[scores for scores, _, _ in known], [scores for _, scores, _ in known]]
    labels = [label for _, _, label in known]
    chosen = [np.array([index.get(_decision(scores, output.threshold) or "", -1) for scores in rows]) for rows in both]
    hits = [
        np.array([_is_among_best(scores, label, _TOP) for scores, label in zip(rows, labels, strict=True)])
        for rows in both
    ]
    truth = np.array([index[label] for label in labels])
    return multiclass(truth, chosen[0], chosen[1], {_TOP: hits} if len(output.labels) > _TOP else {}), len(known)


def _is_among_best(scores: Scores, label: str, best: int) -> bool:
    return sum(value > scores[label] for value in scores.values()) < best


def _bounded_flips(threshold: float | None, flipped: Flips) -> BoundedFigure:
    name = "flips of the label" if threshold is None else f"flips at {threshold:g}"
    if not flipped.total:
        return BoundedFigure(name, math.nan, math.nan, "no decision was compared")
    moved = f": {flipped.up:,} up, {flipped.down:,} down" if flipped.up or flipped.down else ""
    return BoundedFigure(name, flipped.share, flipped.upper_bound(), f"{flipped.count:,} of {flipped.total:,}{moved}")


def confidence_in_words(flipped: Flips) -> str:
    """Say what a sample of decisions proves of all others: `with 95 % confidence at most 0.6 % do`."""
    bound = figures.percent_at_most(flipped.upper_bound()).replace("\u00a0", " ")
    return f"with 95 % confidence at most {bound} do"


def too_few(limit: float, flipped: Flips) -> str:
    """Say how many pictures it takes to prove the limit, where the sample keeps it and only its bound does not; else
    nothing."""
    if not flipped.share <= limit < flipped.upper_bound():
        return ""
    return (
        f"{flipped.total:,} pictures are too few to prove {100 * limit:g} %: with {flipped.count:,} flipped it takes"
        f" {pictures_needed(limit, flipped.count):,}"
    )
