"""The Pareto plot: speed against deviation, every candidate a mark, the budget a load line, and beyond it the water."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from plimsoll.report import figures
from plimsoll.report.page import svg
from plimsoll.report.page.label_placement import Box, Label, LabelRequest, place_labels
from plimsoll.report.page.svg import Decades, Frame, Linear, covering, element, line, text
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Trial

MEASURES = {
    "max": "largest deviation of a score",
    "mean": "mean deviation of the scores",
    "p99": "99th percentile of the scores' deviation",
    "budget": "share of the budget used",
}

WIDE = Frame(1000, 520, 56, 34, 22, 56)
NARROW = Frame(390, 430, 40, 34, 10, 52)
_ZERO_GAP = 0.09
"""The share of the plot's width that the column of zero deviation takes."""


@dataclass(frozen=True)
class PlotPoint:
    """A candidate that has both figures."""

    number: int
    """Its number in the results table."""
    trial: Trial
    deviation: float
    ratio: float

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the ratio; the ratio itself where an end is unknown."""
        speed = self.trial.measured.speed
        low = speed.low if math.isfinite(speed.low) else self.ratio
        return max(0.0, low), speed.high if math.isfinite(speed.high) else self.ratio


@dataclass(frozen=True)
class Plot:
    """All that both drawings of the plot need."""

    result: ShipResult
    points: tuple[PlotPoint, ...]
    frame: Frame
    x: Decades
    y: Linear

    @property
    def wide(self) -> bool:
        """Whether there is room for names beside the marks."""
        return self.frame.width > 600

    @property
    def limit(self) -> float | None:
        """Where the budget's line is; None without one."""
        limit = self.result.budget.deviation_limit
        return limit if limit is not None and 0 < limit < math.inf else None

    @property
    def measure(self) -> str:
        """What the deviation axis shows, in words."""
        return MEASURES[self.result.budget.deviation_measure]

    def position(self, point: PlotPoint) -> tuple[float, float]:
        """Return where a candidate's mark is."""
        return self.x(point.deviation), self.y(point.ratio)


def plot_points(result: ShipResult) -> tuple[PlotPoint, ...]:
    """Return the candidates that have both figures, with their numbers in the results table."""
    measure = result.budget.deviation_measure
    points = []
    for number, trial in enumerate(result.ranked(), 1):
        deviation, ratio = trial.validation.deviation.of(measure), trial.measured.speed.ratio
        if math.isfinite(deviation) and math.isfinite(ratio):
            points.append(PlotPoint(number, trial, max(0.0, deviation), max(0.0, ratio)))
    return tuple(points)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (deviation, speed) that no other one beats in both, from the least deviation to the most; of
    equal ones, one."""
    front: list[tuple[float, float]] = []
    for deviation, speed in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or speed > front[-1][1]:
            front.append((deviation, speed))
    return front


def pareto_plot(result: ShipResult) -> Markup:
    """Return the plot, drawn for a desktop and for a phone; nothing where no candidate has both figures."""
    if not plot_points(result):
        return Markup("")
    return svg.both_widths(
        _draw(layout(result, WIDE), "load-line-wide"), _draw(layout(result, NARROW), "load-line-narrow")
    )


def layout(result: ShipResult, frame: Frame) -> Plot:
    """Return the plot with its axes."""
    points, area = plot_points(result), frame.area
    zero = area.left + (area.right - area.left) * _ZERO_GAP / 2
    start = area.left + (area.right - area.left) * _ZERO_GAP
    x = Decades.of((point.deviation for point in points), result.budget.deviation_limit, zero, start, area.right)
    highest = max([max(point.ratio, point.interval[1]) for point in points] + [1.2])
    return Plot(result, points, frame, x, covering([0.0, highest * 1.06], area.bottom, area.top))


def labels(plot: Plot) -> list[tuple[PlotPoint, Label]]:
    """Return the labels that have room, with their candidates."""
    area, size = plot.frame.area, 13.0 if plot.wide else 12.0
    points, requests = _by_importance(plot), []
    for point in points:
        wins = point.trial.key == plot.result.winner
        required = wins or point.trial.key == plot.result.reference
        radius = 13.0 if wins else 7.5
        requests.append(LabelRequest(_label_texts(plot, point), *plot.position(point), radius, size, required))
    lines = [*(_whisker_box(plot, point) for point in plot.points), *_front_boxes(plot)]
    if plot.limit is not None:
        x = plot.x(plot.limit)
        lines += [Box(x - 3, area.top, x + 3, area.bottom), Box(x - 12, area.top - 4, x + 12, area.top + 22)]
    placed = place_labels(requests, Box(area.left + 2, area.top + 2, area.right - 2, area.bottom - 2), lines)
    return [(point, label) for point, label in zip(points, placed, strict=True) if label is not None]


def _by_importance(plot: Plot) -> list[PlotPoint]:
    """The winner's label has the first choice of positions, then the reference's, then the front's."""
    front = set(pareto_front([(point.deviation, point.ratio) for point in plot.points]))
    chosen = (plot.result.winner, plot.result.reference)
    return sorted(
        plot.points,
        key=lambda point: (
            point.trial.key not in chosen,
            (point.deviation, point.ratio) not in front,
            point.number,
        ),
    )


