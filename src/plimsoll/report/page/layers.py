"""Where the deviation enters: signal and noise of every tensor, in the order in which the network computes them."""

from __future__ import annotations

import math

from plimsoll.report.page import figures, marks
from plimsoll.report.page.drawing import Frame, both_widths, chart, line, rectangle, text
from plimsoll.report.page.labels import Anchor, Box
from plimsoll.report.page.markup import Markup, tag
from plimsoll.report.page.scale import Linear, covering
from plimsoll.report.ship_result import LayerSnr, ShipResult

_WIDE = Frame(1000, 310, 56, 34, 16, 42)
_NARROW = Frame(390, 270, 40, 44, 8, 40)
_NAMED = 5


def layers(details: ShipResult) -> Markup:
    """Return the chart and a table of the worst; nothing where no layer was measured."""
    if not any(not math.isnan(layer.snr_db) for layer in details.layers):
        return Markup("")
    return Markup(
        both_widths(draw(details, _WIDE, "layers-wide"), draw(details, _NARROW, "layers-narrow")) + _table(details)
    )


def worst(details: ShipResult) -> list[tuple[int, LayerSnr]]:
    """Return place (from 1) and layer of those with a figure, the noisiest first."""
    known = [(place, layer) for place, layer in enumerate(details.layers, 1) if layer.snr_db < math.inf]
    return sorted(known, key=lambda pair: pair[1].snr_db)


def summary(details: ShipResult) -> str:
    """Return what the chart says."""
    ranked = worst(details)
    if not ranked:
        return "Every tensor is equal to the reference's."
    place, layer = ranked[0]
    return (
        f"Signal-to-noise ratio of {figures.counted(len(details.layers), 'tensor')}, in the order in which they are"
        f" computed; at 20 dB the noise is a tenth of the signal. The noisiest is {layer.name}"
        f" ({layer.operator or 'no operator'}), number {place}, at {decibels(layer.snr_db)}."
    )


def decibels(value: float) -> str:
    """Return a ratio in dB; equal tensors have an infinite one."""
    if value == math.inf:
        return "equal"
    return f"{value:.1f} dB".replace("-", "−") if math.isfinite(value) else figures.number(value)


def draw(details: ShipResult, frame: Frame, name: str) -> Markup:
    """Return the chart: a stem a tensor, hanging from the best ratio down to its own, so that noise reaches deep."""
    area = frame.area
    known = [layer.snr_db for layer in details.layers if math.isfinite(layer.snr_db)]
    y = covering([*known, 0.0, 40.0], area.bottom, area.top)
    step = (area.right - area.left) / max(1, len(details.layers))
    grid = [
        mark
        for tick in y.ticks(4)
        for mark in (
            line(area.left, y(tick), area.right, y(tick), "grid"),
            text(figures.number(tick), area.left - 8, y(tick) + 4, "end", "tick"),
        )
    ]
    lowest = worst(details)[:1]
    stems = [
        _stem(layer, area.left + (index + 0.5) * step, step, y, area) for index, layer in enumerate(details.layers)
    ]
    profile = [
        (area.left + (index + 0.5) * step, y(min(layer.snr_db, y.high)))
        for index, layer in enumerate(details.layers)
        if layer.snr_db > -math.inf
    ]
    return chart(
        name,
        "Signal-to-noise ratio, layer by layer",
        summary(details),
        frame,
        *grid,
        *stems,
        tag("path", d=marks.path(profile), class_="profile") if len(profile) > 1 else "",
        *(_worst_label(layer, area.left + (place - 0.5) * step, y, area) for place, layer in lowest),
        text("dB", area.left - 8, area.top - 15, "end", "axis-name"),
        text("first layer", area.left, frame.height - 14, "start", "axis-name"),
        text("last →", area.right, frame.height - 14, "end", "axis-name"),
        line(area.left, area.bottom, area.right, area.bottom, "axis"),
    )


def _stem(layer: LayerSnr, x: float, step: float, y: Linear, area: Box) -> Markup:
    told = tag("title", f"{layer.name} ({layer.operator}): {decibels(layer.snr_db)}")
    half = max(0.5, min(step * 0.36, 12))
    if math.isnan(layer.snr_db):
        return rectangle(Box(x - half, area.top, x + half, area.bottom), "stem unknown", told)
    return rectangle(Box(x - half, y(min(layer.snr_db, y.high)), x + half, area.bottom), "stem", told)


def _worst_label(layer: LayerSnr, x: float, y: Linear, area: Box) -> Markup:
    at = y(layer.snr_db)
    anchor: Anchor = (
        "start"
        if x < area.left + (area.right - area.left) / 3
        else "end"
        if x > area.right - (area.right - area.left) / 3
        else "middle"
    )
    name = layer.name if len(layer.name) <= 28 else f"{layer.name[:13]}…{layer.name[-13:]}"
    ring = tag("circle", cx=x, cy=at, r=5, class_="worst-ring")
    words = text(f"{name}: {decibels(layer.snr_db)}", x, area.top - 8, anchor, "label worst-name")
    return Markup(line(x, area.top - 3, x, at - 5, "leader") + ring + words)


def _table(details: ShipResult) -> Markup:
    rows = [
        tag(
            "tr",
            tag("td", str(place), class_="number"),
            tag("th", layer.name, scope="row"),
            tag("td", layer.operator),
            tag("td", decibels(layer.snr_db), class_="number"),
        )
        for place, layer in worst(details)[:_NAMED]
    ]
    if not rows:
        return Markup("")
    head = tag(
        "tr",
        *(
            tag("th", name, scope="col", class_="number" if name in ("No.", "SNR") else None)
            for name in ("No.", "tensor", "operator", "SNR")
        ),
    )
    return tag("table", tag("caption", "The noisiest"), tag("thead", head), tag("tbody", *rows), class_="plain")
