"""Optional libraries: imported on use, their exceptions translated into Plimsoll's."""

from __future__ import annotations

import importlib
import os
import re
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


_NOISE = (
    # Places in source code: alone, behind a failed condition, before the signature of a function
    (r"Exception from \S+:\d+:\s*", ""),
    (r"Check '[^']*' failed at \S+:\d+:\s*", ""),
    (r"/\w+_src/\S+:\d+ .*?\) (?=\S)", ""),
    (r"\S*\.(?:cc|h)(?::\d+)? ", ""),
    # Codes and phrases that every message has
    (r"FrontEnd API failed with OpConversionFailure: ", ""),
    (r"\[\w+Error\] : \d+ : [A-Z_]+ : ", ""),
    (r"Load model from .*? failed:\s*", ""),
    (r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: ", r"\1 '\2': "),
    # No end of a sentence before the operator is named
    (r"(?<=\S)(?=Node number \d+ \()", "; "),
)
"""What a library's message has beside what is wrong, and what takes its place."""


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
        hint = "Check the file with `plimsoll inspect`." if failure is BuildError else ""
        raise failure(f"{doing}: {reason_of(error)}", hint) from error


def reason_of(error: Exception) -> str:
    """Return what a library says of its failure, on one line: without the places in its source code, and without the
    class of an error that says nothing more."""
    text = " ".join(str(error).split())
    for pattern, plain in _NOISE:
        text = re.sub(pattern, plain, text)
    text = printable(text.strip(), 300)
    kind = type(error).__name__
    is_plain = type(error) in (Exception, RuntimeError) or "pybind11" in type(error).__module__
    return text if text and is_plain else f"{kind}: {text}" if text else kind