def _label_texts(plot: Plot, point: PlotPoint) -> tuple[str, ...]:
    """Return what a label may say, the fullest first; on a phone all but two are numbers."""
    trial, result, number = point.trial, plot.result, str(point.number)
    if trial.key == result.reference:
        return ("reference", number)
    if not plot.wide:
        return ("ships", number) if trial.key == result.winner else (number,)
    settings = [
        trial.precision,
        trial.candidate.calibrator or "",
        "folded" if trial.candidate.folded else "",
        "reference preprocessing" if trial.candidate.preprocessing == "reference" else "",
        f"+ {trial.candidate.float_layers} float" if trial.candidate.float_layers else "",
    ]
    words = " ".join(filter(None, settings))
    return (f"{number}  {trial.runtime} {words}", f"{number}  {words}", number)


def _draw(plot: Plot, name: str) -> Markup:
    area, placed = plot.frame.area, labels(plot)
    limit = f"; the budget ends at {figures.number(plot.limit)}" if plot.limit is not None else ""
    description = (
        f"{figures.counted(len(plot.points), 'candidate')} by {plot.measure} (across) and speed relative to the"
        f" reference (up){limit}. The table below has every figure."
    )
    return svg.chart(
        name,
        "The load line: speed against deviation",
        description,
        plot.frame,
        *_water(plot, name),
        *_axes(plot),
        *_front(plot),
        *(mark for point in plot.points for mark in _whisker(plot, point)),
        *_budget_line(plot),
        *(line(*label.leader, "leader") for _, label in placed if label.leader is not None),
        *(_mark(plot, point) for point in plot.points),
        *(_label(plot, point, label) for point, label in placed),
        line(area.left, area.bottom, area.right, area.bottom, "axis"),
    )


def _axes(plot: Plot) -> list[Markup]:
    area, marks = plot.frame.area, list[Markup]()
    for tick in plot.y.ticks(6 if plot.wide else 5):
        y = plot.y(tick)
        marks += [
            line(area.left, y, area.right, y, "grid strong" if tick == 1 else "grid"),
            text(f"{figures.number(tick)}×", area.left - 8, y + 4, "end", "tick"),
        ]
    for tick in plot.x.ticks():
        x = plot.x(tick)
        marks += [
            line(x, area.bottom, x, area.bottom + 5, "axis"),
            text(figures.number(tick, 1), x, area.bottom + 19, "middle", "tick"),
        ]
    gap = (plot.x.zero + plot.x.start) / 2 + 6
    cut = any(0 < point.deviation < plot.x.low for point in plot.points)
    return [
        *marks,
        line(plot.x.zero, area.bottom, plot.x.zero, area.bottom + 5, "axis"),
        text("~0" if cut else "0", plot.x.zero, area.bottom + 19, "middle", "tick"),
        element("path", d=f"M{gap - 5:.0f} {area.bottom + 5:.0f}l4 -10m2 10l4 -10", class_="axis"),
        text("speed, × the reference", area.left - 40 if plot.wide else 4, 14, "start", "axis-name"),
        text(f"{plot.measure} →", area.right, plot.frame.height - 12, "end", "axis-name"),
    ]


def _water(plot: Plot, name: str) -> list[Markup]:
    if plot.limit is None:
        return []
    area = plot.frame.area
    beyond = Box(plot.x(plot.limit), area.top, area.right, area.bottom)
    width, height = beyond.right - beyond.left, beyond.bottom - beyond.top
    wave = element("path", d="M0 8q6 -5 12 0t12 0t12 0t12 0", class_="wave")
    pattern = element("pattern", wave, id=f"{name}-waves", width=48, height=20, patternUnits="userSpaceOnUse")
    fill = f"url(#{name}-waves)"
    waves = element("rect", x=beyond.left, y=beyond.top, width=width, height=height, fill=fill)
    return [element("defs", pattern), svg.rectangle(beyond, "sea"), waves]


