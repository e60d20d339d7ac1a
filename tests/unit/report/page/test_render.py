"""The page: whole, legal, self-contained, true to the report, and not to be broken by what a report holds."""

from __future__ import annotations

import base64
import copy
import hashlib
import math
import re
from typing import Any

import pytest

from helpers import sample_ship_report
from helpers.html_parser import Page
from plimsoll.errors import InputError
from plimsoll.report.page import render
from plimsoll.report.report import Report
from plimsoll.report.ship_result import ShipResult

HOSTILE = "\"><script>alert('sunk')</script>&<img src=x onerror=alert(1)>'--><svg/onload=alert(1)>"

FAILED_AT = 12
"""The failed trial's index among the made-up ones."""

BARE = {"winner": "a", "reference": "a", "outcome": "not_better"}


def rendered(details: dict[str, Any]) -> Page:
    return Page(render(sample_ship_report.report(details)))


def references(page: Page) -> list[str]:
    """Return everything on the page that a browser could fetch."""
    names = ("src", "href", "xlink:href", "srcset", "data", "poster", "action", "background", "fill")
    return [value for _, attributes in page.elements for name in names if (value := attributes.get(name)) is not None]


def test_the_page_is_balanced_and_its_names_are_unique(page: str) -> None:
    read = Page(page)
    assert read.wrong == []
    names = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(names) == len(set(names))
    pointed_at = [
        target for _, attributes in read.elements for target in (attributes.get("aria-labelledby") or "").split()
    ]
    pointed_at += [href.removeprefix("#") for a in read.all("a") if (href := a["href"])]
    assert pointed_at
    assert set(pointed_at) <= set(names)


def test_the_page_loads_nothing(page: str) -> None:
    read = Page(page)
    assert {value.partition(":")[0] for value in references(read) if not value.startswith(("#", "url(#"))} <= {
        "data",
        "none",
    }
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in read.all("img"))
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|WebSocket|eval|innerHTML)\b", page.rpartition("<script>")[2])


def test_the_policy_allows_this_script_and_no_other(page: str) -> None:
    policy = next(
        meta["content"] for meta in Page(page).all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_page_shows_every_candidate_with_its_reason(page: str, example: dict[str, Any]) -> None:
    read = Page(page)
    for trial in example["trials"]:
        assert any(trial["name"] == head.get("title") for head in read.all("th")), trial["name"]
    assert sample_ship_report.FAILED in read.text
    assert sample_ship_report.SKIPPED in read.text
    assert "mean deviation: measured 0.0131; the limit is 0.01, missed by 0.0031" in read.text
    assert sum(attributes.get("class") == "winner" for attributes in read.all("tr")) == 1
    assert "4.84 times as fast, 0 of 125 decisions flipped" in read.text
    assert "no more than 2.37 % of all decisions flip" in read.text
    assert "Budget kept (flips=4%, mean_deviation=0.01)" in read.text
    assert all(command in read.text for command in example["commands"])


def test_the_page_is_small_enough_to_mail(page: str) -> None:
    assert len(page.encode()) < 1_500_000


def test_no_figure_is_written_as_python_writes_it(page: str) -> None:
    text = Page(page).text
    assert not re.search(r"\bnan\b|\binf\b|\bNone \d|\bTrue\b|\bFalse\b|\d\.\d{6}|\de[-+]\d|\d{5}\.\d", text)


@pytest.mark.parametrize(
    ("style", "words"),
    [("nothing_passed", "Nothing passed: the reference ships"), ("not_better", "Not faster: the reference ships")],
)
def test_other_outcomes_have_their_own_headline(example: dict[str, Any], style: str, words: str) -> None:
    details = copy.deepcopy(example) | {"outcome": style, "winner": example["reference"]}
    read = rendered(details)
    assert words in read.text
    assert "times as fast, 0 of" not in read.text


def test_nothing_passed_does_not_claim_a_kept_budget(example: dict[str, Any]) -> None:
    read = rendered(copy.deepcopy(example) | {"outcome": "nothing_passed", "winner": example["reference"]})
    assert "No candidate kept the budget" in read.text
    assert "Budget kept" not in read.text


def test_a_failed_check_of_the_test_pictures_is_shown(example: dict[str, Any]) -> None:
    details = copy.deepcopy(example)
    details["test"]["checks"].append(sample_ship_report.check("largest deviation", 0.3, 0.1))
    assert "Budget not kept" in rendered(details).text


TEXTS: dict[str, list[tuple[str | int, ...]]] = {
    "path": [("scores", 0, "path"), ("worst", 0, "path")],
    "reason": [("trials", FAILED_AT, "reason", "message")],
    "calibrator": [("trials", FAILED_AT, "candidate", "calibrator")],
    "verdict": [("trials", 2, "measured", "speed", "verdict")],
    "score label": [("score_label",)],
    "layer": [("layers", 64, "name"), ("layers", 64, "operator")],
    "command": [("commands", 0)],
    "note": [("notes", 0)],
    "stage": [("stages", "winner", HOSTILE)],
    "metric": [("test", "labelled", HOSTILE)],
    "budget": [("budget", "texts", 0)],
    "check": [("test", "checks", 2, "name"), ("test", "checks", 2, "detail"), ("test", "checks", 2, "unit")],
}


def plant(details: dict[str, Any], keys: tuple[str | int, ...]) -> None:
    """Put the hostile text where a report has a text of its user's, or a name of its user's choice as a key."""
    target: Any = details
    for key in keys[:-1]:
        target = target[key]
    figures = {"reference": 0.9, "candidate": 0.8, "drop": 0.1} if keys[0] == "test" else 9.0
    target[keys[-1]] = figures if keys[-1] == HOSTILE else HOSTILE


def assert_harmless(source: str, calm: str) -> None:
    """Check that the page has no element, attribute or picture that the same page without hostile text has not."""
    read, usual = Page(source), Page(calm)
    assert read.wrong == []
    assert len(read.all("script")) == 1
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in read.all("img"))
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert {name for name, _ in read.elements} <= {name for name, _ in usual.elements}
    shown = read.text + " ".join(str(value) for _, attributes in read.elements for value in attributes.values())
    assert "alert('sunk')" in shown


