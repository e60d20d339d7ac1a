"""The load-line plot: speed against deviation, every candidate a mark, the budget a line, and beyond it the water."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from plimsoll.report.page import figures, marks
from plimsoll.report.page.drawing import Frame, both_widths, chart, line, rectangle, text
from plimsoll.report.page.labels import Box, Label, Wish, place
from plimsoll.report.page.markup import Markup, join, tag
from plimsoll.report.page.pareto_front import front
from plimsoll.report.page.scale import Decades, Linear, covering
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Trial

MEASURES = {
    "max": "largest deviation of a score",
    "mean": "mean deviation of the scores",
    "p99": "99th percentile of the scores' deviation",
}

_WIDE = Frame(1000, 520, 56, 34, 22, 56)
_NARROW = Frame(390, 430, 40, 34, 10, 52)
_ZERO_GAP = 0.09
"""The share of the plot's width that the column of zero deviation takes."""


@dataclass(frozen=True)
class Dot:
    """A candidate that has a place in the plot."""

    number: int
    trial: Trial
    deviation: float
    ratio: float


@dataclass(frozen=True)
class Plot:
    """All that both drawings of the plot need."""

    details: ShipResult
    dots: tuple[Dot, ...]
    frame: Frame
    x: Decades
    y: Linear

    @property
    def wide(self) -> bool:
        """Whether there is room for names beside the marks."""
        return self.frame.width > 600

    @property
    def limit(self) -> float | None:
        """Where the budget's line stands; None without one."""
        limit = self.details.budget.deviation_limit
        return limit if limit is not None and math.isfinite(limit) and limit > 0 else None


def dots(details: ShipResult) -> tuple[Dot, ...]:
    """Return the candidates that have both figures, with their numbers in the ladder."""
    measure = details.budget.deviation_measure
    found = []
    for number, trial in enumerate(details.ranked(), 1):
        deviation, ratio = trial.validation.deviation.of(measure), trial.measured.speed.ratio
        if math.isfinite(deviation) and math.isfinite(ratio):
            found.append(Dot(number, trial, max(0.0, deviation), max(0.0, ratio)))
    return tuple(found)


def load_line(details: ShipResult) -> Markup:
    """Return the plot, drawn for a desk and for a phone."""
    return both_widths(
        draw(layout(details, _WIDE), "load-line-wide"), draw(layout(details, _NARROW), "load-line-narrow")
    )


def layout(details: ShipResult, frame: Frame) -> Plot:
    """Return the plot with its axes."""
    shown, area = dots(details), frame.area
    zero = area.left + (area.right - area.left) * _ZERO_GAP / 2
    start = area.left + (area.right - area.left) * _ZERO_GAP
    x = Decades.of((dot.deviation for dot in shown), details.budget.deviation_limit, zero, start, area.right)
    tops = [dot.trial.measured.speed.high for dot in shown]
    highest = max([dot.ratio for dot in shown] + [top for top in tops if math.isfinite(top)] + [1.2])
    return Plot(details, shown, frame, x, covering([0.0, highest * 1.06], area.bottom, area.top))


def draw(plot: Plot, name: str) -> Markup:
    """Return one drawing."""
    area = plot.frame.area
    reading = figures.counted(len(plot.dots), "candidate")
    limit = f"; the budget ends at {figures.number(plot.limit)}" if plot.limit is not None else ""
    across = (
        f"{reading} by {MEASURES[plot.details.budget.deviation_measure]} (across) and speed relative to the reference"
        " (up)"
    )
    description = f"{across}{limit}. The table below has every figure."
    placed = labels(plot)
    return chart(
        name,
        "The load line: speed against deviation",
        description,
        plot.frame,
        _water(plot, name),
        _axes(plot),
        _front(plot),
        *(_whisker(plot, dot) for dot in plot.dots),
        _budget_line(plot),
        *(_leader(label) for label in placed if label is not None),
        *(_dot(plot, dot) for dot in plot.dots),
        *(_label(dot, plot, label) for dot, label in zip(_by_weight(plot), placed, strict=True) if label is not None),
        line(area.left, area.bottom, area.right, area.bottom, "axis"),
    )


