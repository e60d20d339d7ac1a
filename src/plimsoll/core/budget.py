"""`Budget`: what answers may lose, always on the confidence bound; `Check`: a figure and its bound against a limit."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, WithJsonSchema, computed_field, model_validator

from plimsoll.errors import InputError

_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def parse_nonfinite(value: Any) -> Any:
    """Return the number that `NaN`, `Infinity` or `-Infinity` stands for, and anything else as it is."""
    return _NONFINITE.get(value, value) if isinstance(value, str) else value


Figure = Annotated[float, WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": list(_NONFINITE)}]})]


_BOUNDED = ("flips", "mean score deviation", "change of ", "signal to noise")
"""How the checks begin whose only figure, in reports of schema 1 and 2, was the bound and not what was measured."""


class Check(BaseModel):
    """What was measured, the 95 % bound that it leaves possible, and the limit that the bound has to keep.

    `passed` follows from the figures and can't be set: NaN never passes, nor does any figure against a limit that is
    not finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    name: str
    measured: Figure
    """What was measured in the sample."""
    bound: Figure | None = None
    """The one-sided 95 % bound for all other pictures, which is held against the limit. None where the figure itself
    is: a count, or a difference of stored tensors."""
    limit: Figure
    direction: Literal["at_most", "at_least"] = "at_most"
    """Whether the limit is an upper or a lower one; the limit itself passes."""
    unit: str = ""
    detail: str = ""
    """Where the worst case was, or why there is no figure."""

    @model_validator(mode="wrap")
    @classmethod
    def _verify_passed(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Accept the `passed` of a stored report only if it follows from the figures."""
        if isinstance(data, dict) and isinstance(data.get("bound"), str) and data["bound"].startswith("at_"):
            data = _of_schema_2(data)
        if not isinstance(data, dict) or "passed" not in data:
            return handler(data)
        check = handler({key: value for key, value in data.items() if key != "passed"})
        if data["passed"] is not check.passed:
            raise ValueError(
                f"passed: it says {data['passed']}, but measured {check.measured}, bound {check.bound} and limit"
                f" {check.limit} say {check.passed}"
            )
        return check

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def passed(self) -> bool:
        """Whether the judged figure keeps the limit."""
        if not math.isfinite(self.judged) or not math.isfinite(self.limit):
            return False
        return self.judged <= self.limit if self.direction == "at_most" else self.judged >= self.limit

    @property
    def judged(self) -> float:
        """What is held against the limit: the bound, or the measured figure where there is none."""
        return self.measured if self.bound is None else self.bound


def _of_schema_2(data: dict[str, Any]) -> dict[str, Any]:
    """Read a check of a report of schema 1 or 2: `bound` was the direction, `measured` what was judged."""
    check = {**data, "direction": data["bound"], "bound": None}
    if str(data.get("name", "")).startswith(_BOUNDED):
        check |= {"bound": data.get("measured"), "measured": "NaN"}
    return check


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_TOP = re.compile(r"top[1-9]\d{0,3}")

LimitKind = Literal["share", "agreement", "difference", "change", "rise", "decibel"]

METRICS: dict[str, tuple[LimitKind, str]] = {
    "agreement": ("agreement", "share of answers that agree: decisions, boxes, pixels, points, texts: lower bound"),
    "flips": ("share", "share of decisions that flip, at each threshold: exact upper 95 % bound"),
    "mean_deviation": ("difference", "mean absolute difference of the scores: upper 95 % bound"),
    "max_deviation": ("difference", "largest absolute difference of a score, over all pictures"),
    "accuracy": ("change", "change of the accuracy at the threshold: lower 95 % bound"),
    "precision": ("change", "change of the precision: lower 95 % bound"),
    "recall": ("change", "change of the recall: lower 95 % bound"),
    "auc": ("change", "change of the area under the ROC curve: lower 95 % bound"),
    "top1": ("change", "change of the top-1 accuracy (top5, top10 … likewise): lower 95 % bound"),
    "box_recall": ("agreement", "share of the reference's boxes that are found again (IoU 0.5): lower 95 % bound"),
    "box_precision": ("agreement", "share of the boxes that the reference finds, too: lower 95 % bound"),
    "box_score_deviation": ("difference", "mean absolute difference of matched boxes' scores: upper 95 % bound"),
    "box_error": ("share", "mean of 1 - IoU of matched boxes: upper 95 % bound"),
    "box_shift": ("share", "mean shift and scaling of matched boxes, as a share of their size: 95 % bound"),
    "box_changes": ("share", "share of pictures in which a box is lost or added: exact upper 95 % bound"),
    "map": ("change", "change of COCO's mAP (IoU 0.5 to 0.95) against labels, in points of 100: lower 95 % bound"),
    "map50": ("change", "change of the mAP at IoU 0.5 against labels, in points of 100: lower 95 % bound"),
    "mask_map": ("change", "change of the masks' mAP against labels, in points of 100: lower 95 % bound"),
    "point_map": ("change", "change of the points' mAP (OKS) against labels, in points of 100: lower 95 % bound"),
    "mask_iou": ("agreement", "mean IoU of matched boxes' masks: lower 95 % bound"),
    "miou": ("agreement", "mean intersection over union of the masks' labels: lower 95 % bound"),
    "boundary_iou": ("agreement", "the same of the masks' boundaries: lower 95 % bound"),
    "pixel_changes": ("share", "share of pixels that change their label: upper 95 % bound"),
    "nme": ("share", "mean distance of points, as a share of the extent of all: upper 95 % bound"),
    "failure_rate": ("share", "share of pictures whose points are off by more than 7 %: exact upper 95 % bound"),
    "point_auc": ("agreement", "area under the curve of point errors up to 7 %: lower 95 % bound"),
    "presence_deviation": ("difference", "mean absolute difference of the presence: upper 95 % bound"),
    "label_miou": ("change", "miou=-0.5: change of the mean IoU against labels, in points of 100: lower 95 % bound"),
    "label_nme": ("rise", "nme=+0.002: change of the normalized mean error against labels: upper 95 % bound"),
    "label_failure_rate": ("rise", "failure_rate=+1%: change of the failure rate against labels: upper 95 % bound"),
    "label_point_auc": ("change", "point_auc=-1%: change of the area under the curve of errors: lower 95 % bound"),
    "text_changes": ("share", "share of texts that change: exact upper 95 % bound"),
    "cer": ("share", "character error rate against the reference's texts: upper 95 % bound"),
    "snr": ("decibel", "signal to noise of the outputs in dB, a head's column by column, the lowest: lower 95 % bound"),
}
"""Metric → what kind of limit it has, and what it measures."""

SCORE_METRICS = frozenset(
    {"flips", "mean_deviation", "max_deviation", "accuracy", "precision", "recall", "auc", "top1"}
)
"""The metrics of classifiers' scores and labels."""

_AGAINST_LABELS = "label_"
"""How metrics begin that are measured against labels and against the reference under one name: a limit with a sign is
one on the change against labels."""
_IN_POINTS = frozenset({"map", "map50", "mask_map", "point_map", "label_miou"})
"""Metrics that people quote in points of 100, and limit in them."""
MEANS = frozenset({"label_miou", "label_nme", "label_point_auc"})
"""Changes of a mean, whose bound shrinks with what changes and not with the number of pictures alone."""
_LEAST_POINTS = 0.0005
"""Less is taken for a fraction: -0.005 where half a point, -0.5, is meant."""

TASK_METRICS: dict[str, tuple[str, ...]] = {
    "classify": (
        *("agreement", "flips", "mean_deviation", "max_deviation", "accuracy", "precision", "recall", "auc", "top1"),
        "snr",
    ),
    "detect": (
        *("agreement", "box_recall", "box_precision", "box_score_deviation", "box_error", "box_shift", "box_changes"),
        *("nme", "mask_iou", "map", "map50", "mask_map", "point_map", "snr"),
    ),
    "segment": ("agreement", "miou", "boundary_iou", "pixel_changes", "label_miou", "snr"),
    "landmarks": (
        *("agreement", "nme", "failure_rate", "point_auc", "presence_deviation"),
        *("label_nme", "label_failure_rate", "label_point_auc", "snr"),
    ),
    "text": ("agreement", "text_changes", "cer", "snr"),
    "tensor": ("snr",),
}
"""Task → the metrics that its answers have."""

_RENAMED = {"deviation": "mean_deviation"}
"""Metrics by the names that they had in earlier versions."""

_EXAMPLE = "For example mean_deviation=0.01, flips=0.5%, top1=-0.5%, auc=-0.01, snr=30."


@dataclass(frozen=True)
class BoundedFigure:
    """A measured figure with the bound that a budget is judged by; NaN if it can't be computed; `detail` says why."""

    name: str
    """In words, and unique: `flips at 0.8`."""
    value: float
    bound: float
    detail: str = ""


Evidence = Mapping[str, Sequence[BoundedFigure]]
"""Metric → its figures: flips has one for each threshold."""


@dataclass(frozen=True)
class Limit:
    """One metric's limit. Shares and changes are fractions (0.005 is 0.5 %), snr is in dB."""

    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `metric=value`; raises InputError that names the metric or the value and what is allowed."""
        name, equals, written = (part.strip() for part in text.partition("="))
        if not equals:
            raise InputError(f"budget '{text}': expected metric=value", _EXAMPLE)
        if written[:1] in ("+", "-") and _AGAINST_LABELS + name in METRICS:
            name = _AGAINST_LABELS + name
        kind = limit_kind(name)
        if kind is None and (renamed := _RENAMED.get(name)):
            raise InputError(
                f"budget: unknown metric '{name}'; did you mean '{renamed}'?",
                f"Write {renamed}=… for the mean over the pictures, max_{name}=… for the largest.",
            )
        if kind is None:
            near = difflib.get_close_matches(name, METRICS, n=1)
            suggestion = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"budget: unknown metric '{name}'{suggestion}", f"Choose from {', '.join(METRICS)}.")
        number, percent = written.removesuffix("%").strip(), written.endswith("%")
        if not _NUMBER.fullmatch(number):
            raise InputError(f"budget '{text}': '{written}' is not a number", _EXAMPLE)
        value = float(number) / (100 if percent or name in _IN_POINTS else 1)
        if name in _IN_POINTS and -_LEAST_POINTS < value < 0:
            hint = f"Write {name}={100 * float(number):g} for {-100 * float(number):g} points." if not percent else ""
            raise InputError(f"budget '{text}': {name} is in points of 100, and {written} is hardly any", hint)
        if reason := _problem(kind, value, percent or name in _IN_POINTS):
            raise InputError(f"budget '{text}': {reason}", _EXAMPLE)
        return cls(name, value)

    def __str__(self) -> str:
        unit, value = unit_of(self.metric), in_unit(self.value, self.metric)
        sign = "+" if limit_kind(self.metric) == "rise" else ""
        return f"{self.metric.removeprefix(_AGAINST_LABELS)}={sign}{value:g}{unit if unit == '%' else ''}"


def unit_of(metric: str) -> str:
    """Return the unit that a metric's figures are shown in: %, points, dB or none."""
    kind = limit_kind(metric)
    if metric in _IN_POINTS:
        return "points"
    if kind in ("share", "agreement") or (kind == "change" and metric != "auc") or metric == "label_failure_rate":
        return "%"
    return "dB" if kind == "decibel" else ""


def in_unit(value: float, metric: str) -> float:
    """Return a metric's figure in the unit that it is shown in."""
    return value * (100 if unit_of(metric) in ("%", "points") else 1)


def limit_kind(metric: str) -> LimitKind | None:
    """Return what kind of limit a metric has; None for an unknown metric."""
    entry = METRICS.get("top1" if _TOP.fullmatch(metric) else metric)
    return entry[0] if entry is not None else None


def _problem(kind: LimitKind, value: float, percent: bool) -> str:
    """Return what is wrong with a limit's value, or nothing."""
    if not math.isfinite(value):
        return "the value is too large"
    if kind == "share" and not 0 < value < 1:
        return (
            "a share is above 0 and below 1, for example 0.5% or 0.005; no number of pictures proves that nothing flips"
        )
    if kind == "agreement" and not 0 < value < 1:
        return (
            "an agreement is above 0 and below 1, for example 90% or 0.9; no number of pictures proves that all agree"
        )
    if kind == "share" and value >= 0.2 and not percent:
        return f"{value:g} means {100 * value:g} %; write {100 * value:g}% if you mean that, or {value:g}%"
    if kind == "difference" and (value <= 0 or percent):
        return "a difference of scores is above 0 and in the unit of the scores, for example 0.01"
    if kind == "change" and -1 < value <= -0.2 and not percent:
        return f"{value:g} means {100 * value:g} %; write {100 * value:g}% if you mean that, or {value:g}%"
    if kind == "change" and not -1 < value < 0:
        return "a loss is negative, above -1, for example -0.5% or -0.005"
    if kind == "rise" and not 0 < value < 1:
        return "an error may rise by more than 0 and less than 1, for example +0.002 or +1%"
    if kind == "decibel" and percent:
        return "signal to noise is in decibels, for example 30"
    return ""


@dataclass(frozen=True)
class Budget:
    """What the answers may lose, as limits on confidence bounds.

    >>> str(Budget.parse(["flips=0.5%", "mean_deviation=0.05"]))
    'flips=0.5% mean_deviation=0.05'
    """

    limits: tuple[Limit, ...]

    @classmethod
    def parse(cls, texts: str | Iterable[str]) -> Self:
        """Read limits from `metric=value` texts, several in one separated by commas or spaces; raises InputError."""
        joined = texts if isinstance(texts, str) else " ".join(texts)
        limits = tuple(Limit.parse(part) for part in re.sub(r"\s*=\s*", "=", joined).replace(",", " ").split())
        names = [limit.metric for limit in limits]
        if duplicate := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"budget: duplicate metric '{duplicate}'", "Give each metric once.")
        if not limits:
            raise InputError("the budget is empty", _EXAMPLE)
        return cls(limits)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The limited metrics, in order."""
        return tuple(limit.metric for limit in self.limits)

    def require_task(self, task: str) -> None:
        """Raise InputError for a metric that the answers of a task don't have."""
        known = TASK_METRICS.get(task, ("snr",))
        for metric in self.metrics:
            if metric not in known and not (_TOP.fullmatch(metric) and "top1" in known):
                raise InputError(
                    f"the budget limits {metric}, which the answers of the task '{task}' don't have",
                    f"It can limit {', '.join(known)}; the default is {default_budget(task)}.",
                )

    def verdict(self, evidence: Evidence) -> tuple[Check, ...]:
        """Hold the bounds against the limits: one check for each figure of each limited metric.

        A metric without a figure fails: what wasn't measured isn't proven.
        """
        return tuple(
            _check(limit, figure)
            for limit in self.limits
            for figure in evidence.get(limit.metric)
            or [BoundedFigure(limit.metric, math.nan, math.nan, "not measured")]
        )

    def __str__(self) -> str:
        return " ".join(map(str, self.limits))


