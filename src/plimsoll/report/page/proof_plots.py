"""The winner against the reference: scores picture by picture, the pictures that moved most, and signal and noise of
every tensor, in the order in which the network computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath

from markupsafe import Markup

from plimsoll.report import figures
from plimsoll.report.page import svg
from plimsoll.report.page.label_placement import Anchor, Box
from plimsoll.report.page.svg import Frame, Linear, LogOdds, covering, element, line, text
from plimsoll.report.ship_result import LayerSnr, PictureScore, ShipResult, WorstPicture

_FRAME = Frame(460, 430, 52, 30, 14, 50)
_WIDE = Frame(1000, 310, 56, 34, 16, 42)
_NARROW = Frame(390, 270, 40, 44, 8, 40)

_NEAR_AN_END = 0.02


@dataclass(frozen=True)
class ScorePair:
    """A picture's score by both."""

    path: str
    reference: float
    winner: float
    flipped: bool
    """Whether the decision differs at any threshold; a score at the threshold is above it."""

    @property
    def change(self) -> float:
        """Winner minus reference."""
        return self.winner - self.reference

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePath(self.path).name or self.path


def score_pair(result: ShipResult, picture: PictureScore) -> ScorePair | None:
    """Return both scores of a picture; None where one is missing or not finite."""
    reference, winner = picture.reference, picture.winner
    if not math.isfinite(reference) or not math.isfinite(winner):
        return None
    flipped = any((reference >= threshold) != (winner >= threshold) for threshold in result.thresholds)
    return ScorePair(picture.path, reference, winner, flipped)


def score_pairs(result: ShipResult) -> list[ScorePair]:
    """Return the pictures that both answered."""
    return [pair for picture in result.scores if (pair := score_pair(result, picture)) is not None]


def score_plots(result: ShipResult) -> list[Markup]:
    """Return both plots: score against score, and the difference; nothing without scores."""
    pairs = score_pairs(result)
    return [_against(result, pairs), _difference(result, pairs)] if pairs else []


def score_summary(result: ShipResult) -> str:
    """Return what the plots say."""
    pairs = score_pairs(result)
    flipped = sum(pair.flipped for pair in pairs)
    largest = max((abs(pair.change) for pair in pairs), default=math.nan)
    thresholds = " or ".join(
        ", ".join(map(figures.number, part))
        for part in (sorted(result.thresholds)[:-1], sorted(result.thresholds)[-1:])
        if part
    )
    who = figures.counted(flipped, "picture") if flipped else "None"
    decisions = f" {who} changed sides at {thresholds}." if thresholds else ""
    return (
        f"Each dot is one of {figures.counted(len(pairs), 'test picture')}; the farthest moved by"
        f" {figures.number(largest, 2)}.{decisions}"
    )


def _score_axis(pairs: list[ScorePair], start: float, end: float) -> Linear | LogOdds:
    """Return a plain axis; one in log odds where most scores lie so near 0 or 1 that a plain one would show a single
    blot."""
    values = [value for pair in pairs for value in (pair.reference, pair.winner)]
    if all(0 <= value <= 1 for value in values):
        if 2 * sum(min(value, 1 - value) < _NEAR_AN_END for value in values) > len(values):
            return LogOdds.of(values, start, end)
        return Linear(0.0, 1.0, start, end)
    return covering(values, start, end)


def _against(result: ShipResult, pairs: list[ScorePair]) -> Markup:
    area = _FRAME.area
    x, y = _score_axis(pairs, area.left, area.right), _score_axis(pairs, area.bottom, area.top)
    grid = []
    for tick in x.ticks():
        grid += [
            line(x(tick), area.top, x(tick), area.bottom, "grid"),
            text(figures.number(tick), x(tick), area.bottom + 18, "middle", "tick"),
            line(area.left, y(tick), area.right, y(tick), "grid"),
            text(figures.number(tick), area.left - 8, y(tick) + 4, "end", "tick"),
        ]
    for threshold in result.thresholds:
        grid += [
            line(x(threshold), area.top, x(threshold), area.bottom, "threshold"),
            line(area.left, y(threshold), area.right, y(threshold), "threshold"),
        ]
    return svg.chart(
        "scatter",
        f"{result.score_label}: the shipped candidate's score against the reference's",
        score_summary(result),
        _FRAME,
        *grid,
        line(x(x.low), y(x.low), x(x.high), y(x.high), "diagonal"),
        *(_dot(pair, x(pair.reference), y(pair.winner)) for pair in pairs),
        *_axis_names(result, f"shipped candidate's {result.score_label} score"),
    )


