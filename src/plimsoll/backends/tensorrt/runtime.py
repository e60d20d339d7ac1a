"""TensorRT's Python package: its generation, its log, its plugins."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
from collections import deque
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from plimsoll.core.foreign import require
from plimsoll.errors import BackendMissingError, BuildError

INSTALL = "pip install tensorrt-cu13"
"""A small package that fetches NVIDIA's libraries (2 GB) from NVIDIA's own index; `tensorrt-cu12` where the driver is
older than CUDA 13's."""

WEAKLY_TYPED, STRONGLY_TYPED = 10, 11
"""The generations: TensorRT 10 chooses types by flags, 11 computes in those that the network has."""

_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings")
_log = logging.getLogger("plimsoll.tensorrt")


@cache
def load() -> Any:
    """Return the module `tensorrt`; raises BackendMissingError where it can't be loaded, or is of a generation that
    Plimsoll doesn't know."""
    tensorrt = require("tensorrt", INSTALL)
    version = str(tensorrt.__version__)
    if _major(version) not in (WEAKLY_TYPED, STRONGLY_TYPED):
        raise BackendMissingError(
            f"TensorRT {version} is installed; Plimsoll knows {WEAKLY_TYPED} and {STRONGLY_TYPED}",
            f"Install one of those: {INSTALL}",
        )
    return tensorrt


def version() -> str:
    """Return TensorRT's version, as 11.4.0.106."""
    return str(load().__version__)


@cache
def generation() -> int:
    """Return the generation that is installed, without loading it where its package says so; the newest where none
    is."""
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return _major(importlib.metadata.version(name))
    return _major(version()) if importlib.util.find_spec("tensorrt") else STRONGLY_TYPED


def _major(text: str) -> int:
    return int(text.partition(".")[0])


def logger() -> Any:
    """Return a TensorRT logger that hands on to Python's logging ("plimsoll.tensorrt") and keeps the last errors in
    `errors`."""
    tensorrt = load()
    levels = {
        tensorrt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        tensorrt.ILogger.Severity.ERROR: logging.ERROR,
        tensorrt.ILogger.Severity.WARNING: logging.WARNING,
        tensorrt.ILogger.Severity.INFO: logging.DEBUG,
        tensorrt.ILogger.Severity.VERBOSE: logging.DEBUG,
    }

    class Log(tensorrt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=3)

        def log(self, severity: Any, msg: str) -> None:  # TensorRT calls it by these names
            level = levels[severity]
            if level == logging.ERROR:
                self.errors.append(" ".join(msg.split()))
            _log.log(min(level, logging.INFO), "%s", msg)

    return Log()


def recent_errors(log: Any) -> str:
    """Return the last errors of a logger, as the end of a sentence; empty where there were none."""
    text = "; ".join(log.errors)
    return f": {text[:600]}" if text else ""


def load_plugins(log: Any, libraries: Iterable[Path]) -> None:
    """Make TensorRT's own plugins known, and those of further libraries, whose code is run; raises BuildError."""
    tensorrt = load()
    tensorrt.init_libnvinfer_plugins(log, "")
    registry = tensorrt.get_plugin_registry()
    for library in libraries:
        if not library.is_file():
            raise BuildError(f"{library}: no such plugin library", "Correct the path in --set plugins=…")
        try:
            handle = registry.load_library(str(library))
        except RuntimeError as error:
            raise BuildError(
                f"{library}: TensorRT can't load the plugin library: {error}{recent_errors(log)}",
                "Was it built for this version?",
            ) from error
        if handle is None and log.errors:
            raise BuildError(
                f"{library}: TensorRT can't load the plugin library{recent_errors(log)}",
                "Was it built for this version of TensorRT?",
            )
