"""The formats of model files: those that this folder reads or converts, and those of the runtimes' own."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from plimsoll import backends, importers
from plimsoll.core.model import Model, ModelFormat, Reader
from plimsoll.errors import ModelError
from plimsoll.importers.base import Converter
from plimsoll.spec import Spec

ENTRY_POINTS = "plimsoll.importers"


@cache
def _own_formats() -> tuple[ModelFormat, ...]:
    """Return the formats of this folder and of other packages' importers."""
    modules = (
        importlib.import_module(f"plimsoll.importers.{module.name}")
        for module in pkgutil.iter_modules(importers.__path__)
    )
    own = [module.IMPORTER for module in modules if hasattr(module, "IMPORTER")]
    given = [*own, *(point.load() for point in entry_points(group=ENTRY_POINTS))]
    return tuple(kind for provided in given for kind in (provided if isinstance(provided, tuple) else (provided,)))


def _in_order() -> Iterator[ModelFormat]:
    """Yield every format: readers before the converters of the same files, and ONNX before the runtimes are asked."""
    own = _own_formats()
    yield from (kind for kind in own if isinstance(kind, Reader))
    yield from (kind for name in backends.names() for kind in backends.get(name).formats)
    yield from (kind for kind in own if not isinstance(kind, Reader))


def formats() -> tuple[ModelFormat, ...]:
    """Return every format of model files that is known here."""
    return tuple(_in_order())


def readers() -> tuple[Reader, ...]:
    """Return the formats that are read as they are."""
    return tuple(kind for kind in formats() if isinstance(kind, Reader))


def format_of(path: Path) -> ModelFormat:
    """Return the format of a model file or folder, by a quick look; raises ModelError."""
    for kind in _in_order():
        if kind.recognises(path):
            return kind
    for kind in formats():
        if path.suffix.lower() in kind.suffixes:  # Its reader says best what is wrong with it.
            return kind
    if not path.exists():
        raise ModelError(f"{path}: there is no such file or folder")
    known = ", ".join(f"{kind.name} ({', '.join(kind.suffixes)})" if kind.suffixes else kind.name for kind in formats())
    what = "a folder" if path.is_dir() else f"'{path.suffix or 'no suffix'}'"
    raise ModelError(f"{path}: a model of an unknown kind ({what})", f"Known are: {known}.")


def read(path: Path, spec: Spec | None = None) -> Model:
    """Read a model file of any kind that is read as it is; raises ModelError, which for others says how they are
    imported."""
    kind = format_of(path)
    if isinstance(kind, Reader):
        return kind.read(path, spec)
    raise ModelError(
        f"{path}: {kind.name} has to be converted to ONNX first",
        f"Convert it: plimsoll import {path} --out {path.stem}.onnx",
    )


def converter_for(path: Path) -> Converter:
    """Return what converts a model file or folder; raises ModelError where nothing does or nothing has to."""
    for kind in _own_formats():
        if isinstance(kind, Converter) and kind.recognises(path):  # Before a source that reads the same file as it is.
            return kind
    if isinstance(kind := format_of(path), Converter):
        return kind
    raise ModelError(
        f"{path}: {kind.name} is read as it is and needs no import",
        "Give it to `plimsoll predict` or `plimsoll ship` directly.",
    )