def _difference(result: ShipResult, pairs: list[ScorePair]) -> Markup:
    """The same pictures with the diagonal laid flat: differences are too small to see in the other plot."""
    area = _FRAME.area
    largest = max(abs(pair.change) for pair in pairs) or 1e-6
    x = _score_axis(pairs, area.left, area.right)
    y = covering([-largest * 1.05, largest * 1.05], area.bottom, area.top)
    grid = []
    for tick in x.ticks():
        grid += [
            line(x(tick), area.bottom, x(tick), area.bottom + 4, "axis"),
            text(figures.number(tick), x(tick), area.bottom + 18, "middle", "tick"),
        ]
    for tick in y.ticks(6):
        grid += [
            line(area.left, y(tick), area.right, y(tick), "diagonal" if tick == 0 else "grid"),
            text(figures.signed(tick), area.left - 8, y(tick) + 4, "end", "tick"),
        ]
    grid += [line(x(threshold), area.top, x(threshold), area.bottom, "threshold") for threshold in result.thresholds]
    return svg.chart(
        "difference",
        f"{result.score_label}: by how much each score moved",
        "The shipped candidate's score minus the reference's, by the reference's score. Largest:"
        f" {figures.number(largest, 2)}.",
        _FRAME,
        *grid,
        *(_dot(pair, x(pair.reference), y(pair.change)) for pair in pairs),
        *_axis_names(result, "moved by (shipped − reference)"),
    )


def _axis_names(result: ShipResult, vertical: str) -> list[Markup]:
    right, bottom = _FRAME.area.right, _FRAME.height - 10
    across = text(f"reference's {result.score_label} score →", right, bottom, "end", "axis-name")
    return [across, text(vertical, 4, 14, "start", "axis-name")]


def _dot(pair: ScorePair, x: float, y: float) -> Markup:
    tooltip = f"{pair.name}: reference {figures.score(pair.reference)}, ships {figures.score(pair.winner)}"
    if not pair.flipped:
        return svg.circle(x, y, 3.5, "score", element("title", tooltip))
    cross = f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"
    return element("path", element("title", f"{tooltip}: the decision flipped"), d=cross, class_="score flipped")


def worst_pictures(result: ShipResult) -> list[tuple[WorstPicture, ScorePair | None]]:
    """Return the pictures that moved most, the largest change first, with both scores where both are known."""
    if result.changes:
        return [(picture, None) for picture in result.worst]
    pairs = [(picture, score_pair(result, picture)) for picture in result.worst]
    return sorted(pairs, key=lambda item: -_moved(item[0]))


def _moved(picture: PictureScore) -> float:
    moved = abs(picture.winner - picture.reference)
    return -1.0 if math.isnan(moved) else moved


def layer_plot(result: ShipResult) -> Markup:
    """Return the chart, drawn for a desktop and for a phone; nothing where no layer was measured."""
    if all(math.isnan(layer.snr_db) for layer in result.layers):
        return Markup("")
    return svg.both_widths(_draw_layers(result, _WIDE, "layers-wide"), _draw_layers(result, _NARROW, "layers-narrow"))


def noisiest_layers(result: ShipResult) -> list[tuple[int, LayerSnr]]:
    """Return number (from 1) and layer of those with a figure, the noisiest first."""
    noisy = [(number, layer) for number, layer in enumerate(result.layers, 1) if layer.snr_db < math.inf]
    return sorted(noisy, key=lambda pair: pair[1].snr_db)


def layer_summary(result: ShipResult) -> str:
    """Return what the chart says."""
    ranked = noisiest_layers(result)
    if not ranked:
        return "Every tensor is equal to the reference's."
    number, layer = ranked[0]
    return (
        f"Signal-to-noise ratio of {figures.counted(len(result.layers), 'tensor')}, in the order in which they are"
        f" computed; at 20 dB the noise is a tenth of the signal. The noisiest is {layer.name}"
        f" ({layer.operator or 'no operator'}), number {number}, at {figures.decibels(layer.snr_db)}."
    )


def _draw_layers(result: ShipResult, frame: Frame, name: str) -> Markup:
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
        layer_summary(result),
        frame,
        *grid,
        *(_stem(layer, x, step, y, area) for x, layer in zip(centres, result.layers, strict=True)),
        element("path", d=svg.path(profile), class_="profile") if len(profile) > 1 else "",
        *(
            mark
            for number, layer in noisiest_layers(result)[:1]
            for mark in _noisiest_stem(layer, centres[number - 1], y, area)
        ),
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


def _noisiest_stem(layer: LayerSnr, x: float, y: Linear, area: Box) -> list[Markup]:
    top = y(layer.snr_db)
    third = (area.right - area.left) / 3
    anchor: Anchor = "start" if x < area.left + third else "end" if x > area.right - third else "middle"
    name = layer.name if len(layer.name) <= 28 else f"{layer.name[:13]}…{layer.name[-13:]}"
    return [
        line(x, area.top - 3, x, top - 5, "leader"),
        svg.circle(x, top, 5, "worst-ring"),
        text(f"{name}: {figures.decibels(layer.snr_db)}", x, area.top - 8, anchor, "label worst-name"),
    ]
