"""The HTML page of a `ship`: one file that shows everything, loads nothing, and can be mailed.

The drawings are SVG made here; style and script stand in the page, and a Content-Security-Policy forbids all else, so
that a hostile file name in a report has two walls to get over.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from plimsoll.report.page import headline, layers, marks, pareto_plot, proof, scores, stages
from plimsoll.report.page.markup import Markup, tag
from plimsoll.report.page.results_table import ladder
from plimsoll.report.report import Report
from plimsoll.report.ship_result import ShipResult


def render(report: Report) -> str:
    """Return the page of a report of kind "ship" as HTML text; raises InputError where its `details` are not a ship's."""
    details = ShipResult.of(report)
    script, style = _own("page.js"), _own("page.css")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{headline.title(details)} · {report.subject}"),
        tag("style", style),
    )
    body = tag(
        "body",
        headline.header(details, report.subject),
        tag("main", *_sections(report, details)),
        _footer(report),
        tag("script", script),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _own(name: str) -> Markup:
    return Markup(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'"
    )


def _sections(report: Report, details: ShipResult) -> list[Markup]:
    return [
        _section("line", "The load line", _plot_words(details), _plot(details)),
        _section("ladder", "The ladder", "", ladder(details) if details.trials else Markup("")),
        _section("stages", "Where the time goes", stages.summary(details), stages.stages(details)),
        _section("scores", "Every score", scores.summary(details), scores.scatter(details)),
        _section(
            "worst",
            "The pictures that moved most",
            "Look at them: a number can't say whether a change matters.",
            scores.worst(details),
        ),
        _section("layers", "Where the deviation enters", layers.summary(details), layers.layers(details)),
        _section(
            "proof",
            "How it was proven",
            "No picture served twice: what calibrates never chooses, and what chooses never judges.",
            tag("div", proof.proof(details), class_="tables"),
        ),
        _section("repeat", "Where it was measured", "", proof.surroundings(report, details)),
    ]


def _section(name: str, heading: str, words: str, content: str) -> Markup:
    """Return a section, or nothing where it has no content."""
    if not content:
        return Markup("")
    lead = tag("p", words, class_="section-lead") if words else ""
    return tag("section", tag("h2", heading, id=name), lead, content, class_=f"section-{name}", aria_labelledby=name)


def _plot(details: ShipResult) -> Markup:
    if not pareto_plot.dots(details):
        return Markup("")
    readout = tag(
        "p", "Point at a mark, or reach it with the Tab key, to read it here.", class_="readout", aria_live="polite"
    )
    return tag("figure", pareto_plot.load_line(details), tag("figcaption", pareto_plot.legend(details), readout))


def _plot_words(details: ShipResult) -> str:
    left_out = len(details.trials) - len(pareto_plot.dots(details))
    missing = (
        f" {left_out} without both figures {'is' if left_out == 1 else 'are'} in the ladder only." if left_out else ""
    )
    line = (
        " Marks in the water right of the line deviation too far." if details.budget.deviation_limit is not None else ""
    )
    return (
        "Every mark is a deployment that was built and measured: higher is faster, further right is further from the"
        f" reference.{line} Numbers are the ladder's.{missing}"
    )


def _footer(report: Report) -> Markup:
    words = (
        f"Plimsoll {report.plimsoll} · {report.created:%Y-%m-%d} · this page is one file and loads nothing; the same"
        " figures are in report.json"
    )
    return tag("footer", marks.plimsoll_mark(22), tag("p", words))
