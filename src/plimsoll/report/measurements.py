"""What was measured of a candidate: its speed, its size, its memory, and its answers compared with the reference's."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from plimsoll.core.budget import Check, parse_nonfinite

DeviationMeasure = Literal["max", "mean", "p99", "budget"]


def _number(value: Any) -> Any:
    return math.nan if value is None else parse_nonfinite(value)


Figure = Annotated[float, BeforeValidator(_number)]
"""A measured figure; NaN if it was not measured. A missing one may also be written as null."""


class ResultModel(BaseModel):
    """A frozen part of a ship's result; what a later version adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


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
    budget: Figure = math.nan
    """For answers without scores: the worst of the budget's figures as a share of its limit."""

    def of(self, measure: DeviationMeasure) -> float:
        """Return the named one."""
        return {"max": self.max, "mean": self.mean, "p99": self.p99, "budget": self.budget}[measure]


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
    def failed_checks(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def worst_flips(self) -> FlippedDecisions | None:
        """The decision that flipped most often; None where none was compared."""
        compared = [flips for flips in self.flips if flips.count]
        known = {id(flips): 0.0 if math.isnan(flips.upper) else flips.upper for flips in compared}
        return max(compared, key=lambda flips: (known[id(flips)], flips.flipped), default=None)
