"""`Candidate`: one candidate deployment; `Trial`: what came of one. `plimsoll ship` writes them, its work folder keeps
them, and the page shows them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import PlainSerializer, PlainValidator, computed_field, model_validator

from plimsoll.core.budget import Check
from plimsoll.core.target import REFERENCE_TARGET, Preprocessing, Target
from plimsoll.errors import TargetError
from plimsoll.report.measurements import Evaluation, Measurements, ResultModel, Speed
from plimsoll.report.reason import Reason

Status = Literal["ok", "failed", "skipped"]


def _target(value: Any) -> Target:
    try:
        return value if isinstance(value, Target) else Target.parse(str(value))
    except TargetError as error:
        raise ValueError(error.message) from error


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
    stages: tuple[Candidate, ...] = ()
    """Of a cascade: what each network is; all else here is that of the one that lies farthest from the reference."""

    @classmethod
    def of_cascade(cls, stages: Sequence[Candidate]) -> Candidate:
        """Return the candidate that a cascade of these is."""
        return replace(max(stages, key=lambda stage: stage.distance), stages=tuple(stages))

    @property
    def name(self) -> str:
        """For people: `onnxruntime:cpu:int8 percentile, fast preprocessing, folded, 5 layers in float32`."""
        if self.stages:
            return "; ".join(f"{number}: {stage.name}" for number, stage in enumerate(self.stages, 1))
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
        if self.stages:
            digest = hashlib.sha256("+".join(stage.key for stage in self.stages).encode()).hexdigest()
            return f"cascade-{digest[:12]}"
        mixture = f"float{self.float_layers}" if self.float_layers else ""
        folding = "folded" if self.folded else "plain"
        parts = (self.preprocessing, folding, *str(self.target).split(":"), self.calibrator, mixture)
        return "-".join(part for part in parts if part)

    @property
    def distance(self) -> int:
        """In how many respects it differs from the reference: fewer is simpler."""
        if self.stages:
            return sum(stage.distance for stage in self.stages)
        other_precision = (self.target.precision != "float32") + (self.float_layers > 0)
        other_runtime = self.target.runtime != REFERENCE_TARGET.runtime
        return ("reference", "fast", "scaled").index(self.preprocessing) + self.folded + other_precision + other_runtime


class Trial(ResultModel):
    """A candidate, and what came of it."""

    candidate: Candidate
    status: Status
    reason: Reason | None = None
    """Why it ended so: written by the search when it decides."""
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
        return violation(self.validation.checks)

    @property
    def budget_used(self) -> float:
        """How much of the budget it uses up: its figures as shares of their limits, added up."""
        return sum(_share_used(check) for check in self.validation.checks)


def share_used(checks: Iterable[Check]) -> float:
    """Return the worst of these figures as a share of its limit, infinite where one is missing; NaN without checks."""
    return max(map(_share_used, checks), default=math.nan)


def violation(checks: Iterable[Check]) -> float:
    """Return the worst of these figures as a multiple of its limit, 1 where all passed; infinite where one is
    missing."""
    return max((1.0 if check.passed else _share_used(check) for check in checks), default=math.inf)


def _share_used(check: Check) -> float:
    """Return a figure as a share of its limit; infinite where it is none."""
    # A limit below zero is a loss that is allowed; the least signal to noise is above zero, and what is measured below
    # it.
    least = check.direction == "at_least" and check.limit > 0
    more, less = (check.limit, check.judged) if least else (check.judged, check.limit)
    if least and check.unit == "%":  # Of an agreement, what is lost counts: 99 % where 90 % are allowed is a tenth.
        more, less = 100.0 - check.judged, 100.0 - check.limit
    if check.passed and not less:
        return 0.0
    return more / less if math.isfinite(more) and less else math.inf
