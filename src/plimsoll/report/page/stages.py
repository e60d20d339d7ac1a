"""Where the time goes: the work on one picture, stage by stage, reference and winner on one scale."""

from __future__ import annotations

import math

from plimsoll.report.page import figures
from plimsoll.report.page.markup import Markup, tag
from plimsoll.report.ship_result import ShipResult

_NETWORK = frozenset({"inference", "network", "infer"})
_ANSWER = frozenset({"output", "answer", "postprocess", "decode output"})
_WAITING = frozenset({"queue", "wait", "waiting", "transfer"})
_TINTS = 6
_FITS = 0.11
"""A share of the longest bar below which the figure is not written into the segment: it would not fit on a phone."""

Stages = list[tuple[str, float]]


def stages(details: ShipResult) -> Markup:
    """Return both bars and the table beside them; nothing where no stage was timed."""
    before, after = _known(details.stages.reference), _known(details.stages.winner)
    longest = max(_total(before), _total(after))
    if longest <= 0:
        return Markup("")
    bars = [_bar(name, measured, longest) for name, measured in (("reference", before), ("ships", after)) if measured]
    return tag(
        "div",
        tag("div", *bars, _without_network(details, after, longest), class_="bars"),
        _table(before, after),
        class_="beside",
    )


def summary(details: ShipResult) -> str:
    """Return what the bars say, in a sentence or two."""
    before, after = _known(details.stages.reference), _known(details.stages.winner)
    total = _total(after)
    if total <= 0:
        return ""
    network = sum(value for name, value in after if name.lower() in _NETWORK)
    versus = f" instead of {figures.milliseconds(_total(before))} ms" if before else ""
    said = (
        f"One picture is {figures.milliseconds(total)} ms of work{versus}; the network is"
        f" {figures.percent(network / total)} of it."
    )
    ceiling = details.infinite_network_images_per_second
    return (
        f"{said} With an infinitely fast network: {figures.rate(ceiling)} images/s." if figures.known(ceiling) else said
    )


def _known(measured: dict[str, float]) -> Stages:
    return [(name, value) for name, value in measured.items() if math.isfinite(value) and value >= 0]


def _total(measured: Stages) -> float:
    return sum(value for _, value in measured)


def stage_class(name: str, place: int) -> str:
    """Return the CSS class of a stage: the network, the answer and waiting stand out, the input steps are tints of one
    colour."""
    lowered = name.lower()
    if lowered in _NETWORK:
        return "s-network"
    if lowered in _ANSWER:
        return "s-answer"
    return "s-waiting" if lowered in _WAITING else f"s-input-{place % _TINTS}"


def _bar(name: str, measured: Stages, longest: float, means: str = "") -> Markup:
    """Return one bar as an SVG in per cent of its width: it fills any column, and its text keeps its size."""
    parts, start = [], 0.0
    for place, (stage, value) in enumerate(measured):
        share = value / longest
        told = f"{stage}: {figures.milliseconds(value)} ms, {figures.percent(value / _total(measured))}"
        box = tag(
            "rect",
            tag("title", told),
            x=f"{100 * start:.3f}%",
            y=0,
            width=f"{100 * share:.3f}%",
            height=44,
            class_=f"segment {stage_class(stage, place)}",
        )
        parts.append(box)
        if share >= _FITS:
            middle = f"{100 * (start + share / 2):.3f}%"
            parts.append(
                tag(
                    "text",
                    figures.milliseconds(value),
                    x=middle,
                    y=27,
                    text_anchor="middle",
                    class_=f"segment-text t-{stage_class(stage, place)}",
                )
            )
        start += share
    title = f"{name}: {figures.milliseconds(_total(measured))} ms a picture"
    told = "; ".join(f"{stage} {figures.milliseconds(value)} ms" for stage, value in measured)
    drawing = tag(
        "svg", tag("title", title), tag("desc", told), *parts, width="100%", height=44, role="img", class_="bar"
    )
    return tag(
        "div",
        tag(
            "p",
            tag("b", name),
            f" {figures.milliseconds(_total(measured))} ms",
            f", {means}" if means else "",
            class_="bar-name",
        ),
        drawing,
    )


def _without_network(details: ShipResult, after: Stages, longest: float) -> Markup:
    """Return the bar that would be left if the network took no time; nothing where there is none."""
    if not figures.known(details.infinite_network_images_per_second) or not any(
        name.lower() in _NETWORK for name, _ in after
    ):
        return Markup("")
    rest = [(name, 0.0 if name.lower() in _NETWORK else value) for name, value in after]
    if _total(rest) <= 0:
        return Markup("")
    return _bar(
        "with an infinitely fast network",
        rest,
        longest,
        f"{figures.rate(details.infinite_network_images_per_second)} images/s",
    )


def _in_order(before: list[str], after: list[str]) -> list[str]:
    """Return all names once; what only the second list has stands behind what it follows there."""
    names = list(dict.fromkeys(before))
    for place, name in enumerate(after):
        if name not in names:
            names.insert(names.index(after[place - 1]) + 1 if place else 0, name)
    return names


def _table(before: Stages, after: Stages) -> Markup:
    names = _in_order([name for name, _ in before], [name for name, _ in after])
    of = dict(before), dict(after)
    places = {name: place for measured in (before, after) for place, (name, _) in enumerate(measured)}
    rows = []
    for name in names:
        swatch = tag("i", class_=f"swatch {stage_class(name, places[name])}")
        rows.append(
            tag(
                "tr",
                tag("th", swatch, name, scope="row"),
                *_figures(of[0].get(name), _total(before)),
                *_figures(of[1].get(name), _total(after)),
            )
        )
    foot = tag("tr", tag("th", "together", scope="row"), *_figures(_total(before), 0), *_figures(_total(after), 0))
    head = tag(
        "tr",
        tag("th", "stage", scope="col"),
        *(tag("th", name, scope="col", class_="number") for name in ("reference", "share", "ships", "share")),
    )
    return tag(
        "table",
        tag("caption", "Milliseconds of work for one picture"),
        tag("thead", head),
        tag("tbody", *rows),
        tag("tfoot", foot),
        class_="plain stage-table",
    )


def _figures(value: float | None, total: float) -> tuple[Markup, Markup]:
    share = figures.percent(value / total) if value is not None and total > 0 else ""
    return tag("td", figures.milliseconds(value) if value is not None else figures.MISSING, class_="number"), tag(
        "td", share, class_="number soft"
    )
