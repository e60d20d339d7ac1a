"""The runner of a `ship`: runs pieces of work in processes of their own, keeps what they find, and lays the groundwork
that candidates need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from plimsoll import backends
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.ship.artifacts import Artifacts
from plimsoll.ship.candidate import Candidate, needs_table, needs_tensors
from plimsoll.ship.config import REFERENCE, SearchConfig
from plimsoll.ship.preparation import RANKED_ON
from plimsoll.ship.split import Split
from plimsoll.ship.store import WorkFolder
from plimsoll.spec import files as spec_files
from plimsoll.system import host, subprocesses
from plimsoll.system.subprocesses import JobError, ProcessLimits

_RANKING_PATIENCE = 5
"""Ranking loads the network once a layer: it may take so many times as long as a candidate."""


class JobRunner:
    """Knows the work folder, and what has been laid so far in `artifacts`."""

    def __init__(
        self, model: Model, split: Split, work: WorkFolder, config: SearchConfig, note: Callable[[str], None]
    ) -> None:
        self._model = model
        self._split = split
        self._work = work
        self._wishes = config
        self._note = note
        memory = config.memory_bytes or host.memory_bytes()
        self._limits = ProcessLimits(config.candidate_seconds, int(memory * 0.75) if memory else None)
        self._linted: set[str] = set()
        self._failed: dict[str, JobError] = {}
        self.tell: Callable[[str], None] = lambda _: None
        """Is told in words what is being done."""
        self.artifacts = Artifacts()
        self.calibrators = config.calibrators if config.calibration is None else (_given(config.calibration),)
        """Plimsoll's calibrators that are tried; for a table that was given, its own name."""

    def run(
        self,
        name: str,
        payload: dict[str, Any],
        candidates: Iterable[Candidate] = (),
        limits: ProcessLimits | None = None,
    ) -> dict[str, Any]:
        """Run a piece of work in its own process, after the groundwork for its candidates; raises JobError."""
        for candidate in candidates:
            self.prepare(candidate)
        model = self._model
        described = {
            "path": str(model.path.resolve()),
            "format": model.format,
            "files": [str(file.resolve()) for file in model.files],
            "spec": spec_files.dumps(model.contract()),
        }
        common = {
            "model": described,
            "built": str(self._work.built),
            "artifacts": self.artifacts.to_dict(),
            "reference": REFERENCE.to_dict(),
            "objective": self._wishes.objective,
            "cores": host.cores(),
        }
        return subprocesses.run_job("plimsoll.ship.job", common | payload, self._work.job(name), limits or self._limits)

    def job(
        self,
        name: str,
        payload: dict[str, Any],
        candidates: Iterable[Candidate] = (),
        limits: ProcessLimits | None = None,
    ) -> dict[str, Any]:
        """Return what an earlier run kept under this name, or run it now and keep it; raises JobError, which this run
        alone remembers."""
        if name in self._failed:
            raise self._failed[name]
        kept = self._work.row(name)
        if kept is None:
            try:
                kept = self.run(name, payload, candidates, limits)
            except JobError as error:
                self._failed[name] = error
                raise
            self._work.keep(name, kept)
        return kept

    def prepare(self, candidate: Candidate) -> None:
        """Lay what a candidate is built from, where it isn't there yet: tables, tensors, the ranking of the layers;
        raises JobError."""
        if needs_table(candidate):
            self.calibrate()
        self._lint(candidate)
        if needs_tensors(candidate.target):
            self._write_tensors("folded" if candidate.folded else "plain")
        if candidate.float_layers and candidate.calibrator is not None:
            self._rank(candidate.calibrator)

    def calibrate(self) -> None:
        """Make the tables of all calibrators by one pass, or take the given one; raises JobError."""
        if self.artifacts.tables:
            return
        if self._wishes.calibration is not None:
            (name,) = self.calibrators
            self.tell("checking the calibration table")
            payload = {"do": "adopt", "table": str(self._wishes.calibration.resolve()), "calibrators": [name]}
            made = self.job(name, payload)
        else:
            self.tell(f"calibrating on {len(self._split.calibration):,} pictures")
            payload = {
                "do": "calibrate",
                "pictures": list(self._split.calibration),
                "calibrators": list(self.calibrators),
            }
            made = self.job("calibrate-" + "+".join(self.calibrators), payload)
        self.artifacts = replace(self.artifacts, tables={name: Path(file) for name, file in made["tables"].items()})

    def _lint(self, candidate: Candidate) -> None:
        """Note what is likely to go wrong, before the first candidate of its kind is tried."""
        float16 = backends.get(candidate.target.runtime).onnx_form(candidate.target) == "float16"
        kind = "float16" if float16 else candidate.calibrator if needs_table(candidate) else None
        # Of Plimsoll's calibrators one speaks for all: the findings are about the network and the pictures.
        kind = self.calibrators[0] if kind in self.calibrators else kind
        if kind is None or kind in self._linted:
            return
        self._linted.add(kind)
        table = str(self.artifacts.tables[kind]) if kind in self.artifacts.tables else None
        try:
            found = self.job(f"lint-{kind}", {"do": "lint", "table": table, "float16": float16})["findings"]
        except JobError as error:
            self._note(f"the network could not be looked over before it is quantized: {error.message}")
            return
        for finding in found:
            self._note(f"before quantizing: {finding['message']}. {finding['advice']}")

    def _write_tensors(self, kind: str) -> None:
        if kind not in self.artifacts.tensors:
            self.tell("writing the tensors that the runtime calibrates with")
            payload = {"do": "tensors", "folded": kind == "folded", "pictures": list(self._split.calibration)}
            made = self.job(f"tensors-{kind}", payload)
            self.artifacts = replace(self.artifacts, tensors={**self.artifacts.tensors, kind: Path(made["file"])})

    def _rank(self, calibrator: str) -> None:
        """Rank the layers once for a calibrator's table, on pictures that did not calibrate. The order hardly differs
        between runtimes."""
        if calibrator not in self.artifacts.rankings:
            table = str(self.artifacts.tables[calibrator])
            self.tell("ranking the layers by the deviation that each causes in int8")
            payload = {"do": "rank", "table": table, "pictures": list(self._split.selection[:RANKED_ON])}
            patience = ProcessLimits(_RANKING_PATIENCE * self._limits.seconds, self._limits.memory_bytes)
            ranked = self.job(f"rank-{calibrator}", payload, limits=patience)["layers"]
            names = tuple(layer["name"] for layer in ranked)
            self.artifacts = replace(self.artifacts, rankings={**self.artifacts.rankings, calibrator: names})


def _given(table: Path) -> str:
    """Name a given table by its content, so that the rows of another one are not taken for its own."""
    try:
        return f"given_{hashlib.sha256(table.read_bytes()).hexdigest()[:8]}"
    except OSError as error:
        raise InputError(f"{table}: can't read the calibration table: {error.strerror}") from error
