"""Networks that are built once and kept in a folder, so that all candidates that need a form share it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plimsoll.core.model import Model
from plimsoll.spec import files as spec_files

BUILDING = ".building-"
"""How folders begin that were not finished."""


def once(place: Path, parent: Model, build: Callable[[Path], Model]) -> Model:
    """Return the network kept in `place`, or build it beside it and put it there in one step.

    Where `build` returns `parent` itself, nothing had to be built and nothing is kept. Raises what `build` raises.
    """
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=BUILDING))
        try:
            made = build(temporary)
            if made is parent:
                return parent
            _describe(made, temporary)
            temporary.replace(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    kept: dict[str, Any] = json.loads((place / "model.json").read_text(encoding="utf-8"))
    spec = spec_files.loads((place / "spec.toml").read_text(encoding="utf-8"), str(place))
    return Model(place / kept["path"], kept["format"], spec, parent, tuple(place / name for name in kept["files"]))


def _describe(model: Model, folder: Path) -> None:
    names = [file.relative_to(folder).as_posix() for file in (model.path, *model.files)]
    (folder / "model.json").write_text(
        json.dumps({"path": names[0], "format": model.format, "files": names[1:]}), encoding="utf-8"
    )
    (folder / "spec.toml").write_text(spec_files.dumps(model.contract()), encoding="utf-8")


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed run had begun to build."""
    for leftover in folder.glob(f"{BUILDING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
