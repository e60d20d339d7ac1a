"""What every chart on the page is made of: a titled SVG, texts, lines."""

from __future__ import annotations

from dataclasses import dataclass

from plimsoll.report.page.labels import Anchor, Box
from plimsoll.report.page.markup import Markup, coordinate, tag


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
    head = tag("title", title, id=f"{name}-title"), tag("desc", description, id=f"{name}-desc")
    return tag(
        "svg",
        *head,
        *content,
        viewBox_=f"0 0 {coordinate(frame.width)} {coordinate(frame.height)}",
        role="group",
        aria_labelledby=f"{name}-title {name}-desc",
        class_="chart",
    )


def both_widths(wide: Markup, narrow: Markup) -> Markup:
    """Return two drawings of one chart; the style shows the one that fits, so that text keeps its size on a phone."""
    return Markup(tag("div", wide, class_="wide") + tag("div", narrow, class_="narrow"))


def text(content: str, x: float, y: float, anchor: Anchor = "start", classes: str = "") -> Markup:
    """Return a text; y is its baseline."""
    return tag("text", content, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=classes or None)


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=classes)


def rectangle(box: Box, classes: str, *children: str) -> Markup:
    """Return a filled box."""
    return tag(
        "rect",
        *children,
        x=box.left,
        y=box.top,
        width=max(0.0, box.right - box.left),
        height=max(0.0, box.bottom - box.top),
        class_=classes,
    )