@pytest.mark.parametrize("where", TEXTS)
def test_hostile_text_stays_text(example: dict[str, Any], page: str, where: str) -> None:
    details = copy.deepcopy(example)
    details["test"]["labelled"] = {}
    for keys in TEXTS[where]:
        plant(details, keys)
    assert_harmless(render(sample_ship_report.report(details)), page)


@pytest.mark.parametrize("key", ["target", "preprocessing", "folded", "float_layers"])
def test_a_candidate_that_cannot_exist_is_refused(example: dict[str, Any], key: str) -> None:
    details = copy.deepcopy(example)
    details["trials"][2]["candidate"][key] = HOSTILE
    with pytest.raises(InputError, match=rf"trials\[2\]\.candidate\.{key}"):
        rendered(details)


def test_an_unknown_symbol_is_refused(example: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"symbols\.openvino"):
        rendered(example | {"symbols": {"openvino": HOSTILE}})


def test_a_trial_does_not_claim_to_pass_a_budget_that_its_checks_failed(example: dict[str, Any]) -> None:
    details = copy.deepcopy(example)
    failing = next(trial for trial in details["trials"] if trial["passed"] is False)
    failing["passed"] = True
    with pytest.raises(InputError, match="a check of the validation part failed"):
        rendered(details)


def test_hostile_facts_of_the_report_stay_text(example: dict[str, Any], page: str) -> None:
    report = sample_ship_report.report(example)
    assert_harmless(render(report.model_copy(update={"subject": HOSTILE})), page)
    assert_harmless(
        render(report.model_copy(update={"environment": {HOSTILE: HOSTILE, "versions": {HOSTILE: HOSTILE}}})), page
    )


@pytest.mark.parametrize(
    "thumbnail",
    [
        "https://example.org/a.jpg",
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/svg+xml;base64,PHN2Zz4=",
        'data:image/jpeg;base64,AA" onerror="x',
        "javascript:x",
        "",
        None,
    ],
)
def test_only_a_jpeg_becomes_a_picture(example: dict[str, Any], thumbnail: str | None) -> None:
    details = copy.deepcopy(example)
    for picture in details["worst"][1:]:
        picture["thumbnail"] = thumbnail
    read = rendered(details)
    assert [image["src"] for image in read.all("img")] == [details["worst"][0]["thumbnail"]]
    assert "no thumbnail" in read.text


def test_pictures_without_thumbnails_are_numbered_and_have_no_empty_frames(example: dict[str, Any]) -> None:
    details = copy.deepcopy(example)
    for number, picture in enumerate(details["worst"]):
        picture |= {"thumbnail": "", "path": f"picture {number}"}
    read = rendered(details)
    assert read.all("img") == []
    assert "no thumbnail" not in read.text
    assert "picture 7" in read.text


def test_text_that_no_file_can_hold_is_replaced(example: dict[str, Any]) -> None:
    details = copy.deepcopy(example)
    details["worst"][0]["path"] = "photos/\udcff\x00\x1b[31m\u202egpj.exe"
    result = ShipResult.model_validate(details)
    report = sample_ship_report.report(example).model_copy(
        update={"details": {**details, "worst": [result.worst[0].model_dump()]}}
    )
    source = render(report)
    source.encode("utf-8")
    assert not set("\x00\x1b\u202e\udcff") & set(source)


