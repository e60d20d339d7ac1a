"""How accurate two models are on labelled pictures, and how much worse the second is, with a paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError
from plimsoll.metrics.decisions import CONFIDENCE, Floats, Statistic, bounds, upper_bound

Truths = NDArray[np.bool_]


@dataclass(frozen=True)
class MetricChange:
    """A metric of the reference and of the other model on the same pictures; all from 0 to 1.

    A metric that is not defined (precision where nothing was flagged, AUC with labels of one class) is None on that
    side, and then there is no change either.
    """

    name: str
    reference: float | None
    other: float | None
    lower: float | None
    """The one-sided 95 % bound of `change` on the side of a loss, the lower one but for errors: what a budget is judged
    by."""
    interval: tuple[float, float] | None
    """The two-sided 95 % interval of `change`."""
    count: int
    """Labelled pictures."""

    @property
    def change(self) -> float | None:
        """Other minus reference: negative where the other model is worse; of errors, positive."""
        return None if self.reference is None or self.other is None else self.other - self.reference


def binary(
    truth: NDArray[Any], reference: NDArray[Any], other: NDArray[Any], threshold: float
) -> tuple[MetricChange, ...]:
    """Compare two rows of scores `[N]` of the positive class: accuracy, precision and recall at `score >= threshold`,
    and ROC-AUC.

    `truth` `[N]` says which pictures are of that class. Raises InputError for rows of different length.
    """
    positive = np.asarray(truth, np.bool_)
    scores = [np.asarray(row, np.float64) for row in (reference, other)]
    _check_lengths(positive, *scores)
    decided = [row >= threshold for row in scores]
    changes = []
    for name, metric, affected in (
        ("accuracy", accuracy, positive.size),
        ("precision", precision, int(decided[0].sum())),
        ("recall", recall, int(positive.sum())),
    ):
        changes.append(
            metric_change(
                name,
                partial(metric, positive, decided[0]),
                partial(metric, positive, decided[1]),
                positive.size,
                affected,
            )
        )
    fewer = min(int(positive.sum()), int((~positive).sum()))
    return (
        *changes,
        metric_change("auc", Ranking(positive, scores[0]).auc, Ranking(positive, scores[1]).auc, positive.size, fewer),
    )


def multiclass(
    truth: NDArray[Any], reference: NDArray[Any], other: NDArray[Any], ranks: Mapping[int, Sequence[NDArray[Any]]]
) -> tuple[MetricChange, ...]:
    """Compare two rows of chosen classes `[N]` (-1 for none): top-1, and precision and recall as the mean over classes
    that occur.

    `ranks` is k → for reference and other, whether the true class is among the best k, each `[N]` bool.
    """
    classes = np.asarray(truth, np.int64)
    chosen = [np.asarray(row, np.int64) for row in (reference, other)]
    _check_lengths(classes, *chosen)
    correct = [classes == row for row in chosen]
    changes = [
        metric_change("top1", partial(_mean, correct[0]), partial(_mean, correct[1]), classes.size, classes.size)
    ]
    for name, metric in (("precision", _macro_precision), ("recall", _macro_recall)):
        changes.append(
            metric_change(
                name,
                partial(metric, classes, chosen[0]),
                partial(metric, classes, chosen[1]),
                classes.size,
                classes.size,
            )
        )
    for best, hits in ranks.items():
        among = [partial(_mean, np.asarray(row, np.bool_)) for row in hits]
        changes.append(metric_change(f"top{best}", among[0], among[1], classes.size, classes.size))
    return tuple(changes)


def metric_change(name: str, first: Statistic, second: Statistic, count: int, affected: int) -> MetricChange:
    """Measure a metric on both sides and bound its change.

    Where no draw shows any change, the sample still can't rule out a change too rare to be in it: then the exact bound
    for 0 of `affected` pictures is used, which is also what the bootstrap arrives at with one change.
    """
    ones = np.ones(count)
    reference, other = (_defined(metric(ones)) for metric in (first, second))
    if reference is None or other is None:
        return MetricChange(name, reference, other, None, None, count)
    lower, low, high = bounds(lambda weights: second(weights) - first(weights), count, CONFIDENCE)
    if math.isnan(lower):
        return MetricChange(name, reference, other, None, None, count)
    if low == high == 0.0:
        lower, low, high = -upper_bound(0, affected), -upper_bound(0, affected, (1 + CONFIDENCE) / 2), 0.0
    return MetricChange(name, reference, other, lower, (low, high), count)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check_lengths(*rows: NDArray[Any]) -> None:
    sizes = [row.size for row in rows]
    if len(set(sizes)) != 1 or 0 in sizes:
        raise InputError(
            f"labels and scores of {', '.join(map(str, sizes))} pictures: all need the same number, at least 1"
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(hits: Truths, weights: Floats) -> float:
    return _ratio(float(weights[hits].sum()), float(weights.sum()))


def accuracy(truth: Truths, decided: Truths, weights: Floats) -> float:
    """Return the share of right decisions."""
    return _mean(truth == decided, weights)


def precision(truth: Truths, decided: Truths, weights: Floats) -> float:
    """Return the share of flagged pictures that are positive; NaN if none is flagged."""
    return _ratio(float(weights[truth & decided].sum()), float(weights[decided].sum()))


def recall(truth: Truths, decided: Truths, weights: Floats) -> float:
    """Return the share of positive pictures that are flagged; NaN if none is positive."""
    return _ratio(float(weights[truth & decided].sum()), float(weights[truth].sum()))


class Ranking:
    """Scores in order, ties together, so that the area under the ROC curve is quick to compute for any weights."""

    def __init__(self, truth: Truths, scores: Floats) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._truth = truth[self._order]
        self._starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        self._usable = bool(np.isfinite(scores).all())

    def auc(self, weights: Floats) -> float:
        """Return the probability that a true picture scores higher than another, ties counting half (Hanley and McNeil
        1982).

        NaN where there is only one class, or a score that is no number.
        """
        ordered = weights[self._order]
        true = np.add.reduceat(np.where(self._truth, ordered, 0.0), self._starts)
        false = np.add.reduceat(np.where(self._truth, 0.0, ordered), self._starts)
        below = np.cumsum(false) - false / 2
        return _ratio(float(true @ below), float(true.sum() * false.sum())) if self._usable else math.nan


def _macro(truth: NDArray[np.int64], chosen: NDArray[np.int64], weights: Floats, by: NDArray[np.int64]) -> float:
    """Return the mean over the classes in `by` of the share of the weight that is correct."""
    classes = int(max(truth.max(), chosen.max())) + 1
    known = by >= 0
    total = np.bincount(by[known], weights[known], classes)
    correct = np.bincount(truth[truth == chosen], weights[truth == chosen], classes)
    used = total > 0
    return float((correct[used] / total[used]).mean()) if used.any() else math.nan


def _macro_precision(truth: NDArray[np.int64], chosen: NDArray[np.int64], weights: Floats) -> float:
    return _macro(truth, chosen, weights, chosen)


def _macro_recall(truth: NDArray[np.int64], chosen: NDArray[np.int64], weights: Floats) -> float:
    return _macro(truth, chosen, weights, truth)
