"""Whether what serving needs is installed."""

from __future__ import annotations

import importlib.util

from plimsoll.errors import BackendMissingError


def require_serve(*, grpc: bool) -> None:
    """Raise BackendMissingError, with the command that installs it, where something of the extra `serve` (or `grpc`) is
    missing."""
    extras = {
        "serve": ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client"),
        "grpc": ("grpc",) if grpc else (),
    }
    for extra, names in extras.items():
        if missing := [name for name in names if importlib.util.find_spec(name) is None]:
            told = f"serving needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed"
            raise BackendMissingError(told, f"Install it: pip install 'plimsoll-line[{extra}]'")
