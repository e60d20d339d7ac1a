"""`prove`: run both models on all pictures, measure how the answers differ, and hold that against the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from plimsoll.backends.runner import Runner
from plimsoll.core.budget import Budget, Limit, default_budget, limit_kind
from plimsoll.core.deviation import RunningDeviation
from plimsoll.errors import InputError, PlimsollError
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.metrics.decisions import score_deviation
from plimsoll.prove import stages
from plimsoll.prove.boxes import BoxComparer
from plimsoll.prove.classifications import ClassificationComparer, ScorePair, compared_scores
from plimsoll.prove.comparison import Comparer, Comparison
from plimsoll.prove.labels import LABELS_HINT, Truths, label_of
from plimsoll.prove.layers import InputPair, Layer, compare_layers
from plimsoll.prove.masks import MaskComparer
from plimsoll.prove.paired_answers import (
    ComparedModel,
    Exchange,
    PairedAnswers,
    PictureAnswers,
    answer_pictures,
)
from plimsoll.prove.points import PointComparer
from plimsoll.prove.proof import PartialDeviation, Proof
from plimsoll.prove.repeats import ask_again
from plimsoll.prove.stages import Mismatch, Normalization, agree, mismatches, normalization_of
from plimsoll.prove.texts import TextComparer
from plimsoll.spec.spec import Classify, Detect, Landmarks, Output, Segment, Text
from plimsoll.system import host

_LAYER_PICTURES = 8
_LAYER_PICTURES_OF_A_FAILURE = 2
"""Where nobody asked for the layers, two pictures show in which one it begins."""

Models = tuple[ComparedModel, ComparedModel]
Normalizations = tuple[Normalization | None, Normalization | None]


def prove(  # noqa: PLR0913 - the two models, the pictures, and the options
    reference: ResolvedModel,
    other: ResolvedModel,
    images: Iterable[str | Path],
    *,
    labels: Truths | None = None,
    thresholds: Sequence[float] | None = None,
    budget: Budget | None = None,
    layers: bool = False,
    cores: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Proof:
    """Run both models on all pictures and measure how the other's answers differ; `Proof.passed` is the verdict.

    `labels` is absolute picture path → right answer (see `read_labels`). `thresholds` replace the Spec's, for Specs
    with a positive label. `layers` also compares every value inside the networks on 8 pictures. `advance` is called
    after each picture. Scores and sums are kept, tensors are not: memory grows by a few hundred bytes a picture.

    A picture that the other can't answer counts against it; one that the reference can't answer is only listed. Raises
    InputError where the two don't answer the same question, for a budget that can't be measured, and where there are no
    pictures; and what `Runner.open` raises.
    """
    pictures = [str(image) for image in images]
    output = reference.model.require_spec().output
    _require_same_question(reference, other)
    comparer = comparer_for(output, other.model.require_spec().output, thresholds, labelled=bool(labels))
    options = _Options(budget or budget_for(output), labels, layers, comparer)
    options.budget.require_task(output.task)
    _require_labels(options.budget, labels)
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
        answers = answer_pictures(models, pictures, exchange, comparer, cores=cores, advance=advance)
        _require_answers(answers)
        return _proof(options, models, normalizations, answers)


def budget_for(output: Output) -> Budget:
    """Return what answers may lose where nobody says it: the task's default, without what these answers don't have."""
    budget = default_budget(output.task)
    if isinstance(output, Landmarks) and output.presence is None:
        return Budget(tuple(limit for limit in budget.limits if limit.metric != "presence_deviation"))
    if isinstance(output, Detect):
        extra = ((output.points > 0, "nme=5%"), (output.has_masks, "mask_iou=85%"))
        return Budget((*budget.limits, *(Limit.parse(text) for has, text in extra if has)))
    return budget


@dataclass(frozen=True)
class _Options:
    """The options of a proof."""

    budget: Budget
    labels: Truths | None
    layers: bool
    comparer: Comparer | None
    """None where the task's answers are the raw outputs."""


def comparer_for(
    output: object, other: object, thresholds: Sequence[float] | None = None, *, labelled: bool = False
) -> Comparer | None:
    """Return what compares the task's answers, with right answers where pictures are `labelled`; None where they are
    the raw outputs."""
    if isinstance(output, Classify) and isinstance(other, Classify):
        return ClassificationComparer(output, other, thresholds)
    if isinstance(output, Detect) and isinstance(other, Detect):
        return BoxComparer(output, other, labelled=labelled)
    if isinstance(output, Segment) and isinstance(other, Segment):
        return MaskComparer(output, other, labelled=labelled)
    if isinstance(output, Landmarks) and isinstance(other, Landmarks):
        return PointComparer(output, other, labelled=labelled)
    if isinstance(output, Text) and isinstance(other, Text):
        return TextComparer(output, other)
    return None


