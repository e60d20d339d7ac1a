"""The kinds of model files: every file or folder in this folder reads or converts one, found by a path's looks."""

from __future__ import annotations

from plimsoll.importers.registry import ENTRY_POINTS, converter_for, format_of, formats, read, readers

__all__ = ["ENTRY_POINTS", "converter_for", "format_of", "formats", "read", "readers"]
