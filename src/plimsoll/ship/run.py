"""The main job: build candidate deployments, prove and measure each on the user's images, and pack the fastest inside
the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plimsoll.core.check import Check
from plimsoll.core.model import Model
from plimsoll.errors import InputError, PlimsollError
from plimsoll.inference.resolve import ResolvedModel
from plimsoll.prove.comparison import Comparison, Pair, compare
from plimsoll.prove.labels import label_of
from plimsoll.ship import build
from plimsoll.ship.candidate import Candidate, needs_table, takes_table
from plimsoll.ship.config import (
    CALIBRATORS,
    OBJECTIVES,
    REFERENCE,
    SearchConfig,
    all_targets,
    default_targets,
    toolchains,
)
from plimsoll.ship.job_runner import JobRunner
from plimsoll.ship.provable import unprovable
from plimsoll.ship.split import Split
from plimsoll.ship.store import WorkFolder
from plimsoll.ship.strategy import Trial, explore, finalists_of, gain, simplest_first
from plimsoll.spec.output import Classify
from plimsoll.system.subprocesses import JobError

Row = dict[str, Any]
"""A picture's answer: path, label, score, scores, error."""


@dataclass(frozen=True)
class Shipped:
    """What a `ship` found."""

    outcome: str
    """better (faster; smaller where that is the objective), not_better or nothing_passed."""
    winner: Trial
    reference: Trial
    trials: tuple[Trial, ...]
    judged: Comparison
    checks: tuple[Check, ...]
    """The budget on the judging part."""
    rows: tuple[tuple[Row, Row], ...]
    """The reference's and the winner's answer to each judging picture."""
    stages: dict[str, dict[str, float]]
    """`reference` and `winner` → stage → milliseconds of work a picture, measured in turns."""
    front_rate: float
    """Pictures a second if the winner's network took no time."""
    layers: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    seconds: float


Watch = Callable[[Trial], None]
Tell = Callable[[str], None]


