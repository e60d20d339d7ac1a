"""The ladder: every variant with all its figures, the fastest first, and why some don't ship."""

from __future__ import annotations

import math

from plimsoll.page import figures, marks
from plimsoll.page.data import ShipDetails, VariantRow
from plimsoll.page.markup import Markup, tag

_COLUMNS = ("No.", "variant", "speed", "images/s", "drift", "flips", "size", "load", "memory", "result")
_LEAST_FIRST = frozenset({"drift", "flips", "size", "load", "memory"})


def ladder(details: ShipDetails) -> Markup:
    """Return the table."""
    head = tag("tr", *(_head(name) for name in _COLUMNS), role="row")
    shapes = marks.shapes(details)
    rows = [_row(details, number, variant, shapes[variant.runtime]) for number, variant in enumerate(details.ladder(), 1)]
    caption = tag(
        "caption",
        "Every variant, the fastest first. Speeds are relative to the reference, with 95 % intervals from paired runs; images/s are these at the reference's "
        "pace in the last race. Drift is the largest one and the mean.",
    )
    table = tag("table", caption, tag("thead", head, role="rowgroup"), tag("tbody", *rows, role="rowgroup"), class_="ladder", role="table", data_sortable=True)
    return tag("div", table, class_="scroller", role="region", aria_label="The ladder of variants", tabindex="0")


def _head(name: str) -> Markup:
    number = "" if name in ("variant", "result") else "number"
    order = "ascending" if name in _LEAST_FIRST or name in ("No.", "variant", "result") else "descending"
    return tag("th", tag("span", name), scope="col", role="columnheader", class_=number or None, data_first=order)


def _row(details: ShipDetails, number: int, variant: VariantRow, shape: str) -> Markup:
    speed, flips = variant.speed, variant.worst_flips
    wins = variant.key == details.winner
    cells = [
        _cell("No.", str(number), number),
        _name(details, variant, shape),
        _cell("speed", _speed(variant), speed.ratio),
        _cell("images/s", figures.rate(speed.images_per_second), speed.images_per_second),
        _cell("drift", _drift(variant), variant.drift.max),
        _cell("flips", _flips(variant), flips.upper if flips else None),
        _cell("size", figures.size(variant.size_bytes), variant.size_bytes),
        _cell("load", figures.duration(variant.load_seconds), variant.load_seconds),
        _cell("memory", figures.size(variant.peak_bytes), variant.peak_bytes),
        _result(details, variant),
    ]
    kind = "winner" if wins else "beyond" if variant.passed is False else variant.status
    return tag("tr", *cells, id=f"variant-{number}", class_=kind, role="row", tabindex="-1")


def _cell(column: str, content: str, value: float | None) -> Markup:
    known = value is not None and math.isfinite(value)
    empty = " empty" if content == figures.MISSING else ""
    return tag("td", content, class_=f"number{empty}", role="cell", data_label=column, data_value=repr(value) if known else "")


def _name(details: ShipDetails, variant: VariantRow, shape: str) -> Markup:
    sign = marks.sample(shape, f"point {marks.precision_class(variant.precision)}{' hollow' if variant.passed is False else ''}")
    badge = tag("b", "ships", class_="badge") if variant.key == details.winner else Markup("")
    parts = [variant.calibrator or "", f"{variant.steps} steps" if variant.steps else "", "folded" if variant.folded else "", variant.mixture]
    how = ", ".join(part for part in parts if part) or variant.name
    words = tag("span", tag("span", variant.target or variant.name, class_="target"), " ", badge, tag("small", how), class_="name-words")
    return tag("th", tag("span", sign, words, class_="name"), scope="row", role="rowheader", data_label="variant", data_value=variant.name, title=variant.name)


def _speed(variant: VariantRow) -> Markup:
    speed = variant.speed
    if not figures.known(speed.ratio):
        return Markup(figures.MISSING)
    known = figures.known(speed.low) and figures.known(speed.high)
    interval = tag("small", figures.interval(speed.low, speed.high)) if known and speed.high != speed.low else ""
    verdict = tag("small", speed.verdict, class_="verdict-word") if speed.verdict else ""
    return tag("span", verdict, " ", tag("strong", figures.times(speed.ratio)), " ", interval)


def _drift(variant: VariantRow) -> str:
    """The largest first; the other measures below it."""
    if variant.drift.max is None and variant.drift.mean is None:
        return figures.MISSING
    mean = tag("small", f"mean {figures.number(variant.drift.mean, 2)}") if variant.drift.mean is not None else ""
    return tag("span", figures.number(variant.drift.max, 2), " ", mean)


def _flips(variant: VariantRow) -> str:
    flips = variant.worst_flips
    if flips is None:
        return figures.MISSING
    bound = tag("small", f"≤ {figures.percent_at_most(flips.upper)}") if figures.known(flips.upper) else Markup("")
    return tag("span", f"{flips.flipped:,} of {flips.count:,} ", bound)


def _result(details: ShipDetails, variant: VariantRow) -> Markup:
    verdict, why = outcome(variant)
    if variant.key == details.reference and variant.passed is not False:
        verdict = "reference"
    mark = {"passed": "✓ ", "beyond the budget": "✗ ", "failed": "✗ "}.get(verdict, "")
    kind = {"passed": "yes", "beyond the budget": "no", "failed": "no"}.get(verdict, "")
    reason = tag("small", why) if why else Markup("")
    return tag("td", tag("strong", f"{mark}{verdict}", class_=kind or None), " ", reason, class_="result", role="cell", data_label="result", data_value=verdict)


def outcome(variant: VariantRow) -> tuple[str, str]:
    """Return the verdict on a variant in a word or two, and the reason."""
    if variant.status != "ok":
        return variant.status, variant.reason
    if variant.passed is None:
        return "not judged", variant.reason
    if variant.passed:
        return "passed", variant.reason
    missed = [
        f"{check.name} {figures.number(check.measured)}{_unit(check.unit)}, limit {figures.number(check.limit)}{_unit(check.unit)}"
        for check in variant.checks
        if not check.passed
    ]
    return "beyond the budget", "; ".join([*([variant.reason] if variant.reason else []), *missed])


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