def _check(limit: Limit, figure: BoundedFigure) -> Check:
    kind = limit_kind(limit.metric)
    return Check(
        name=figure.name,
        measured=in_unit(figure.value, limit.metric),
        # The largest of a sample bounds nothing but the sample: it is judged as it is.
        bound=None if limit.metric == "max_deviation" else in_unit(figure.bound, limit.metric),
        limit=in_unit(limit.value, limit.metric),
        direction="at_least" if kind in ("agreement", "change", "decibel") else "at_most",
        unit=unit_of(limit.metric),
        detail=figure.detail,
    )


DEFAULT_BUDGET = Budget((Limit("flips", 0.04), Limit("mean_deviation", 0.01), Limit("max_deviation", 0.25)))
"""For classifiers: see docs/decisions/0007-budget.md."""

_TASK_BUDGETS = {
    "classify": DEFAULT_BUDGET,
    "detect": Budget.parse("box_recall=90% box_precision=90% box_score_deviation=0.05 box_error=10% box_shift=3%"),
    "segment": Budget.parse("miou=90% boundary_iou=70% pixel_changes=3%"),
    "landmarks": Budget.parse("nme=2% presence_deviation=0.05"),
    "text": Budget.parse("text_changes=10% cer=2%"),
}
_TENSOR_BUDGET = Budget((Limit("snr", 30.0),))


def default_budget(task: str) -> Budget:
    """Return what the answers of a task may lose where nobody says it: see docs/decisions/0007-budget.md."""
    return _TASK_BUDGETS.get(task, _TENSOR_BUDGET)
