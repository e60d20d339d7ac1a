"""The kinds of model files: every file in this folder reads one, found by its suffix."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from plimsoll.errors import ModelError
from plimsoll.model import Model
from plimsoll.source import Source
from plimsoll.spec import Spec

ENTRY_POINTS = "plimsoll.sources"


@cache
def all_sources() -> tuple[Source, ...]:
    """Return every kind of model file that is known here."""
    own = [importlib.import_module(f"{__name__}.{module.name}").SOURCE for module in pkgutil.iter_modules(__path__)]
    return (*own, *(point.load() for point in entry_points(group=ENTRY_POINTS)))


def read(path: Path, spec: Spec | None = None) -> Model:
    """Read a model file of any known kind; raises ModelError."""
    for source in all_sources():
        if path.suffix.lower() in source.suffixes:
            return source.read(path, spec)
    known = ", ".join(suffix for source in all_sources() for suffix in source.suffixes)
    raise ModelError(f"{path}: a model file of an unknown kind ('{path.suffix or 'no suffix'}')", f"Known are: {known}.")
