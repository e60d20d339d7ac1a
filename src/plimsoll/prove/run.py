"""`prove`: run both models on all pictures, measure how the answers differ, and hold that against the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from plimsoll.backends.runner import Runner
from plimsoll.core.budget import DEFAULT_BUDGET, DEFAULT_TENSOR_BUDGET, BoundedFigure, Budget, limit_kind
from plimsoll.errors import InputError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.metrics import RunningDeviation
from plimsoll.metrics.decisions import CONFIDENCE, Floats, bounds, score_deviation
from plimsoll.prove import stages
from plimsoll.prove.comparison import Comparison, Pair, compare, compared_scores, label_of
from plimsoll.prove.layers import InputPair, compare_layers
from plimsoll.prove.paired_answers import (
    ComparedModel,
    Exchange,
    PairedAnswers,
    PictureAnswers,
    Scores,
    answer_pictures,
)
from plimsoll.prove.proof import PartialDeviation, Proof
from plimsoll.prove.stages import Mismatch, Normalization, agree, mismatches, normalization_of
from plimsoll.spec.spec import Classify
from plimsoll.system import host

SNR_MOST = 200.0
"""Stands for no noise at all: beyond float64's own, and a number that can be compared with a limit."""

_LAYER_PICTURES = 8

Models = tuple[ComparedModel, ComparedModel]
Normalizations = tuple[Normalization | None, Normalization | None]


