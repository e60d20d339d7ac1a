"""Whether a model's contract fits labelled pictures: how often it is right, and whether a likely other contract (the
channels in the other order, values on another scale) would be right more often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from plimsoll.errors import PlimsollError
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.metrics.decisions import CONFIDENCE, bounds, interval
from plimsoll.metrics.labelled import Ranking
from plimsoll.prove.labels import label_of
from plimsoll.spec.spec import Classify, Spec
from plimsoll.spec.steps import Channels, Mean, Scale, Std

PICTURES = 128
"""So many labelled pictures tell a wrong contract from a right one."""
_PICTURES_FOR_SCALES = 64
_SIGNIFICANT = 0.001
"""Another contract is named only where so few samples would prefer it by chance (McNemar's exact test)."""

_SCALES: Mapping[str, tuple[Scale | Mean | Std, ...]] = {
    "values from 0 to 255": (),
    "values from 0 to 1": (Scale(divisor=255.0),),
    "values from -1 to 1": (Mean(values=(127.5,)), Scale(divisor=127.5)),
    "ImageNet's mean and standard deviation": (
        Scale(divisor=255.0),
        Mean(values=(0.485, 0.456, 0.406)),
        Std(values=(0.229, 0.224, 0.225)),
    ),
}
"""How values are commonly brought to a scale; the mean of ImageNet is in the order RGB."""


@dataclass(frozen=True)
class LikelyContract:
    """Another contract, under which the model is right more often."""

    difference: str
    """From the Spec, in words."""
    correct: int


@dataclass(frozen=True)
class ContractCheck:
    """How often a model is right on labelled pictures."""

    correct: int
    """Top-1, or at the threshold of the positive label."""
    count: int
    """Labelled pictures that were answered, at most 128."""
    labelled: int
    """Pictures that have a label, of `total`."""
    total: int
    commonest: str
    """The label that most of the `count` pictures have."""
    commonest_count: int
    auc_low: float | None
    """The lower 95 % bound of the area under the ROC curve, for models with a positive label and pictures of both
    kinds."""
    auc: float | None = None
    likely: LikelyContract | None = None

    @property
    def problem(self) -> str:
        """What is wrong, in words; empty where nothing is, or where nothing was labelled."""
        if not self.count:
            return ""
        reasons = [*self._badly(), *self._otherwise()]
        return f"{self.in_words}: {'. '.join(reasons)}" if reasons else ""

    @property
    def in_words(self) -> str:
        """How often the model is right."""
        auc = f", AUC {self.auc:.3f}" if self.auc is not None else ""
        tried = f", of which {self.count:,} were tried" if self.labelled > self.count else ""
        sample = f"{self.labelled:,} of {self.total:,} pictures have a label{tried}"
        return f"the model is right on {_share(self.correct, self.count)} labelled pictures{auc} ({sample})"

    def _badly(self) -> Iterator[str]:
        low, high = interval(self.correct, self.count)
        if self.auc_low is not None:
            if self.auc_low <= 0.5:
                yield "it does not tell the labels apart better than chance"
        elif high < 0.5:
            yield "it is wrong more often than right"
        elif low <= self.commonest_count / self.count and self.commonest_count < self.count:
            share = _share(self.commonest_count, self.count)
            yield f"that is no better than chance: '{self.commonest}' alone is right on {share}"

    def _otherwise(self) -> Iterator[str]:
        if self.likely is not None:
            share = _share(self.likely.correct, self.count)
            yield f"With {self.likely.difference} it is right on {share}: does the Spec say what it was trained with?"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / whole:.0f} %)"


def check_contract(
    model: ResolvedModel, pictures: Sequence[str], labels: Mapping[str, str], *, cores: int | None = None
) -> ContractCheck:
    """Return how often a classifier is right on labelled pictures, at most 128 of them, and the likely right contract
    where another is surely right more often.

    The channels in the other order are always tried; other scales only where the model is hardly ever right. `labels`
    is absolute picture path → right label. Raises what opening the model raises, and InputError for another task.
    """
    output = model.model.require_spec().output
    if not isinstance(output, Classify):
        return ContractCheck(0, 0, 0, len(pictures), "", 0, None)
    known = [(path, label) for path in pictures if (label := label_of(labels, path)) is not None]
    chosen = _spread(known, PICTURES)
    scores = _scores(model, [path for path, _ in chosen], cores)
    answered = [(row, label) for row, (_, label) in zip(scores, chosen, strict=True) if row is not None]
    paths = [path for row, (path, _) in zip(scores, chosen, strict=True) if row is not None]
    truths = [label for _, label in answered]
    right = np.array([_is_right(output, row, label) for row, label in answered], np.bool_)
    commonest, commonest_count = Counter(truths).most_common(1)[0] if truths else ("", 0)
    auc, auc_low = _auc(output, answered)
    check = ContractCheck(
        int(right.sum()), len(right), len(known), len(pictures), commonest, commonest_count, auc_low, auc
    )
    likely = _likely(model, paths, truths, right, suspicious=bool(check.problem), cores=cores)
    return replace(check, likely=likely)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    step = max(1.0, len(items) / most)
    return [items[int(index * step)] for index in range(min(len(items), most))]


