"""The page of `plimsoll threshold`: what the bands hold, and precision, recall and false positives over all thresholds,
with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from plimsoll.errors import InputError
from plimsoll.report import figures
from plimsoll.report.page import svg
from plimsoll.report.page.svg import Frame, Linear, element, line, text
from plimsoll.report.report import HEADLINE, Report

_FRAME = Frame(460, 400, 52, 34, 14, 50)
KIND = "threshold"

Points = Sequence[tuple[float, ...]]
"""Of a curve: where it lies across, its value, and the ends of its interval."""


@dataclass(frozen=True)
class BandRow:
    """A band in words, as the table shows it."""

    label: str
    scores: str
    pictures: str
    share: str
    reviewed: str
    bad: str
    of_bad: str


def page_values(report: Report) -> dict[str, Any]:
    """Return what the template shows of a report of kind "threshold"; raises InputError where it isn't such a one."""
    if report.kind != KIND:
        raise InputError(f"the report is of the kind '{report.kind}', expected '{KIND}'")
    details: dict[str, Any] = dict(report.details)
    ends = [band["below"] for band in details["bands"] if band["below"] is not None]
    curve = details["curve"]
    measured = report.measurements
    left_out = {
        "pictures without a score": measured["pictures_without_score"],
        "decisions on other pictures": details["unmatched"],
        "pictures with a tie": details["ties"],
        "rows without a decision": details["skipped"],
    }
    share = [measured["bad_share"], measured["bad_share_low"], measured["bad_share_high"]]
    facts = [
        ("pictures", f"{measured['pictures']:,}"),
        ("reviewed", f"{measured['reviewed']:,}"),
        ("of them bad", f"{measured['reviewed_bad']:,}"),
        ("bad among all", _interval(share)),
        *((name, f"{count:,}") for name, count in left_out.items() if count),
    ]
    return {
        "title": str(measured[HEADLINE]),
        "facts": facts,
        "bands": [_row(band) for band in details["bands"]],
        "unseen": [band for band in details["bands"] if band["unseen"]],
        "plots": [_by_threshold(curve, ends), _precision_recall(curve), _receiver_operating(curve)],
        "origin": [
            ("table", details["table"]),
            ("decisions", details["decisions"]),
            ("strata meet at", ", ".join(f"{edge:g}" for edge in details["strata"]) or "the whole table is one"),
            ("bundle", details["model"]["bundle_sha256"]),
            ("measured", f"{report.created:%Y-%m-%d %H:%M} UTC"),
        ],
    }


def _row(band: dict[str, Any]) -> BandRow:
    low, below = (("…" if end is None else f"{end:g}") for end in (band["low"], band["below"]))
    return BandRow(
        label=band["label"],
        scores=f"{low} - {below}",
        pictures=f"{band['pictures']:,}",
        share=f"{band['share']:.1%}",
        reviewed=f"{band['reviewed']:,}",
        bad=_interval(band["bad"]),
        of_bad=_interval(band["of_bad"]),
    )


def _interval(estimate: Sequence[Any]) -> str:
    value, low, high = estimate
    shown = figures.MISSING if not isinstance(value, float) or value != value else f"{value:.2%}"
    return f"{shown} ({low:.2%} - {high:.2%})"


def _by_threshold(curve: Sequence[dict[str, Any]], ends: Sequence[float]) -> Markup:
    curves = {
        name: [(point["threshold"], *point[name]) for point in curve if point[name][0] is not None]
        for name in ("recall", "precision")
    }
    description = (
        "What a threshold keeps of the bad pictures (recall), and how much of what reaches it is bad (precision)."
    )
    return _plot("thresholds", "precision and recall by threshold", description, ("threshold", ""), curves, ends)


def _precision_recall(curve: Sequence[dict[str, Any]]) -> Markup:
    points = [
        (point["recall"][0], *point["precision"])
        for point in curve
        if None not in (point["recall"][0], point["precision"][0])
    ]
    description = "Precision by recall: a point for each threshold, with the interval of its precision."
    return _plot("pr", "precision by recall", description, ("recall", "precision"), {"precision": points})


def _receiver_operating(curve: Sequence[dict[str, Any]]) -> Markup:
    points = [
        (point["false_positives"][0], *point["recall"])
        for point in curve
        if None not in (point["recall"][0], point["false_positives"][0])
    ]
    description = (
        "Recall by the share of fine pictures that reach the threshold (ROC), with the interval of its recall."
    )
    return _plot("roc", "recall by false positives", description, ("false positives", "recall"), {"recall": points})


def _plot(
    name: str,
    title: str,
    description: str,
    axes: tuple[str, str],
    curves: Mapping[str, Points],
    ends: Sequence[float] = (),
) -> Markup:
    """Return curves in a square from 0 to 1, each with its interval behind it."""
    area = _FRAME.area
    x, y = Linear(0.0, 1.0, area.left, area.right), Linear(0.0, 1.0, area.bottom, area.top)
    marks = []
    for tick in x.ticks():
        marks += [
            line(x(tick), area.top, x(tick), area.bottom, "grid"),
            text(figures.number(tick), x(tick), area.bottom + 18, "middle", "tick"),
            line(area.left, y(tick), area.right, y(tick), "grid"),
            text(figures.number(tick), area.left - 8, y(tick) + 4, "end", "tick"),
        ]
    marks += [line(x(end), area.top, x(end), area.bottom, "threshold") for end in ends]
    for kind, points in curves.items():
        if not points:
            continue
        upper = [(x(across), y(high)) for across, _, _, high in points]
        lower = [(x(across), y(low)) for across, _, low, _ in reversed(points)]
        marks += [
            element("path", d=svg.path([*upper, *lower]) + "z", class_=f"interval {kind}"),
            element(
                "path", d=svg.path((x(across), y(value)) for across, value, _, _ in points), class_=f"curve {kind}"
            ),
        ]
    names = [text(f"{axes[0]} →", area.right, _FRAME.height - 10, "end", "axis-name")]
    if axes[1]:
        names.append(text(axes[1], 4, 18, "start", "axis-name"))
    else:  # Several curves: each is named by its colour.
        names += [
            text(kind, area.left + 90 * number, 18, "start", f"axis-name curve-name {kind}")
            for number, kind in enumerate(curves)
        ]
    return svg.chart(name, title, description, _FRAME, *marks, *names)
