"""SVG for the page's charts: elements that escape their text and attributes, a titled chart, the marks of candidates.

A report holds paths, reasons and labels from untrusted sources. Only `Markup` is written unescaped, and only
this module and the page's own style and script make it from a string.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from markupsafe import Markup, escape

from plimsoll.core.wording import printable
from plimsoll.report.page.label_placement import Anchor, Box
from plimsoll.report.ship_result import ShipResult, Symbol
from plimsoll.report.trial import Trial

_PRECISIONS = ("float32", "float16", "bfloat16", "int8", "dynamic")


def page_text(text: str) -> str:
    """Return the text with what UTF-8 can't hold, what HTML forbids and what changes the writing direction replaced by
    U+FFFD."""
    return printable(text, keep="\n\t", replacement="\ufffd")


def coordinate(value: float) -> str:
    """Return a number as SVG wants it: at most two decimals, no exponent, no minus zero."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def element(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element; children that are not `Markup` are escaped, and so are attributes.

    Attributes are keywords: a trailing underscore is dropped (`class_`), any other is a dash (`stroke_width`). None
    leaves the attribute out. Numbers are rounded to hundredths of a pixel.
    """
    head = "".join(
        Markup(' {}="{}"').format(
            key if key == "viewBox" else key.rstrip("_").replace("_", "-"),
            page_text(value) if isinstance(value, str) else coordinate(value),
        )
        for key, value in attributes.items()
        if value is not None
    )
    body = (child if isinstance(child, Markup) else escape(page_text(child)) for child in children)
    return Markup(f"<{name}{head}>{''.join(body)}</{name}>")


@dataclass(frozen=True)
class Frame:
    """A chart's size and the margins around its plot area, in pixels."""

    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> Box:
        """The plot area."""
        return Box(self.left, self.top, self.width - self.right, self.height - self.bottom)


def chart(name: str, title: str, description: str, frame: Frame, *content: str) -> Markup:
    """Return an SVG that scales with its column. `name` is unique on the page; title and description are read aloud."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *content,
        viewBox=f"0 0 {coordinate(frame.width)} {coordinate(frame.height)}",
        role="group",
        aria_labelledby=f"{name}-title {name}-desc",
        class_="chart",
    )


def both_widths(wide: Markup, narrow: Markup) -> Markup:
    """Return two drawings of one chart; the style shows the one that fits, so that text keeps its size on a phone."""
    return element("div", wide, class_="wide") + element("div", narrow, class_="narrow")


def text(content: str, x: float, y: float, anchor: Anchor = "start", classes: str = "") -> Markup:
    """Return a text; y is its baseline."""
    return element("text", content, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=classes or None)


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=classes)


def circle(x: float, y: float, radius: float, classes: str, *children: str) -> Markup:
    """Return a circle."""
    return element("circle", *children, cx=x, cy=y, r=radius, class_=classes)


def rectangle(box: Box, classes: str, *children: str) -> Markup:
    """Return a filled box."""
    width, height = max(0.0, box.right - box.left), max(0.0, box.bottom - box.top)
    return element("rect", *children, x=box.left, y=box.top, width=width, height=height, class_=classes)


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the path that joins the points with straight lines."""
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)


def plimsoll_mark(size: float) -> Markup:
    """Return the logo: a ring that a line crosses. It takes the colour of the text around it; the words beside it say
    the same."""
    ring = element("circle", cx=24, cy=24, r=14, fill="none", stroke="currentColor", stroke_width=4)
    bar = element("path", d="M2 24H46", fill="none", stroke="currentColor", stroke_width=4)
    return element("svg", ring, bar, viewBox="0 0 48 48", width=size, height=size, aria_hidden="true", class_="mark")


def precision_class(precision: str) -> str:
    """Return the CSS class of a precision's colour."""
    return f"p-{precision}" if precision in _PRECISIONS else "p-other"


def runtime_symbols(result: ShipResult) -> dict[str, Symbol]:
    """Return the symbol of every runtime in the report; no two share one while there are enough."""
    runtimes = sorted({trial.runtime for trial in result.trials})
    chosen = {runtime: result.symbols[runtime] for runtime in runtimes if runtime in result.symbols}
    free = [symbol for symbol in get_args(Symbol) if symbol not in chosen.values()] or list(get_args(Symbol))
    others = [runtime for runtime in runtimes if runtime not in chosen]
    return chosen | {runtime: free[index % len(free)] for index, runtime in enumerate(others)}


