"""The workshop of a `ship`: runs pieces of work in processes of their own, keeps what they find, and lays the groundwork that variants need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from plimsoll import backends, isolate, machine
from plimsoll.errors import InputError
from plimsoll.isolate import JobFailed, Limits
from plimsoll.model import Model
from plimsoll.ship.groundwork import RANKED_ON
from plimsoll.ship.materials import Materials
from plimsoll.ship.split import Split
from plimsoll.ship.variant import Variant, needs_table, needs_tensors
from plimsoll.ship.wishes import REFERENCE, Wishes
from plimsoll.ship.work import WorkFolder
from plimsoll.spec import files as spec_files

_RANKING_PATIENCE = 5
"""Ranking loads the network once a layer: it may take so many times as long as a variant."""


class Workshop:
    """Knows the work folder, and what has been laid so far in `materials`."""

    def __init__(self, model: Model, split: Split, work: WorkFolder, wishes: Wishes, note: Callable[[str], None]) -> None:
        self._model = model
        self._split = split
        self._work = work
        self._wishes = wishes
        self._note = note
        memory = wishes.memory_bytes or machine.memory_bytes()
        self._limits = Limits(wishes.variant_seconds, int(memory * 0.75) if memory else None)
        self._linted: set[str] = set()
        self._failed: dict[str, JobFailed] = {}
        self.tell: Callable[[str], None] = lambda _: None
        """Is told in words what is being done."""
        self.materials = Materials()
        self.calibrators = wishes.calibrators if wishes.calibration is None else (_given(wishes.calibration),)
        """Plimsoll's calibrators that are tried; for a table that was given, its own name."""

    def run(self, name: str, payload: dict[str, Any], variants: Iterable[Variant] = (), limits: Limits | None = None) -> dict[str, Any]:
        """Run a piece of work in its own process, after the groundwork for its variants; raises JobFailed."""
        for variant in variants:
            self.prepare(variant)
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
            "materials": self.materials.to_dict(),
            "reference": REFERENCE.to_dict(),
            "objective": self._wishes.objective,
            "cores": machine.cores(),
        }
        return isolate.run("plimsoll.ship.job", common | payload, self._work.job(name), limits or self._limits)

    def job(self, name: str, payload: dict[str, Any], variants: Iterable[Variant] = (), limits: Limits | None = None) -> dict[str, Any]:
        """Return what an earlier run kept under this name, or run it now and keep it; raises JobFailed, which this run alone remembers."""
        if name in self._failed:
            raise self._failed[name]
        kept = self._work.row(name)
        if kept is None:
            try:
                kept = self.run(name, payload, variants, limits)
            except JobFailed as error:
                self._failed[name] = error
                raise
            self._work.keep(name, kept)
        return kept

    def prepare(self, variant: Variant) -> None:
        """Lay what a variant is built from, where it isn't there yet: tables, tensors, the ranking of the layers; raises JobFailed."""
        if needs_table(variant):
            self.calibrate()
        self._lint(variant)
        if needs_tensors(variant.target):
            self._write_tensors("folded" if variant.folded else "plain")
        if variant.float_layers and variant.calibrator is not None:
            self._rank(variant.calibrator)

    def calibrate(self) -> None:
        """Make the tables of all calibrators by one pass, or take the given one; raises JobFailed."""
        if self.materials.tables:
            return
        if self._wishes.calibration is not None:
            (name,) = self.calibrators
            self.tell("checking the calibration table")
            payload = {"do": "adopt", "table": str(self._wishes.calibration.resolve()), "calibrators": [name]}
            made = self.job(name, payload)
        else:
            self.tell(f"calibrating on {len(self._split.calibration):,} pictures")
            payload = {"do": "calibrate", "pictures": list(self._split.calibration), "calibrators": list(self.calibrators)}
            made = self.job("calibrate-" + "+".join(self.calibrators), payload)
        self.materials = replace(self.materials, tables={name: Path(file) for name, file in made["tables"].items()})

    def _lint(self, variant: Variant) -> None:
        """Note what is likely to go wrong, before the first variant of its kind is tried."""
        float16 = backends.get(variant.target.runtime).needs(variant.target) == "float16"
        kind = "float16" if float16 else variant.calibrator if needs_table(variant) else None
        # Of Plimsoll's calibrators one speaks for all: the findings are about the network and the pictures.
        kind = self.calibrators[0] if kind in self.calibrators else kind
        if kind is None or kind in self._linted:
            return
        self._linted.add(kind)
        table = str(self.materials.tables[kind]) if kind in self.materials.tables else None
        try:
            found = self.job(f"lint-{kind}", {"do": "lint", "table": table, "float16": float16})["findings"]
        except JobFailed as error:
            self._note(f"the network could not be looked over before it is quantized: {error.message}")
            return
        for finding in found:
            self._note(f"before quantizing: {finding['message']}. {finding['advice']}")

    def _write_tensors(self, kind: str) -> None:
        if kind not in self.materials.tensors:
            self.tell("writing the tensors that the runtime calibrates with")
            payload = {"do": "tensors", "folded": kind == "folded", "pictures": list(self._split.calibration)}
            made = self.job(f"tensors-{kind}", payload)
            self.materials = replace(self.materials, tensors={**self.materials.tensors, kind: Path(made["file"])})

    def _rank(self, calibrator: str) -> None:
        """Rank the layers once for a calibrator's table, on pictures that did not calibrate. The order hardly differs between runtimes."""
        if calibrator not in self.materials.rankings:
            table = str(self.materials.tables[calibrator])
            self.tell("ranking the layers by the drift that each causes in int8")
            payload = {"do": "rank", "table": table, "pictures": list(self._split.selection[:RANKED_ON])}
            patience = Limits(_RANKING_PATIENCE * self._limits.seconds, self._limits.memory_bytes)
            ranked = self.job(f"rank-{calibrator}", payload, limits=patience)["layers"]
            names = tuple(layer["name"] for layer in ranked)
            self.materials = replace(self.materials, rankings={**self.materials.rankings, calibrator: names})


def _given(table: Path) -> str:
    """Name a given table by its content, so that the rows of another one are not taken for its own."""
    try:
        return f"given_{hashlib.sha256(table.read_bytes()).hexdigest()[:8]}"
    except OSError as error:
        raise InputError(f"{table}: can't read the calibration table: {error.strerror}") from error
