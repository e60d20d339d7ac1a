"""The work folder of a `ship`: everything built and measured, kept as soon as it is known, so that a stopped run
continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.report import report
from plimsoll.ship.artifact_files import clear_unfinished
from plimsoll.ship.split import Split
from plimsoll.spec import files as spec_files
from plimsoll.system import files


@dataclass(frozen=True)
class WorkFolder:
    """A folder that belongs to one network, one Spec and one split of images; rows in it also name the environment."""

    path: Path
    environment: str
    """A digest of machine and package versions: a row from another environment is measured anew, failures included."""

    @classmethod
    def of(cls, root: Path, model: Model, split: Split) -> WorkFolder:
        """Return the folder under `root` for this work, made if need be."""
        spec = spec_files.dumps(model.contract())
        key = hashlib.sha256(f"{model.sha256}\n{spec}\n{split.digest}".encode()).hexdigest()[:16]
        path = root / f"{model.name}-{key}"
        path.mkdir(parents=True, exist_ok=True)
        return cls(path, _environment())

    def job(self, name: str) -> Path:
        """Return the folder of a piece of work."""
        return self.path / "jobs" / name

    @property
    def built(self) -> Path:
        """Where built networks and calibration tables of this environment are kept: another processor's may be
        quantized otherwise."""
        return self.path / "built" / self.environment

    def row(self, name: str) -> dict[str, Any] | None:
        """Return a finished row of this environment, or None."""
        try:
            kept = json.loads(self._row_file(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(kept, dict) or kept.get("environment") != self.environment:
            return None
        row: dict[str, Any] = kept["row"]
        return row

    def keep(self, name: str, row: dict[str, Any]) -> None:
        """Keep a finished row; in one step, so that a kill leaves all of it or nothing."""
        file = self._row_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(file, json.dumps({"environment": self.environment, "row": row}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this run alone, rid of what a killed run had begun to build; raises InputError where
        another run has it."""
        lock = filelock.FileLock(self.path / "lock", timeout=0)
        try:
            with lock:
                clear_unfinished(self.built)
                yield
        except filelock.Timeout as error:
            raise InputError(
                f"another ship is at work in {self.path}", "Wait for it, or choose another folder with --work."
            ) from error

    def _row_file(self, name: str) -> Path:
        return self.path / "rows" / f"{name}.json"


def _environment() -> str:
    return hashlib.sha256(json.dumps(report.environment(), sort_keys=True, default=str).encode()).hexdigest()[:16]
