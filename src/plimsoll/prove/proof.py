"""`Proof`: what comparing two models on pictures has shown, and the verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from plimsoll.core.budget import BoundedFigure, Budget, Check, Evidence
from plimsoll.metrics import TensorDeviation
from plimsoll.metrics.decisions import Flips, ScoreDeviation
from plimsoll.prove.comparison import Comparison, too_few
from plimsoll.prove.layers import Layer
from plimsoll.prove.paired_answers import Exchange, Failure
from plimsoll.prove.stages import Mismatch, StageDifference
from plimsoll.report.report import Measurement, Report

MISMATCH_DEVIATION = 1e-4
"""From this score deviation on, a normalization unlike the reference's is refused; below it, later layers must make up
for it."""

_NO_DEVIATION = 1e-6
"""Score deviation below this is float32's own rounding."""


@dataclass(frozen=True)
class PartialDeviation:
    """How far answers deviate when only the preprocessing, or only the network, is the other model's."""

    scores: ScoreDeviation | None
    """None where the task gives no scores."""
    outputs: TensorDeviation
    """Of all outputs together."""

    @property
    def mean(self) -> float:
        """The mean deviation of the scores, else of the outputs."""
        return self.scores.mean if self.scores is not None else self.outputs.mean_abs


@dataclass(frozen=True)
class Proof:
    """How far a model's answers lie from the reference's on these pictures."""

    reference: str
    other: str
    """Both: model, target and preprocessing in words."""
    budget: Budget
    comparison: Comparison | None
    """None where the task gives no scores."""
    pictures: int
    """The pictures that both answered."""
    failures: tuple[Failure, ...]
    outputs: dict[str, TensorDeviation]
    """By the reference's output names, over all pictures."""
    snr: BoundedFigure
    """Of the worst output, with its lower bound."""
    exchange: Exchange
    preprocessing_only: PartialDeviation | None
    """The reference's network behind the other's preprocessing; None where it can't take its result."""
    network_only: PartialDeviation | None
    """The other's network behind the reference's preprocessing."""
    stages: tuple[StageDifference, ...]
    mismatches: tuple[Mismatch, ...] | None
    """Ways in which the other normalizes unlike the reference; None where that is unknown."""
    scores: tuple[tuple[str, float, float], ...] = ()
    """(path, reference, other) of the compared score."""
    layers: tuple[Layer, ...] = ()

    @property
    def unanswered(self) -> tuple[Failure, ...]:
        """The pictures that the reference answers and the other doesn't."""
        return tuple(failure for failure in self.failures if failure.other and not failure.reference)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Those of the budget, and two that hold whatever the budget is: every picture is answered, and colours are
        normalized alike."""
        checks = [
            Check(
                name="pictures that only the reference answers",
                measured=len(self.unanswered),
                limit=0,
                detail=self.unanswered[0].path if self.unanswered else "",
            )
        ]
        if self.mismatches and self._deviates:
            checks.append(
                Check(
                    name="colours normalized unlike the reference",
                    measured=len(self.mismatches),
                    limit=0,
                    detail=self.cause,
                )
            )
        return (*self.budget.verdict(self._evidence()), *checks)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def headline(self) -> str:
        """The sample and what it proves, in one line."""
        if self.comparison is not None:
            return self.comparison.headline
        return f"{self.pictures:,} pictures compared; signal to noise of the outputs is {self.snr.value:.1f} dB"

    @property
    def cause(self) -> str:
        """Which stage differs, in words; empty where nothing does."""
        if self.mismatches:
            return "the stage that differs is " + "; and ".join(
                f"'{mismatch.stage}': {mismatch.text}" for mismatch in self.mismatches
            )
        noted = sorted((stage for stage in self.stages if stage.note), key=lambda stage: -stage.mean_levels)
        preprocessing, network = (
            -1.0 if part is None else part.mean for part in (self.preprocessing_only, self.network_only)
        )
        if noted and (preprocessing < 0 or preprocessing >= network / 2):
            return f"the stage that differs is '{noted[0].stage}': {noted[0].note}{_levels(noted[0])}"
        if max(preprocessing, network) < _NO_DEVIATION:
            return ""
        if preprocessing > network:
            worst = max(self.stages, key=lambda stage: stage.mean_levels, default=None)
            where = f", most at '{worst.stage}'{_levels(worst)}" if worst is not None and worst.mean_levels > 0 else ""
            return (
                f"the preprocessing differs{where}; behind it the reference's own network deviates by"
                f" {preprocessing:.2g} on average"
            )
        return f"the network differs: behind the reference's own preprocessing it deviates by {network:.2g} on average"

    @property
    def _deviates(self) -> bool:
        deviation = self.comparison.deviation if self.comparison is not None else None
        return deviation.maximum > MISMATCH_DEVIATION if deviation is not None else self.snr.value < 60.0

    def _evidence(self) -> Evidence:
        evidence = self.comparison.evidence() if self.comparison is not None else {}
        return {**evidence, "snr": [self.snr]}

    def refusal(self) -> tuple[str, str]:
        """Return what failed and why, as message and hint of an error."""
        failed = [check for check in self.checks if not check.passed]
        figures = "; ".join(
            f"{check.name} {check.judged:.3g} {check.unit}".rstrip() + f" (limit {check.limit:g})" for check in failed
        )
        causes = [
            reason
            for limit in self.budget.limits
            if limit.metric == "flips"
            for _, flips in self._flips()
            if (reason := too_few(limit.value, flips))
        ][:1]
        if self.cause and not (causes and all(check.name.startswith("flips") for check in failed)):
            causes.insert(0, self.cause)
        if self.unanswered:
            causes.append(f"{self.unanswered[0].path}: {self.unanswered[0].other}")
        return f"not proven: {figures}", "; ".join(causes) or "Its answers differ from the reference's."

    def _flips(self) -> tuple[tuple[float | None, Flips], ...]:
        return self.comparison.flips if self.comparison is not None else ()

    def report(self) -> Report:
        """Return the proof as a report of kind `prove`."""
        subject = f"{self.other}, against {self.reference}"
        return Report(
            kind="prove", subject=subject, checks=self.checks, measurements=self._measurements(), details=self.details()
        )

    def _measurements(self) -> dict[str, Measurement]:
        measurements: dict[str, Measurement] = {
            "verdict": self.headline,
            "pictures": self.pictures,
            "failed": len(self.failures),
        }
        if self.comparison is not None and self.comparison.deviation is not None:
            deviation = self.comparison.deviation
            measurements |= {"largest score deviation": deviation.maximum, "mean score deviation": deviation.mean}
            if deviation.p99 is not None:
                measurements["99th percentile of score deviation"] = deviation.p99
            measurements["rank correlation"] = (
                "not defined" if self.comparison.rank_correlation is None else self.comparison.rank_correlation
            )
        for name, part in (("preprocessing alone", self.preprocessing_only), ("network alone", self.network_only)):
            measurements[f"{name}, mean deviation"] = "not measured" if part is None else part.mean
        if self.cause:
            measurements["cause"] = self.cause
        return measurements

    def details(self) -> dict[str, JsonValue]:
        """Return everything measured as plain data; scores are in the pictures' order."""
        parts: dict[str, Any] = {
            "reference": self.reference,
            "other": self.other,
            "budget": str(self.budget),
            "headline": self.headline,
            "cause": self.cause,
            "comparison": self.comparison.details() if self.comparison is not None else None,
            "outputs": {name: asdict(deviation) for name, deviation in self.outputs.items()},
            "exchange": self.exchange,
            "preprocessing_only": _partial_deviation(self.preprocessing_only),
            "network_only": _partial_deviation(self.network_only),
            "stages": [asdict(stage) for stage in self.stages],
            "mismatches": None if self.mismatches is None else [asdict(mismatch) for mismatch in self.mismatches],
            "failures": [asdict(failure) for failure in self.failures],
            "scores": [{"path": path, "reference": first, "other": second} for path, first, second in self.scores],
            "layers": [asdict(layer) for layer in self.layers],
        }
        return {key: plain(value) for key, value in parts.items()}


def _partial_deviation(part: PartialDeviation | None) -> Any:
    return None if part is None else asdict(part)


def _levels(stage: StageDifference) -> str:
    return f" ({stage.mean_levels:.2g} levels of 255 on average)" if math.isfinite(stage.mean_levels) else ""


def plain(value: Any) -> JsonValue:
    """Return data without NaN and infinity, which JSON lacks: these become the words that a report writes for them."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    data: JsonValue = value
    return data
