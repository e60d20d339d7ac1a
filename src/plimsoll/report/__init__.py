"""What was measured: as data, and as a page.

report         Report: what a verb measured, as JSON
trial          Candidate and Trial: what `ship` tried, and what came of it
ship_result    ShipResult: all that a `ship` found
figures        figures in words
page           the HTML page of a `ship`
"""

from __future__ import annotations

from plimsoll.report.report import Report, environment, schema

__all__ = ["Report", "environment", "schema"]