def _scores(model: ResolvedModel, pictures: Sequence[str], cores: int | None) -> list[dict[str, float] | None]:
    with Predictor(model, cores=cores) as predictor:
        return [
            prediction.answer.row()["scores"] if prediction.answer is not None else None
            for prediction in predictor.predict_many(pictures)
        ]


def _is_right(output: Classify, scores: Mapping[str, float], label: str) -> bool:
    if output.positive is not None:
        threshold = 0.5 if output.threshold is None else output.threshold
        return (scores[output.positive] >= threshold) == (label == output.positive)
    return max(scores, key=lambda name: scores[name]) == label


def _auc(output: Classify, answered: Sequence[tuple[Mapping[str, float], str]]) -> tuple[float | None, float | None]:
    """Return the area under the ROC curve of the positive label and its lower bound; None where it is not defined."""
    if output.positive is None or len({label == output.positive for _, label in answered}) < 2:
        return None, None
    truth = np.array([label == output.positive for _, label in answered], np.bool_)
    ranking = Ranking(truth, np.array([scores[output.positive] for scores, _ in answered], np.float64))
    low, _, _ = bounds(ranking.auc, truth.size, CONFIDENCE)
    return ranking.auc(np.ones(truth.size)), None if math.isnan(low) else low


def _likely(
    model: ResolvedModel,
    pictures: Sequence[str],
    truths: Sequence[str],
    right: Any,
    *,
    suspicious: bool,
    cores: int | None,
) -> LikelyContract | None:
    """Return the contract that is right most often, if it surely is more often than the model's own."""
    output = model.model.require_spec().output
    assert isinstance(output, Classify)  # noqa: S101 - checked by the caller
    best: LikelyContract | None = None
    for difference, spec, is_scale in _others(model.model.require_spec()):
        if is_scale and not suspicious:
            continue
        most = _PICTURES_FOR_SCALES if is_scale else PICTURES
        indices = _spread(range(len(pictures)), most)
        try:
            rows = _scores(_with_spec(model, spec), [pictures[index] for index in indices], cores)
        except PlimsollError:
            continue  # The network does not take it.
        other = np.array(
            [row is not None and _is_right(output, row, truths[at]) for row, at in zip(rows, indices, strict=True)],
            np.bool_,
        )
        gained, lost = int((other & ~right[indices]).sum()), int((~other & right[indices]).sum())
        correct = round(int(other.sum()) * len(pictures) / max(len(indices), 1))
        if _surely_more(gained, lost) and (best is None or correct > best.correct):
            best = LikelyContract(difference, correct)
    return best


def _surely_more(gained: int, lost: int) -> bool:
    """Whether one contract is right more often than the other, by McNemar's exact test on the pictures where they
    differ."""
    count = gained + lost
    tail = sum(math.comb(count, more) for more in range(gained, count + 1)) / 2**count
    return gained > lost and tail < _SIGNIFICANT


def _with_spec(model: ResolvedModel, spec: Spec) -> ResolvedModel:
    return replace(model, model=replace(model.model, spec=spec), bundle=None)


def _others(spec: Spec) -> Iterator[tuple[str, Spec, bool]]:
    """Yield likely other contracts: their difference in words, the Spec, and whether the scale is another one."""
    steps = list(spec.input.steps)
    swapped = _swapped(steps)
    if swapped is not None and (other := _valid(spec, swapped)) is not None:
        order = "BGR" if _order(swapped) == "BGR" else "RGB"
        yield f"the channels in the order {order}", other, False
    for name, scale in _SCALES.items():
        for order_steps in (steps, swapped):
            if order_steps is None:
                continue
            scaled = _scaled(order_steps, scale)
            if scaled in (steps, swapped) or (other := _valid(spec, scaled)) is None:
                continue
            channels = "" if order_steps is steps else f" and the channels in the order {_order(order_steps)}"
            yield f"{name}{channels}", other, True


def _order(steps: Sequence[Any]) -> str:
    orders = [step.order for step in steps if isinstance(step, Channels)]
    return orders[-1] if orders else "RGB"


def _swapped(steps: Sequence[Any]) -> list[Any] | None:
    """Return the steps with the channels in the other order; None for grey pictures."""
    if getattr(steps[0], "colour", "") == "grey":
        return None
    others = [step for step in steps if not isinstance(step, Channels)]
    if _order(steps) == "BGR":
        return others
    index = next((index for index, step in enumerate(others) if _is_arithmetic(step)), len(others))
    return [*others[:index], Channels(order="BGR"), *others[index:]]


def _is_arithmetic(step: Any) -> bool:
    return step.step in ("scale", "mean", "std", "layout", "dtype")


def _scaled(steps: Sequence[Any], scale: Sequence[Scale | Mean | Std]) -> list[Any]:
    """Return the steps with another scale in the place of theirs."""
    others = [step for step in steps if not isinstance(step, (Scale, Mean, Std))]
    index = next((index for index, step in enumerate(others) if step.step in ("layout", "dtype")), len(others))
    ordered = [
        Mean(values=step.values[::-1]) if isinstance(step, Mean) and _order(steps) == "BGR" else step for step in scale
    ]
    return [*others[:index], *ordered, *others[index:]]


def _valid(spec: Spec, steps: Sequence[Any]) -> Spec | None:
    data = spec.model_dump()
    data["input"]["steps"] = [step.model_dump() for step in steps]
    try:
        return Spec.model_validate(data)
    except ValidationError:
        return None
