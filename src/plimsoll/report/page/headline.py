"""The head of the page: how many times as fast, at which loss, proven on how many pictures; and the gauge, the Plimsoll
mark with the water as high as the budget is used."""

from __future__ import annotations

import math

from markupsafe import Markup

from plimsoll.core.budget import Check
from plimsoll.report import figures
from plimsoll.report.page import svg
from plimsoll.report.page.svg import Frame, element, line, text
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import FlippedDecisions, Trial


def title(result: ShipResult) -> str:
    """Return the headline, one line of plain text."""
    if result.outcome == "nothing_passed":
        return "Nothing passed: the reference ships"
    if result.outcome == "not_better":
        return f"Not {_better(result)}: the simplest is kept"
    return f"{_gain(result)}, {_loss(result)}"


def _better(result: ShipResult) -> str:
    return "smaller" if result.objective == "size" else "faster"


def _gain(result: ShipResult) -> str:
    """Return by how much the winner is better: 4.83 times as fast, 74 % smaller."""
    winner, reference = result.trial(result.winner), result.trial(result.reference)
    if result.objective == "size":
        sizes = [trial.measured.size_bytes if trial else math.nan for trial in (winner, reference)]
        return f"{figures.reduction(*sizes)} smaller" if all(map(math.isfinite, sizes)) else "Smaller"
    ratio = winner.measured.speed.ratio if winner else math.nan
    return figures.times_as_fast(ratio) if math.isfinite(ratio) else "Faster"


def _loss(result: ShipResult) -> str:
    flips = result.test.worst_flips
    if flips is not None:
        return f"{flips.flipped:,} of {flips.count:,} decisions flipped"
    if math.isfinite(result.test.deviation.max):
        return f"deviation {figures.number(result.test.deviation.max, 2)} at most"
    return "inside the budget" if budget_kept(result) else "beyond the budget"


def budget_kept(result: ShipResult) -> bool:
    """Whether every check on the test pictures passed; False where there was none."""
    return result.test.passed


def sentences(result: ShipResult) -> list[str]:
    """Return what is said below the headline: the sample, the confidence, and why this candidate."""
    measured = sum(trial.status == "ok" for trial in result.trials)
    tried = f"{figures.counted(len(result.trials), 'candidate')} tried, {measured} measured"
    if result.outcome == "nothing_passed":
        return [f"{tried}; none kept the budget. So the network ships as it was trained, with its own preprocessing."]
    if result.outcome == "not_better":
        noise = "" if result.objective == "size" else "the noise and "
        return [
            f"{tried}; none inside the budget was {_better(result)} by more than {noise}the required gain. So"
            " the simplest one ships.",
            *_proof(result),
        ]
    return _proof(result) or [
        "It was not tested on pictures of their own: read the results table before you rely on it."
    ]


def _proof(result: ShipResult) -> list[str]:
    test = result.test
    if not test.count:
        return []
    results = []
    flips = test.worst_flips
    if flips is not None:
        bound = (
            f", and with 95 % confidence no more than {figures.percent_at_most(flips.upper)} of all decisions flip"
            if math.isfinite(flips.upper)
            else ""
        )
        results.append(f"{_flips_in_words(flips)}{bound}")
    if math.isfinite(test.deviation.max):
        results.append(f"no score moved by more than {figures.number(test.deviation.max, 2)}")
    body = "; ".join(results) if results else "the budget's checks are below"
    return [f"On {figures.counted(test.count, 'picture')} never used before: {body}."]


def _flips_in_words(flips: FlippedDecisions) -> str:
    where = "the top class" if flips.threshold is None else f"threshold {figures.number(flips.threshold)}"
    return f"{flips.flipped:,} of {flips.count:,} decisions flipped at {where}"


def verdict(result: ShipResult) -> tuple[str, bool]:
    """Return the verdict on the budget, and whether it is a good one."""
    stated = f" ({', '.join(result.budget.texts)})" if result.budget.texts else ""
    if result.outcome == "nothing_passed":
        return f"No candidate kept the budget{stated}", False
    if not result.test.checks:
        return f"Budget not tested{stated}", False
    inside = budget_kept(result)
    return f"Budget {'kept' if inside else 'not kept'}{stated}", inside


def plate(result: ShipResult) -> list[tuple[str, str]]:
    """Return the builder's plate, as terms and values: what ships, and its main figures beside the reference's."""
    winner, reference = result.trial(result.winner), result.trial(result.reference)
    facts = [("ships", winner.name if winner else result.winner)]
    if winner and reference:
        speed = winner.measured.speed
        before, after = reference.measured.speed.images_per_second, speed.images_per_second
        facts += [
            ("images a second", _change(figures.rate(before), figures.rate(after))),
            ("times as fast", figures.ratio_with_interval(speed.ratio, speed.low, speed.high)),
            ("on disk", _change(figures.size(reference.measured.size_bytes), figures.size(winner.measured.size_bytes))),
            (
                "peak memory",
                _change(figures.size(reference.measured.peak_bytes), figures.size(winner.measured.peak_bytes)),
            ),
        ]
    return [(term, value) for term, value in facts if value != figures.MISSING]


def _change(before: str, after: str) -> str:
    return after if figures.MISSING in (before, after) or before == after else f"{before} → {after}"


def outcome(trial: Trial) -> tuple[str, str]:
    """Return the verdict on a candidate in a word or two, and the reason."""
    if trial.status != "ok":
        return trial.status, trial.reason
    if trial.passed is None:
        return "not evaluated", trial.reason
    if trial.passed:
        return "passed", trial.reason
    missed = [
        f"{check.name} {figures.with_unit(check.judged, check.unit)}, limit"
        f" {figures.with_unit(check.limit, check.unit)}"
        for check in trial.validation.checks
        if not check.passed
    ]
    return "beyond the budget", "; ".join(filter(None, [trial.reason, *missed]))


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
    """Return the mark with the water at what the check measured; the mark alone without a check."""
    mark = (svg.circle(_CENTRE, _LINE_Y, 56, "ring"), line(_CENTRE - 98, _LINE_Y, _CENTRE + 98, _LINE_Y, "ring"))
    if check is None:
        description = "No check was measured that would say how much of the budget is used."
        return svg.chart("gauge", "The Plimsoll mark", description, _FRAME, *mark)
    surface = max(24.0, _KEEL_Y - check.judged / check.limit * (_KEEL_Y - _LINE_Y))
    limit, measured = (figures.with_unit(value, check.unit) for value in (check.limit, check.judged))
    # Above its line, or below it where the water's surface would run through the text.
    limit_baseline = _LINE_Y + 24 if 4 < _LINE_Y - surface < 32 else _LINE_Y - 12
    return svg.chart(
        "gauge",
        "How much of the budget is used",
        f"{check.name}: {measured} of {limit}. The ring's line is the limit, the water stands at the measured figure.",
        _FRAME,
        *mark,
        *_water(surface),
        *_draught_marks(surface),
        text(f"limit {limit}", _FRAME.width - 8, limit_baseline, "end", "gauge-limit"),
        text(measured, _FRAME.width - 8, _measured_baseline(surface), "end", "gauge-measured"),
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
