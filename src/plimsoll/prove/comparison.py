"""`Comparison`: how a model's decoded answers differ from the reference's, over all pictures; `Comparer`: what makes
one, picture by picture. Each task has its own, in a file named after its answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, JsonValue, TypeAdapter

from plimsoll.core.budget import BoundedFigure, Evidence, Limit
from plimsoll.metrics.decisions import CONFIDENCE, ratio_bounds, upper_bound
from plimsoll.metrics.labelled import MetricChange
from plimsoll.prove.labels import Truth
from plimsoll.tasks.base import Answer, Task


class Comparison(ABC):
    """How the other model's answers differ from the reference's."""

    pictures: int
    """The pictures that the reference answered."""
    failed: int
    """Of these, how many the other has no answer to."""
    changes: tuple[MetricChange, ...] = ()
    """With labels: each metric of both models against them."""
    labelled: int = 0
    """How many pictures have a label."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """What changed in the sample, and what that proves, in one line."""

    @abstractmethod
    def evidence(self) -> Evidence:
        """Return the figures with the bounds that a budget is judged by."""

    @abstractmethod
    def details(self) -> dict[str, JsonValue]:
        """Return everything as plain data."""

    @property
    def nothing_compared(self) -> str:
        """Why these pictures can prove nothing: the reference's answers hold nothing that could be lost. Empty where
        they do."""
        return ""

    def too_few(self, limit: Limit) -> str:
        """Say what it takes to prove a limit, where the sample keeps it and is too small to prove it; else nothing."""
        del limit
        return ""

    @property
    def cause(self) -> str:
        """What is wrong with the answers, in words, where they show it; else empty."""
        return ""

    @property
    def notes(self) -> Sequence[str]:
        """What else there is to say of the answers, a sentence each, without the last full stop."""
        return ()


@dataclass(frozen=True)
class Change:
    """How far the answer to one picture lies from the reference's."""

    moved: float
    """0 where nothing changed; of two pictures the one with more changed more. The unit is the task's."""
    words: str


class Comparer(ABC):
    """Compares the answers of one task. What it keeps of a picture is small."""

    answer_type: ClassVar[type[Answer]]
    measures_parts = False
    """Whether answers are also compared with preprocessing and network exchanged; else only the outputs are."""

    def threshold(self, task: Task) -> float | None:
        """Return the threshold at which a model's outputs are decoded to be compared; None is the Spec's."""
        del task
        return None

    def dump(self, answer: Any) -> JsonValue:
        """Return what has to be stored of an answer to compare it later, as plain data."""
        data: JsonValue = TypeAdapter(self.answer_type).dump_python(answer, mode="json")
        return data

    def load(self, data: JsonValue) -> Answer:
        """Return a stored answer; raises ValidationError."""
        return TypeAdapter(self.answer_type).validate_python(data)

    @abstractmethod
    def change(self, measured: Any) -> Change:
        """Return how far the answer to one picture moved."""

    @abstractmethod
    def measure(self, reference: Any, other: Any, scale: tuple[float, float] = (1.0, 1.0)) -> Any:
        """Return what is kept of one picture's two answers; `scale` says how many of the picture's pixels one of the
        reference's input is, along x and y."""

    @abstractmethod
    def comparison(
        self, measured: Sequence[Any], failed: int, truths: Sequence[Truth | None] | None = None
    ) -> Comparison:
        """Compare all pictures; the other could not answer further `failed` ones. `truths` has the right answer to each
        measured picture, where it is known."""


def settings_that_differ(reference: BaseModel, other: BaseModel, ignored: frozenset[str]) -> Iterator[str]:
    """Yield how two parts of a Spec differ: `output.confidence = 0.5, the reference has 0.25`."""
    for key in type(reference).model_fields:
        first, second = getattr(reference, key), getattr(other, key, None)
        if key not in ignored and first != second:
            values = [str(value) if len(str(value)) < 40 else "another value" for value in (second, first)]
            yield f"output.{key} = {values[0]}, the reference has {values[1]}"


def change_figure(change: MetricChange) -> BoundedFigure:
    """Return how a metric against labels changes, with its lower bound; NaN where it is not defined."""
    name = f"change of {change.name}"
    if change.change is None or change.lower is None or change.reference is None or change.other is None:
        reason = f"not defined on these {change.count:,} labelled pictures: too few of a class, or none flagged"
        return BoundedFigure(name, math.nan, math.nan, reason)
    detail = f"{change.reference:.4g} → {change.other:.4g} on {change.count:,} labelled pictures"
    return BoundedFigure(name, change.change, change.lower, detail)


