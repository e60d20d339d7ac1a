"""`Candidate`: one candidate deployment; `Trial`: what came of one. `plimsoll ship` writes them, its work folder keeps
them, and the page shows them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    computed_field,
    model_validator,
)

from plimsoll.core.budget import Check, parse_nonfinite
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import TargetError
from plimsoll.preprocessing import Preprocessing

Status = Literal["ok", "failed", "skipped"]
DeviationMeasure = Literal["max", "mean", "p99"]


def _number(value: Any) -> Any:
    return math.nan if value is None else parse_nonfinite(value)


def _target(value: Any) -> Target:
    try:
        return value if isinstance(value, Target) else Target.parse(str(value))
    except TargetError as error:
        raise ValueError(error.message) from error


Figure = Annotated[float, BeforeValidator(_number)]
"""A measured figure; NaN if it was not measured. A missing one may also be written as null."""


class ResultModel(BaseModel):
    """A frozen part of a ship's result; what a later version adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


@dataclass(frozen=True)
class Candidate:
    """One candidate deployment: preprocessing × a target × a calibrator."""

    preprocessing: Preprocessing
    folded: bool
    """Whether channels, scale, mean, std, layout and dtype are part of the network, which then takes the uint8 picture.
    """
    target: Annotated[Target, PlainValidator(_target), PlainSerializer(str)]
    calibrator: str | None = None
    """For calibrated targets: minmax, percentile …"""
    float_layers: int = 0
    """Mixed precision: how many of the layers that suffer most from quantization stay in float32."""

    @property
    def name(self) -> str:
        """For people: `onnxruntime:cpu:int8 percentile, fast preprocessing, folded, 5 layers in float32`."""
        target = f"{self.target} {self.calibrator}" if self.calibrator else str(self.target)
        parts = (target, f"{self.preprocessing} preprocessing", "folded" if self.folded else "", self.mixture)
        return ", ".join(part for part in parts if part)

    @property
    def mixture(self) -> str:
        """What stays in float32, in words; empty but for mixed precision."""
        return (
            f"{self.float_layers} layer{'s' if self.float_layers > 1 else ''} in float32" if self.float_layers else ""
        )

    @property
    def key(self) -> str:
        """For files: letters, digits, dashes."""
        mixture = f"float{self.float_layers}" if self.float_layers else ""
        folding = "folded" if self.folded else "plain"
        parts = (self.preprocessing, folding, *str(self.target).split(":"), self.calibrator, mixture)
        return "-".join(part for part in parts if part)

    @property
    def distance(self) -> int:
        """In how many respects it differs from the reference: fewer is simpler."""
        other_precision = (self.target.precision != "float32") + (self.float_layers > 0)
        other_runtime = self.target.runtime != REFERENCE_TARGET.runtime
        return (self.preprocessing != "reference") + self.folded + other_precision + other_runtime


class Speed(ResultModel):
    """Speed relative to the reference, from paired runs."""

    ratio: Figure = math.nan
    """Above 1 is faster."""
    low: Figure = math.nan
    high: Figure = math.nan
    """The 95 % interval of the ratio."""
    verdict: str = ""
    images_per_second: Figure = math.nan
    """At the reference's pace in the final benchmark, where it is part of a result."""
    measured_images_per_second: Figure = math.nan
    """As measured, when the machine may have been busier or less busy."""
    reference_images_per_second: Figure = math.nan
    """The reference's in the same paired runs."""


class Measurements(ResultModel):
    """What was measured of a candidate beside its answers."""

    speed: Speed = Speed()
    in_final_benchmark: bool = False
    """Whether the speed was measured there."""
    size_bytes: Figure = math.nan
    """On disk."""
    build_seconds: Figure = math.nan
    load_seconds: Figure = math.nan
    peak_bytes: Figure = math.nan
    stages: dict[str, Figure] = {}
    """Milliseconds of work a picture, stage by stage, in the order in which they run."""
    infinite_network_images_per_second: Figure = math.nan
    """Pictures a second if the network took no time."""


class Deviations(ResultModel):
    """How far scores lie from the reference's."""

    max: Figure = math.nan
    mean: Figure = math.nan
    mean_upper: Figure = math.nan
    """The upper 95 % bound of the mean."""
    p99: Figure = math.nan

    def of(self, measure: DeviationMeasure) -> float:
        """Return the named one."""
        return {"max": self.max, "mean": self.mean, "p99": self.p99}[measure]