def trial_classes(trial: Trial) -> str:
    """Return the CSS classes of a candidate's mark: coloured by precision, hollow where it is beyond the budget."""
    return f"point {precision_class(trial.precision)}{' hollow' if trial.passed is False else ''}"


def legend_mark(symbol: Symbol, classes: str) -> Markup:
    """Return a mark for a legend or a table."""
    drawing = element("path", d=outline(symbol, 8, 8, 5.5), class_=classes)
    return element("svg", drawing, viewBox="0 0 16 16", width=14, height=14, aria_hidden="true")


def outline(symbol: Symbol, x: float, y: float, radius: float) -> str:
    """Return the path of a symbol; all have about the area of the circle."""
    if symbol == "circle":
        r, diameter = coordinate(radius), coordinate(2 * radius)
        return f"M{coordinate(x - radius)} {coordinate(y)}a{r} {r} 0 1 0 {diameter} 0a{r} {r} 0 1 0 -{diameter} 0z"
    corners, turn, scale = {
        "square": (4, 45.0, 1.25),
        "diamond": (4, 0.0, 1.3),
        "triangle": (3, -90.0, 1.4),
        "delta": (3, 90.0, 1.4),
        "pentagon": (5, -90.0, 1.15),
        "hexagon": (6, 0.0, 1.1),
    }[symbol]
    angles = (math.radians(turn + 360 * index / corners) for index in range(corners))
    return path((x + radius * scale * math.cos(angle), y + radius * scale * math.sin(angle)) for angle in angles) + "z"


@dataclass(frozen=True)
class Linear:
    """`low` … `high` on `start` … `end` (pixels; `end` may lie before `start`)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a figure; figures outside lie at the nearer end."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return about so many round figures within the axis."""
        step = _round_step((self.high - self.low) / max(1, about))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def covering(values: Iterable[float], start: float, end: float, about: int = 5) -> Linear:
    """Return a linear axis that covers the values and ends on round figures."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / about)
    return Linear(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, start, end)


SPAN = 20_000.0
"""What is smaller than the largest by more than this factor lies at zero: it is rounding, not deviation, and would push
all else together."""


@dataclass(frozen=True)
class Decades:
    """A logarithmic axis with a column of its own for zero, left of a gap.

    Deviations span decades, and the reference's is exactly 0: neither a linear nor a plain logarithmic axis shows both.
    """

    low: float
    high: float
    zero: float
    """Where 0 lies, and all that is smaller than `low` (pixels)."""
    start: float
    end: float

    @classmethod
    def of(cls, values: Iterable[float], limit: float | None, zero: float, start: float, end: float) -> Decades:
        """Return the axis for these figures; a limit is shown with room behind it."""
        known = [value for value in values if math.isfinite(value) and value > 0]
        if limit is not None and limit > 0:
            known += [limit / 3, limit * 2.5]
        if not known:
            known = [0.001, 1.0]
        high = max(known) * 1.5
        return cls(min(value for value in known if value > high / SPAN) / 2.5, high, zero, start, end)

    def __call__(self, value: float) -> float:
        """Return the coordinate of a figure."""
        if value < self.low:
            return self.zero
        share = math.log(min(value, self.high) / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return 1, 2 and 5 of each decade, 1 and 3, or the decades alone: as many as have room for their labels."""
        decade_pixels = (self.end - self.start) / math.log10(self.high / self.low)
        parts = (1, 2, 5) if decade_pixels > 300 else (1, 3) if decade_pixels > 130 else (1,)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [tick for decade in decades for part in parts if self.low <= (tick := part * 10.0**decade) <= self.high]


@dataclass(frozen=True)
class LogOdds:
    """Shares between `low` and `high`, spaced by log(p / (1 - p)): as much room for 0.001 … 0.01 and 0.99 … 0.999 as
    they have between them."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, shares: Iterable[float], start: float, end: float) -> LogOdds:
        """Return the axis for these shares; those beyond 0.0001 and 0.9999 lie at its ends."""
        known = [share for share in shares if 0 < share < 1] or [0.5]
        edge = 1e-4
        return cls(
            min(0.1, max(edge, min(known) / 1.5)), max(0.9, min(1 - edge, 1 - (1 - max(known)) / 1.5)), start, end
        )

    def __call__(self, value: float) -> float:
        """Return the coordinate of a share."""
        low, high = _log_odds(self.low), _log_odds(self.high)
        share = (_log_odds(min(self.high, max(self.low, value))) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return the round shares within the axis; `about` is accepted so that it can stand in for Linear."""
        del about
        return [
            tick for tick in (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999) if self.low <= tick <= self.high
        ]


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 × a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))
