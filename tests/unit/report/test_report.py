"""Reports: what they claim follows from their figures, and their JSON is legal."""

from __future__ import annotations

import json
import math
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import plimsoll
from plimsoll.core.budget import Check
from plimsoll.errors import InputError
from plimsoll.report.report import Report, environment, schema

NAN, INF = math.nan, math.inf


def report(**fields: Any) -> Report:
    return Report(**{"kind": "verify", "subject": "a network", **fields})


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("judged", "limit", "direction", "passed"),
    [
        (0.5, 1.0, "at_most", True),
        (1.0, 1.0, "at_most", True),
        (1.5, 1.0, "at_most", False),
        (0.5, 1.0, "at_least", False),
        (1.0, 1.0, "at_least", True),
        (1.5, 1.0, "at_least", True),
        (NAN, 1.0, "at_most", False),
        (NAN, 1.0, "at_least", False),
        (INF, 1.0, "at_least", False),
        (-INF, 1.0, "at_most", False),
        (INF, INF, "at_most", False),
        (0.0, INF, "at_most", False),
        (0.0, NAN, "at_most", False),
        (0.0, 0.0, "at_most", True),
    ],
)
def test_passed_follows_from_the_figures(judged: float, limit: float, direction: Any, passed: bool) -> None:
    assert Check(name="deviation", measured=judged, limit=limit, direction=direction).passed is passed
    bounded = Check(name="deviation", measured=limit, bound=judged, limit=limit, direction=direction)
    assert bounded.passed is passed, "the bound is judged, not the sample"


def test_passed_can_not_be_claimed() -> None:
    honest = {"name": "deviation", "measured": 2.0, "limit": 1.0, "passed": False}
    assert not Check.model_validate(honest).passed
    for claim in (True, 1, "yes", None):
        with pytest.raises(ValidationError, match=r"measured 2\.0, bound None and limit 1\.0 say False"):
            Check.model_validate({**honest, "passed": claim})


def test_a_report_passes_where_all_checks_do() -> None:
    good, bad = Check(name="a", measured=0, limit=1), Check(name="b", measured=NAN, limit=1)
    assert report(checks=(good, good)).passed
    assert not report(checks=(good, bad)).passed
    assert not report().passed, "nothing checked is nothing passed"


def test_json_is_legal_and_comes_back(tmp_path: Path) -> None:
    example = report(
        checks=(
            Check(name="a", measured=NAN, limit=1.0, unit="levels", detail="where"),
            Check(name="b", measured=-INF, limit=INF),
            Check(name="c", measured=0.1, limit=0.2),
        ),
        measurements={"nan": NAN, "inf": INF, "minus": -INF, "count": 3, "real": 0.1, "words": "nan is a word"},
        environment={"odd": [NAN, {"deep": INF}]},
    )
    path = tmp_path / "report.json"
    path.write_text(example.to_json())
    data = strict(example.to_json())
    assert data["checks"][0] == {
        "name": "a",
        "measured": "NaN",
        "bound": None,
        "limit": 1.0,
        "direction": "at_most",
        "unit": "levels",
        "detail": "where",
        "passed": False,
    }
    assert data["measurements"] == {
        "nan": "NaN",
        "inf": "Infinity",
        "minus": "-Infinity",
        "count": 3,
        "real": 0.1,
        "words": "nan is a word",
    }
    read = Report.read(path)
    assert math.isnan(read.checks[0].measured)
    assert not read.checks[0].passed
    assert read.checks[1:] == example.checks[1:]
    assert math.isnan(float(read.measurements["nan"]))
    assert (read.measurements["inf"], read.measurements["minus"]) == (INF, -INF)
    assert isinstance(read.measurements["count"], int)
    assert read.to_json() == example.to_json()


def test_a_report_says_when_by_what_and_where() -> None:
    example = report()
    assert example.created.tzinfo is UTC
    assert strict(example.to_json())["created"].endswith("Z")
    assert example.plimsoll == plimsoll.__version__
    assert example.environment == environment()
    versions: Any = example.environment["versions"]
    assert {"plimsoll", "numpy", "onnxruntime", "pillow"} <= versions.keys()
    assert example.environment["architecture"]


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        report(created="2026-01-02T03:04:05")


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        report().subject = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a report"),
        ("{}", "kind: missing"),
        ("[" * 100_000, "not a report"),
        ('{"kind": "verify", "subject": "x", "more": 1}', "more: unknown key"),
        ('{"schema_version": 4, "kind": "verify", "subject": "x"}', "schema_version"),
        (
            (
                '{"kind": "verify", "subject": "x", "checks": [{"name": "a", "measured": "NaN", "limit": 1, "passed":'
                " true}]}"
            ),
            "bound None and limit 1.0 say False",
        ),
    ],
)
def test_reading_what_is_not_a_report(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not a report") as caught:
        Report.read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_reading_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        Report.read(tmp_path / "none.json")


def test_the_schema_is_of_what_is_written() -> None:
    properties = schema()["$defs"]["Check"]["properties"]
    assert {"passed", "measured", "limit"} <= properties.keys()
    assert {"enum": ["NaN", "Infinity", "-Infinity"]} in properties["measured"]["anyOf"]


def test_the_checks_of_a_report_of_version_1_are_read(tmp_path: Path) -> None:
    """Bundles that were shipped by version 0.1 hold one."""
    path = tmp_path / "report.json"
    check = '{"name": "flips", "measured": 0.0, "limit": 0.01, "passed": true}'
    path.write_text(f'{{"schema_version": 1, "kind": "ship", "subject": "x", "checks": [{check}]}}')
    report = Report.read(path)
    assert report.passed
    assert report.schema_version == 1


def test_the_checks_of_a_report_of_version_2_are_read(tmp_path: Path) -> None:
    """Their only figure was the bound, where one was judged; it never appears as what was measured."""
    flips = {"name": "flips at 0.5", "measured": 2.4, "limit": 4.0, "bound": "at_most", "passed": True}
    change = {"name": "change of top1", "measured": -2.0, "limit": -1.0, "bound": "at_least", "passed": False}
    network = {"name": "network", "measured": 0.5, "limit": 1.0, "bound": "at_most", "passed": True}
    path = tmp_path / "report.json"
    path.write_text(
        json.dumps({"schema_version": 2, "kind": "ship", "subject": "x", "checks": [flips, change, network]})
    )
    read = Report.read(path).checks
    assert [check.judged for check in read] == [2.4, -2.0, 0.5]
    assert [check.bound for check in read] == [2.4, -2.0, None]
    assert [check.passed for check in read] == [True, False, True]
    assert [math.isnan(check.measured) for check in read] == [True, True, False]
