"""Prove that a model answers as its reference does, on pictures, within a budget; and where it doesn't, say which stage
differs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from plimsoll.backends.runner import Runner
from plimsoll.core.budget import DEFAULT, DEFAULT_TENSORS, Bounded, Budget, kind_of
from plimsoll.errors import InputError
from plimsoll.inference.resolve import ResolvedModel
from plimsoll.metrics import Running
from plimsoll.metrics.bootstrap import Floats, bounds
from plimsoll.metrics.decisions import CONFIDENCE, score_deviation
from plimsoll.prove import stages
from plimsoll.prove.answers import Answered, Exchange, Failure, Row, Scores, collect
from plimsoll.prove.comparison import Comparison, compare, compared_scores, default_thresholds
from plimsoll.prove.labels import label_of, read_labels
from plimsoll.prove.layers import Layer, Pair
from plimsoll.prove.layers import layers as compare_layers
from plimsoll.prove.normalization import Mistake, Normalization, agree, mistakes, normalization_of
from plimsoll.prove.proof import Cost, Proof
from plimsoll.prove.side import Side
from plimsoll.prove.stages import StageDifference
from plimsoll.spec.output import Classify
from plimsoll.system import host

SNR_MOST = 200.0
"""What stands for no noise at all: beyond float64's own, and a number that a limit can be held against."""

_LAYER_PICTURES = 8