def labels(plot: Plot) -> list[Label | None]:
    """Return where each candidate's label goes, in the order of `_by_weight`."""
    area, size = plot.frame.area, 13.0 if plot.wide else 12.0
    config = []
    for dot in _by_weight(plot):
        wins = dot.trial.key == plot.details.winner
        must = wins or dot.trial.key == plot.details.reference
        config.append(
            Wish(_texts(plot, dot), plot.x(dot.deviation), plot.y(dot.ratio), 13.0 if wins else 7.5, size, must)
        )
    lines = [*(_whisker_box(plot, dot) for dot in plot.dots), *_front_boxes(plot)]
    if plot.limit is not None:
        at = plot.x(plot.limit)
        lines += [Box(at - 3, area.top, at + 3, area.bottom), Box(at - 12, area.top - 4, at + 12, area.top + 22)]
    return place(config, Box(area.left + 2, area.top + 2, area.right - 2, area.bottom - 2), lines)


def _by_weight(plot: Plot) -> list[Dot]:
    """The winner's label has the first choice of places, then the reference's, then the front's."""
    best = set(front([(dot.deviation, dot.ratio) for dot in plot.dots]))
    chosen = (plot.details.winner, plot.details.reference)
    return sorted(
        plot.dots, key=lambda dot: (dot.trial.key not in chosen, (dot.deviation, dot.ratio) not in best, dot.number)
    )


def _texts(plot: Plot, dot: Dot) -> tuple[str, ...]:
    """Return what a label may say, the fullest first; on a phone all but two are numbers."""
    trial, details, number = dot.trial, plot.details, str(dot.number)
    if trial.key == details.reference:
        return ("reference", number)
    if not plot.wide:
        return ("ships", number) if trial.key == details.winner else (number,)
    how = [
        trial.precision,
        trial.candidate.calibrator or "",
        "folded" if trial.candidate.folded else "",
        "reference preprocessing" if trial.candidate.preprocessing == "reference" else "",
    ]
    how += [f"+ {trial.candidate.float_layers} float"] if trial.candidate.float_layers else []
    words = " ".join(part for part in how if part)
    return (f"{number}  {trial.runtime} {words}", f"{number}  {words}", number)


def _axes(plot: Plot) -> Markup:
    area, parts = plot.frame.area, []
    for tick in plot.y.ticks(6 if plot.wide else 5):
        at = plot.y(tick)
        parts += [
            line(area.left, at, area.right, at, "grid strong" if tick == 1 else "grid"),
            text(f"{figures.number(tick)}×", area.left - 8, at + 4, "end", "tick"),
        ]
    for tick in plot.x.ticks():
        at = plot.x(tick)
        parts += [
            line(at, area.bottom, at, area.bottom + 5, "axis"),
            text(figures.number(tick, 1), at, area.bottom + 19, "middle", "tick"),
        ]
    gap = (plot.x.zero + plot.x.start) / 2 + 6
    cut = any(0 < dot.deviation < plot.x.low for dot in plot.dots)
    parts += [
        line(plot.x.zero, area.bottom, plot.x.zero, area.bottom + 5, "axis"),
        text("~0" if cut else "0", plot.x.zero, area.bottom + 19, "middle", "tick"),
        tag("path", d=f"M{gap - 5:.0f} {area.bottom + 5:.0f}l4 -10m2 10l4 -10", class_="axis"),
        text("speed, × the reference", area.left - 40 if plot.wide else 4, 14, "start", "axis-name"),
        text(
            f"{MEASURES[plot.details.budget.deviation_measure]} →",
            area.right,
            plot.frame.height - 12,
            "end",
            "axis-name",
        ),
    ]
    return join(parts)


def _water(plot: Plot, name: str) -> Markup:
    if plot.limit is None:
        return Markup("")
    area = plot.frame.area
    beyond = Box(plot.x(plot.limit), area.top, area.right, area.bottom)
    wave = tag("path", d="M0 8q6 -5 12 0t12 0t12 0t12 0", class_="wave")
    pattern = tag("pattern", wave, id=f"{name}-waves", width=48, height=20, patternUnits="userSpaceOnUse")
    waves = tag(
        "rect",
        x=beyond.left,
        y=beyond.top,
        width=beyond.right - beyond.left,
        height=beyond.bottom - beyond.top,
        fill=f"url(#{name}-waves)",
    )
    return Markup(tag("defs", pattern) + rectangle(beyond, "sea") + waves)


def _budget_line(plot: Plot) -> Markup:
    """The line carries the ring of the mark, turned: here the water lies to the right."""
    if plot.limit is None:
        return Markup("")
    area, at = plot.frame.area, plot.x(plot.limit)
    ring = tag("circle", cx=at, cy=area.top + 9, r=9, class_="load-ring")
    caption = f"budget: {figures.number(plot.limit)}"
    return Markup(
        line(at, area.top - 8, at, area.bottom, "load-line")
        + ring
        + text(caption, at, area.top - 14, "middle", "load-name")
    )


