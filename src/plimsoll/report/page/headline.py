"""The head of the page: how many times faster, at which loss, proven on how many pictures."""

from __future__ import annotations

import math
import re

from plimsoll.core.check import Check
from plimsoll.report.page import figures, marks
from plimsoll.report.page.drawing import Frame, chart, line, text
from plimsoll.report.page.markup import Markup, tag
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Flips, Trial


def title(details: ShipResult) -> str:
    """Return the headline, one line of plain text."""
    if details.outcome == "nothing_passed":
        return "Nothing passed: the reference ships"
    if details.outcome == "not_better":
        return f"Not {_better(details)}: the simplest is kept"
    winner, reference = details.trial(details.winner), details.trial(details.reference)
    return f"{_how_much(details, winner, reference)}, {_loss(details)}"


def _better(details: ShipResult) -> str:
    return "smaller" if details.objective == "size" else "faster"


def _how_much(details: ShipResult, winner: Trial | None, reference: Trial | None) -> str:
    """Return by how much the winner is better: 4.8× faster, 74 % smaller."""
    if details.objective == "size":
        sizes = [trial.measured.size_bytes if trial else math.nan for trial in (winner, reference)]
        return f"{figures.less(*sizes)} smaller" if all(map(figures.known, sizes)) else "Smaller"
    ratio = winner.measured.speed.ratio if winner else None
    return f"{figures.roughly_times(ratio)} faster" if figures.known(ratio) else "Faster"


def _in_parts(words: str) -> list[Markup]:
    """A headline breaks after its comma or colon where it does not fit on one line."""
    return [tag("span", part) for part in re.split(r"(?<=[,:] )", words)]


def _loss(details: ShipResult) -> str:
    flips = details.test.worst_flips
    if flips is not None:
        return f"{flips.flipped:,} of {flips.count:,} decisions flipped"
    if figures.known(details.test.deviation.max):
        return f"deviation {figures.number(details.test.deviation.max, 2)} at most"
    return "inside the budget" if budget_kept(details) else "beyond the budget"


def budget_kept(details: ShipResult) -> bool:
    """Whether every check on the test part passed; False where there was none."""
    return details.test.passed


def sentences(details: ShipResult) -> list[str]:
    """Return what stands below the headline: the sample, the confidence, and why this candidate."""
    measured = sum(trial.status == "ok" for trial in details.trials)
    tried = f"{figures.counted(len(details.trials), 'candidate')} tried, {measured} measured"
    if details.outcome == "nothing_passed":
        return [f"{tried}; none kept the budget. So the network ships as it was trained, behind its own input steps."]
    if details.outcome == "not_better":
        than = (
            "the least gain that was asked for"
            if details.objective == "size"
            else "the noise and the least gain that was asked for"
        )
        return [
            f"{tried}; none inside the budget was {_better(details)} by more than {than}. So the simplest one ships.",
            *_proof(details),
        ]
    return _proof(details) or ["It was not judged on pictures of their own: read the ladder before you rely on it."]


def _proof(details: ShipResult) -> list[str]:
    judged = details.test
    if not judged.count:
        return []
    said = []
    flips = judged.worst_flips
    if flips is not None:
        bound = (
            f", and with 95 % confidence no more than {figures.percent_at_most(flips.upper)} of all decisions flip"
            if figures.known(flips.upper)
            else ""
        )
        said.append(f"{_flips_in_words(flips)}{bound}")
    if figures.known(judged.deviation.max):
        said.append(f"no score moved by more than {figures.number(judged.deviation.max, 2)}")
    body = "; ".join(said) if said else "the budget's checks stand below"
    return [f"On {figures.counted(judged.count, 'picture')} that nothing had seen before: {body}."]


def _flips_in_words(flips: Flips) -> str:
    where = "the top class" if flips.threshold is None else f"threshold {figures.number(flips.threshold)}"
    return f"{flips.flipped:,} of {flips.count:,} decisions flipped at {where}"


def header(details: ShipResult, subject: str) -> Markup:
    """Return the page's head."""
    winner, reference = details.trial(details.winner), details.trial(details.reference)
    words = tag(
        "div",
        tag("p", marks.plimsoll_mark(34), tag("span", subject), class_="subject"),
        tag("h1", *_in_parts(title(details))),
        *(tag("p", sentence, class_="lead") for sentence in sentences(details)),
        _verdict(details),
        _plate(details, winner, reference),
        class_="words",
    )
    return tag("header", tag("div", words, gauge(details), class_="hull"), class_=f"ship {details.outcome}")


def _verdict(details: ShipResult) -> Markup:
    budget = ", ".join(details.budget.texts)
    stated = f" ({budget})" if budget else ""
    if details.outcome == "nothing_passed":
        return tag("p", f"No candidate kept the budget{stated}", class_="verdict no")
    if not details.test.checks:
        return tag("p", f"Budget not judged{stated}", class_="verdict no")
    return (
        tag("p", f"Budget kept{stated}", class_="verdict yes")
        if budget_kept(details)
        else tag("p", f"Budget not kept{stated}", class_="verdict no")
    )