def prove(  # noqa: PLR0913 - the two models, the pictures, and the options
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
    """Run both models on all pictures and measure how the other's answers differ; `Proof.passed` is the verdict.

    `labels` is absolute picture path → right label (see `read_labels`). `thresholds` replace the Spec's, for Specs with
    a positive label. `layers` also compares every value inside the networks on 8 pictures. `advance` is called after
    each picture. Scores and sums are kept, tensors are not: memory grows by a few hundred bytes a picture.

    A picture that the other can't answer counts against it; one that the reference can't answer is only listed. Raises
    InputError where the two don't answer the same question, for a budget that can't be measured, and where there are no
    pictures; and what `Runner.open` raises.
    """
    pictures = [str(image) for image in images]
    output = reference.model.require_spec().output
    _require_same_question(reference, other)
    options = _Options(
        budget or (DEFAULT_BUDGET if isinstance(output, Classify) else DEFAULT_TENSOR_BUDGET),
        labels,
        thresholds,
        layers,
    )
    _require_measurable(options.budget, output, labels)
    if not pictures:
        raise InputError("no pictures to prove on", "Give a folder with --images.")
    cores = cores or host.cores()
    with (
        Runner.open(reference.model, reference.target, objective="throughput", cores=cores) as reference_runner,
        Runner.open(other.model, other.target, objective="throughput", cores=cores) as other_runner,
    ):
        models = (ComparedModel(reference, reference_runner), ComparedModel(other, other_runner))
        normalizations = (normalization_of(models[0]), normalization_of(models[1]))
        exchange = _exchange(models, normalizations)
        answers = answer_pictures(*models, pictures, exchange, cores=cores, advance=advance)
        _require_answers(answers)
        return _proof(options, models, normalizations, answers)


@dataclass(frozen=True)
class _Options:
    """The options of a proof."""

    budget: Budget
    labels: Mapping[str, str] | None
    thresholds: Sequence[float] | None
    layers: bool


def _require_same_question(reference: ResolvedModel, other: ResolvedModel) -> None:
    first, second = reference.model.require_spec().output, other.model.require_spec().output
    if type(first) is not type(second):
        raise InputError(f"the reference's task is '{first.task}', the other's '{second.task}': they can't be compared")
    if (
        isinstance(first, Classify)
        and isinstance(second, Classify)
        and (set(first.labels), first.positive) != (set(second.labels), second.positive)
    ):
        labels = [f"{', '.join(output.labels[:5])} (positive: {output.positive})" for output in (first, second)]
        hint = "Models can be compared if they have the same labels and the same positive label."
        raise InputError(f"the reference's labels are {labels[0]}, the other's {labels[1]}", hint)


def _require_measurable(budget: Budget, output: object, labels: Mapping[str, str] | None) -> None:
    for metric in budget.metrics:
        if limit_kind(metric) == "change" and not labels:
            hint = "Give --labels: a CSV file with path,label or a folder with one folder per class."
            raise InputError(f"the budget limits {metric}, which needs labelled pictures", hint)
        if not isinstance(output, Classify) and metric != "snr":
            raise InputError(
                f"the budget limits {metric}, which needs scores; this task gives tensors", "Limit snr, as in snr=30."
            )


def _require_answers(answers: PairedAnswers) -> None:
    if not answers.pictures and not answers.unanswered:
        example = f"{answers.failures[0].path}: {answers.failures[0].reference}"
        raise InputError(
            f"the reference answers none of the {len(answers.failures):,} pictures: {example}", "Check the pictures."
        )


def _exchange(models: Models, normalizations: Normalizations) -> Exchange:
    """Return what the two can take from one another.

    Whole tensors where their inputs have one form, so that a wrong mean in a Spec shows in the preprocessing. Pixels
    where the arithmetic is elsewhere: in one's graph, or split otherwise between Spec and graph to the same effect.
    """
    # Swapped channels are still a tensor of the same form: the network takes them, and that is the mistake to show.
    first, second = (
        replace(form, colour="RGB" if form.channels == 3 else "grey")
        for form in (model.preprocessor.tensor_spec for model in models)
    )
    if first == second:
        split_otherwise = models[0].preprocessor.spec.steps != models[1].preprocessor.spec.steps and agree(
            *normalizations
        )
        return "pixels" if split_otherwise else "tensors"
    same_pixels = (first.height, first.width, first.channels) == (second.height, second.width, second.channels)
    return "pixels" if same_pixels else "none"


def _proof(options: _Options, models: Models, normalizations: Normalizations, answers: PairedAnswers) -> Proof:
    reference, other = models
    output, pictures, deviations = reference.spec.output, answers.pictures, answers.deviations
    preprocessing_only = [(answer.reference, answer.preprocessing_only) for answer in pictures]
    network_only = [(answer.reference, answer.network_only) for answer in pictures]
    return Proof(
        reference=reference.name,
        other=other.name,
        budget=options.budget,
        comparison=_comparison(output, answers, options),
        pictures=len(pictures),
        failures=answers.failures,
        outputs={name: running.deviation for name, running in deviations.outputs.items()},
        snr=_snr(list(deviations.outputs), pictures),
        exchange=answers.exchange,
        preprocessing_only=_partial_deviation(output, preprocessing_only, deviations.preprocessing_only),
        network_only=_partial_deviation(output, network_only, deviations.network_only),
        stages=stages.compare(reference, other, (Path(answer.path) for answer in pictures)),
        mismatches=_mismatches(other, *normalizations),
        scores=_scores(output, pictures),
        layers=(
            compare_layers(reference.resolved.model, other.resolved.model, _input_pairs(models, pictures))
            if options.layers
            else ()
        ),
    )


def _mismatches(
    other: ComparedModel, first: Normalization | None, second: Normalization | None
) -> tuple[Mismatch, ...] | None:
    if first is None or second is None:
        return None
    return mismatches(first, second, "inside its graph" if other.is_folded else "in its preprocessing")


def _comparison(output: object, answers: PairedAnswers, options: _Options) -> Comparison | None:
    if not isinstance(output, Classify):
        return None
    pairs: list[Pair] = [(answer.reference or {}, answer.other) for answer in answers.pictures]
    unanswered: list[Pair] = [({}, None) for _ in answers.unanswered]
    truths = [label_of(options.labels, answer.path) for answer in answers.pictures] if options.labels else None
    return compare(output, [*pairs, *unanswered], truths=truths, thresholds=options.thresholds)


def _scores(output: object, pictures: Sequence[PictureAnswers]) -> tuple[tuple[str, float, float], ...]:
    if not isinstance(output, Classify):
        return ()
    pairs = [(answer.reference or {}, answer.other or {}) for answer in pictures]
    reference, other = compared_scores(output, pairs)
    return tuple(zip((answer.path for answer in pictures), reference.tolist(), other.tolist(), strict=True))


def _partial_deviation(
    output: object, pairs: Sequence[tuple[Scores | None, Scores | None]], running: RunningDeviation
) -> PartialDeviation | None:
    """Return what one part of the other model changes; None where the parts couldn't be exchanged on every picture."""
    if running.count == 0:
        return None
    if not isinstance(output, Classify):
        return PartialDeviation(None, running.deviation)
    scored = [(first, second) for first, second in pairs if first is not None and second is not None]
    if len(scored) < len(pairs):
        return None
    return PartialDeviation(score_deviation(*compared_scores(output, scored)), running.deviation)


def _snr(outputs: Sequence[str], pictures: Sequence[PictureAnswers]) -> BoundedFigure:
    """Return the signal to noise of the worst output with its lower bound by the bootstrap over pictures, in dB."""
    worst = BoundedFigure("signal to noise of the outputs", math.nan, math.nan, "no output was compared")
    for index, name in enumerate(outputs):
        signal, noise = np.array([answer.power[index] for answer in pictures], np.float64).T

        def decibels(weights: Floats, signal: Floats = signal, noise: Floats = noise) -> float:
            return _decibels(float(weights @ signal), float(weights @ noise))

        value = decibels(np.ones(len(pictures)))
        if math.isnan(worst.value) or not value >= worst.value:
            lower, _, _ = bounds(decibels, len(pictures), CONFIDENCE)
            detail = f"worst at '{name}', {len(pictures):,} pictures; lower 95 % bound"
            worst = BoundedFigure(worst.name, value, lower, detail)
    return worst


def _decibels(signal: float, noise: float) -> float:
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return math.nan
    if noise == 0.0:
        return SNR_MOST
    return min(SNR_MOST, 10 * math.log10(signal / noise)) if signal else -SNR_MOST


def _input_pairs(models: Models, pictures: Sequence[PictureAnswers]) -> Iterator[InputPair]:
    for answer in islice(pictures, _LAYER_PICTURES):
        first, second = (model.tensor(model.pixels(Path(answer.path)))[np.newaxis] for model in models)
        yield first, second
