"""Optional libraries: imported on use, their exceptions translated into Plimsoll's."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from plimsoll.core.wording import printable
from plimsoll.errors import BackendError, BackendMissingError, BuildError, PlimsollError
from plimsoll.system import host


def require(module: str, install: str) -> ModuleType:
    """Import a runtime at the moment of its use, with telemetry off; raises BackendMissingError with the command that
    installs it.

    The message tells a runtime that is not installed from one that can't be loaded (a missing system library).
    """
    os.environ.update(host.TELEMETRY_OFF)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BackendMissingError(f"{module} is not installed", f"Install it: {install}") from error
    except (ImportError, OSError) as error:
        raise BackendMissingError(
            f"{module} is installed but can't be loaded: {error}", f"Reinstall it: {install}"
        ) from error


@contextmanager
def translate(failure: type[BackendError], doing: str) -> Iterator[None]:
    """Turn whatever a runtime raises into `failure`, chained, with its text on one line."""
    try:
        yield
    except PlimsollError:
        raise
    except MemoryError as error:
        raise failure(f"{doing}: not enough memory", "Try a smaller batch.") from error
    except Exception as error:
        text = printable(" ".join(str(error).split()), 300)
        hint = "Check the file with `plimsoll inspect`." if failure is BuildError else ""
        raise failure(f"{doing}: {type(error).__name__}: {text}", hint) from error
