"""The ladder: every candidate with all its figures, the fastest first, and why some don't ship."""

from __future__ import annotations

import math

from plimsoll.report.page import figures, marks
from plimsoll.report.page.data import CandidateRow, ShipDetails
from plimsoll.report.page.markup import Markup, tag

_COLUMNS = ("No.", "candidate", "speed", "images/s", "deviation", "flips", "size", "load", "memory", "result")
_LEAST_FIRST = frozenset({"deviation", "flips", "size", "load", "memory"})


def ladder(details: ShipDetails) -> Markup:
    """Return the table."""
    head = tag("tr", *(_head(name) for name in _COLUMNS), role="row")
    shapes = marks.shapes(details)
    rows = [
        _row(details, number, candidate, shapes[candidate.runtime])
        for number, candidate in enumerate(details.ladder(), 1)
    ]
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


def _row(details: ShipDetails, number: int, candidate: CandidateRow, shape: str) -> Markup:
    speed, flips = candidate.speed, candidate.worst_flips
    wins = candidate.key == details.winner
    cells = [
        _cell("No.", str(number), number),
        _name(details, candidate, shape),
        _cell("speed", _speed(candidate), speed.ratio),
        _cell("images/s", figures.rate(speed.images_per_second), speed.images_per_second),
        _cell("deviation", _deviation(candidate), candidate.deviation.max),
        _cell("flips", _flips(candidate), flips.upper if flips else None),
        _cell("size", figures.size(candidate.size_bytes), candidate.size_bytes),
        _cell("load", figures.duration(candidate.load_seconds), candidate.load_seconds),
        _cell("memory", figures.size(candidate.peak_bytes), candidate.peak_bytes),
        _result(details, candidate),
    ]
    kind = "winner" if wins else "beyond" if candidate.passed is False else candidate.status
    return tag("tr", *cells, id=f"candidate-{number}", class_=kind, role="row", tabindex="-1")


def _cell(column: str, content: str, value: float | None) -> Markup:
    known = value is not None and math.isfinite(value)
    empty = " empty" if content == figures.MISSING else ""
    return tag(
        "td", content, class_=f"number{empty}", role="cell", data_label=column, data_value=repr(value) if known else ""
    )


def _name(details: ShipDetails, candidate: CandidateRow, shape: str) -> Markup:
    sign = marks.sample(
        shape, f"point {marks.precision_class(candidate.precision)}{' hollow' if candidate.passed is False else ''}"
    )
    badge = tag("b", "ships", class_="badge") if candidate.key == details.winner else Markup("")
    parts = [
        candidate.calibrator or "",
        f"{candidate.steps} steps" if candidate.steps else "",
        "folded" if candidate.folded else "",
        candidate.mixture,
    ]
    how = ", ".join(part for part in parts if part) or candidate.name
    words = tag(
        "span",
        tag("span", candidate.target or candidate.name, class_="target"),
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
        data_value=candidate.name,
        title=candidate.name,
    )


def _speed(candidate: CandidateRow) -> Markup:
    speed = candidate.speed
    if not figures.known(speed.ratio):
        return Markup(figures.MISSING)
    known = figures.known(speed.low) and figures.known(speed.high)
    interval = tag("small", figures.interval(speed.low, speed.high)) if known and speed.high != speed.low else ""
    verdict = tag("small", speed.verdict, class_="verdict-word") if speed.verdict else ""
    return tag("span", verdict, " ", tag("strong", figures.times(speed.ratio)), " ", interval)


def _deviation(candidate: CandidateRow) -> str:
    """The largest first; the other measures below it."""
    if candidate.deviation.max is None and candidate.deviation.mean is None:
        return figures.MISSING
    mean = (
        tag("small", f"mean {figures.number(candidate.deviation.mean, 2)}")
        if candidate.deviation.mean is not None
        else ""
    )
    return tag("span", figures.number(candidate.deviation.max, 2), " ", mean)


def _flips(candidate: CandidateRow) -> str:
    flips = candidate.worst_flips
    if flips is None:
        return figures.MISSING
    bound = tag("small", f"≤ {figures.percent_at_most(flips.upper)}") if figures.known(flips.upper) else Markup("")
    return tag("span", f"{flips.flipped:,} of {flips.count:,} ", bound)


def _result(details: ShipDetails, candidate: CandidateRow) -> Markup:
    verdict, why = outcome(candidate)
    if candidate.key == details.reference and candidate.passed is not False:
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


def outcome(candidate: CandidateRow) -> tuple[str, str]:
    """Return the verdict on a candidate in a word or two, and the reason."""
    if candidate.status != "ok":
        return candidate.status, candidate.reason
    if candidate.passed is None:
        return "not judged", candidate.reason
    if candidate.passed:
        return "passed", candidate.reason
    missed = [
        f"{check.name} {figures.number(check.measured)}{_unit(check.unit)}, limit"
        f" {figures.number(check.limit)}{_unit(check.unit)}"
        for check in candidate.checks
        if not check.passed
    ]
    return "beyond the budget", "; ".join([*([candidate.reason] if candidate.reason else []), *missed])


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
