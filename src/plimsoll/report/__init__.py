"""What was measured: as data, and as a page.

report         Report: what a verb measured, as JSON
trial          Candidate and Trial: what `ship` tried, and what came of it
measurements   what was measured of a candidate
reason         why a trial ended so, as data
ship_result    ShipResult: all that a `ship` found
summary        what a `ship` found, in words: for the page and the terminal
figures        figures in words
page           the HTML page of a `ship`
"""

from __future__ import annotations

from plimsoll.report.report import Report, environment, schema

__all__ = ["Report", "environment", "schema"]