class FlippedDecisions(ResultModel):
    """Decisions that turned out otherwise than the reference's."""

    threshold: float | None = None
    """None: the decision is the class with the highest score."""
    count: int = 0
    """Decisions compared."""
    flipped: int = 0
    up: int = 0
    down: int = 0
    upper: Figure = math.nan
    """The share that is not exceeded with 95 % confidence, 0 … 1."""


class LabelledMetric(ResultModel):
    """A metric against given labels, of the reference and of a candidate."""

    reference: Figure = math.nan
    candidate: Figure = math.nan
    drop: Figure = math.nan
    """reference − candidate"""
    low: Figure = math.nan
    high: Figure = math.nan
    """The 95 % interval of the drop."""


class Evaluation(ResultModel):
    """A candidate's answers to one part of the pictures, compared with the reference's."""

    count: int = 0
    """Pictures that the reference answered."""
    failed: int = 0
    """Of these, how many the candidate could not answer."""
    deviation: Deviations = Deviations()
    flips: tuple[FlippedDecisions, ...] = ()
    """One for each threshold."""
    rank_correlation: Figure = math.nan
    labelled: dict[str, LabelledMetric] = {}
    labelled_count: int = 0
    headline: str = ""
    """The decisions in one line: how many flipped, and what the sample says of all others."""
    checks: tuple[Check, ...] = ()
    """The budget."""

    @property
    def passed(self) -> bool:
        """Whether every check passed; False where nothing was checked."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def worst_flips(self) -> FlippedDecisions | None:
        """The decision that flipped most often; None where none was compared."""
        compared = [flips for flips in self.flips if flips.count]
        known = {id(flips): 0.0 if math.isnan(flips.upper) else flips.upper for flips in compared}
        return max(compared, key=lambda flips: (known[id(flips)], flips.flipped), default=None)


class Trial(ResultModel):
    """A candidate, and what came of it."""

    candidate: Candidate
    status: Status
    reason: str = ""
    """Why it failed or was skipped, or why it does not ship although it looks good."""
    passed: bool | None = None
    """Whether it kept the budget on all pictures that it was evaluated on; None where it was not."""
    measured: Measurements = Measurements()
    validation: Evaluation = Evaluation()

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def key(self) -> str:
        """The candidate's key: for files and links."""
        return self.candidate.key

    @computed_field  # type: ignore[prop-decorator]
    @property
    def name(self) -> str:
        """The candidate's name: for people."""
        return self.candidate.name

    @model_validator(mode="after")
    def _within_its_checks(self) -> Self:
        if self.passed and not all(check.passed for check in self.validation.checks):
            raise ValueError("passed: a check of the validation part failed")
        return self

    def with_final_speed(self, speed: Speed) -> Trial:
        """Return the trial with its speed in the final benchmark."""
        return self.model_copy(
            update={"measured": self.measured.model_copy(update={"speed": speed, "in_final_benchmark": True})}
        )

    @property
    def runtime(self) -> str:
        """The first part of the target."""
        return self.candidate.target.runtime

    @property
    def precision(self) -> str:
        """The last part of the target."""
        return self.candidate.target.precision

    @property
    def ratio(self) -> float:
        """How many times as fast as the reference; 0 where it was not measured."""
        return self.measured.speed.ratio if self.status == "ok" else 0.0

    @property
    def violation(self) -> float:
        """How far it is over the budget: the worst figure as a multiple of its limit, infinite where one is missing."""
        checks = self.validation.checks
        return max((1.0 if check.passed else _share_used(check) for check in checks), default=math.inf)

    @property
    def budget_used(self) -> float:
        """How much of the budget it uses up: its figures as shares of their limits, added up."""
        return sum(_share_used(check) for check in self.validation.checks)


def _share_used(check: Check) -> float:
    """Return a figure as a share of its limit; infinite where it is none."""
    # A limit below zero is a loss that is allowed; the least signal to noise is above zero, and what is measured below
    # it.
    least = check.direction == "at_least" and check.limit > 0
    more, less = (check.limit, check.judged) if least else (check.judged, check.limit)
    if check.passed and not less:
        return 0.0
    return more / less if math.isfinite(more) and less else math.inf
