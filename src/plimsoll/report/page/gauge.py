"""The gauge at the head of the page: the Plimsoll mark with the water as high as the budget is used."""

from __future__ import annotations

import math

from markupsafe import Markup

from plimsoll.core.budget import Check
from plimsoll.report import figures
from plimsoll.report.page import svg
from plimsoll.report.page.svg import Frame, element, line, text

_FRAME = Frame(360, 380, 0, 0, 0, 0)
_LINE_Y, _KEEL_Y, _CENTRE = 112.0, 306.0, 160.0


def nearest_check(checks: tuple[Check, ...]) -> Check | None:
    """Return the check that lies nearest its limit, of those whose limit is the most that passes."""
    usable = [
        check
        for check in checks
        if check.direction == "at_most" and 0 < check.limit < math.inf and math.isfinite(check.judged)
    ]
    return max(usable, key=lambda check: check.judged / check.limit, default=None)


def gauge(check: Check | None) -> Markup:
    """Return the mark with the water at what is judged of the check; the mark alone without a check."""
    mark = (svg.circle(_CENTRE, _LINE_Y, 56, "ring"), line(_CENTRE - 98, _LINE_Y, _CENTRE + 98, _LINE_Y, "ring"))
    if check is None:
        description = "No check was measured that would say how much of the budget is used."
        return svg.chart("gauge", "The Plimsoll mark", description, _FRAME, *mark)
    surface = max(24.0, _KEEL_Y - check.judged / check.limit * (_KEEL_Y - _LINE_Y))
    words = figures.check_in_words(check)
    limit, judged = figures.with_unit(check.limit, check.unit), words.judged
    # Above its line, or below it where the water's surface would run through the text.
    limit_baseline = _LINE_Y + 24 if 4 < _LINE_Y - surface < 32 else _LINE_Y - 12
    return svg.chart(
        "gauge",
        "How much of the budget is used",
        f"{words.evidence}; the limit is {limit}. The ring's line is the limit, the water stands at"
        f" {words.judged_name}.",
        _FRAME,
        *mark,
        *_water(surface),
        *_draught_marks(surface),
        text(f"limit {limit}", _FRAME.width - 8, limit_baseline, "end", "gauge-limit"),
        text(judged, _FRAME.width - 8, _measured_baseline(surface), "end", "gauge-measured"),
    )


def _draught_marks(surface: float) -> list[Markup]:
    marks = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _KEEL_Y - share * (_KEEL_Y - _LINE_Y)
        marks.append(line(34, y, 46, y, "draught"))
        if abs(y - surface) > 10:
            marks.append(text(f"{share * 100:.0f}", 28, y + 4, "end", "draught-number"))
    return marks


def _measured_baseline(surface: float) -> float:
    """Return the baseline of the measured figure: above its water, but clear of the limit's text and line."""
    baseline = surface - 9
    if abs(baseline - (_LINE_Y - 6)) < 22:
        baseline = _LINE_Y + 29 if surface >= _LINE_Y else _LINE_Y - 34
    return baseline


def _water(surface: float) -> tuple[Markup, Markup]:
    waves = f"M0 {surface:.1f}" + "q15 -7 30 0t30 0" * 6
    return element("path", d=f"{waves}V380H0z", class_="water"), element("path", d=waves, class_="surface")
