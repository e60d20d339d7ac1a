"""`ShipResult`: all that `plimsoll ship` found, as one model: the search writes it, a report of kind "ship" holds it in
its `details`, and the page reads it."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from plimsoll.core.budget import SCORE_METRICS, Budget
from plimsoll.core.wording import explain
from plimsoll.errors import InputError
from plimsoll.report.measurements import DeviationMeasure, Evaluation, Figure, ResultModel
from plimsoll.report.reason import MissesBudget
from plimsoll.report.report import Report
from plimsoll.report.trial import Trial, violation

_JPEG = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}")

_NEAREST = 3

Outcome = Literal["better", "not_better", "nothing_passed"]
Objective = Literal["throughput", "latency", "size"]
Symbol = Literal["circle", "square", "diamond", "triangle", "pentagon", "hexagon", "delta"]
"""A shape in the plot, as `Backend.symbol` names it."""


def _jpeg_only(value: Any) -> Any:
    return value if isinstance(value, str) and _JPEG.fullmatch(value) else ""


class SplitCounts(ResultModel):
    """How many pictures served for what."""

    calibration: int = 0
    validation: int = 0
    test: int = 0
    unreadable: int = 0
    duplicates: int = 0


class BudgetFacts(ResultModel):
    """The budget in words, and its limit on the deviation."""

    texts: tuple[str, ...] = ()
    deviation_limit: float | None = None
    """The most that the score may move; None where the budget doesn't limit deviation."""
    deviation_measure: DeviationMeasure = "mean"

    @field_validator("texts", mode="after")
    @classmethod
    def _current_names(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Read the reports of versions that called the mean deviation `deviation`."""
        return tuple(f"mean_{text}" if text.startswith("deviation=") else text for text in texts)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """Return the facts of a budget."""
        limits = {limit.metric: limit.value for limit in budget.limits}
        if not limits.keys() & SCORE_METRICS:
            return cls(texts=tuple(map(str, budget.limits)), deviation_limit=1.0, deviation_measure="budget")
        measure: DeviationMeasure = "max" if "max_deviation" in limits and "mean_deviation" not in limits else "mean"
        return cls(
            texts=tuple(map(str, budget.limits)),
            deviation_limit=limits.get("max_deviation" if measure == "max" else "mean_deviation"),
            deviation_measure=measure,
        )


class PictureScore(ResultModel):
    """The score of one test picture by the reference and by the winner."""

    path: str
    reference: Figure = math.nan
    winner: Figure = math.nan


class PictureChange(ResultModel):
    """How far the winner's answer to one test picture lies from the reference's, for tasks without scores."""

    path: str
    moved: Figure = 0.0
    """0 where nothing changed, in the task's own unit."""
    change: str = ""
    """In words."""


class WorstPicture(PictureScore):
    """One of the pictures whose answer moved most."""

    change: str = ""
    """What changed, in words; empty where the scores say it."""
    thumbnail: Annotated[str, BeforeValidator(_jpeg_only)] = ""
    """A data URI of a base64 JPEG; anything else is read as no picture."""


class LayerSnr(ResultModel):
    """How much signal and how much noise one tensor of the winner carries."""

    name: str
    operator: str = ""
    snr_db: Figure = math.nan


class StageTimes(ResultModel):
    """Milliseconds of work a picture, stage by stage, in the order in which they run."""

    reference: dict[str, Figure] = Field(default_factory=dict)
    winner: dict[str, Figure] = Field(default_factory=dict)


class NetworkTrials(ResultModel):
    """One network of a cascade: its candidates, tried on what the reference cascade gives it to read."""

    name: str
    share: Figure = math.nan
    """Of the reference cascade's time in its networks."""
    pictures: int = 0
    """How many validated: pictures, or what was cut out of them."""
    trials: tuple[Trial, ...] = ()


class ShipResult(ResultModel):
    """Everything that a `ship` found."""

    winner: str
    """The key of the candidate that ships."""
    reference: str
    """The key of the candidate that all others are compared with."""
    outcome: Outcome
    """`better` (faster; smaller where that is the objective), `not_better` or `nothing_passed`."""
    objective: Objective = "throughput"
    """What "better" means: more pictures a second, sooner answers, or fewer bytes on disk."""
    split: SplitCounts = SplitCounts()
    budget: BudgetFacts = BudgetFacts()
    trials: tuple[Trial, ...] = ()
    symbols: dict[str, Symbol] = Field(default_factory=dict)
    """Runtime → its shape in the plot; a runtime without one gets one that is free."""
    test: Evaluation = Evaluation()
    """The winner on the test part, which nothing had seen before."""
    scores: tuple[PictureScore, ...] = ()
    """Of the test part."""
    changes: tuple[PictureChange, ...] = ()
    """The same for tasks without scores: boxes, points, masks, texts."""
    worst: tuple[WorstPicture, ...] = ()
    thresholds: tuple[float, ...] = ()
    score_label: str = "score"
    """What a score means, for example `nsfw`."""
    layers: tuple[LayerSnr, ...] = ()
    stages: StageTimes = StageTimes()
    infinite_network_images_per_second: Figure = math.nan
    """Pictures a second if the winner's network took no time."""
    networks: tuple[NetworkTrials, ...] = ()
    """Of a cascade: what was tried of each network, before the whole was."""
    commands: tuple[str, ...] = ()
    """What repeats the work."""
    seconds: Figure = math.nan
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: Report) -> Self:
        """Read the result in a report; raises InputError where it is not the report of a `ship`."""
        if report.kind != "ship":
            raise InputError(
                f"a report of kind '{report.kind}', expected 'ship'", "The page shows what `plimsoll ship` found."
            )
        try:
            return cls.model_validate(report.details)
        except ValidationError as error:
            raise InputError(
                f"the details of the report are not those of a ship: {explain(error, 'details')}"
            ) from error

    @property
    def shipped(self) -> Trial:
        """The trial of what ships; raises KeyError where it is missing."""
        return {trial.key: trial for trial in self.trials}[self.winner]

    @property
    def baseline(self) -> Trial:
        """The trial of the reference; raises KeyError where it is missing."""
        return {trial.key: trial for trial in self.trials}[self.reference]

    def trial(self, key: str) -> Trial | None:
        """Return the trial of the candidate with that key."""
        return next((trial for trial in self.trials if trial.key == key), None)

    @property
    def names(self) -> dict[str, str]:
        """Each candidate's name by its key."""
        return {trial.key: trial.name for trial in self.trials}

    def nearest(self) -> list[tuple[Trial, MissesBudget]]:
        """Return up to three candidates that missed the budget, and what they missed: the one first that missed it by
        the least share."""
        missing = [(trial, trial.reason) for trial in self.trials if isinstance(trial.reason, MissesBudget)]
        return sorted(missing, key=lambda pair: (violation(pair[1].checks), -pair[0].ratio))[:_NEAREST]

    def ranked(self) -> list[Trial]:
        """Return the trials, the fastest first, those without a speed last: a trial's number is its place here, from
        1."""
        return sorted(self.trials, key=_slowness)


def _slowness(trial: Trial) -> tuple[int, float]:
    ratio = trial.measured.speed.ratio
    if math.isfinite(ratio):
        return 0, -ratio
    return {"ok": 1, "failed": 2, "skipped": 3}[trial.status], 0.0