def _plate(details: ShipResult, winner: Trial | None, reference: Trial | None) -> Markup:
    """Return the builder's plate: what ships, and its main figures beside the reference's."""
    name = winner.name if winner else details.winner
    facts = [("ships", name)]
    if winner and reference:
        facts += [
            (
                "images a second",
                _change(
                    figures.rate(reference.measured.speed.images_per_second),
                    figures.rate(winner.measured.speed.images_per_second),
                ),
            ),
            ("speed", _with_interval(winner)),
            ("on disk", _change(figures.size(reference.measured.size_bytes), figures.size(winner.measured.size_bytes))),
            (
                "peak memory",
                _change(figures.size(reference.measured.peak_bytes), figures.size(winner.measured.peak_bytes)),
            ),
        ]
    return tag(
        "dl",
        *(tag("div", tag("dt", term), tag("dd", value)) for term, value in facts if value != figures.MISSING),
        class_="plate",
    )


def _change(before: str, after: str) -> str:
    if figures.MISSING in (before, after):
        return after
    return after if before == after else f"{before} → {after}"


def _with_interval(trial: Trial) -> str:
    speed = trial.measured.speed
    known = figures.known(speed.low) and figures.known(speed.high) and speed.low != speed.high
    return (
        f"{figures.times(speed.ratio)} ({figures.interval(speed.low, speed.high)})"
        if known
        else figures.times(speed.ratio)
    )


def nearest_check(checks: tuple[Check, ...]) -> Check | None:
    """Return the check that lies nearest its limit, of those whose limit is the most that passes."""
    usable = [
        check
        for check in checks
        if check.bound == "at_most" and check.limit > 0 and math.isfinite(check.measured) and math.isfinite(check.limit)
    ]
    return max(usable, key=lambda check: check.measured / check.limit, default=None)


_GAUGE = Frame(360, 380, 0, 0, 0, 0)
_LINE_Y, _KEEL_Y, _MIDDLE = 112.0, 306.0, 160.0


def gauge(details: ShipResult) -> Markup:
    """Return the load-line mark with the water as high as the budget is used; the mark alone where no check can be
    drawn."""
    check = nearest_check(details.test.checks)
    mark = (
        tag("circle", cx=_MIDDLE, cy=_LINE_Y, r=56, class_="ring"),
        line(_MIDDLE - 98, _LINE_Y, _MIDDLE + 98, _LINE_Y, "ring"),
    )
    if check is None:
        dry = chart(
            "gauge",
            "The Plimsoll mark",
            "No check was measured that would say how much of the budget is used.",
            _GAUGE,
            *mark,
        )
        return tag("figure", dry, class_="gauge dry")
    used = check.measured / check.limit
    surface = max(24.0, _KEEL_Y - used * (_KEEL_Y - _LINE_Y))
    unit = f" {check.unit}" if check.unit else ""
    limit, measured = f"{figures.number(check.limit)}{unit}", f"{figures.number(check.measured)}{unit}"
    drawing = chart(
        "gauge",
        "How much of the budget is used",
        f"{check.name}: {measured} of {limit}. The ring's line is the limit, the water stands at the measured figure.",
        _GAUGE,
        *mark,
        _water(surface),
        *_draught_marks(surface),
        text(
            f"limit {limit}",
            _MIDDLE + 108,
            _LINE_Y + 5 if abs(surface - _LINE_Y) > 18 else _LINE_Y - 12,
            "start",
            "gauge-limit",
        ),
        text(measured, _MIDDLE + 108, _beside_line(surface), "start", "gauge-measured"),
    )
    return tag("figure", drawing, tag("figcaption", f"{check.name}: {measured} of the allowed {limit}"), class_="gauge")


def _draught_marks(surface: float) -> list[Markup]:
    scale = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _KEEL_Y - share * (_KEEL_Y - _LINE_Y)
        scale.append(line(34, y, 46, y, "draught"))
        if abs(y - surface) > 10:
            scale.append(text(f"{share * 100:.0f}", 28, y + 4, "end", "draught-number"))
    return scale


def _beside_line(surface: float) -> float:
    """Return the baseline of the measured figure: above its water, but clear of the limit's text."""
    baseline = surface - 9
    if abs(baseline - (_LINE_Y + 5)) < 22:
        baseline = _LINE_Y + 29 if surface >= _LINE_Y else _LINE_Y - 19
    return baseline


def _water(surface: float) -> Markup:
    waves = f"M0 {surface:.1f}" + "q15 -7 30 0t30 0" * 6
    return Markup(tag("path", d=f"{waves}V380H0z", class_="water") + tag("path", d=waves, class_="surface"))
