"""`ShipDetails`: what a report of kind "ship" holds in its `details`.

Every figure may be missing: null, or NaN where something was measured and has no value. Both are read as None.
Infinity stays (a layer whose tensors are equal has an infinite signal-to-noise ratio).
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from plimsoll.core.check import Check
from plimsoll.errors import InputError
from plimsoll.report.report import Report

_WORDS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
_JPEG = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}")


def _figure(value: Any) -> Any:
    if isinstance(value, str):
        return _WORDS.get(value, value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _jpeg_only(value: Any) -> Any:
    return value if isinstance(value, str) and _JPEG.fullmatch(value) else ""


Figure = Annotated[float | None, BeforeValidator(_figure)]
Outcome = Literal["better", "not_better", "nothing_passed"]
Objective = Literal["throughput", "latency", "size"]
Measure = Literal["max", "mean", "p99"]


class _Part(BaseModel):
    """A frozen part of the details; what a later version adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SplitCounts(_Part):
    """How many pictures served for what."""

    calibration: int = 0
    selection: int = 0
    judging: int = 0
    unreadable: int = 0
    duplicates: int = 0


class BudgetFacts(_Part):
    """The budget in words, and its limit on the deviation."""

    texts: tuple[str, ...] = ()
    deviation_limit: Figure = None
    """The most that the score may move; None where the budget doesn't limit deviation."""
    deviation_measure: Measure = "max"


class Deviations(_Part):
    """How far scores lie from the reference's."""

    max: Figure = None
    mean: Figure = None
    p99: Figure = None

    def of(self, measure: Measure) -> float | None:
        """Return the named one."""
        return {"max": self.max, "mean": self.mean, "p99": self.p99}[measure]


class Flips(_Part):
    """Decisions that turned out otherwise than the reference's."""

    threshold: Figure = None
    """None: the decision is the class with the highest score."""
    count: int = 0
    """Decisions compared."""
    flipped: int = 0
    upper: Figure = None
    """The share that is not exceeded with 95 % confidence, 0 … 1."""


class Speed(_Part):
    """Speed relative to the reference, from paired runs."""

    ratio: Figure = None
    """Above 1 is faster."""
    low: Figure = None
    high: Figure = None
    """The 95 % interval of the ratio."""
    verdict: str = ""
    images_per_second: Figure = None


class CandidateRow(_Part):
    """One candidate deployment and all that was measured of it, on the selection part."""

    key: str
    name: str
    steps: str = ""
    folded: bool = False
    target: str = ""
    """`runtime:device:precision`"""
    calibrator: str | None = None
    float_layers: int = 0
    """Mixed precision: how many layers of an int8 network stay in float32."""
    status: Literal["ok", "failed", "skipped"] = "ok"
    reason: str = ""
    passed: bool | None = None
    checks: tuple[Check, ...] = ()
    deviation: Deviations = Deviations()
    flips: tuple[Flips, ...] = ()
    speed: Speed = Speed()
    size_bytes: Figure = None
    load_seconds: Figure = None
    peak_bytes: Figure = None
    stages: dict[str, Figure] = {}
    """Milliseconds of work a picture, stage by stage, in the order in which they run."""

    @property
    def runtime(self) -> str:
        """The first part of the target."""
        return self.target.partition(":")[0]

    @property
    def precision(self) -> str:
        """The last part of the target."""
        return self.target.rpartition(":")[2]

    @property
    def mixture(self) -> str:
        """Mixed precision in words; empty for all else."""
        return (
            f"{self.float_layers} layer{'s' if self.float_layers > 1 else ''} in float32"
            if self.float_layers > 0
            else ""
        )

    @property
    def worst_flips(self) -> Flips | None:
        """The decision that flipped most often; None where none was compared."""
        return worst_flips(self.flips)


def worst_flips(flips: tuple[Flips, ...]) -> Flips | None:
    """Return the flips with the largest bound."""
    return max((one for one in flips if one.count), key=lambda one: (one.upper or 0.0, one.flipped), default=None)


class LabelledMetric(_Part):
    """A metric against given labels, for both."""

    reference: Figure = None
    winner: Figure = None
    drop: Figure = None
    """reference − winner"""
    low: Figure = None
    high: Figure = None
    """The 95 % interval of the drop."""


class Judged(_Part):
    """The winner on the judging part, which nothing had seen before."""

    count: int = 0
    failed: int = 0
    """Pictures that could not be answered."""
    deviation: Deviations = Deviations()
    flips: tuple[Flips, ...] = ()
    rank_correlation: Figure = None
    labelled: dict[str, LabelledMetric] | None = None
    checks: tuple[Check, ...] = ()


class PictureScore(_Part):
    """One judged picture's score by both."""

    path: str
    reference: Figure = None
    winner: Figure = None


class WorstPicture(PictureScore):
    """One of the pictures whose score moved most."""

    thumbnail: Annotated[str, BeforeValidator(_jpeg_only)] = ""
    """A data URI of a base64 JPEG; anything else is read as no picture."""


class LayerSnr(_Part):
    """How much signal and how much noise one tensor of the winner carries."""

    name: str
    op: str = ""
    snr_db: Figure = None


class StageTimes(_Part):
    """Milliseconds of work a picture, stage by stage, in the order in which they run."""

    reference: dict[str, Figure] = {}
    winner: dict[str, Figure] = {}


class ShipDetails(_Part):
    """Everything that the page of a `ship` shows beside the report's own fields."""

    winner: str
    """The key of the candidate that ships."""
    reference: str
    """The key of the candidate that all others are compared with."""
    outcome: Outcome
    objective: Objective = "throughput"
    """What "better" means: more pictures a second, sooner answers, or fewer bytes on disk."""
    split: SplitCounts = SplitCounts()
    budget: BudgetFacts = BudgetFacts()
    candidates: tuple[CandidateRow, ...] = ()
    judged: Judged = Judged()
    scores: tuple[PictureScore, ...] = ()
    worst: tuple[WorstPicture, ...] = ()
    thresholds: tuple[float, ...] = ()
    score_label: str = Field(default="score")
    """What a score means, for example `nsfw`."""
    layers: tuple[LayerSnr, ...] = ()
    stages: StageTimes = StageTimes()
    infinite_network_images_per_second: Figure = None
    commands: tuple[str, ...] = ()
    seconds: Figure = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: Report) -> Self:
        """Read a report's details; raises InputError where it is not the report of a `ship`."""
        if report.kind != "ship":
            raise InputError(
                f"a report of kind '{report.kind}', expected 'ship'", "The page shows what `plimsoll ship` found."
            )
        try:
            return cls.model_validate(report.details)
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            ]
            raise InputError(f"the details of the report are not those of a ship: {'; '.join(lines[:5])}") from error

    def candidate(self, key: str) -> CandidateRow | None:
        """Return the candidate of that key."""
        return next((candidate for candidate in self.candidates if candidate.key == key), None)

    def ladder(self) -> list[CandidateRow]:
        """Return the candidates, the fastest first, those without a speed last: the number of a candidate is its place
        here, from 1."""
        by_place = sorted(enumerate(self.candidates), key=lambda pair: (_slowness(pair[1]), pair[0]))
        return [candidate for _, candidate in by_place]


def _slowness(candidate: CandidateRow) -> tuple[int, float]:
    ratio = candidate.speed.ratio
    if ratio is not None and math.isfinite(ratio):
        return 0, -ratio
    return {"ok": 1, "failed": 2, "skipped": 3}[candidate.status], 0.0
