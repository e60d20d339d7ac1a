"""Finds the runtimes: each folder here is one, by its name; other packages add theirs by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points

from plimsoll import backends
from plimsoll.backends.base import Backend
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import BackendMissingError, TargetError
from plimsoll.onnx import form

ENTRY_POINTS = "plimsoll.backends"


@cache
def names() -> tuple[str, ...]:
    """Return the runtimes' names, sorted; imports none of them."""
    return tuple(sorted(_own() | {point.name for point in entry_points(group=ENTRY_POINTS)}))


@cache
def get(name: str) -> Backend:
    """Return the backend of a runtime; raises TargetError for an unknown one."""
    if name in _own():
        backend = importlib.import_module(f"plimsoll.backends.{name}").BACKEND
    else:
        points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
        if not points:
            raise TargetError(f"unknown runtime '{name}'", f"Choose from: {', '.join(names())}.")
        try:
            backend = points[0].load()
        except Exception as error:
            raise BackendMissingError(
                f"the backend '{name}' ({points[0].value}) can't be loaded: {error}",
                "Update or remove the package that provides it.",
            ) from error
    if not isinstance(backend, Backend):
        raise BackendMissingError(
            f"the backend '{name}' is a {type(backend).__name__}, expected a plimsoll.backends.base.Backend",
            "Update or remove the package that provides it.",
        )
    return backend


def for_target(target: Target) -> Backend:
    """Return the backend that has this target here; raises TargetError or BackendMissingError where there is none."""
    backend = get(target.runtime)
    backend.check(target)
    return backend


def for_format(name: str) -> Backend | None:
    """Return the backend that alone runs models of a format; None where the format belongs to no runtime, as ONNX."""
    if name == "onnx":
        return None
    return next((backend for backend in map(get, names()) if name in [kind.name for kind in backend.formats]), None)


def default_target(model: Model) -> Target:
    """Return the target that runs a model where the user names none; raises BuildError for a damaged file."""
    if model.format == "onnx":  # A quantized or halved file computes as it says.
        return replace(REFERENCE_TARGET, precision=form.precision_of(model.path))
    own = for_format(model.format)
    return REFERENCE_TARGET if own is None else own.target_of(model) or REFERENCE_TARGET


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(backends.__path__) if module.ispkg}
