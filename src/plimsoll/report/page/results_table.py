"""The ladder: every candidate with all its figures, the fastest first, and why some don't ship."""

from __future__ import annotations

import math

from plimsoll.report.page import figures, marks
from plimsoll.report.page.markup import Markup, tag
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Trial

_COLUMNS = ("No.", "candidate", "speed", "images/s", "deviation", "flips", "size", "load", "memory", "result")
_LEAST_FIRST = frozenset({"deviation", "flips", "size", "load", "memory"})


def ladder(details: ShipResult) -> Markup:
    """Return the table."""
    head = tag("tr", *(_head(name) for name in _COLUMNS), role="row")
    shapes = marks.shapes(details)
    rows = [_row(details, number, trial, shapes[trial.runtime]) for number, trial in enumerate(details.ranked(), 1)]
    caption = tag(
        "caption",
        "Every candidate, the fastest first. Speeds are relative to the reference, with 95 % intervals from paired"
        " runs; images/s are these at the reference's pace in the last race. Deviation is the largest one and the"
        " mean.",
    )
    table = tag(
        "table",
        caption,
        tag("thead", head, role="rowgroup"),
        tag("tbody", *rows, role="rowgroup"),
        class_="ladder",
        role="table",
        data_sortable=True,
    )
    return tag("div", table, class_="scroller", role="region", aria_label="The ladder of candidates", tabindex="0")


def _head(name: str) -> Markup:
    number = "" if name in ("candidate", "result") else "number"
    order = "ascending" if name in _LEAST_FIRST or name in ("No.", "candidate", "result") else "descending"
    return tag("th", tag("span", name), scope="col", role="columnheader", class_=number or None, data_first=order)


def _row(details: ShipResult, number: int, trial: Trial, shape: str) -> Markup:
    speed, flips = trial.measured.speed, trial.validation.worst_flips
    wins = trial.key == details.winner
    cells = [
        _cell("No.", str(number), number),
        _name(details, trial, shape),
        _cell("speed", _speed(trial), speed.ratio),
        _cell("images/s", figures.rate(speed.images_per_second), speed.images_per_second),
        _cell("deviation", _deviation(trial), trial.validation.deviation.max),
        _cell("flips", _flips(trial), flips.upper if flips else None),
        _cell("size", figures.size(trial.measured.size_bytes), trial.measured.size_bytes),
        _cell("load", figures.duration(trial.measured.load_seconds), trial.measured.load_seconds),
        _cell("memory", figures.size(trial.measured.peak_bytes), trial.measured.peak_bytes),
        _result(details, trial),
    ]
    kind = "winner" if wins else "beyond" if trial.passed is False else trial.status
    return tag("tr", *cells, id=f"candidate-{number}", class_=kind, role="row", tabindex="-1")


def _cell(column: str, content: str, value: float | None) -> Markup:
    known = value is not None and math.isfinite(value)
    empty = " empty" if content == figures.MISSING else ""
    return tag(
        "td", content, class_=f"number{empty}", role="cell", data_label=column, data_value=repr(value) if known else ""
    )


def _name(details: ShipResult, trial: Trial, shape: str) -> Markup:
    sign = marks.sample(
        shape, f"point {marks.precision_class(trial.precision)}{' hollow' if trial.passed is False else ''}"
    )
    badge = tag("b", "ships", class_="badge") if trial.key == details.winner else Markup("")
    parts = [
        trial.candidate.calibrator or "",
        f"{trial.candidate.preprocessing} preprocessing",
        "folded" if trial.candidate.folded else "",
        trial.candidate.mixture,
    ]
    how = ", ".join(part for part in parts if part)
    words = tag(
        "span",
        tag("span", str(trial.candidate.target), class_="target"),
        " ",
        badge,
        tag("small", how),
        class_="name-words",
    )
    return tag(
        "th",
        tag("span", sign, words, class_="name"),
        scope="row",
        role="rowheader",
        data_label="candidate",
        data_value=trial.name,
        title=trial.name,
    )


def _speed(trial: Trial) -> Markup:
    speed = trial.measured.speed
    if not figures.known(speed.ratio):
        return Markup(figures.MISSING)
    known = figures.known(speed.low) and figures.known(speed.high)
    interval = tag("small", figures.interval(speed.low, speed.high)) if known and speed.high != speed.low else ""
    verdict = tag("small", speed.verdict, class_="verdict-word") if speed.verdict else ""
    return tag("span", verdict, " ", tag("strong", figures.times(speed.ratio)), " ", interval)


def _deviation(trial: Trial) -> str:
    """The largest first; the other measures below it."""
    if not figures.known(trial.validation.deviation.max) and not figures.known(trial.validation.deviation.mean):
        return figures.MISSING
    mean = (
        tag("small", f"mean {figures.number(trial.validation.deviation.mean, 2)}")
        if figures.known(trial.validation.deviation.mean)
        else ""
    )
    return tag("span", figures.number(trial.validation.deviation.max, 2), " ", mean)


def _flips(trial: Trial) -> str:
    flips = trial.validation.worst_flips
    if flips is None:
        return figures.MISSING
    bound = tag("small", f"≤ {figures.percent_at_most(flips.upper)}") if figures.known(flips.upper) else Markup("")
    return tag("span", f"{flips.flipped:,} of {flips.count:,} ", bound)


def _result(details: ShipResult, trial: Trial) -> Markup:
    verdict, why = outcome(trial)
    if trial.key == details.reference and trial.passed is not False:
        verdict = "reference"
    mark = {"passed": "✓ ", "beyond the budget": "✗ ", "failed": "✗ "}.get(verdict, "")
    kind = {"passed": "yes", "beyond the budget": "no", "failed": "no"}.get(verdict, "")
    reason = tag("small", why) if why else Markup("")
    return tag(
        "td",
        tag("strong", f"{mark}{verdict}", class_=kind or None),
        " ",
        reason,
        class_="result",
        role="cell",
        data_label="result",
        data_value=verdict,
    )


def outcome(trial: Trial) -> tuple[str, str]:
    """Return the verdict on a candidate in a word or two, and the reason."""
    if trial.status != "ok":
        return trial.status, trial.reason
    if trial.passed is None:
        return "not judged", trial.reason
    if trial.passed:
        return "passed", trial.reason
    missed = [
        f"{check.name} {figures.number(check.measured)}{_unit(check.unit)}, limit"
        f" {figures.number(check.limit)}{_unit(check.unit)}"
        for check in trial.validation.checks
        if not check.passed
    ]
    return "beyond the budget", "; ".join([*([trial.reason] if trial.reason else []), *missed])


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
