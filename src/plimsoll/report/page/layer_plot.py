"""Where the deviation enters: signal and noise of every tensor, in the order in which the network computes them."""

from __future__ import annotations

import math

from markupsafe import Markup

from plimsoll.report import figures
from plimsoll.report.page import svg
from plimsoll.report.page.axes import Linear, covering
from plimsoll.report.page.label_placement import Anchor, Box
from plimsoll.report.page.svg import Frame, element, line, text
from plimsoll.report.ship_result import LayerSnr, ShipResult

_WIDE = Frame(1000, 310, 56, 34, 16, 42)
_NARROW = Frame(390, 270, 40, 44, 8, 40)


def layer_plot(result: ShipResult) -> Markup:
    """Return the chart, drawn for a desktop and for a phone; nothing where no layer was measured."""
    if all(math.isnan(layer.snr_db) for layer in result.layers):
        return Markup("")
    return svg.both_widths(_draw(result, _WIDE, "layers-wide"), _draw(result, _NARROW, "layers-narrow"))


def noisiest(result: ShipResult) -> list[tuple[int, LayerSnr]]:
    """Return number (from 1) and layer of those with a figure, the noisiest first."""
    noisy = [(number, layer) for number, layer in enumerate(result.layers, 1) if layer.snr_db < math.inf]
    return sorted(noisy, key=lambda pair: pair[1].snr_db)


def summary(result: ShipResult) -> str:
    """Return what the chart says."""
    ranked = noisiest(result)
    if not ranked:
        return "Every tensor is equal to the reference's."
    number, layer = ranked[0]
    return (
        f"Signal-to-noise ratio of {figures.counted(len(result.layers), 'tensor')}, in the order in which they are"
        f" computed; at 20 dB the noise is a tenth of the signal. The noisiest is {layer.name}"
        f" ({layer.operator or 'no operator'}), number {number}, at {figures.decibels(layer.snr_db)}."
    )


def _draw(result: ShipResult, frame: Frame, name: str) -> Markup:
    """Return the chart: a stem a tensor, from the bottom up to its ratio."""
    area = frame.area
    known = [layer.snr_db for layer in result.layers if math.isfinite(layer.snr_db)]
    y = covering([*known, 0.0, 40.0], area.bottom, area.top)
    step = (area.right - area.left) / max(1, len(result.layers))
    centres = [area.left + (index + 0.5) * step for index in range(len(result.layers))]
    grid = [
        mark
        for tick in y.ticks(4)
        for mark in (
            line(area.left, y(tick), area.right, y(tick), "grid"),
            text(figures.number(tick), area.left - 8, y(tick) + 4, "end", "tick"),
        )
    ]
    profile = [
        (x, y(min(layer.snr_db, y.high)))
        for x, layer in zip(centres, result.layers, strict=True)
        if layer.snr_db > -math.inf
    ]
    return svg.chart(
        name,
        "Signal-to-noise ratio, layer by layer",
        summary(result),
        frame,
        *grid,
        *(_stem(layer, x, step, y, area) for x, layer in zip(centres, result.layers, strict=True)),
        element("path", d=svg.path(profile), class_="profile") if len(profile) > 1 else "",
        *(mark for number, layer in noisiest(result)[:1] for mark in _noisiest(layer, centres[number - 1], y, area)),
        text("dB", area.left - 8, area.top - 15, "end", "axis-name"),
        text("first layer", area.left, frame.height - 14, "start", "axis-name"),
        text("last →", area.right, frame.height - 14, "end", "axis-name"),
        line(area.left, area.bottom, area.right, area.bottom, "axis"),
    )


def _stem(layer: LayerSnr, x: float, step: float, y: Linear, area: Box) -> Markup:
    tooltip = element("title", f"{layer.name} ({layer.operator}): {figures.decibels(layer.snr_db)}")
    half = max(0.5, min(step * 0.36, 12))
    if math.isnan(layer.snr_db):
        return svg.rectangle(Box(x - half, area.top, x + half, area.bottom), "stem unknown", tooltip)
    return svg.rectangle(Box(x - half, y(min(layer.snr_db, y.high)), x + half, area.bottom), "stem", tooltip)


def _noisiest(layer: LayerSnr, x: float, y: Linear, area: Box) -> list[Markup]:
    top = y(layer.snr_db)
    third = (area.right - area.left) / 3
    anchor: Anchor = "start" if x < area.left + third else "end" if x > area.right - third else "middle"
    name = layer.name if len(layer.name) <= 28 else f"{layer.name[:13]}…{layer.name[-13:]}"
    return [
        line(x, area.top - 3, x, top - 5, "leader"),
        svg.circle(x, top, 5, "worst-ring"),
        text(f"{name}: {figures.decibels(layer.snr_db)}", x, area.top - 8, anchor, "label worst-name"),
    ]
