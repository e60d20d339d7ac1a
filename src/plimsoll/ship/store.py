"""The work folder of a `ship`: everything built and measured, stored as soon as it is known, so that a stopped run
resumes."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
from pydantic import BaseModel, ConfigDict, ValidationError

from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.report import report
from plimsoll.ship.split import Split
from plimsoll.spec import files as spec_files
from plimsoll.system import files

LAYOUT = 3
"""The version of what a work folder holds. It is part of the folder's key: a folder of another version is not read."""
BUILDING = ".building-"
"""How the names of folders begin that are not finished."""
_MAX_ROW_BYTES = 256_000_000


class StoredJob(BaseModel):
    """What a job found, or why it failed."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    environment: str
    error: str = ""
    result: dict[str, Any] = {}


@dataclass(frozen=True)
class WorkFolder:
    """A folder that belongs to one network, one Spec and one split of images; each row in it names its environment."""

    path: Path
    outdated: Path | None = None
    """The folder of the same work in an older layout, which is not read."""

    @classmethod
    def of(cls, root: Path, model: Model, split: Split) -> WorkFolder:
        """Return the folder under `root` for this work; create it if need be."""
        spec = spec_files.dumps(model.require_spec())
        path, outdated = (
            root / f"{model.name}-{_key(layout, model.sha256, spec, split.digest)}" for layout in (LAYOUT, LAYOUT - 1)
        )
        path.mkdir(parents=True, exist_ok=True)
        return cls(path, outdated if outdated.exists() else None)

    @cached_property
    def environment(self) -> str:
        """A digest of machine and package versions: what another environment measured is measured anew, failures
        included."""
        facts = json.dumps(report.environment(), sort_keys=True, default=str)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def job_folder(self, name: str) -> Path:
        """Return where a job writes its log."""
        return self.path / "jobs" / name

    @property
    def built(self) -> Path:
        """Where built networks and calibration tables of this environment are stored: another processor's may be
        quantized otherwise."""
        return self.path / "built" / self.environment

    def load(self, name: str) -> StoredJob | None:
        """Return what a job of that name found in this environment, or None."""
        try:
            stored = StoredJob.model_validate_json(files.read_bytes(self._row_file(name), _MAX_ROW_BYTES))
        except (OSError, ValidationError):
            return None
        return stored if stored.environment == self.environment else None

    def save(self, name: str, result: BaseModel | None = None, error: str = "") -> None:
        """Store what a job found, or why it failed; in one step, so that a kill leaves all of it or nothing."""
        file = self._row_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        data = result.model_dump(mode="json") if result is not None else {}
        files.write(file, StoredJob(environment=self.environment, error=error, result=data).model_dump_json())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this run alone, cleared of what a killed run did not finish building; raises InputError
        where another run holds it."""
        lock = filelock.FileLock(self.path / "lock", timeout=0)
        try:
            with lock:
                for leftover in self.built.glob(f"{BUILDING}*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                yield
        except filelock.Timeout as error:
            raise InputError(
                f"another ship is using {self.path}", "Wait for it, or choose another folder with --work."
            ) from error

    def _row_file(self, name: str) -> Path:
        return self.path / "rows" / f"{name}.json"


def _key(layout: int, *parts: str) -> str:
    versioned = parts if layout == 1 else (f"layout {layout}", *parts)  # The first layout had no version in its key.
    return hashlib.sha256("\n".join(versioned).encode()).hexdigest()[:16]


def get_or_build(folder: Path, parent: Model, build: Callable[[Path], Model]) -> Model:
    """Return the network stored in `folder`, or build it beside it and move it there in one step, so that all
    candidates that need it share it.

    Where `build` returns `parent` itself, nothing had to be built and nothing is stored. Raises what `build` raises.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=BUILDING))
        try:
            model = build(temporary)
            if model is parent:
                return parent
            _describe(model, temporary)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    described: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    spec = spec_files.loads((folder / "spec.toml").read_text(encoding="utf-8"), str(folder))
    path, *others = (folder / name for name in described["files"])
    return Model(path, described["format"], spec, parent, tuple(others))


def _describe(model: Model, folder: Path) -> None:
    names = [file.relative_to(folder).as_posix() for file in (model.path, *model.files)]
    (folder / "model.json").write_text(json.dumps({"format": model.format, "files": names}), encoding="utf-8")
    (folder / "spec.toml").write_text(spec_files.dumps(model.require_spec()), encoding="utf-8")