class Ship:
    """One run: knows the work folder and what has been found so far."""

    def __init__(
        self,
        opened: ResolvedModel,
        split: Split,
        work: WorkFolder,
        config: SearchConfig,
        truths: Mapping[str, str] | None = None,
    ) -> None:
        """Take what is given. `truths`: picture path (absolute) → right label. Raises InputError for what can't be
        judged."""
        output = opened.model.contract().output
        if not isinstance(output, Classify):
            raise InputError(
                f"ship judges classifiers so far; the task of this Spec is '{output.task}'",
                "Build with `plimsoll pack`, and compare with `plimsoll prove`.",
            )
        self.output = output
        self.opened = opened
        self.split = split
        self.work = work
        self.config = config
        self.truths = truths
        self.notes = unprovable(config.budget, split, truths)
        self.refused: dict[Candidate, str] = {}
        """Finalists that did not stand the judging pictures, and why."""
        self._tell: Tell = lambda _: None
        self._shop = JobRunner(opened.model, split, work, config, self.notes.append)
        self._answers: dict[str, Row] = {}

    def run(self, watch: Watch = lambda _: None, tell: Tell = lambda _: None) -> Shipped:
        """Search, race, judge. `watch` gets each trial as soon as it is known, `tell` what is being done, in words.

        Raises JobError where even the reference can't answer, InputError for a calibration table that doesn't fit.
        """
        started = time.monotonic()
        self._tell = self._shop.tell = tell
        self._adopt_table()
        tell(f"answering {len(self.split.selection) + len(self.split.judging):,} pictures with the reference")
        pictures = [*self.split.selection, *self.split.judging]
        answered = self._shop.job("reference", {"do": "answer", "candidate": REFERENCE.to_dict(), "pictures": pictures})
        self._answers = {row["path"]: row for row in _named(answered["rows"], pictures)}
        trials = []
        for trial in explore(self.config.targets, self._shop.calibrators, self._try, started + self.config.seconds):
            trials.append(trial)
            watch(trial)
        reference = Trial(REFERENCE, "ok", "", self._reference_result(trials))
        trials, finalists = self._raced(trials)
        judgement = self._judged(finalists, reference)
        profiled = self._profiled(judgement.winner, reference)
        layers = self._layers(judgement.winner)
        return Shipped(
            outcome=judgement.outcome,
            winner=judgement.winner,
            reference=reference,
            trials=tuple(trials),
            judged=judgement.comparison,
            checks=judgement.checks,
            rows=judgement.rows,
            stages=profiled["stages"],
            front_rate=profiled["front_rate"],
            layers=layers,
            notes=tuple(dict.fromkeys(self.notes)),
            seconds=time.monotonic() - started,
        )

    def network(self, candidate: Candidate) -> Model:
        """Return a candidate's network, which is built if it isn't kept; raises JobError or what `make.network` raises."""
        self._shop.prepare(candidate)
        return build.network(self.opened.model, candidate, self.work.built, self._shop.artifacts)

    def table(self, candidate: Candidate) -> Path | None:
        """Return the calibration table that a candidate was made with; None where it needs none."""
        if not needs_table(candidate):
            return None
        self._shop.prepare(candidate)
        return self._shop.artifacts.table(candidate)

    def compare(self, rows: Sequence[Row]) -> Comparison:
        """Hold a candidate's answers against the reference's; pictures that the reference can't answer prove nothing."""
        return self._compared(rows)[0]

    def _adopt_table(self) -> None:
        """Check a given calibration table before anything is tried with it."""
        if self.config.calibration is None:
            return
        if not any(takes_table(target) for target in self.config.targets):
            told = ", ".join(map(str, self.config.targets))
            raise InputError(
                f"a calibration table was given, and none of the targets takes one ({told})",
                "Leave it out, or add a target for int8.",
            )
        try:
            self._shop.calibrate()
        except JobError as error:
            raise InputError(f"the calibration table can't be used: {error.message}", error.hint) from error

    def _try(self, candidate: Candidate) -> Trial:
        """Return a candidate's row: what an earlier run kept of it, or what its process finds now."""
        name = f"try-{candidate.key}{self._scenario}"
        kept = self.work.row(name)
        if kept is not None and kept["status"] == "failed":
            return Trial(candidate, "failed", kept["reason"])
        try:
            self._shop.prepare(candidate)
            self._tell(f"trying {candidate.name}")
            result = kept["result"] if kept is not None else self._shop.run(name, self._trial(candidate))
        except PlimsollError as error:
            self.work.keep(name, {"status": "failed", "reason": error.message})
            return Trial(candidate, "failed", error.message)
        if kept is None:
            self.work.keep(name, {"status": "ok", "result": result})
        result["rows"] = _named(result["rows"], self.split.selection)
        return Trial(candidate, "ok", "", result, self._screened(result["rows"]))

    @property
    def _scenario(self) -> str:
        """What the names of rows with speeds end with: a speed for one objective says nothing of another."""
        return "-latency" if self.config.objective == "latency" else ""

    def _trial(self, candidate: Candidate) -> dict[str, Any]:
        return {
            "do": "try",
            "candidate": candidate.to_dict(),
            "pictures": list(self.split.selection),
            "seconds": self.config.measure_seconds,
        }

    def _screened(self, rows: Sequence[Row]) -> tuple[Check, ...]:
        """Hold what was seen on the selection part against the budget; its few pictures sort out, the judging part's
        bounds decide."""
        evidence = self.compare(rows).evidence()
        seen = {
            metric: [replace(figure, bound=figure.value) for figure in figures] for metric, figures in evidence.items()
        }
        return self.config.budget.verdict(seen)

    def _compared(self, rows: Sequence[Row]) -> tuple[Comparison, tuple[Check, ...], tuple[tuple[Row, Row], ...]]:
        both = [(self._answers[row["path"]], row) for row in rows if self._answers[row["path"]]["error"] is None]
        pairs: list[Pair] = [
            (ours["scores"], theirs["scores"] if theirs["error"] is None else None) for ours, theirs in both
        ]
        truths = [label_of(self.truths, ours["path"]) for ours, _ in both] if self.truths else None
        comparison = compare(self.output, pairs, truths=truths)
        return comparison, self.config.budget.verdict(comparison.evidence()), tuple(both)

    def _reference_result(self, trials: Iterable[Trial]) -> dict[str, Any]:
        self._tell("measuring the reference")
        own = next((one.result for one in trials if one.candidate == REFERENCE and one.status == "ok"), None)
        if own is not None:
            return own
        found = self._shop.job(f"try-reference-itself{self._scenario}", self._trial(REFERENCE))
        return found | {"rows": _named(found["rows"], self.split.selection)}

    def _raced(self, trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
        """Measure the best once more, longer and all in turns; return all trials and the finalists, best first."""
        finalists = finalists_of([one for one in trials if one.candidate != REFERENCE], self.config.objective)
        if not finalists or self.config.objective == "size":
            return list(trials), finalists
        candidates = {
            "reference": REFERENCE.to_dict(),
            **{one.candidate.key: one.candidate.to_dict() for one in finalists},
        }
        payload = {
            "do": "race",
            "candidates": candidates,
            "pictures": [*self.split.calibration, *self.split.selection],
            "seconds": 2 * self.config.measure_seconds,
        }
        self._tell(
            f"racing the best {len(finalists)} against the reference"
            if len(finalists) > 1
            else "racing the best against the reference"
        )
        try:
            raced = self._shop.job(
                "race-" + "+".join(sorted(candidates)) + self._scenario, payload, [one.candidate for one in finalists]
            )
        except JobError as error:
            self.notes.append(f"the race of the finalists failed ({error.message}): their first measurement counts")
            return list(trials), finalists
        self.notes += [_with_names(warning, finalists) for warning in raced["warnings"]]
        faster = {
            one.candidate: replace(
                one, result=one.result | {"speed": raced["speeds"][one.candidate.key], "raced": True}
            )
            for one in finalists
        }
        return [faster.get(one.candidate, one) for one in trials], simplest_first(list(faster.values()))

    def _judged(self, finalists: Sequence[Trial], reference: Trial) -> _Judgement:
        """Let the finalists answer the judging part, the best first, until one keeps the budget there too."""
        for finalist in finalists:
            if gain(finalist, reference, self.config.objective) < self.config.min_gain:
                continue
            self._tell(f"judging {finalist.candidate.name}")
            payload = {"do": "answer", "candidate": finalist.candidate.to_dict(), "pictures": list(self.split.judging)}
            try:
                answered = self._shop.job(f"judge-{finalist.candidate.key}", payload, [finalist.candidate])
            except JobError as error:
                self._refuse(finalist.candidate, f"it failed on the judging pictures: {error.message}")
                continue
            comparison, checks, both = self._compared(_named(answered["rows"], self.split.judging))
            if all(check.passed for check in checks):
                return _Judgement("better", finalist, comparison, checks, both)
            worst = "; ".join(f"{check.name}: {check.detail}" for check in checks if not check.passed)
            self._refuse(
                finalist.candidate, f"it kept the budget on the selection part but not on the judging part ({worst})"
            )
        rows = [self._answers[path] for path in self.split.judging]
        comparison, checks, both = self._compared(rows)
        return _Judgement(
            "nothing_passed" if self.refused or not finalists else "not_better", reference, comparison, checks, both
        )

    def _refuse(self, candidate: Candidate, reason: str) -> None:
        self.refused[candidate] = reason
        self.notes.append(f"{candidate.name}: {reason}")

    def _profiled(self, winner: Trial, reference: Trial) -> dict[str, Any]:
        """Measure stage by stage where a picture's time goes, the reference and the winner in turns."""
        self._tell("measuring where the time goes")
        payload = {
            "do": "profile",
            "candidate": winner.candidate.to_dict(),
            "pictures": list(self.split.selection),
            "seconds": self.config.measure_seconds,
        }
        try:
            return self._shop.job(f"profile-{winner.candidate.key}", payload, [winner.candidate])
        except JobError as error:
            self.notes.append(
                f"the stages could not be measured in turns ({error.message}): each was when it was tried"
            )
            stages = {"reference": reference.result["stages"], "winner": winner.result["stages"]}
            return {"stages": stages, "front_rate": winner.result["front_rate"]}

    def _layers(self, winner: Trial) -> tuple[dict[str, Any], ...]:
        """Look into the winner's network where it computes otherwise than the reference's."""
        if winner.candidate.target.precision == "float32":
            return ()
        self._tell("looking into the layers")
        payload = {"do": "layers", "candidate": winner.candidate.to_dict(), "pictures": list(self.split.selection)}
        try:
            return tuple(self._shop.job(f"layers-{winner.candidate.key}", payload, [winner.candidate])["layers"])
        except PlimsollError as error:
            self.notes.append(f"the layers could not be compared: {error.message}")
            return ()


@dataclass(frozen=True)
class _Judgement:
    outcome: str
    winner: Trial
    comparison: Comparison
    checks: tuple[Check, ...]
    rows: tuple[tuple[Row, Row], ...]


def _with_names(warning: str, trials: Iterable[Trial]) -> str:
    """Put the names that people know in the place of keys."""
    for one in trials:
        warning = warning.replace(one.candidate.key, one.candidate.name)
    return warning


def _named(rows: Sequence[Row], pictures: Sequence[str]) -> list[Row]:
    """Return answers under the pictures' names of today: those of an earlier run may have lain elsewhere, but were
    split in the same order."""
    return [row | {"path": picture} for row, picture in zip(rows, pictures, strict=True)]


__all__ = [
    "CALIBRATORS",
    "OBJECTIVES",
    "REFERENCE",
    "Candidate",
    "SearchConfig",
    "Ship",
    "Shipped",
    "Trial",
    "all_targets",
    "default_targets",
    "toolchains",
]
