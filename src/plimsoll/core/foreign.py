"""Code of others, imported when it is used; whatever it raises is translated once, here."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from plimsoll.errors import BackendError, BackendMissingError, BuildError, PlimsollError
from plimsoll.system import host


def require(module: str, install: str) -> ModuleType:
    """Import a runtime at the moment of its use, with telemetry off; raises BackendMissingError with the command that
    installs it.

    A runtime that is there but can't be loaded (a missing system library) is named as what it is.
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
    """Turn whatever a runtime raises into `failure`, once, with its cause kept and its first line quoted."""
    try:
        yield
    except PlimsollError:
        raise
    except MemoryError as error:
        raise failure(f"{doing}: not enough memory", "Try a smaller batch.") from error
    except Exception as error:
        text = " ".join(str(error).split())
        short = text if len(text) <= 300 else text[:300] + " …"
        hint = "Check the file with `plimsoll inspect`." if failure is BuildError else ""
        raise failure(f"{doing}: {type(error).__name__}: {short}", hint) from error
