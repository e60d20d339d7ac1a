"""`Proof`: what comparing two models on pictures has shown, and the verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from plimsoll.core.budget import Bounded, Budget, Evidence
from plimsoll.core.check import Check
from plimsoll.metrics import TensorDeviation
from plimsoll.metrics.decisions import Flips, ScoreDeviation
from plimsoll.prove.answers import Exchange, Failure
from plimsoll.prove.comparison import Comparison, too_few
from plimsoll.prove.layers import Layer
from plimsoll.prove.normalization import Mistake
from plimsoll.prove.stages import StageDifference
from plimsoll.report.report import Measurement, Report

MISTAKE_DRIFT = 1e-4
"""A normalization unlike the reference's is refused from this score deviation on; below it, later layers must have made
up for it."""

_NO_COST = 1e-6
"""Score deviation below this is float32's own rounding."""


@dataclass(frozen=True)
class Cost:
    """What one half of the other model does to the answers, the other half being the reference's."""

    scores: ScoreDeviation | None
    """None where the task gives no scores."""
    outputs: TensorDeviation
    """Of all outputs together."""

    @property
    def size(self) -> float:
        """One figure to weigh halves against one another."""
        return self.scores.mean if self.scores is not None else self.outputs.mean_abs


@dataclass(frozen=True)
class Proof:
    """How far a model's answers lie from the reference's on these pictures."""

    reference: str
    other: str
    """Both: model, target and steps in words."""
    budget: Budget
    answers: Comparison | None
    """None where the task gives no scores."""
    pictures: int
    """Answered by both."""
    failures: tuple[Failure, ...]
    outputs: dict[str, TensorDeviation]
    """By the reference's output names, over all pictures."""
    snr: Bounded
    """Of the worst output, with its lower bound."""
    exchange: Exchange
    input_only: Cost | None
    """The reference's network behind the other's input steps; None where it can't take what they make."""
    network_only: Cost | None
    """The other's network behind the reference's input steps."""
    stages: tuple[StageDifference, ...]
    mistakes: tuple[Mistake, ...] | None
    """Ways in which the other normalizes unlike the reference; None where that can't be told."""
    scores: tuple[tuple[str, float, float], ...] = ()
    """(path, reference, other) of the compared score."""
    layers: tuple[Layer, ...] = ()

    @property
    def lost(self) -> tuple[Failure, ...]:
        """The pictures that the reference answers and the other doesn't."""
        return tuple(one for one in self.failures if one.other and not one.reference)

    @property
    def checks(self) -> tuple[Check, ...]:
        """The budget's, and two that hold whatever the budget: every picture is answered, and colours are normalized
        alike."""
        own = [
            Check(
                name="pictures that only the reference answers",
                measured=len(self.lost),
                limit=0,
                detail=self.lost[0].path if self.lost else "",
            )
        ]
        if self.mistakes and self._deviations:
            own.append(
                Check(
                    name="colours normalized unlike the reference",
                    measured=len(self.mistakes),
                    limit=0,
                    detail=self.cause,
                )
            )
        return (*self.budget.verdict(self._evidence()), *own)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def headline(self) -> str:
        """The sample and what it proves, in one line."""
        if self.answers is not None:
            return self.answers.headline
        return f"{self.pictures:,} pictures compared; signal to noise of the outputs is {self.snr.value:.1f} dB"

    @property
    def cause(self) -> str:
        """Which stage differs, in words; empty where nothing does."""
        if self.mistakes:
            return "the stage that differs is " + "; and ".join(f"'{one.stage}': {one.text}" for one in self.mistakes)
        told = sorted((one for one in self.stages if one.note), key=lambda one: -one.mean_levels)
        sizes = [-1.0 if one is None else one.size for one in (self.input_only, self.network_only)]
        if told and (sizes[0] < 0 or sizes[0] >= sizes[1] / 2):
            return f"the stage that differs is '{told[0].stage}': {told[0].note}{_levels(told[0])}"
        if max(sizes) < _NO_COST:
            return ""
        if sizes[0] > sizes[1]:
            worst = max(self.stages, key=lambda one: one.mean_levels, default=None)
            where = f", most at '{worst.stage}'{_levels(worst)}" if worst is not None and worst.mean_levels > 0 else ""
            return (
                f"the input steps differ{where}; behind them the reference's own network deviates by {sizes[0]:.2g} on"
                " the mean"
            )
        return f"the network differs: behind the reference's own input steps it deviates by {sizes[1]:.2g} on the mean"

    @property
    def _deviations(self) -> bool:
        deviation = self.answers.deviation if self.answers is not None else None
        return deviation.maximum > MISTAKE_DRIFT if deviation is not None else self.snr.value < 60.0

    def _evidence(self) -> Evidence:
        answers = self.answers.evidence() if self.answers is not None else {}
        return {**answers, "snr": [self.snr]}

    def refusal(self) -> tuple[str, str]:
        """Return what failed and why, as message and hint of an error."""
        failed = [check for check in self.checks if not check.passed]
        figures = "; ".join(
            f"{check.name} {check.measured:.3g} {check.unit}".rstrip() + f" (limit {check.limit:g})" for check in failed
        )
        causes = [
            why
            for limit in self.budget.limits
            if limit.metric == "flips"
            for _, one in self._flips()
            if (why := too_few(limit.value, one))
        ][:1]
        if self.cause and not (causes and all(check.name.startswith("flips") for check in failed)):
            causes.insert(0, self.cause)
        if self.lost:
            causes.append(f"{self.lost[0].path}: {self.lost[0].other}")
        return f"not proven: {figures}", "; ".join(causes) or "Its answers are not the reference's."

    def _flips(self) -> tuple[tuple[float | None, Flips], ...]:
        return self.answers.flips if self.answers is not None else ()

    def report(self) -> Report:
        """Return the proof as a report of kind `prove`."""
        subject = f"{self.other}, against {self.reference}"
        return Report(
            kind="prove", subject=subject, checks=self.checks, measurements=self._measurements(), details=self.details()
        )

    def _measurements(self) -> dict[str, Measurement]:
        told: dict[str, Measurement] = {
            "verdict": self.headline,
            "pictures": self.pictures,
            "failed": len(self.failures),
        }
        if self.answers is not None and self.answers.deviation is not None:
            deviation = self.answers.deviation
            told |= {"largest score deviation": deviation.maximum, "mean score deviation": deviation.mean}
            if deviation.p99 is not None:
                told["99th percentile of score deviation"] = deviation.p99
            told["rank correlation"] = (
                "not defined" if self.answers.rank_correlation is None else self.answers.rank_correlation
            )
        for name, cost in (("input steps alone", self.input_only), ("network alone", self.network_only)):
            told[f"{name}, mean deviation"] = "not measured" if cost is None else cost.size
        if self.cause:
            told["cause"] = self.cause
        return told

    def details(self) -> dict[str, JsonValue]:
        """Return everything measured as plain data; scores are in the pictures' order."""
        parts: dict[str, Any] = {
            "reference": self.reference,
            "other": self.other,
            "budget": str(self.budget),
            "headline": self.headline,
            "cause": self.cause,
            "answers": self.answers.details() if self.answers is not None else None,
            "outputs": {name: asdict(deviation) for name, deviation in self.outputs.items()},
            "exchange": self.exchange,
            "input_only": _cost(self.input_only),
            "network_only": _cost(self.network_only),
            "stages": [asdict(one) for one in self.stages],
            "mistakes": None if self.mistakes is None else [asdict(one) for one in self.mistakes],
            "failures": [asdict(one) for one in self.failures],
            "scores": [{"path": path, "reference": first, "other": second} for path, first, second in self.scores],
            "layers": [
                {
                    "name": one.name,
                    "op": one.operator,
                    "snr_db": one.snr_db,
                    "max_abs": one.max_abs,
                    "low": one.low,
                    "high": one.high,
                }
                for one in self.layers
            ],
        }
        return {key: plain(value) for key, value in parts.items()}


def _cost(cost: Cost | None) -> Any:
    return (
        None
        if cost is None
        else {"scores": asdict(cost.scores) if cost.scores is not None else None, "outputs": asdict(cost.outputs)}
    )


def _levels(stage: StageDifference) -> str:
    return f" ({stage.mean_levels:.2g} levels of 255 on the mean)" if math.isfinite(stage.mean_levels) else ""


def plain(value: Any) -> JsonValue:
    """Return data without NaN and infinity, which JSON lacks: these become the words that a report writes for them."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    made: JsonValue = value
    return made
