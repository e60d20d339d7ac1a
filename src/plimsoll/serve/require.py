"""Whether what serving needs is installed."""

from __future__ import annotations

import importlib.util

from plimsoll.errors import BackendMissing

INSTALL = "pip install 'plimsoll-line[serve]'"


def require_serve() -> None:
    """Raise BackendMissing, with the command that installs it, where something of the extra `serve` is missing."""
    missing = [name for name in ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client") if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendMissing(f"serving needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed", f"Install it: {INSTALL}")
