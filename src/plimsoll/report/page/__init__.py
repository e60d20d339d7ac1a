"""The HTML page of a `ship`: one file that shows everything, loads nothing, and can be mailed."""

from __future__ import annotations

from plimsoll.report.page.render import render

__all__ = ["render"]
