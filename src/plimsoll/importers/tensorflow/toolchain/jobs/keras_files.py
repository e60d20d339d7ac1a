"""Keras files: what can be known of them before Keras reads them, and the names of a network's tensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
from plimsoll_job import RefusedError

_OWN_MODULES = ("keras", "tf_keras", "tensorflow.keras", "builtins")


def check(path: Path, trust: bool) -> None:
    """Refuse a file that carries code, or names code that isn't Keras's own, before anything of it is loaded."""
    for name, module in _objects(_architecture(path)):
        if name == "Lambda" and not trust:
            raise RefusedError(
                "it has a Lambda layer, which carries Python code that would run here",
                "If you trust its author like that of a program: --trust. Or export it as a SavedModel where it was"
                " made.",
            )
        if module and not module.startswith(_OWN_MODULES):
            raise RefusedError(
                f"it has an object of its own, '{name}' of {module}, whose code is not in the file",
                "Export it as a SavedModel where that code is: model.export(folder).",
            )


def _architecture(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" not in archive.namelist():
                raise RefusedError(
                    "it is a zip without a config.json", "Expected what model.save('NAME.keras') writes."
                )
            return json.loads(archive.read("config.json"))
    try:
        with h5py.File(path, "r") as file:
            written = file.attrs.get("model_config")
    except OSError as error:
        raise RefusedError(
            f"it is no Keras file: {error}", "Expected what model.save('NAME.keras') or model.save('NAME.h5') writes."
        ) from error
    if written is None:
        raise RefusedError(
            "it has weights only, without the network that they belong to",
            "Save the whole network: model.save('NAME.keras').",
        )
    return json.loads(written)


def _objects(part: Any) -> Iterator[tuple[str, str]]:
    """Yield the class and module of every object in a description, however deep; custom ones also by what they are
    registered as."""
    pending = [part]
    while pending:
        entry = pending.pop()
        if isinstance(entry, dict):
            if "class_name" in entry:
                registered = str(entry.get("registered_name") or "")
                custom = registered.partition(">")[0] if ">" in registered else ""
                yield str(entry["class_name"]).rpartition(">")[2], str(entry.get("module") or custom)
            pending += entry.values()
        elif isinstance(entry, list):
            pending += entry


def names(tensors: Sequence[Any]) -> list[str]:
    """Name a network's inputs or outputs: by what the author called them, else by the layer that they come from; none
    twice."""
    unique: list[str] = []
    for tensor in tensors:
        history = tensor._keras_history
        layer = getattr(history, "operation", None) or history.layer  # Keras 3, Keras 2
        name = (
            layer.name
            if not tensor.name or tensor.name.startswith("keras_tensor") or "/" in tensor.name
            else tensor.name
        )
        unique.append(name if name not in unique else f"{name}_{sum(taken.startswith(name) for taken in unique)}")
    return unique
