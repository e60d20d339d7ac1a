"""How it was proven, where it was measured, and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from plimsoll.core.check import Check
from plimsoll.report.page import figures
from plimsoll.report.page.markup import Markup, join, tag
from plimsoll.report.report import Report
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Flips


def proof(details: ShipResult) -> Markup:
    """Return the split of the pictures and every table of the judgement."""
    return join(
        [_split(details), _checks(details), _flips(details), _deviation(details), _labelled(details), _notes(details)]
    )


def _split(details: ShipResult) -> Markup:
    split = details.split
    parts = [("calibration", split.calibration), ("validation", split.validation), ("test", split.test)]
    total = sum(count for _, count in parts)
    if not total:
        return Markup("")
    bars, start = [], 0.0
    for index, (name, count) in enumerate(parts):
        share = count / total
        bars.append(
            tag(
                "rect",
                tag("title", f"{name}: {count:,}"),
                x=f"{100 * start:.3f}%",
                y=0,
                width=f"{100 * share:.3f}%",
                height=14,
                class_=f"segment split-{index}",
            )
        )
        start += share
    told = ", ".join(f"{count:,} {name}" for name, count in parts)
    drawing = tag(
        "svg",
        tag("title", "How the pictures were split"),
        tag("desc", told),
        *bars,
        width="100%",
        height=14,
        role="img",
        class_="bar thin",
    )
    keys = (
        tag("li", tag("i", class_=f"swatch split-{index}"), tag("span", f"{count:,} for {name}"))
        for index, (name, count) in enumerate(parts)
    )
    left_out = [
        figures.counted(split.unreadable, "unreadable file") if split.unreadable else "",
        figures.counted(split.duplicates, "duplicate") if split.duplicates else "",
    ]
    rest = ", ".join(part for part in left_out if part)
    out = tag("li", f"left out: {rest}", class_="soft") if rest else ""
    return Markup(drawing + tag("ul", *keys, out, class_="legend"))


def _checks(details: ShipResult) -> Markup:
    judged = details.test
    if not judged.checks:
        return Markup("")
    failed = f" {figures.counted(judged.failed, 'picture')} could not be answered." if judged.failed else ""
    rows = [tag("tr", *_check(check)) for check in judged.checks]
    head = _head("check", "#measured", "#limit", "result")
    return tag(
        "table",
        tag("caption", f"The budget, on the {figures.counted(judged.count, 'picture')} that judge.{failed}"),
        head,
        tag("tbody", *rows),
        class_="plain",
    )


def _check(check: Check) -> Iterator[Markup]:
    unit = f" {check.unit}" if check.unit else ""
    detail = tag("small", check.detail) if check.detail else ""
    sign = "≤" if check.bound == "at_most" else "≥"
    yield tag("th", check.name, " ", detail, scope="row")
    yield tag("td", f"{figures.number(check.measured)}{unit}", class_="number")
    yield tag("td", f"{sign} {figures.number(check.limit)}{unit}", class_="number")
    yield tag("td", tag("strong", "✓ passed" if check.passed else "✗ failed", class_="yes" if check.passed else "no"))


def _flips(details: ShipResult) -> Markup:
    shown = [one for one in details.test.flips if one.count]
    if not shown:
        return Markup("")
    rows = [
        tag(
            "tr",
            tag("th", _threshold(one), scope="row"),
            _number(f"{one.flipped:,} of {one.count:,}"),
            _number(f"≤ {figures.percent_at_most(one.upper)}"),
        )
        for one in shown
    ]
    head = _head("decision", "#flipped", "#with 95 % confidence")
    return tag(
        "table",
        tag("caption", "Decisions flipped, with the exact (Clopper–Pearson) bound"),
        head,
        tag("tbody", *rows),
        class_="plain",
    )


def _threshold(flips: Flips) -> str:
    return "the top class" if flips.threshold is None else f"score ≥ {figures.number(flips.threshold)}"


def _deviation(details: ShipResult) -> Markup:
    judged = details.test
    values = [
        ("largest deviation", figures.number(judged.deviation.max, 2)),
        ("99th percentile", figures.number(judged.deviation.p99, 2)),
        ("mean deviation", figures.number(judged.deviation.mean, 2)),
        ("rank correlation", figures.number(judged.rank_correlation, 5)),
    ]
    rows = [
        tag("tr", tag("th", name, scope="row"), _number(value)) for name, value in values if value != figures.MISSING
    ]
    return (
        tag("table", tag("caption", "Scores against the reference's"), tag("tbody", *rows), class_="plain")
        if rows
        else Markup("")
    )


def _labelled(details: ShipResult) -> Markup:
    if not details.test.labelled:
        return Markup("")
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(_number(figures.number(value, 4)) for value in (metric.reference, metric.candidate)),
            _number(figures.signed(metric.drop)),
            _number(
                f"{figures.signed(metric.low)} to {figures.signed(metric.high)}"
                if figures.known(metric.low) and figures.known(metric.high)
                else figures.MISSING
            ),
        )
        for name, metric in details.test.labelled.items()
    ]
    head = _head("metric", "#reference", "#ships", "#drop", "#95 % interval")
    return tag("table", tag("caption", "Against the given labels"), head, tag("tbody", *rows), class_="plain")


def _notes(details: ShipResult) -> Markup:
    return tag("ul", *(tag("li", note) for note in details.notes), class_="notes") if details.notes else Markup("")


def _head(*names: str) -> Markup:
    cells = (
        tag("th", name.removeprefix("#"), scope="col", class_="number" if name.startswith("#") else None)
        for name in names
    )
    return tag("thead", tag("tr", *cells))


def _number(value: str) -> Markup:
    return tag("td", value, class_="number")


def surroundings(report: Report, details: ShipResult) -> Markup:
    """Return the machine and the versions, and the commands that repeat the work."""
    facts = [
        ("measured", f"{report.created:%Y-%m-%d %H:%M} UTC"),
        ("took", figures.duration(details.seconds)),
        ("plimsoll", report.plimsoll),
    ]
    facts += [(key.replace("_", " "), _words(value)) for key, value in report.environment.items() if key != "versions"]
    facts = [(name, value) for name, value in facts if value and value != figures.MISSING]
    table = tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts")
    commands = (
        tag("pre", "\n".join(details.commands), tabindex="0", aria_label="Commands to repeat this")
        if details.commands
        else ""
    )
    return join(
        [table, _versions(report.environment.get("versions")), tag("h3", "To repeat it") if commands else "", commands]
    )


def _versions(versions: JsonValue) -> Markup:
    if not isinstance(versions, dict) or not versions:
        return Markup("")
    return tag(
        "ul",
        *(tag("li", f"{name} {_words(value)}") for name, value in versions.items()),
        class_="versions",
        aria_label="Versions of packages",
    )


def _words(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return figures.number(value)
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return "" if value is None else value
