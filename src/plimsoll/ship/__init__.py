"""The main job: build candidate deployments, prove and measure each on the user's images, and pack the fastest inside the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plimsoll import backends, isolate, machine
from plimsoll.budget import DEFAULT, Budget
from plimsoll.errors import InputError, PlimsollError
from plimsoll.isolate import JobFailed, Limits
from plimsoll.metrics.decisions import pictures_needed
from plimsoll.opener import Opened
from plimsoll.prove.comparison import Comparison, Pair, compare
from plimsoll.report import Check
from plimsoll.ship.search import Attempt, explore, objective_key
from plimsoll.ship.split import Split
from plimsoll.ship.variant import Variant
from plimsoll.ship.work import WorkFolder
from plimsoll.spec import files as spec_files
from plimsoll.spec.output import Classify
from plimsoll.target import Target

CALIBRATORS = ("percentile", "minmax", "moving_average", "entropy", "mse")
"""All calibrators, the one that is tried first in front."""

REFERENCE = Variant("reference", False, Target("onnxruntime", "cpu", "float32"))
FINALISTS = 3


@dataclass(frozen=True)
class Wishes:
    """What the user asks of a `ship`."""

    targets: tuple[Target, ...]
    calibrators: tuple[str, ...] = CALIBRATORS
    budget: Budget = DEFAULT
    objective: str = "throughput"
    """throughput, latency or size."""
    seconds: float = 600.0
    """How long to look for better ones; the race and the judging come on top."""
    min_gain: float = 0.03
    """A winner must be faster than the reference by at least this share, at the lower end of its interval."""
    measure_seconds: float = 2.0
    """Measured time of each variant, and of the reference beside it."""
    variant_seconds: float = 180.0
    """How long one variant may take in all."""
    memory_bytes: int | None = None
    """How much memory one variant may hold; by default three quarters of what there is."""


@dataclass(frozen=True)
class Shipped:
    """What a `ship` found."""

    outcome: str
    """faster, not_faster or nothing_passed."""
    winner: Attempt
    reference: Attempt
    attempts: tuple[Attempt, ...]
    judged: Comparison
    checks: tuple[Check, ...]
    """The budget on the judging part."""
    rows: tuple[tuple[dict[str, Any], dict[str, Any]], ...]
    """The reference's and the winner's answer to each judging picture."""
    layers: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    seconds: float


Watch = Callable[[Attempt], None]


def default_targets() -> tuple[Target, ...]:
    """Return every target of this machine that serves to deploy."""
    return tuple(offer.target for name in backends.names() if backends.get(name).deployable for offer in backends.get(name).offers() if not offer.missing)


class Ship:
    """One run: knows the work folder and what has been found so far."""

    def __init__(self, opened: Opened, split: Split, work: WorkFolder, wishes: Wishes, truths: Mapping[str, str] | None = None) -> None:
        output = opened.model.contract().output
        if not isinstance(output, Classify):
            raise InputError(
                f"ship judges classifiers so far; the task of this Spec is '{output.task}'", "Build with `plimsoll pack`, and compare with `plimsoll prove`."
            )
        self.output = output
        self.opened = opened
        self.split = split
        self.work = work
        self.wishes = wishes
        self.truths = truths
        self.notes: list[str] = []
        self._tables: dict[str, str] | None = None
        memory = wishes.memory_bytes or machine.memory_bytes()
        self.limits = Limits(wishes.variant_seconds, int(memory * 0.75) if memory else None)
        self._answers: dict[str, dict[str, Any]] = {}

    def run(self, watch: Watch = lambda _: None) -> Shipped:
        """Search, race, judge. Raises JobFailed where even the reference can't answer."""
        started = time.monotonic()
        self._say_what_cannot_be_proven()
        answered = self._job("reference", {"do": "answer", "variant": REFERENCE.to_dict(), "pictures": [*self.split.selection, *self.split.judging]})
        self._answers = {row["path"]: row for row in answered["rows"]}
        attempts = []
        for attempt in explore(self.wishes.targets, self.wishes.calibrators, self._try, started + self.wishes.seconds):
            attempts.append(attempt)
            watch(attempt)
        reference = Attempt(REFERENCE, "ok", "", self._reference_result(attempts))
        attempts, finalists = self._raced(attempts)
        outcome, winner, judged, checks, rows = self._judged(finalists, reference)
        layers = self._layers(winner)
        return Shipped(outcome, winner, reference, tuple(attempts), judged, checks, rows, layers, tuple(self.notes), time.monotonic() - started)

    def _say_what_cannot_be_proven(self) -> None:
        """Note a limit on flips that even a flawless variant could not keep on so few judging pictures."""
        judges = len(self.split.judging)
        for limit in self.wishes.budget.limits:
            if limit.metric == "flips" and (needed := pictures_needed(limit.value)) > judges:
                self.notes.append(f"{limit} can't be proven on {judges} judging pictures: even without a flip it takes {needed}; give more, or allow more")

    def _try(self, variant: Variant) -> Attempt:
        """Return a variant's row: what an earlier run kept of it, or what its process finds now."""
        name = f"try-{variant.key}"
        kept = self.work.row(name)
        if kept is not None and kept["status"] == "failed":
            return Attempt(variant, "failed", kept["reason"])
        try:
            payload = {"do": "try", "variant": variant.to_dict(), "pictures": list(self.split.selection), "seconds": self.wishes.measure_seconds}
            result = kept["result"] if kept is not None else self._run(name, payload, variant)
        except JobFailed as error:
            self.work.keep(name, {"status": "failed", "reason": error.message})
            return Attempt(variant, "failed", error.message)
        if kept is None:
            self.work.keep(name, {"status": "ok", "result": result})
        return Attempt(variant, "ok", "", result, self._screened(result["rows"]))

    def _screened(self, rows: Sequence[dict[str, Any]]) -> tuple[Check, ...]:
        """Hold what was seen on the selection part against the budget; its few pictures sort out, the judging part's bounds decide."""
        evidence = self.compare(rows).evidence()
        seen = {metric: [replace(figure, bound=figure.value) for figure in figures] for metric, figures in evidence.items()}
        return self.wishes.budget.verdict(seen)

    def _run(self, name: str, payload: dict[str, Any], variant: Variant | None = None) -> dict[str, Any]:
        """Run a piece of work in its own process; the calibration tables are made when the first variant needs them."""
        if variant is not None and variant.calibrator is not None:
            self._calibrated()
        model = self.opened.model
        described = {
            "path": str(model.path.resolve()),
            "format": model.format,
            "files": [str(file.resolve()) for file in model.files],
            "spec": spec_files.dumps(model.contract()),
        }
        common = {
            "model": described,
            "built": str(self.work.built),
            "tables": self._tables or {},
            "reference": REFERENCE.to_dict(),
            "objective": self.wishes.objective,
            "cores": machine.cores(),
        }
        return isolate.run("plimsoll.ship.job", common | payload, self.work.job(name), self.limits)

    def _calibrated(self) -> dict[str, str]:
        """Return calibrator → table file; made once for all calibrators."""
        if self._tables is None:
            made = self._job(
                "calibrate-" + "+".join(self.wishes.calibrators),
                {"do": "calibrate", "pictures": list(self.split.calibration), "calibrators": list(self.wishes.calibrators)},
            )
            self._tables = made["tables"]
        return self._tables

    def _job(self, name: str, payload: dict[str, Any], variant: Variant | None = None) -> dict[str, Any]:
        """Return what an earlier run kept under this name, or run it now and keep it."""
        kept = self.work.row(name)
        if kept is None:
            kept = self._run(name, payload, variant)
            self.work.keep(name, kept)
        return kept

    def _compared(self, rows: Sequence[dict[str, Any]]) -> tuple[Comparison, tuple[Check, ...], tuple[tuple[dict[str, Any], dict[str, Any]], ...]]:
        """Hold a variant's answers against the reference's; pictures that the reference can't answer prove nothing."""
        both = [(self._answers[row["path"]], row) for row in rows if self._answers[row["path"]]["error"] is None]
        pairs: list[Pair] = [(ours["scores"], theirs["scores"] if theirs["error"] is None else None) for ours, theirs in both]
        truths = [self.truths.get(str(Path(ours["path"]).resolve())) for ours, _ in both] if self.truths else None
        comparison = compare(self.output, pairs, truths=truths)
        return comparison, self.wishes.budget.verdict(comparison.evidence()), tuple(both)

    @property
    def reference(self) -> Variant:
        """What all variants are compared with."""
        return REFERENCE

    def table(self, variant: Variant) -> Path | None:
        """Return the calibration table that a variant was made with."""
        return None if variant.calibrator is None else Path(self._calibrated()[variant.calibrator])

    def compare(self, rows: Sequence[dict[str, Any]]) -> Comparison:
        """Hold a variant's answers against the reference's."""
        return self._compared(rows)[0]

    def _reference_result(self, attempts: Iterable[Attempt]) -> dict[str, Any]:
        own = next((one.result for one in attempts if one.variant == REFERENCE and one.status == "ok"), None)
        if own is not None:
            return own
        payload = {"do": "try", "variant": REFERENCE.to_dict(), "pictures": list(self.split.selection), "seconds": self.wishes.measure_seconds}
        return self._job("try-reference-itself", payload)

    def _raced(self, attempts: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
        """Measure the best once more, longer and all in turns; return all attempts and the finalists, best first."""
        key = objective_key(self.wishes.objective)
        finalists = sorted((one for one in attempts if one.passed and one.variant != REFERENCE), key=key)[:FINALISTS]
        if not finalists:
            return list(attempts), []
        variants = {"reference": REFERENCE.to_dict(), **{one.variant.key: one.variant.to_dict() for one in finalists}}
        payload = {"do": "race", "variants": variants, "pictures": [*self.split.calibration, *self.split.selection], "seconds": 2 * self.wishes.measure_seconds}
        try:
            raced = self._job("race-" + "+".join(sorted(one.variant.key for one in finalists)), payload, finalists[0].variant)
        except JobFailed as error:
            self.notes.append(f"the race of the finalists failed ({error.message}): their first measurement counts")
            return list(attempts), finalists
        self.notes += raced["warnings"]
        faster = {one.variant: replace(one, result=one.result | {"speed": raced["speeds"][one.variant.key]}) for one in finalists}
        return [faster.get(one.variant, one) for one in attempts], self._ranked(list(faster.values()))

    def _ranked(self, finalists: list[Attempt]) -> list[Attempt]:
        """Sort finalists best first; one that is simpler and within 2 % of the best goes before it."""
        ordered = sorted(finalists, key=objective_key(self.wishes.objective))
        if self.wishes.objective == "size" or not ordered:
            return ordered
        close = [one for one in ordered if one.ratio >= 0.98 * ordered[0].ratio]
        return sorted(close, key=lambda one: one.variant.distance) + [one for one in ordered if one not in close]

    def _judged(
        self, finalists: Sequence[Attempt], reference: Attempt
    ) -> tuple[str, Attempt, Comparison, tuple[Check, ...], tuple[tuple[dict[str, Any], dict[str, Any]], ...]]:
        """Let the finalists answer the judging part, the best first, until one keeps the budget there too."""
        failed = False
        for finalist in finalists:
            gain = finalist.result["speed"]["low"] - 1
            if self.wishes.objective != "size" and gain < self.wishes.min_gain:
                break
            payload = {"do": "answer", "variant": finalist.variant.to_dict(), "pictures": list(self.split.judging)}
            try:
                rows = self._job(f"judge-{finalist.variant.key}", payload, finalist.variant)["rows"]
            except JobFailed as error:
                self.notes.append(f"{finalist.variant.name}: it failed on the judging pictures: {error.message}")
                continue
            judged, checks, both = self._compared(rows)
            if all(check.passed for check in checks):
                return "faster", finalist, judged, checks, both
            failed = True
            worst = "; ".join(f"{check.name}: {check.detail}" for check in checks if not check.passed)
            self.notes.append(f"{finalist.variant.name} kept the budget on the selection part but not on the judging part ({worst})")
        rows = [self._answers[path] for path in self.split.judging]
        judged, checks, both = self._compared(rows)
        return "nothing_passed" if failed or not finalists else "not_faster", reference, judged, checks, both

    def _layers(self, winner: Attempt) -> tuple[dict[str, Any], ...]:
        """Look into the winner's network where it computes otherwise than the reference's."""
        if winner.variant.target.precision == "float32":
            return ()
        payload = {"do": "layers", "variant": winner.variant.to_dict(), "pictures": list(self.split.selection)}
        try:
            return tuple(self._job(f"layers-{winner.variant.key}", payload, winner.variant)["layers"])
        except PlimsollError as error:
            self.notes.append(f"the layers could not be compared: {error.message}")
            return ()


__all__ = ["CALIBRATORS", "REFERENCE", "Attempt", "Ship", "Shipped", "Variant", "Wishes", "default_targets"]
