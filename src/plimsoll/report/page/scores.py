"""Scores, picture by picture: the winner's against the reference's, and the pictures that moved most."""

from __future__ import annotations

import math
from pathlib import PurePath

from plimsoll.report.page import figures
from plimsoll.report.page.drawing import Frame, chart, line, text
from plimsoll.report.page.markup import Markup, join, tag
from plimsoll.report.page.scale import Linear, LogOdds, covering
from plimsoll.report.ship_result import PictureScore, ShipResult, WorstPicture

_FRAME = Frame(460, 430, 52, 30, 14, 50)

_NEAR_AN_END = 0.02

Pair = tuple[PictureScore, float, float]


def pairs(details: ShipResult) -> list[Pair]:
    """Return the pictures that both answered, with both scores."""
    return [
        (one, one.reference, one.winner)
        for one in details.scores
        if math.isfinite(one.reference) and math.isfinite(one.winner)
    ]


def flipped(details: ShipResult, reference: float, winner: float) -> bool:
    """Whether a picture's decision differs at any threshold; a score at the threshold is above it."""
    return any((reference >= threshold) != (winner >= threshold) for threshold in details.thresholds)


def scatter(details: ShipResult) -> Markup:
    """Return both plots: score against score, and the difference; nothing without scores."""
    if not pairs(details):
        return Markup("")
    return tag("div", tag("figure", _against(details)), tag("figure", _difference(details)), class_="pair")


def summary(details: ShipResult) -> str:
    """Return what the plots say."""
    found = pairs(details)
    turned = sum(flipped(details, reference, winner) for _, reference, winner in found)
    *others, last = ["", *(figures.number(threshold) for threshold in sorted(details.thresholds))]
    at = f"{', '.join(others[1:])} or {last}" if others[1:] else last
    moved = max((abs(winner - reference) for _, reference, winner in found), default=math.nan)
    decisions = f" {figures.counted(turned, 'picture') if turned else 'None'} changed sides at {at}." if at else ""
    return (
        f"Each dot is one of {figures.counted(len(found), 'judged picture')}; the farthest moved by"
        f" {figures.number(moved, 2)}.{decisions}"
    )


def _score_axis(details: ShipResult, start: float, end: float) -> Linear | LogOdds:
    """Return a plain axis; one in log odds where most scores lie so near 0 or 1 that a plain one would show a single
    blot."""
    values = [value for _, *both in pairs(details) for value in both]
    if all(0 <= value <= 1 for value in values):
        if 2 * sum(min(value, 1 - value) < _NEAR_AN_END for value in values) > len(values):
            return LogOdds.of(values, start, end)
        return Linear(0.0, 1.0, start, end)
    return covering(values, start, end)


def _against(details: ShipResult) -> Markup:
    area = _FRAME.area
    x, y = _score_axis(details, area.left, area.right), _score_axis(details, area.bottom, area.top)
    grid = []
    for tick in x.ticks():
        grid += [
            line(x(tick), area.top, x(tick), area.bottom, "grid"),
            text(figures.number(tick), x(tick), area.bottom + 18, "middle", "tick"),
        ]
        grid += [
            line(area.left, y(tick), area.right, y(tick), "grid"),
            text(figures.number(tick), area.left - 8, y(tick) + 4, "end", "tick"),
        ]
    for threshold in details.thresholds:
        grid += [
            line(x(threshold), area.top, x(threshold), area.bottom, "threshold"),
            line(area.left, y(threshold), area.right, y(threshold), "threshold"),
        ]
    return chart(
        "scatter",
        f"{details.score_label}: the shipped candidate's score against the reference's",
        summary(details),
        _FRAME,
        *grid,
        line(x(x.low), y(x.low), x(x.high), y(x.high), "diagonal"),
        *(_dot(details, pair, x(pair[1]), y(pair[2])) for pair in pairs(details)),
        text(f"reference's {details.score_label} score →", area.right, _FRAME.height - 10, "end", "axis-name"),
        text(f"shipped candidate's {details.score_label} score", 4, 14, "start", "axis-name"),
    )