def _budget_line(plot: Plot) -> list[Markup]:
    """The line carries the ring of the Plimsoll mark, turned: here the water lies to the right."""
    if plot.limit is None:
        return []
    area, x = plot.frame.area, plot.x(plot.limit)
    return [
        line(x, area.top - 8, x, area.bottom, "load-line"),
        svg.circle(x, area.top + 9, 9, "load-ring"),
        text(f"budget: {figures.number(plot.limit)}", x, area.top - 14, "middle", "load-name"),
    ]


def _front_corners(plot: Plot) -> list[tuple[float, float]]:
    """Return the corners of the stepped line: at each deviation the best speed to be had for no more than it."""
    front = pareto_front([(point.deviation, point.ratio) for point in plot.points])
    corners = [(plot.x(deviation), plot.y(ratio)) for deviation, ratio in front[:1]]
    for deviation, ratio in front[1:]:
        corners += [(plot.x(deviation), corners[-1][1]), (plot.x(deviation), plot.y(ratio))]
    return [*corners, (plot.frame.area.right, corners[-1][1])] if corners else []


def _front(plot: Plot) -> list[Markup]:
    corners = _front_corners(plot)
    return [element("path", d=svg.path(corners), class_="front")] if corners else []


def _front_boxes(plot: Plot) -> list[Box]:
    """Return what the front's line covers, so that no label lies on it."""
    return [
        Box(min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1)
        for (x1, y1), (x2, y2) in pairwise(_front_corners(plot))
    ]


def _whisker_box(plot: Plot, point: PlotPoint) -> Box:
    x, (low, high) = plot.x(point.deviation), point.interval
    return Box(x - 4, plot.y(high), x + 4, plot.y(low))


def _whisker(plot: Plot, point: PlotPoint) -> list[Markup]:
    low, high = point.interval
    if high <= low:
        return []
    x, top, bottom = plot.x(point.deviation), plot.y(high), plot.y(low)
    ends = [line(x - 4, y, x + 4, y, "whisker") for y in (top, bottom)]
    return [line(x, top, x, bottom, "whisker"), *ends]


def _mark(plot: Plot, point: PlotPoint) -> Markup:
    """A link to the candidate's row, so that it can be reached with the keyboard; its title is the tooltip."""
    x, y = plot.position(point)
    tooltip = _tooltip(plot, point)
    symbol = svg.runtime_symbols(plot.result)[point.trial.runtime]
    outline = svg.outline(symbol, x, y, 6.5 if plot.wide else 6)
    wins = point.trial.key == plot.result.winner
    return element(
        "a",
        element("title", tooltip),
        svg.circle(x, y, 12, "winner-ring") if wins else "",
        element("path", d=outline, class_=svg.trial_classes(point.trial)),
        href=f"#candidate-{point.number}",
        aria_label=tooltip,
        data_tooltip=tooltip,
        class_="dot",
    )


def _tooltip(plot: Plot, point: PlotPoint) -> str:
    speed = point.trial.measured.speed
    speed_words = figures.times_as_fast(point.ratio, speed.low, speed.high, other="the reference")
    verdict = {True: "inside the budget", False: "beyond the budget", None: "not evaluated"}[point.trial.passed]
    return (
        f"{point.number}: {point.trial.name}. {speed_words}; {plot.measure}"
        f" {figures.number(point.deviation, 2)}; {verdict}."
    )


def _label(plot: Plot, point: PlotPoint, label: Label) -> Markup:
    role = " winner" if point.trial.key == plot.result.winner else ""
    return text(label.text, label.x, label.y, label.anchor, f"label{role}")


def legend(result: ShipResult) -> list[tuple[Markup, str]]:
    """Return what shapes, colours and lines mean, for those that occur: (mark, words)."""
    symbols = svg.runtime_symbols(result)
    items = [(svg.legend_mark(symbols[runtime], "point p-other"), runtime) for runtime in sorted(symbols) if runtime]
    precisions = sorted({trial.precision for trial in result.trials})
    items += [(element("i", class_=f"swatch {svg.precision_class(precision)}"), precision) for precision in precisions]
    if any(point.trial.passed is False for point in plot_points(result)):
        items.append((svg.legend_mark("circle", "point p-other hollow"), "hollow: beyond the budget"))
    return [*items, (element("i", class_="swatch front-swatch"), "best speed at each deviation")]


def summary(result: ShipResult) -> str:
    """Return how to read the plot."""
    left_out = len(result.trials) - len(plot_points(result))
    missing = (
        f" {left_out} without both figures {'is' if left_out == 1 else 'are'} in the results table only."
        if left_out
        else ""
    )
    line = (
        " Marks in the water, right of the line, deviate too far." if result.budget.deviation_limit is not None else ""
    )
    return (
        "Every mark is a deployment that was built and measured: higher is faster, farther right is farther from the"
        f" reference.{line} Numbers are those of the results table.{missing}"
    )