def _require_same_question(reference: ResolvedModel, other: ResolvedModel) -> None:
    first, second = reference.model.require_spec().output, other.model.require_spec().output
    if type(first) is not type(second):
        raise InputError(f"the reference's task is '{first.task}', the other's '{second.task}': they can't be compared")
    questions = [_question(output) for output in (first, second)]
    if questions[0] != questions[1]:
        labels = [
            f"{', '.join(getattr(output, 'labels', ())[:5]) or 'none'} (positive: {getattr(output, 'positive', None)})"
            for output in (first, second)
        ]
        hint = "Models can be compared if they have the same labels and the same positive label."
        raise InputError(f"the reference's labels are {labels[0]}, the other's {labels[1]}", hint)


def _question(output: object) -> tuple[frozenset[str], str | None, int | None]:
    """Return what both models have to be asked alike: the labels, in any order; the positive one; how many points."""
    labels = frozenset(getattr(output, "labels", ()))
    return labels, getattr(output, "positive", None), getattr(output, "points", None)


def _require_labels(budget: Budget, labels: Truths | None) -> None:
    for metric in budget.metrics:
        if limit_kind(metric) in ("change", "rise") and not labels:
            raise InputError(f"the budget limits {metric}, which needs labelled pictures", LABELS_HINT)


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
    comparison = _comparison(answers, options)
    outputs = deviations.outputs.comparison([answer.power for answer in pictures], _scores_are_shares(models))
    proof = Proof(
        reference=reference.name,
        other=other.name,
        budget=options.budget,
        comparison=comparison,
        pictures=len(pictures),
        failures=answers.failures,
        outputs=outputs,
        is_raw=options.comparer is None,
        repeats=ask_again(reference, other, [answer.path for answer in pictures]),
        exchange=answers.exchange,
        preprocessing_only=_partial_deviation(
            output, [answer.preprocessing_only for answer in pictures], deviations.preprocessing_only
        ),
        network_only=_partial_deviation(output, [answer.network_only for answer in pictures], deviations.network_only),
        stages=stages.compare(reference, other, (Path(answer.path) for answer in pictures)),
        mismatches=_mismatches(other, *normalizations),
        scores=_scores(output, pictures),
    )
    if options.layers:
        return replace(proof, layers=_layers(models, pictures, _LAYER_PICTURES))
    if not proof.passed and pictures:
        try:
            return replace(
                proof, layers=_layers(models, pictures, _LAYER_PICTURES_OF_A_FAILURE), asked_for_layers=False
            )
        except PlimsollError:
            return proof  # Not every network has layers that can be compared.
    return proof


def _layers(models: Models, pictures: Sequence[PictureAnswers], count: int) -> tuple[Layer, ...]:
    reference, other = models
    return compare_layers(reference.resolved.model, other.resolved.model, _input_pairs(models, pictures[:count]))


def _scores_are_shares(models: Models) -> bool:
    """Tell whether a detector's raw scores are from 0 to 1, and both heads' columns stand in one order."""
    outputs = [model.spec.output for model in models]
    return (
        all(isinstance(output, Detect) and output.activation == "none" for output in outputs)
        and len({getattr(output, "labels", None) for output in outputs}) == 1
    )


def _mismatches(
    other: ComparedModel, first: Normalization | None, second: Normalization | None
) -> tuple[Mismatch, ...] | None:
    if first is None or second is None:
        return None
    return mismatches(first, second, "inside its graph" if other.is_folded else "in its preprocessing")


def _comparison(answers: PairedAnswers, options: _Options) -> Comparison | None:
    comparer, measured = options.comparer, [answer.measured for answer in answers.pictures]
    if comparer is None:
        return None
    truths = [label_of(options.labels or {}, answer.path) for answer in answers.pictures]
    return comparer.comparison(measured, len(answers.unanswered), truths)


def _scores(output: object, pictures: Sequence[PictureAnswers]) -> tuple[tuple[str, float, float], ...]:
    if not isinstance(output, Classify):
        return ()
    reference, other = compared_scores(output, [(each.measured.reference, each.measured.other) for each in pictures])
    return tuple(zip((answer.path for answer in pictures), reference.tolist(), other.tolist(), strict=True))


def _partial_deviation(
    output: object, pairs: Sequence[ScorePair | None], running: RunningDeviation
) -> PartialDeviation | None:
    """Return what one part of the other model changes; None where the parts couldn't be exchanged on every picture."""
    if running.count == 0:
        return None
    if not isinstance(output, Classify):
        return PartialDeviation(None, running.deviation)
    scored = [(pair.reference, pair.other) for pair in pairs if pair is not None]
    if len(scored) < len(pairs):
        return None
    return PartialDeviation(score_deviation(*compared_scores(output, scored)), running.deviation)


def _input_pairs(models: Models, pictures: Sequence[PictureAnswers]) -> Iterator[InputPair]:
    for answer in islice(pictures, _LAYER_PICTURES):
        first, second = (model.tensor(model.pixels(Path(answer.path)))[np.newaxis] for model in models)
        yield first, second
