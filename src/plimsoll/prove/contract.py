"""Whether a model's contract fits labelled pictures: how often a classifier is right, how many labelled objects a
detector finds, in how many pictures points and masks lie as they are marked, and whether a likely other contract (the
channels in the other order, values on another scale) would be right more often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from plimsoll.errors import PlimsollError
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.metrics.boxes import match
from plimsoll.metrics.decisions import CONFIDENCE, bounds, interval
from plimsoll.metrics.labelled import Ranking
from plimsoll.prove import marked_contract
from plimsoll.prove.labels import Truth, Truths, label_of
from plimsoll.spec.spec import Classify, Detect, Landmarks, Output, Segment, Spec
from plimsoll.spec.steps import Channels, Mean, Scale, Std
from plimsoll.tasks import Answer
from plimsoll.tasks.classify import Classification
from plimsoll.tasks.detect import Box, Detection

PICTURES = 128
"""So many labelled pictures tell a wrong contract from a right one."""
_PICTURES_FOR_SCALES = 64
_FOUND_BY_ANY_DETECTOR = 0.1
"""Whoever finds fewer of the labelled objects than this is not behind the right contract, or looks at other pictures
than it was trained for."""
_PLACED_BY_ANY_NETWORK = 0.2
"""The same for points and masks, of which there is one set a picture."""
_CHECKED = (Classify, Detect, Landmarks, Segment)
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
    """Top-1, or at the threshold of the positive label; of a detector, the objects that it finds."""
    count: int
    """Labelled pictures that were answered, at most 128; of a detector, the objects in them."""
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
    mislabelled: int | None = None
    """Of a detector, the objects that it finds under another label; None for other tasks."""
    is_marked: bool = False
    """Whether it gives masks or points: a picture counts as right where these lie as they are marked."""

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
        pictures = self.count if self.mislabelled is None else min(self.labelled, PICTURES)
        tried = f", of which {pictures:,} were tried" if self.labelled > pictures else ""
        sample = f"{self.labelled:,} of {self.total:,} pictures have a label{tried}"
        if self.mislabelled is not None:
            return f"the model finds {_share(self.correct, self.count)} labelled objects ({sample})"
        if self.is_marked:
            where = f"{_share(self.correct, self.count)} labelled pictures"
            return f"the model's answers lie where they are marked in {where} ({sample})"
        return f"the model is right on {_share(self.correct, self.count)} labelled pictures{auc} ({sample})"

    def _badly(self) -> Iterator[str]:
        low, high = interval(self.correct, self.count)
        if self.mislabelled is not None:
            if high < _FOUND_BY_ANY_DETECTOR:
                yield "it finds hardly any"
            if self.mislabelled > max(self.correct, self.count / 10):
                share = _share(self.mislabelled, self.count)
                yield f"Under another label it finds {share}: do the Spec's labels stand in the network's order?"
        elif self.is_marked:
            if high < _PLACED_BY_ANY_NETWORK:
                yield "that is hardly ever"
        elif self.auc_low is not None:
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
            verb = "is right on" if self.mislabelled is None else "finds"
            yield f"With {self.likely.difference} it {verb} {share}: does the Spec say what it was trained with?"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / whole:.0f} %)"


def check_contract(
    model: ResolvedModel, pictures: Sequence[str], labels: Truths, *, cores: int | None = None
) -> ContractCheck:
    """Return how often a classifier is right on labelled pictures, how many labelled objects a detector finds, or in
    how many pictures masks and points lie as they are marked, on at most 128 pictures; and the likely right contract
    where another is surely right more often.

    The channels in the other order are always tried; other scales only where the model is hardly ever right. `labels`
    is absolute picture path → right answer. Raises what opening the model raises.
    """
    output = model.model.require_spec().output
    if not isinstance(output, _CHECKED):
        return ContractCheck(0, 0, 0, len(pictures), "", 0, None)
    known = [(path, label) for path in pictures if (label := label_of(labels, path)) is not None]
    chosen = _spread(known, PICTURES)
    answers = _answers(model, [path for path, _ in chosen], cores)
    answered = [_Labelled(path, truth, answer) for answer, (path, truth) in zip(answers, chosen, strict=True) if answer]
    right = _right(output, answered)
    check = ContractCheck(int(right.sum()), len(right), len(known), len(pictures), "", 0, None)
    if isinstance(output, Detect):
        check = replace(check, mislabelled=sum(map(_mislabelled, answered)))
    elif not isinstance(output, Classify):
        check = replace(check, is_marked=True)
    else:
        truths = [item.truth for item in answered]
        commonest, count = Counter(truths).most_common(1)[0] if truths else ("", 0)
        auc, auc_low = _auc(output, answered)
        check = replace(check, commonest=str(commonest), commonest_count=count, auc=auc, auc_low=auc_low)
    return replace(check, likely=_likely(model, answered, suspicious=bool(check.problem), cores=cores))


@dataclass(frozen=True)
class _Labelled:
    """A labelled picture with the model's answer; None where it has none."""

    path: str
    truth: Truth
    answer: Answer | None

    @property
    def scores(self) -> Mapping[str, float]:
        """A classifier's."""
        return dict(self.answer.scores) if isinstance(self.answer, Classification) else {}

    @property
    def objects(self) -> list[Box]:
        """What a detector should find."""
        boxes = self.truth if isinstance(self.truth, tuple) else ()
        return [Box(box.label, 1.0, box.box) for box in boxes if not box.crowd]

    @property
    def boxes(self) -> tuple[Box, ...]:
        """What a detector finds."""
        return self.answer.boxes if isinstance(self.answer, Detection) else ()


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    step = max(1.0, len(items) / most)
    return [items[int(index * step)] for index in range(min(len(items), most))]


