"""`prove_cascade`: each network of a cascade on what the reference gives it to read, and the whole's answers, on which
the verdict rests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from plimsoll.core.budget import Budget, Check
from plimsoll.errors import InputError, PlimsollError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.prove.comparison import Comparison
from plimsoll.prove.proof import Proof
from plimsoll.prove.run import budget_for, comparer_for, prove
from plimsoll.report.report import Report


@dataclass(frozen=True)
class CascadeProof:
    """What comparing two cascades has shown."""

    name: str
    whole: Comparison
    checks: tuple[Check, ...]
    """The budget, on the whole's answers."""
    networks: tuple[tuple[str, Proof | str], ...]
    """Of each network its name and its proof, or why there is none; they decide nothing."""
    unanswered: tuple[tuple[str, str], ...]
    """Pictures that only the reference answers, and why."""

    @property
    def passed(self) -> bool:
        """Whether every check of the whole passed, and there was something to compare."""
        return all(check.passed for check in self.checks) and not self.whole.nothing_compared

    @property
    def headline(self) -> str:
        """The sample and what it proves, in one line."""
        return self.whole.headline

    def network_lines(self) -> list[str]:
        """Return what is to be said of each network."""
        return [f"{name}: {proof if isinstance(proof, str) else proof.headline}" for name, proof in self.networks]

    def report(self) -> Report:
        """Return the proof as a report of kind `prove`; its details hold those of the networks."""
        networks: list[JsonValue] = [
            {"name": name, "reason": proof} if isinstance(proof, str) else {"name": name, **proof.details()}
            for name, proof in self.networks
        ]
        return Report(
            kind="prove",
            subject=self.name,
            checks=self.checks,
            measurements={"verdict": self.headline, "failed": len(self.unanswered)},
            details={"whole": self.whole.details(), "networks": networks},
        )


def prove_cascade(
    reference: CascadePredictor,
    other: CascadePredictor,
    images: Sequence[str],
    budget: Budget | None = None,
    advance: Callable[[], None] = lambda: None,
) -> CascadeProof:
    """Compare two cascades on pictures, and their networks pair by pair.

    Raises InputError for cascades that don't answer the same question, and a budget that their answers don't have.
    """
    first, second = reference.spec.output, other.spec.output
    if len(reference.networks) != len(other.networks):
        raise InputError(f"{len(reference.networks)} networks against {len(other.networks)}: they can't be compared")
    questions = [(set(getattr(output, "labels", ())), getattr(output, "points", None)) for output in (first, second)]
    if questions[0] != questions[1]:
        raise InputError("the cascades have other points or labels: they can't be compared")
    comparer = comparer_for(first, second)
    limits = budget or budget_for(first)
    limits.require_task(first.task)
    if comparer is None or not images:
        raise InputError("no pictures to prove on", "Give a folder with --images.")
    measured, unanswered, inputs = [], [], [list[str]() for _ in reference.networks]
    with tempfile.TemporaryDirectory(prefix="plimsoll-prove-") as folder:
        for number, picture in enumerate(images):
            advance()
            try:
                answer = reference.predict(picture, threshold=comparer.threshold(reference.task))
                read, _ = reference.write_inputs(picture, Path(folder), str(number))
            except PlimsollError:
                continue  # What the reference can't answer proves nothing.
            for stage, files in enumerate(read):
                inputs[stage] += files
            try:
                answered = other.predict(picture, threshold=comparer.threshold(other.task))
            except PlimsollError as error:
                unanswered.append((picture, error.message))
                continue
            measured.append(comparer.measure(answer, answered))
        networks = []
        for pair, files in zip(zip(reference.networks, other.networks, strict=True), inputs, strict=True):
            try:
                proof: Proof | str = prove(pair[0].opened, pair[1].opened, files, cores=reference.cores)
            except PlimsollError as error:
                proof = error.message
            networks.append((pair[0].spec.name, proof))
    whole = comparer.comparison(measured, len(unanswered))
    subject = f"{other.spec.name} on {_targets(other)}, against {_targets(reference)}"
    return CascadeProof(subject, whole, limits.verdict(whole.evidence()), tuple(networks), tuple(unanswered))


def _targets(cascade: CascadePredictor) -> str:
    return ", ".join(str(network.target) for network in cascade.networks)
