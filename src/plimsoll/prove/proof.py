"""`Proof`: what comparing two models on pictures has shown, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from plimsoll.core.budget import Budget, Check, Evidence, in_unit, unit_of
from plimsoll.core.deviation import TensorDeviation
from plimsoll.metrics.decisions import Flips, ScoreDeviation, pictures_needed, upper_bound
from plimsoll.prove.classifications import ClassificationComparison, too_few
from plimsoll.prove.comparison import Comparison
from plimsoll.prove.layers import Layer
from plimsoll.prove.outputs import OutputComparison
from plimsoll.prove.paired_answers import Exchange, Failure
from plimsoll.prove.repeats import Repeats
from plimsoll.prove.stages import Mismatch, StageDifference
from plimsoll.report.report import Measurement, Report

MISMATCH_DEVIATION = 1e-4
"""From this score deviation on, a normalization unlike the reference's is refused; below it, later layers must make up
for it."""

_LAYER_DB = 20.0
"""A value below this signal to noise is where a deviation shows; int8 networks that work stay above it."""

_NO_DEVIATION = 1e-6
"""Score deviation below this is float32's own rounding."""


def provable(share: float, count: int) -> tuple[int, float]:
    """Return how many pictures without a mistake it takes to prove that at most a share of all has one, and the
    smallest share that `count` of them prove."""
    return pictures_needed(share), upper_bound(0, count)


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
    """None where the task's answers are the raw outputs."""
    pictures: int
    """The pictures that both answered."""
    failures: tuple[Failure, ...]
    outputs: OutputComparison
    is_raw: bool
    """Whether the task's answers are the raw outputs: then all of them have to be there, in the same shape."""
    repeats: Repeats
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
    asked_for_layers: bool = True
    """Whether the layers were asked for; else they are of two pictures, and show where a failure begins."""

    @property
    def unanswered(self) -> tuple[Failure, ...]:
        """The pictures that the reference answers and the other doesn't."""
        return tuple(failure for failure in self.failures if failure.other and not failure.reference)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Those of the budget, and some that hold whatever the budget is."""
        return (*self.budget.verdict(self._evidence()), *self._always())

    def _always(self) -> list[Check]:
        """Return what holds whatever the budget is. Every picture is answered. What else is wrong is a check of its own
        where it is wrong: nothing was compared, an output is missing or has another shape, a picture gets another
        answer when it is asked again, colours are normalized otherwise."""
        checks = [_none("pictures that only the reference answers", self.unanswered, lambda failure: failure.path)]
        nothing = self.comparison.nothing_compared if self.comparison is not None else ""
        if nothing or not self.pictures:
            detail = nothing or "no picture was answered by both"
            checks.append(
                Check(name="pictures that prove something", measured=0, limit=1, direction="at_least", detail=detail)
            )
        if self.outputs.missing:
            checks.append(_none("outputs that are missing or of another shape", self._missing, str))
        if self.repeats.other or self.repeats.reference:
            checks.append(_none("models that contradict themselves", [self._contradiction], str))
        if self.mismatches and self._deviates:
            checks.append(_none("colours normalized unlike the reference", self.mismatches, lambda _: self.cause))
        return [check for check in checks if not check.passed or check is checks[0]]

    @property
    def _missing(self) -> tuple[str, ...]:
        """What can't be compared. Another shape is judged by what the answers are, where these are not the outputs."""
        return tuple(text for text in self.outputs.missing if self.is_raw or "is missing" in text)

    @property
    def _contradiction(self) -> str:
        """How a model contradicts itself."""
        return f"the reference: {self.repeats.reference}" if self.repeats.reference else self.repeats.other

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def headline(self) -> str:
        """The sample and what it proves, in one line."""
        if self.comparison is not None:
            return self.comparison.headline
        snr = self.outputs.snr
        if not math.isfinite(snr.value):
            return f"nothing was compared: {'; '.join(self.outputs.missing) or snr.detail}"
        return (
            f"{self.pictures:,} pictures compared; signal to noise of the outputs is {snr.value:.1f} dB, with 95 %"
            f" confidence at least {snr.bound:.1f} dB"
        )

    @property
    def cause(self) -> str:
        """What is wrong, in words, as far as it shows: what the answers say, and which stage differs."""
        parts = [self._contradiction, self.comparison.cause if self.comparison is not None else ""]
        parts += [*self.outputs.missing, *self.outputs.constant, self._stage, self._first_layer]
        return "; ".join(part for part in parts if part)

    @property
    def _stage(self) -> str:
        """Which stage differs; empty where nothing does."""
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
    def _first_layer(self) -> str:
        """Where in the network a deviation begins, where one value deviates and none before it does."""
        if self.asked_for_layers or self.preprocessing_only is None or self.preprocessing_only.mean > _NO_DEVIATION:
            return ""
        index = next((index for index, layer in enumerate(self.layers) if layer.snr_db < _LAYER_DB), None)
        if index is None:
            return ""
        layer = self.layers[index]
        before = min((each.snr_db for each in self.layers[:index]), default=math.inf)
        intact = f"; every value before it has {before:.0f} dB or more" if math.isfinite(before) else ""
        return f"it begins at '{layer.name}' ({layer.operator}): {layer.snr_db:.1f} dB{intact}"

    @property
    def _deviates(self) -> bool:
        deviation = self.comparison.deviation if isinstance(self.comparison, ClassificationComparison) else None
        return deviation.maximum > MISMATCH_DEVIATION if deviation is not None else not self.outputs.snr.value >= 60.0

    def _evidence(self) -> Evidence:
        evidence = dict(self.comparison.evidence()) if self.comparison is not None else {}
        raw = self.outputs.score_deviation
        if raw is not None and "box_score_deviation" in evidence:
            evidence["box_score_deviation"] = [*evidence["box_score_deviation"], raw]
        return {**evidence, "snr": [self.outputs.snr]}

    def unlimited_figures(self, limited: Collection[str]) -> list[str]:
        """Return what was measured and is not in `limited`, in words: figure and bound."""
        return [
            f"{figure.name}: {_with_unit(figure.value, metric)}, 95 % bound {_with_unit(figure.bound, metric)}"
            f" ({figure.detail})"
            for metric, figures in self._evidence().items()
            for figure in figures
            if figure.name not in limited and math.isfinite(figure.value)
        ]

    def refusal(self) -> tuple[str, str]:
        """Return what failed and why, as message and hint of an error."""
        failed = [check for check in self.checks if not check.passed]
        figures = "; ".join(
            f"{check.name}: {check.detail or 'not measured'}"
            if math.isnan(check.judged)
            else f"{check.name} {check.judged:.3g} {check.unit}".rstrip() + f" (limit {check.limit:g})"
            for check in failed
        )
        causes = [
            reason
            for limit in self.budget.limits
            if limit.metric == "flips"
            for _, flips in self._flips()
            if (reason := too_few(limit.value, flips))
        ][:1]
        causes += [
            reason
            for limit in self.budget.limits
            if self.comparison is not None and (reason := self.comparison.too_few(limit))
        ][:1]
        if self.cause and not (causes and all(check.name.startswith("flips") for check in failed)):
            causes.insert(0, self.cause)
        if self.unanswered:
            causes.append(f"{self.unanswered[0].path}: {self.unanswered[0].other}")
        return f"not proven: {figures}", "; ".join(causes) or "Its answers differ from the reference's."

    def _flips(self) -> tuple[tuple[float | None, Flips], ...]:
        return self.comparison.flips if isinstance(self.comparison, ClassificationComparison) else ()

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
        if isinstance(self.comparison, ClassificationComparison) and self.comparison.deviation is not None:
            deviation = self.comparison.deviation
            measurements |= {"max deviation": deviation.maximum, "mean deviation": deviation.mean}
            if deviation.p99 is not None:
                measurements["99th percentile of deviation"] = deviation.p99
            measurements["rank correlation"] = (
                "not defined" if self.comparison.rank_correlation is None else self.comparison.rank_correlation
            )
        for figures in self._evidence().values():
            for figure in figures:
                measurements.setdefault(figure.name, figure.value)
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
            "outputs": {name: asdict(deviation) for name, deviation in self.outputs.columns.items()},
            "missing_outputs": list(self.outputs.missing),
            "constant_outputs": list(self.outputs.constant),
            "repeats": asdict(self.repeats),
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


def _none(name: str, items: Sequence[Any], describe: Callable[[Any], str]) -> Check:
    """Return the check that there is none of something."""
    return Check(name=name, measured=len(items), limit=0, detail=describe(items[0]) if items else "")


def _with_unit(value: float, metric: str) -> str:
    return f"{in_unit(value, metric):.3g} {unit_of(metric)}".rstrip()


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
