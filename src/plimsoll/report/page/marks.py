"""The signs on the page: the Plimsoll mark, and a candidate's mark, whose shape tells the runtime and whose colour the
precision."""

from __future__ import annotations

import math
from collections.abc import Iterable

from plimsoll.report.page.markup import Markup, coordinate, tag
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Trial

_SHAPES = ("circle", "square", "diamond", "triangle", "pentagon", "hexagon", "delta")
_USUAL = {
    "onnxruntime": "circle",
    "openvino": "square",
    "litert": "diamond",
    "tensorrt": "triangle",
    "mnn": "pentagon",
    "ncnn": "hexagon",
}
_PRECISIONS = ("float32", "float16", "bfloat16", "int8", "dynamic")


def plimsoll_mark(size: float) -> Markup:
    """Return the logo: a ring that a line crosses. It takes the colour of the text around it; the words beside it say
    the same."""
    ring = tag("circle", cx=24, cy=24, r=14, fill="none", stroke="currentColor", stroke_width=4)
    line = tag("path", d="M2 24H46", fill="none", stroke="currentColor", stroke_width=4)
    return tag("svg", ring, line, viewBox_="0 0 48 48", width=size, height=size, aria_hidden="true", class_="mark")


def precision_class(precision: str) -> str:
    """Return the CSS class of a precision's colour."""
    return f"p-{precision}" if precision in _PRECISIONS else "p-other"


def shapes(details: ShipResult) -> dict[str, str]:
    """Return the shape of every runtime in the report; no two share one while there are enough."""
    runtimes = sorted({trial.runtime for trial in details.trials})
    chosen = {runtime: _USUAL[runtime] for runtime in runtimes if runtime in _USUAL}
    free = [shape for shape in _SHAPES if shape not in chosen.values()] or list(_SHAPES)
    others = [runtime for runtime in runtimes if runtime not in chosen]
    return chosen | {runtime: free[index % len(free)] for index, runtime in enumerate(others)}


def candidate_mark(trial: Trial, shape: str, x: float, y: float, radius: float) -> Markup:
    """Return the mark of a candidate; hollow where it failed the budget."""
    hollow = " hollow" if trial.passed is False else ""
    return tag("path", d=_outline(shape, x, y, radius), class_=f"point {precision_class(trial.precision)}{hollow}")


def sample(shape: str, classes: str) -> Markup:
    """Return a mark for a legend."""
    return tag(
        "svg",
        tag("path", d=_outline(shape, 8, 8, 5.5), class_=classes),
        viewBox_="0 0 16 16",
        width=14,
        height=14,
        aria_hidden="true",
    )


def _outline(shape: str, x: float, y: float, radius: float) -> str:
    """Return the path of a shape; all have about the area of the circle."""
    if shape == "circle":
        r, d = coordinate(radius), coordinate(2 * radius)
        return f"M{coordinate(x - radius)} {coordinate(y)}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z"
    corners, turn, scale = {
        "square": (4, 45.0, 1.25),
        "diamond": (4, 0.0, 1.3),
        "triangle": (3, -90.0, 1.4),
        "delta": (3, 90.0, 1.4),
        "pentagon": (5, -90.0, 1.15),
        "hexagon": (6, 0.0, 1.1),
    }[shape]
    return polygon((x, y), radius * scale, corners, turn)


def polygon(centre: tuple[float, float], radius: float, corners: int, turn: float) -> str:
    """Return the path of a regular polygon, turned by degrees."""
    angles = (math.radians(turn + 360 * index / corners) for index in range(corners))
    return path((centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)) for angle in angles) + "z"


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the path that joins the points with straight lines."""
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)