def _difference(details: ShipResult) -> Markup:
    """The same pictures with the diagonal laid flat: differences are too small to see in the other plot."""
    area = _FRAME.area
    largest = max((abs(winner - reference) for _, reference, winner in pairs(details)), default=0.0) or 1e-6
    x, y = (
        _score_axis(details, area.left, area.right),
        covering([-largest * 1.05, largest * 1.05], area.bottom, area.top),
    )
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
    grid += [line(x(threshold), area.top, x(threshold), area.bottom, "threshold") for threshold in details.thresholds]
    return chart(
        "difference",
        f"{details.score_label}: by how much each score moved",
        "The shipped candidate's score minus the reference's, by the reference's score. Largest:"
        f" {figures.number(largest, 2)}.",
        _FRAME,
        *grid,
        *(_dot(details, pair, x(pair[1]), y(pair[2] - pair[1])) for pair in pairs(details)),
        text(f"reference's {details.score_label} score →", area.right, _FRAME.height - 10, "end", "axis-name"),
        text("moved by (shipped − reference)", 4, 14, "start", "axis-name"),
    )


def _dot(details: ShipResult, pair: Pair, x: float, y: float) -> Markup:
    picture, reference, winner = pair
    told = f"{PurePath(picture.path).name}: reference {figures.score(reference)}, ships {figures.score(winner)}"
    if not flipped(details, reference, winner):
        return tag("circle", tag("title", told), cx=x, cy=y, r=3.5, class_="score")
    return tag(
        "path",
        tag("title", f"{told}: the decision flipped"),
        d=f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10",
        class_="score flipped",
    )


def worst(details: ShipResult) -> Markup:
    """Return the pictures that moved most, with both scores; nothing without any."""
    shown = sorted(details.worst, key=lambda one: -_moved(one))
    return tag("ul", *(_picture(details, one) for one in shown), class_="photos") if shown else Markup("")


def _moved(picture: PictureScore) -> float:
    moved = abs(picture.winner - picture.reference)
    return -1.0 if math.isnan(moved) else moved


def _picture(details: ShipResult, picture: WorstPicture) -> Markup:
    name = PurePath(picture.path).name or picture.path
    image = (
        tag("img", src=picture.thumbnail, alt=f"the picture {name}")
        if picture.thumbnail
        else tag("span", "no thumbnail", class_="no-picture")
    )
    change = picture.winner - picture.reference
    turned = (
        tag("b", " flipped", class_="no")
        if math.isfinite(change) and flipped(details, picture.reference, picture.winner)
        else ""
    )
    scores = tag(
        "dl",
        tag("div", tag("dt", "reference"), tag("dd", figures.score(picture.reference))),
        tag("div", tag("dt", "ships"), tag("dd", figures.score(picture.winner))),
        tag("div", tag("dt", "moved"), tag("dd", figures.signed(change), turned)),
    )
    return tag(
        "li",
        tag("div", image, class_="frame"),
        tag("p", name, class_="file", title=picture.path),
        _ruler(details, picture),
        scores,
    )


def _ruler(details: ShipResult, picture: PictureScore) -> Markup:
    """Return both scores on a line from 0 to 1 with the thresholds; nothing where a score is no share."""
    if not all(0 <= value <= 1 for value in (picture.reference, picture.winner)):
        return Markup("")
    ticks = [
        tag("line", x1=f"{threshold * 100:.2f}%", x2=f"{threshold * 100:.2f}%", y1=2, y2=16, class_="threshold")
        for threshold in details.thresholds
        if 0 <= threshold <= 1
    ]
    at = [f"{1.5 + 97 * value:.2f}%" for value in (picture.reference, picture.winner)]
    dots = [
        tag("circle", cx=at[0], cy=9, r=4.5, class_="ruler-reference"),
        tag("circle", cx=at[1], cy=9, r=3, class_="ruler-winner"),
    ]
    return tag(
        "svg",
        tag("line", x1=0, x2="100%", y1=9, y2=9, class_="axis"),
        join(ticks),
        *dots,
        width="100%",
        height=18,
        aria_hidden="true",
        class_="ruler",
    )