def _answers(model: ResolvedModel, pictures: Sequence[str], cores: int | None) -> list[Answer | None]:
    with Predictor(model, cores=cores) as predictor:
        return [prediction.answer for prediction in predictor.predict_many(pictures)]


def _right(output: Output, items: Sequence[_Labelled]) -> NDArray[np.bool_]:
    """Return whether each picture is classified right or answered as marked, or each labelled object detected."""
    if isinstance(output, (Landmarks, Segment)):
        return marked_contract.right([(item.truth, item.answer) for item in items])
    if isinstance(output, Classify):
        return np.array([bool(item.scores) and _is_right(output, item.scores, item.truth) for item in items], np.bool_)
    flags = []
    for item in items:
        objects = item.objects
        detected = {index for index, *_ in match(objects, item.boxes, [True] * len(objects))}
        flags += [index in detected for index in range(len(objects))]
    return np.array(flags, np.bool_)


def _mislabelled(item: _Labelled) -> int:
    """Return how many objects only have boxes of another label on them."""
    objects, boxes = item.objects, [replace(box, label="") for box in item.boxes]
    anywhere = match([replace(box, label="") for box in objects], boxes, [True] * len(objects))
    return len(anywhere) - len(match(objects, item.boxes, [True] * len(objects)))


def _is_right(output: Classify, scores: Mapping[str, float], label: object) -> bool:
    if output.positive is not None:
        threshold = 0.5 if output.threshold is None else output.threshold
        return (scores[output.positive] >= threshold) == (label == output.positive)
    return max(scores, key=lambda name: scores[name]) == label


def _auc(output: Classify, answered: Sequence[_Labelled]) -> tuple[float | None, float | None]:
    """Return the area under the ROC curve of the positive label and its lower bound; None where it is not defined."""
    if output.positive is None or len({item.truth == output.positive for item in answered}) < 2:
        return None, None
    truth = np.array([item.truth == output.positive for item in answered], np.bool_)
    ranking = Ranking(truth, np.array([item.scores[output.positive] for item in answered], np.float64))
    low, _, _ = bounds(ranking.auc, truth.size, CONFIDENCE)
    return ranking.auc(np.ones(truth.size)), None if math.isnan(low) else low


def _likely(
    model: ResolvedModel, answered: Sequence[_Labelled], *, suspicious: bool, cores: int | None
) -> LikelyContract | None:
    """Return the contract that is right most often, if it surely is more often than the model's own."""
    output = model.model.require_spec().output
    best: LikelyContract | None = None
    own = _right(output, answered)
    for difference, flags in marked_contract.readings([(item.truth, item.answer) for item in answered]):
        if _surely_more(int((flags & ~own).sum()), int((own & ~flags).sum())):
            best = max(best, LikelyContract(difference, int(flags.sum())), key=_count)
    for difference, spec, is_scale in _others(model.model.require_spec()):
        if is_scale and not suspicious:
            continue
        items = _spread(answered, _PICTURES_FOR_SCALES if is_scale else PICTURES)
        try:
            answers = _answers(_with_spec(model, spec), [item.path for item in items], cores)
        except PlimsollError:
            continue  # The network does not take it.
        others = [replace(item, answer=answer) for item, answer in zip(items, answers, strict=True)]
        right, other = _right(output, items), _right(output, others)
        gained, lost = int((other & ~right).sum()), int((~other & right).sum())
        if not len(right) or not _surely_more(gained, lost) or _precision(output, others) < _precision(output, items):
            continue
        best = max(best, LikelyContract(difference, round(int(other.sum()) * len(own) / len(right))), key=_count)
    return best


def _count(contract: LikelyContract | None) -> int:
    return contract.correct if contract is not None else -1


def _precision(output: Output, items: Sequence[_Labelled]) -> float:
    """Return which share of a detector's boxes lies on labelled objects: one that finds boxes everywhere finds more of
    these, too. A classifier's answer is always one."""
    boxes = sum(len(item.boxes) for item in items)
    return float(_right(output, items).sum()) / boxes if isinstance(output, Detect) and boxes else 0.0


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
    for name, changes in _other_points(spec.output):
        yield name, spec.model_copy(update={"output": spec.output.model_copy(update=changes)}), True
    for name, scale in _SCALES.items():
        for order_steps in (steps, swapped):
            if order_steps is None:
                continue
            scaled = _scaled(order_steps, scale)
            if scaled in (steps, swapped) or (other := _valid(spec, scaled)) is None:
                continue
            channels = "" if order_steps is steps else f" and the channels in the order {_order(order_steps)}"
            yield f"{name}{channels}", other, True


def _other_points(output: Output) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield how a landmark network's values may be read otherwise, in words and in the Spec's keys."""
    if isinstance(output, Landmarks):
        columns = tuple({"x": "y", "y": "x"}.get(name, name) for name in output.value_columns)
        yield f"columns = {list(columns)}", {"columns": columns, "dimensions": 2}
        yield f"normalized = {str(not output.normalized).lower()}", {"normalized": not output.normalized}


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
