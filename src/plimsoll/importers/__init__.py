"""The kinds of model files: every file or folder in this folder reads or converts one, found by a path's looks."""

from __future__ import annotations

from plimsoll.importers.registry import ENTRY_POINTS, all_sources, converter, find, kinds, read

__all__ = ["ENTRY_POINTS", "all_sources", "converter", "find", "kinds", "read"]