def against_labels(comparison: Comparison) -> Evidence:
    """Return the figures of metrics that are measured against the reference, too, under names of their own."""
    return {f"label_{change.name}": [change_figure(change)] for change in comparison.changes}


def label_notes(comparison: Comparison) -> list[str]:
    """Say what both models have against the labels, and on how many pictures."""
    words = [
        f"{change.name} {change.reference:.4g} → {change.other:.4g}"
        for change in comparison.changes
        if change.reference is not None and change.other is not None
    ]
    return [f"Against the labels of {comparison.labelled:,} pictures: {', '.join(words)}"] if words else []


def change_details(comparison: Comparison) -> dict[str, JsonValue]:
    """Return the metrics against labels as plain data."""
    return {
        "labelled": {
            change.name: {
                "reference": change.reference,
                "other": change.other,
                "change": change.change,
                "lower": change.lower,
                "low": change.interval[0] if change.interval else None,
                "high": change.interval[1] if change.interval else None,
            }
            for change in comparison.changes
        },
        "labelled_count": comparison.labelled,
    }


def mean_figure(name: str, sums: Sequence[float], counts: Sequence[float], detail: str) -> BoundedFigure:
    """Return a mean over what the pictures hold (`sums` over `counts`, one a picture) with its upper bound by the
    bootstrap over pictures; NaN where nothing was counted."""
    parts, wholes = np.array(sums, np.float64), np.array(counts, np.float64)
    if not wholes.sum():
        return BoundedFigure(name, math.nan, math.nan, "nothing was compared")
    if not np.isfinite(parts).all():
        return BoundedFigure(name, math.inf, math.inf, detail)
    lower, *_ = ratio_bounds(-parts, wholes, CONFIDENCE)
    return BoundedFigure(name, float(parts.sum() / wholes.sum()), -lower, detail)


def share_figure(name: str, parts: Sequence[int], wholes: Sequence[int], detail: str) -> BoundedFigure:
    """Return a share that should be high with its lower bound: that of the bootstrap over pictures, or the exact one
    for independent items where that is lower, as it is where nothing is lost. NaN where there is no item."""
    matched, total = np.array(parts, np.float64), np.array(wholes, np.float64)
    if not total.sum():
        return BoundedFigure(name, math.nan, math.nan, detail)
    lost, count = int(total.sum() - matched.sum()), int(total.sum())
    drawn, *_ = ratio_bounds(matched, total, CONFIDENCE)
    exact = 1.0 - upper_bound(lost, count)
    return BoundedFigure(
        name, float(matched.sum() / total.sum()), exact if math.isnan(drawn) else min(exact, drawn), detail
    )


def bias_figure(name: str, sums: Sequence[Sequence[float]], counts: Sequence[float], detail: str) -> BoundedFigure:
    """Return the largest of several means, without its sign (`sums` `[pictures, quantities]` over `counts`), with the
    end of its 95 % interval that is farther from 0, by the bootstrap over pictures."""
    parts, wholes = np.array(sums, np.float64), np.array(counts, np.float64)
    if not wholes.sum():
        return BoundedFigure(name, math.nan, math.nan, "nothing was compared")
    worst = int(np.abs(parts.sum(axis=0)).argmax())
    _, low, high = ratio_bounds(parts[:, worst], wholes, CONFIDENCE)
    value = abs(float(parts[:, worst].sum() / wholes.sum()))
    return BoundedFigure(name, value, max(abs(low), abs(high)), detail)


def changed_figure(name: str, changed: int, total: int, detail: str = "") -> BoundedFigure:
    """Return a share of pictures that changed with its exact upper bound."""
    if not total:
        return BoundedFigure(name, math.nan, math.nan, "nothing was compared")
    return BoundedFigure(name, changed / total, upper_bound(changed, total), detail or f"{changed:,} of {total:,}")


def complement(name: str, figure: BoundedFigure, detail: str = "") -> BoundedFigure:
    """Return the share that a share of losses leaves, with the other bound."""
    return BoundedFigure(name, 1.0 - figure.value, 1.0 - figure.bound, detail or figure.detail)
