"""`render`: the HTML page of a `ship` or a `threshold`, from the templates beside this module.

Jinja2 escapes every value; the drawings are SVG made by `svg.py`. Style and script are in the page, and a
Content-Security-Policy forbids all else, so that a hostile file name in a report has two walls to get over.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from importlib import resources
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue

from plimsoll.report import figures, summary
from plimsoll.report.page import pareto_plot, proof_plots, stages, svg, threshold_page
from plimsoll.report.page.gauge import gauge, nearest_check
from plimsoll.report.report import Report
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Trial


def render(report: Report) -> str:
    """Return the page of a report of kind "ship" or "threshold" as HTML; raises InputError for one of another kind, and
    if its `details` are not a ship's."""
    if report.kind == threshold_page.KIND:
        values = threshold_page.page_values(report)
        template = _environment().get_template("threshold.html.j2")
        return template.render(report=report, style=_own_file("page.css"), policy=_policy(""), **values)
    result = ShipResult.of(report)
    script, style = _own_file("page.js"), _own_file("page.css")
    symbols = svg.runtime_symbols(result)

    def trial_mark(trial: Trial) -> Markup:
        return svg.legend_mark(symbols[trial.runtime], svg.trial_classes(trial))

    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            result=result,
            facts=_facts(report, result),
            script=script,
            style=style,
            policy=_policy(script),
            trial_mark=trial_mark,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("plimsoll.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_page_text,
    )
    environment.globals |= {
        "MISSING": figures.MISSING,
        "nan": math.nan,
        "counted": figures.counted,
        "plimsoll_mark": svg.plimsoll_mark,
        "gauge": gauge,
        "nearest_check": nearest_check,
        "pareto_plot": pareto_plot,
        "proof_plots": proof_plots,
        "stages": stages,
        "summary": summary,
    }
    environment.tests["known"] = math.isfinite
    environment.filters |= {
        function.__name__: function
        for function in (
            *(figures.number, figures.with_unit, figures.signed, figures.score, figures.ratio, figures.percent),
            *(figures.percent_at_most, figures.count, figures.rate, figures.size, figures.milliseconds),
            *(figures.duration, figures.decibels, figures.bound, figures.check_in_words),
        )
    }
    environment.filters |= {"file_name": _file_name, "phrases": _phrases, "sort_value": _sort_value, "words": _words}
    return environment


def _page_text(value: Any) -> Any:
    return svg.page_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _file_name(path: str) -> str:
    return PurePath(path).name or path


def _phrases(text: str) -> list[str]:
    """Return the parts of a headline, which breaks after its comma or colon where it does not fit on one line."""
    return re.split(r"(?<=[,:] )", text)


def _sort_value(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""


def _own_file(name: str) -> Markup:
    return Markup(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'"
    )


def _facts(report: Report, result: ShipResult) -> list[tuple[str, str]]:
    """Return when and where it was measured, as terms and values."""
    return [
        ("measured", f"{report.created:%Y-%m-%d %H:%M} UTC"),
        ("took", figures.duration(result.seconds)),
        ("plimsoll", report.plimsoll),
        *((key.replace("_", " "), _words(value)) for key, value in report.environment.items() if key != "versions"),
    ]


def _words(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return figures.number(value)
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return value or ""