def prove(  # noqa: PLR0913 - the two models, the pictures, and what is asked of them
    reference: ResolvedModel,
    other: ResolvedModel,
    images: Iterable[str | Path],
    *,
    labels: Mapping[str, str] | None = None,
    thresholds: Sequence[float] | None = None,
    budget: Budget | None = None,
    layers: bool = False,
    cores: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Proof:
    """Let both models answer all pictures and measure how the other's answers differ; `Proof.passed` is the verdict.

    `labels` is absolute picture path → right label (see `read_labels`). `thresholds` replace the Spec's, for Specs with
    a positive label. `layers` also compares every value inside the networks on 8 pictures. `advance` is called after
    each picture. Scores and sums are kept, tensors are not: memory grows by a few hundred bytes a picture.

    A picture that the other can't answer counts against it; one that the reference can't answer is only told. Raises
    InputError where the two don't answer the same question, for a budget that can't be measured, and where there are no
    pictures; and what `Runner.open` raises.
    """
    pictures = [str(image) for image in images]
    output = reference.model.contract().output
    _require_same_question(reference, other)
    asked = _Asked(budget or (DEFAULT if isinstance(output, Classify) else DEFAULT_TENSORS), labels, thresholds, layers)
    _require_measurable(asked.budget, output, labels)
    if not pictures:
        raise InputError("no pictures to prove on", "Give a folder with --images.")
    count = cores or host.cores()
    with (
        Runner.open(reference.model, reference.target, objective="throughput", cores=count) as first,
        Runner.open(other.model, other.target, objective="throughput", cores=count) as second,
    ):
        sides = (Side(reference, first), Side(other, second))
        seen = (normalization_of(sides[0]), normalization_of(sides[1]))
        answered = collect(sides, pictures, _exchange(sides, seen), count, advance)
        _require_answers(answered)
        return _proof(asked, sides, seen, answered)


@dataclass(frozen=True)
class _Asked:
    """What is asked of a proof besides its models and pictures."""

    budget: Budget
    labels: Mapping[str, str] | None
    thresholds: Sequence[float] | None
    layers: bool


def _require_same_question(reference: ResolvedModel, other: ResolvedModel) -> None:
    first, second = reference.model.contract().output, other.model.contract().output
    if type(first) is not type(second):
        raise InputError(f"the reference's task is '{first.task}', the other's '{second.task}': they can't be compared")
    if (
        isinstance(first, Classify)
        and isinstance(second, Classify)
        and (set(first.labels), first.positive) != (set(second.labels), second.positive)
    ):
        told = [f"{', '.join(one.labels[:5])} (positive: {one.positive})" for one in (first, second)]
        hint = "Two models can be compared where they have the same labels and the same positive one."
        raise InputError(f"the reference tells {told[0]}, the other {told[1]}", hint)


def _require_measurable(budget: Budget, output: object, labels: Mapping[str, str] | None) -> None:
    for metric in budget.metrics:
        if kind_of(metric) == "change" and not labels:
            hint = "Give --labels: a CSV file with path,label or a folder with one folder a class."
            raise InputError(f"the budget limits {metric}, which needs labelled pictures", hint)
        if not isinstance(output, Classify) and metric != "snr":
            raise InputError(
                f"the budget limits {metric}, which needs scores; this task gives tensors", "Limit snr, as in snr=30."
            )


def _require_answers(answered: Answered) -> None:
    if not answered.rows and not answered.lost:
        example = f"{answered.failures[0].path}: {answered.failures[0].reference}"
        raise InputError(
            f"the reference answers none of the {len(answered.failures):,} pictures: {example}", "Check the pictures."
        )


def _exchange(sides: tuple[Side, Side], seen: tuple[Normalization | None, Normalization | None]) -> Exchange:
    """Say what the two can take from one another.

    Whole tensors where they have one form, so that a wrong mean in a Spec shows in the input steps. Pixels where the
    arithmetic lies elsewhere: in one's graph, or split otherwise between Spec and graph to the same effect.
    """
    # Turned channels are still a tensor of the same form: the network takes them, and that is the mistake to show.
    first, second = (
        replace(form, colour="RGB" if form.channels == 3 else "grey")
        for form in (side.preprocessor.form for side in sides)
    )
    if first == second and not (sides[0].preprocessor.spec.steps != sides[1].preprocessor.spec.steps and agree(*seen)):
        return "tensors"
    if first == second:
        return "pixels"
    same_pixels = (first.height, first.width, first.channels) == (second.height, second.width, second.channels)
    return "pixels" if same_pixels else "none"


def _proof(
    asked: _Asked, sides: tuple[Side, Side], seen: tuple[Normalization | None, Normalization | None], answered: Answered
) -> Proof:
    output, sums, rows = sides[0].spec.output, answered.sums, answered.rows
    return Proof(
        reference=sides[0].name,
        other=sides[1].name,
        budget=asked.budget,
        answers=_answers(output, answered, asked),
        pictures=len(rows),
        failures=answered.failures,
        outputs={name: running.deviation for name, running in sums.outputs.items()},
        snr=_snr(list(sums.outputs), rows),
        exchange=answered.exchange,
        input_only=_cost(output, [(row.reference, row.input_only) for row in rows], sums.input_only),
        network_only=_cost(output, [(row.reference, row.network_only) for row in rows], sums.network_only),
        stages=stages.compare(*sides, (Path(row.path) for row in rows)),
        mistakes=_mistakes(sides[1], *seen),
        scores=_scores(output, rows),
        layers=(
            compare_layers(sides[0].opened.model, sides[1].opened.model, _inputs(sides, rows)) if asked.layers else ()
        ),
    )


def _mistakes(other: Side, first: Normalization | None, second: Normalization | None) -> tuple[Mistake, ...] | None:
    if first is None or second is None:
        return None
    return mistakes(first, second, "inside its graph" if other.is_folded else "in its input steps")


def _answers(output: object, answered: Answered, asked: _Asked) -> Comparison | None:
    if not isinstance(output, Classify):
        return None
    pairs: list[tuple[Scores, Scores | None]] = [(row.reference or {}, row.other) for row in answered.rows]
    truths = [label_of(asked.labels, row.path) for row in answered.rows] if asked.labels else None
    return compare(output, [*pairs, *(({}, None) for _ in answered.lost)], truths=truths, thresholds=asked.thresholds)


def _scores(output: object, rows: Sequence[Row]) -> tuple[tuple[str, float, float], ...]:
    if not isinstance(output, Classify):
        return ()
    both = [(row.reference, row.other) for row in rows if row.reference is not None and row.other is not None]
    ours, theirs = compared_scores(output, both)
    return tuple(zip((row.path for row in rows), ours.tolist(), theirs.tolist(), strict=True))


def _cost(output: object, pairs: Sequence[tuple[Scores | None, Scores | None]], running: Running) -> Cost | None:
    """Sum up what one half costs; None where the halves couldn't be exchanged on every picture."""
    if running.count == 0:
        return None
    both = [(first, second) for first, second in pairs if first is not None and second is not None]
    if not isinstance(output, Classify):
        return Cost(None, running.deviation)
    return Cost(score_deviation(*compared_scores(output, both)), running.deviation) if len(both) == len(pairs) else None


def _snr(outputs: Sequence[str], rows: Sequence[Row]) -> Bounded:
    """Return the signal to noise of the worst output with its lower bound by the bootstrap over pictures, in dB."""
    worst = Bounded("signal to noise of the outputs", math.nan, math.nan, "no output was compared")
    for place, name in enumerate(outputs):
        signal, noise = np.array([row.power[place] for row in rows], np.float64).T

        def decibels(weights: Floats, signal: Floats = signal, noise: Floats = noise) -> float:
            return _decibels(float(weights @ signal), float(weights @ noise))

        value = decibels(np.ones(len(rows)))
        if math.isnan(worst.value) or not value >= worst.value:
            worst = Bounded(
                worst.name,
                value,
                bounds(decibels, len(rows), CONFIDENCE)[0],
                f"worst at '{name}', {len(rows):,} pictures; lower 95 % bound",
            )
    return worst


def _decibels(signal: float, noise: float) -> float:
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return math.nan
    if noise == 0.0:
        return SNR_MOST
    return min(SNR_MOST, 10 * math.log10(signal / noise)) if signal else -SNR_MOST


def _inputs(sides: tuple[Side, Side], rows: Sequence[Row]) -> Iterator[Pair]:
    for row in islice(rows, _LAYER_PICTURES):
        first, second = (side.tensor(side.pixels(Path(row.path)))[np.newaxis] for side in sides)
        yield first, second


__all__ = [
    "Comparison", "Cost", "Failure", "Layer", "Mistake", "Proof", "StageDifference", "compare", "compare_layers", "default_thresholds", "prove", "read_labels",
]  # fmt: skip
