"""Every model format that is known: those of this folder, of other packages, and of the runtimes."""

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
    return tuple(model_format for entry in given for model_format in (entry if isinstance(entry, tuple) else (entry,)))


def _in_order(runtime: str = "") -> Iterator[ModelFormat]:
    """Yield every format: those of the runtime that will load the file, then readers before the converters of the same
    files, and ONNX before the other runtimes are asked."""
    if runtime:
        yield from backends.get(runtime).formats
    onnx = importlib.import_module(f"{importers.__name__}.onnx").IMPORTER
    yield onnx  # Most files are, and then no other importer is loaded.
    own = [model_format for model_format in _own_formats() if model_format is not onnx]
    yield from (model_format for model_format in own if isinstance(model_format, Reader))
    yield from (model_format for name in backends.names() for model_format in backends.get(name).formats)
    yield from (model_format for model_format in own if not isinstance(model_format, Reader))


def formats() -> tuple[ModelFormat, ...]:
    """Return every known model format."""
    return tuple(_in_order())


def readers() -> tuple[Reader, ...]:
    """Return the formats that are read as they are."""
    return tuple(model_format for model_format in formats() if isinstance(model_format, Reader))


def format_of(path: Path, runtime: str = "") -> ModelFormat:
    """Return the format of a model file or folder after a quick look; raises ModelError.

    The formats of `runtime` are tried first, so that no other runtime's code is imported for its files.
    """
    for model_format in _in_order(runtime):
        if model_format.recognises(path):
            return model_format
    for model_format in formats():
        if path.suffix.lower() in model_format.suffixes:  # Its reader reports best what is wrong with it.
            return model_format
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder")
    known = ", ".join(
        f"{model_format.name} ({', '.join(model_format.suffixes)})" if model_format.suffixes else model_format.name
        for model_format in formats()
    )
    what = "a folder" if path.is_dir() else f"'{path.suffix or 'no suffix'}'"
    raise ModelError(f"{path}: unknown model format ({what})", f"Known formats: {known}.")


def read(path: Path, spec: Spec | None = None, runtime: str = "") -> Model:
    """Read a model file that needs no conversion, for `runtime` if that is known; raises ModelError, which says how to
    import the others."""
    model_format = format_of(path, runtime)
    if isinstance(model_format, Reader):
        return model_format.read(path, spec)
    raise ModelError(
        f"{path}: {model_format.name} has to be converted to ONNX first",
        f"Convert it: plimsoll import {path} --out {path.stem}.onnx",
    )


def reread(model: Model, runtime: str = "") -> Model:
    """Read a model's file again, for `runtime` if that is known, if a reader knows its format: that finds external
    weights, and refuses those that lie elsewhere. The file stays as it is."""
    known = (entry for entry in _in_order(runtime) if isinstance(entry, Reader) and entry.name == model.format)
    reader = next(known, None)
    return model if reader is None else reader.reread(model)


def converter_for(path: Path) -> Converter:
    """Return the converter for a model file or folder; raises ModelError if there is none or none is needed."""
    for model_format in _own_formats():
        if isinstance(model_format, Converter) and model_format.recognises(path):  # Before a reader of the same file.
            return model_format
    if isinstance(model_format := format_of(path), Converter):
        return model_format
    raise ModelError(
        f"{path}: {model_format.name} is read as it is and needs no import",
        "Give it to `plimsoll predict` or `plimsoll ship` directly.",
    )
