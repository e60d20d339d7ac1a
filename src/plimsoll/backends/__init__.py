"""The runtimes: every folder in this one is a runtime, found by its name; other packages add theirs by entry point."""

from __future__ import annotations

from plimsoll.backends.registry import ENTRY_POINTS, default_target, for_format, for_target, get, names

__all__ = ["ENTRY_POINTS", "default_target", "for_format", "for_target", "get", "names"]