def _front_corners(plot: Plot) -> list[tuple[float, float]]:
    """Return the corners of the stepped line: at each deviation the best speed to be had for no more than it."""
    steps = front([(dot.deviation, dot.ratio) for dot in plot.dots])
    corners = [(plot.x(deviation), plot.y(ratio)) for deviation, ratio in steps[:1]]
    for deviation, ratio in steps[1:]:
        corners += [(plot.x(deviation), corners[-1][1]), (plot.x(deviation), plot.y(ratio))]
    return [*corners, (plot.frame.area.right, corners[-1][1])] if corners else []


def _front(plot: Plot) -> Markup:
    corners = _front_corners(plot)
    return tag("path", d=marks.path(corners), class_="front") if corners else Markup("")


def _front_boxes(plot: Plot) -> list[Box]:
    """Return what the front's line covers, so that no label lies on it."""
    corners = _front_corners(plot)
    return [
        Box(min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1)
        for (x1, y1), (x2, y2) in pairwise(corners)
    ]


def _whisker_box(plot: Plot, dot: Dot) -> Box:
    x, (low, high) = plot.x(dot.deviation), _interval(dot)
    return Box(x - 4, plot.y(high), x + 4, plot.y(low))


def _interval(dot: Dot) -> tuple[float, float]:
    speed = dot.trial.measured.speed
    low = speed.low if math.isfinite(speed.low) else dot.ratio
    high = speed.high if math.isfinite(speed.high) else dot.ratio
    return max(0.0, low), high


def _whisker(plot: Plot, dot: Dot) -> Markup:
    low, high = _interval(dot)
    if high <= low:
        return Markup("")
    x, top, bottom = plot.x(dot.deviation), plot.y(high), plot.y(low)
    ends = Markup(line(x - 4, top, x + 4, top, "whisker") + line(x - 4, bottom, x + 4, bottom, "whisker"))
    return Markup(line(x, top, x, bottom, "whisker") + ends)


def _dot(plot: Plot, dot: Dot) -> Markup:
    """A link to the candidate's row, so that it can be reached with the keyboard; its title is the tooltip."""
    x, y = plot.x(dot.deviation), plot.y(dot.ratio)
    winner = dot.trial.key == plot.details.winner
    told = sentence(plot.details, dot)
    halo = tag("circle", cx=x, cy=y, r=12, class_="winner-ring") if winner else Markup("")
    mark = marks.candidate_mark(dot.trial, marks.shapes(plot.details)[dot.trial.runtime], x, y, 6.5 if plot.wide else 6)
    return tag(
        "a",
        tag("title", told),
        halo,
        mark,
        href=f"#candidate-{dot.number}",
        aria_label=told,
        data_told=told,
        class_="dot",
    )


def sentence(details: ShipResult, dot: Dot) -> str:
    """Return what a tooltip says of a candidate."""
    speed, measure = dot.trial.measured.speed, details.budget.deviation_measure
    interval = (
        f" ({figures.times(speed.low)} to {figures.times(speed.high)})"
        if figures.known(speed.low) and figures.known(speed.high)
        else ""
    )
    deviation = f"{MEASURES[measure]} {figures.number(dot.deviation, 2)}"
    verdict = {True: "inside the budget", False: "beyond the budget", None: "not judged"}[dot.trial.passed]
    return (
        f"{dot.number}: {dot.trial.name}. {figures.times(dot.ratio)}{interval} the reference; {deviation}; {verdict}."
    )


def _leader(label: Label) -> Markup:
    return line(*label.leader, "leader") if label.leader is not None else Markup("")


def _label(dot: Dot, plot: Plot, label: Label) -> Markup:
    role = " winner" if dot.trial.key == plot.details.winner else ""
    return text(label.text, label.x, label.y, label.anchor, f"label{role}")


def legend(details: ShipResult) -> Markup:
    """Return what shapes, colours and lines mean, for those that occur."""
    by_runtime = marks.shapes(details)
    items = [(marks.sample(by_runtime[runtime], "point p-other"), runtime) for runtime in sorted(by_runtime) if runtime]
    precisions = sorted({trial.precision for trial in details.trials if trial.precision})
    items += [(tag("i", class_=f"swatch {marks.precision_class(precision)}"), precision) for precision in precisions]
    if any(dot.trial.passed is False for dot in dots(details)):
        items.append((marks.sample("circle", "point p-other hollow"), "hollow: beyond the budget"))
    items.append((tag("i", class_="swatch front-swatch"), "best speed at each deviation"))
    return tag("ul", *(tag("li", sign, tag("span", name)) for sign, name in items), class_="legend")