def strip(value: Any) -> Any:
    """Return the same report with nothing measured: every figure null."""
    if isinstance(value, dict):
        shown = ("count", "flipped", "failed", "calibration", "validation", "test", "unreadable", "duplicates")
        return {
            key: item
            if key in shown and isinstance(item, int)
            else []
            if key in ("checks", "thresholds")
            else strip(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [strip(item) for item in value]
    return None if isinstance(value, float | int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf, "NaN"], ids=str)
def test_figures_that_were_not_measured_break_nothing(example: dict[str, Any], missing: Any) -> None:
    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: missing
                if item is None
                and key not in ("calibrator", "passed", "deviation_limit", "threshold", "reason", "bound")
                else put(item)
                for key, item in value.items()
            }
        return [put(item) for item in value] if isinstance(value, list) else value

    source = render(sample_ship_report.report(put(strip(example))))
    read = Page(source)
    assert read.wrong == []
    assert not re.search(r"\bnan\b|\binf\b", source.partition("</style>")[2].rpartition("<script>")[0], re.IGNORECASE)
    assert all(trial["name"] in source for trial in example["trials"])


@pytest.mark.parametrize(
    "part",
    [
        "trials",
        "scores",
        "worst",
        "layers",
        "commands",
        "notes",
        "thresholds",
        "stages",
        "test",
        "split",
        "budget",
    ],
)
def test_a_missing_part_is_left_out(example: dict[str, Any], part: str) -> None:
    details = {key: value for key, value in example.items() if key != part}
    assert rendered(details).wrong == []
    empty: Any = [] if isinstance(example[part], list) else {}
    assert rendered(example | {part: empty}).wrong == []


def test_the_least_report_has_a_page() -> None:
    read = rendered(dict(BARE))
    assert read.wrong == []
    assert "Not faster: the reference ships" in read.text
    assert "Budget not tested" in read.text


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1e-9, 1e9])
@pytest.mark.parametrize("deviation", [0.0, 1e-12, 1.0, 1e6])
@pytest.mark.parametrize("limit", [None, 0.0, 0.05, 1e-9])
def test_one_candidate_has_a_page(ratio: float, deviation: float, limit: float | None) -> None:
    trial = {
        "candidate": {"preprocessing": "fast", "folded": False, "target": "a:b:int8"},
        "status": "ok",
        "passed": True,
        "validation": {"deviation": {"max": deviation}},
        "measured": {"speed": {"ratio": ratio, "low": ratio, "high": ratio}},
    }
    details = {
        **BARE,
        "outcome": "better",
        "trials": [trial],
        "budget": {"deviation_limit": limit, "deviation_measure": "max"},
    }
    read = rendered(details)
    assert read.wrong == []
    places = [
        float(value)
        for _, attributes in read.elements
        for key in ("x1", "y1", "x2", "y2")
        if (value := attributes.get(key)) and not value.endswith("%")
    ]
    assert all(-10 <= number <= 1010 for number in places)


def test_scores_that_are_not_shares_have_a_plot(example: dict[str, Any]) -> None:
    scores = [{"path": "a.jpg", "reference": 12.5, "winner": -3.25}, {"path": "b.jpg", "reference": 4.0, "winner": 4.0}]
    read = rendered(copy.deepcopy(example) | {"scores": scores, "worst": scores, "thresholds": []})
    assert read.wrong == []
    assert "the farthest moved by 16" in read.text


def test_a_flipped_decision_is_marked(example: dict[str, Any]) -> None:
    details = copy.deepcopy(example)
    details["scores"][0] |= {"reference": 0.8, "winner": 0.7999}
    read = rendered(details)
    assert "1 picture changed sides at 0.2 or 0.8" in read.text
    assert read.text.count("the decision flipped") == 2


def test_labelled_metrics_are_shown(example: dict[str, Any]) -> None:
    details = copy.deepcopy(example)
    details["test"]["labelled"] = {
        "top-1 accuracy": {"reference": 0.962, "candidate": 0.957, "drop": 0.005, "low": -0.002, "high": 0.011}
    }
    text = rendered(details).text
    assert "top-1 accuracy" in text
    assert "−0.002 to +0.011" in text


def test_another_kind_of_report_is_refused(example: dict[str, Any]) -> None:
    report = sample_ship_report.report(example)
    with pytest.raises(InputError, match="kind 'verify', expected 'ship'"):
        render(report.model_copy(update={"kind": "verify"}))
    with pytest.raises(InputError, match="winner: missing"):
        render(Report(kind="ship", subject="a network"))
    details = copy.deepcopy(example)
    details["trials"][2]["measured"]["speed"]["ratio"] = "fast"
    with pytest.raises(InputError, match=r"trials\[2\]\.measured\.speed\.ratio"):
        rendered(details)


def test_mixed_precision_is_stated_in_the_results_table() -> None:
    candidate = {"preprocessing": "fast", "folded": False, "target": "openvino:cpu:int8", "calibrator": "mse"}
    trial = {"candidate": candidate | {"float_layers": 5}, "status": "ok"}
    read = rendered({"winner": "1", "reference": "1", "outcome": "better", "trials": [trial]})
    assert "mse, fast preprocessing, 5 layers in float32" in read.text
