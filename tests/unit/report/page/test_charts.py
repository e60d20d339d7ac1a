"""What the page is made of: axes, the Pareto front, labels, stages, colours."""

from __future__ import annotations

import itertools
import math
import re
from importlib import resources
from typing import Any

import pytest
from markupsafe import Markup

from helpers import sample_ship_report
from plimsoll.core.budget import Check
from plimsoll.report.page import pareto_plot, stages
from plimsoll.report.page.gauge import nearest_check
from plimsoll.report.page.label_placement import Box, LabelRequest, place_labels
from plimsoll.report.page.pareto_plot import pareto_front
from plimsoll.report.page.svg import Decades, LogOdds, covering, element, runtime_symbols
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.summary import title
from plimsoll.report.trial import Trial

NAN, INF = math.nan, math.inf


def trial_details(float_layers: int = 0, **parts: Any) -> dict[str, Any]:
    """Return a trial as a report holds it."""
    candidate = {"preprocessing": "fast", "folded": False, "target": "openvino:cpu:int8", "calibrator": "mse"}
    return {"candidate": candidate | {"float_layers": float_layers}, "status": "ok", **parts}


def test_the_front_of_a_hand_made_case() -> None:
    # Beaten: (1.5, 2) by (1, 3); (3, 4.9) and (2, 4) by (2, 5); (8, 5), which is no faster than (2, 5). (2, 5) is there
    # twice.
    points = [
        (1.0, 3.0),
        (1.5, 2.0),
        (2.0, 5.0),
        (2.0, 5.0),
        (3.0, 4.9),
        (0.0, 1.0),
        (2.0, 4.0),
        (8.0, 5.0),
        (9.0, 5.1),
    ]
    assert pareto_front(points) == [(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (9.0, 5.1)]
    assert pareto_front([]) == []


def test_no_point_of_the_front_is_beaten(example: dict[str, Any]) -> None:
    points = [(point.deviation, point.ratio) for point in pareto_plot.plot_points(ShipResult.model_validate(example))]
    best = pareto_front(points)
    for deviation, ratio in points:
        beaten = any(d <= deviation and r >= ratio and (d, r) != (deviation, ratio) for d, r in points)
        assert ((deviation, ratio) in best) is not beaten


@pytest.mark.parametrize("wide", [True, False], ids=["desktop", "phone"])
@pytest.mark.parametrize("seed", range(4))
def test_labels_cover_neither_each_other_nor_a_mark(example_photos: list[Any], seed: int, wide: bool) -> None:
    details = ShipResult.model_validate(sample_ship_report.details(example_photos, seed))
    plot = pareto_plot.layout(details, pareto_plot.WIDE if wide else pareto_plot.NARROW)
    placed = [label for _, label in pareto_plot.labels(plot)]
    assert len(placed) == len(plot.points) == 12
    assert not [pair for pair in itertools.combinations(placed, 2) if pair[0].box.meets(pair[1].box)]
    for point, label in itertools.product(plot.points, placed):
        x, y = plot.position(point)
        assert not label.box.meets(Box(x - 6, y - 6, x + 6, y + 6)), (point.trial.name, label.text)
    assert all(label.box.within(plot.frame.area) for label in placed)
    named = [label.text for label in placed if not label.text.isdigit()]
    assert len(named) == (12 if wide else 2)


def test_a_label_without_room_is_left_out() -> None:
    crowd = [LabelRequest((f"a long label {index}", str(index)), 50, 50, 6, 13) for index in range(60)]
    placed = place_labels(crowd, Box(0, 0, 100, 100))
    assert None in placed
    assert any(label is not None and label.text.isdigit() for label in placed)
    assert not [
        pair
        for pair in itertools.combinations([label for label in placed if label], 2)
        if pair[0].box.meets(pair[1].box)
    ]


def test_a_label_that_must_stand_does_so_among_lines() -> None:
    lines = [Box(x, 0, x + 1, 400) for x in range(0, 400, 8)]
    texts = ("the one that ships", "2")
    assert place_labels([LabelRequest(texts, 200, 200, 6, 13)], Box(0, 0, 400, 400), lines)[0] is None
    label = place_labels([LabelRequest(texts, 200, 200, 6, 13, required=True)], Box(0, 0, 400, 400), lines)[0]
    assert label is not None
    assert label.text == texts[0]


def test_what_was_not_measured_is_nan() -> None:
    speeds = [{"ratio": NAN}, {"ratio": "NaN"}, {"ratio": None}, {}, {"ratio": "Infinity"}, {"ratio": 2}]
    trials = [trial_details(index, measured={"speed": speed}) for index, speed in enumerate(speeds)]
    result = ShipResult.model_validate({"winner": "5", "reference": "0", "outcome": "better", "trials": trials})
    ratios = [trial.measured.speed.ratio for trial in result.trials]
    assert all(map(math.isnan, ratios[:4]))
    assert ratios[4:] == [INF, 2.0]
    assert [trial.candidate.float_layers for trial in result.ranked()] == [5, 0, 1, 2, 3, 4]


def test_the_drift_axis_keeps_zero_apart_and_order() -> None:
    axis = Decades.of([0.0, 0.0002, 0.01, 0.3], 0.05, zero=20, start=50, end=500)
    places = [axis(value) for value in (0.0, 0.0002, 0.01, 0.05, 0.3, 7.0)]
    assert places == sorted(places)
    assert places[0] == 20
    assert places[1] > 50
    assert places[-1] == 500
    assert [tick for tick in axis.ticks() if tick == pytest.approx(0.01)]


def test_a_drift_of_rounding_does_not_stretch_the_axis() -> None:
    axis = Decades.of([4e-9, 0.0004, 0.002], 0.01, zero=20, start=50, end=500)
    assert axis(4e-9) == 20
    assert axis(0.01) - axis(0.0004) > 100


def test_log_odds_give_room_to_both_ends() -> None:
    axis = LogOdds.of([0.0, 0.0004, 0.5, 0.997, 1.0], 0, 100)
    places = [axis(share) for share in (0.0, 0.0004, 0.02, 0.5, 0.98, 0.997, 1.0)]
    assert places == sorted(places)
    assert places[0] == pytest.approx(0)
    assert places[-1] == pytest.approx(100)
    assert axis(0.02) - axis(0.002) == pytest.approx(axis(0.998) - axis(0.98))
    assert axis.ticks() == [0.001, 0.01, 0.1, 0.5, 0.9, 0.99]


def test_stages_of_both_stand_in_the_order_in_which_they_run() -> None:
    before, after = (
        {"read": 1.0, "mean": 1.0, "inference": 1.0, "output": 1.0},
        {"read": 1.0, "normalize": 1.0, "inference": 1.0, "output": 1.0},
    )
    details = ShipResult.model_validate(
        {"winner": "a", "reference": "a", "outcome": "better", "stages": {"reference": before, "winner": after}}
    )
    assert [row.stage for row in stages.stage_rows(details)] == [
        "read",
        "normalize",
        "mean",
        "inference",
        "output",
    ]


def test_a_runtime_without_a_symbol_gets_a_free_one() -> None:
    trials = [trial_details(0), trial_details(1)]
    trials[1]["candidate"]["target"] = "planted:cpu:int8"
    details = {"winner": "", "reference": "", "outcome": "better", "trials": trials}
    symbols = runtime_symbols(ShipResult.model_validate(details | {"symbols": {"openvino": "circle"}}))
    assert symbols == {"openvino": "circle", "planted": "square"}
    assert runtime_symbols(ShipResult.model_validate(details)) == {"openvino": "circle", "planted": "square"}


@pytest.mark.parametrize("values", [[], [NAN], [0.0], [3.0, 3.0], [-2.0, 7.3], [1e-9, 2e-9]])
def test_a_linear_axis_covers_its_values(values: list[float]) -> None:
    axis = covering(values, 0, 100)
    assert all(axis.low <= value <= axis.high for value in values if math.isfinite(value))
    assert 2 <= len(axis.ticks()) <= 12


def test_the_gauge_shows_the_check_nearest_its_limit() -> None:
    checks = (
        Check(name="a quarter", measured=1, limit=4),
        Check(name="three quarters", measured=3, limit=4),
        Check(name="a lower limit", measured=99, limit=1, direction="at_least"),
        Check(name="unmeasured", measured=NAN, limit=1),
        Check(name="no room at all", measured=1, limit=0),
    )
    nearest = nearest_check(checks)
    assert nearest is not None
    assert nearest.name == "three quarters"
    assert nearest_check(checks[2:]) is None


def test_a_cascades_networks_count_together() -> None:
    winner = {"decode and cut": 6.0, "faces prepare": 1.0, "faces inference": 2.0, "mesh inference": 1.0}
    given = {"winner": "a", "reference": "a", "outcome": "better", "infinite_network_images_per_second": 140.0}
    result = ShipResult.model_validate({**given, "stages": {"winner": winner}})
    assert "the networks are 30.0" in stages.summary(result)
    assert stages.bars(result)[-1].total == 7.0


def test_stages_without_a_network_have_no_bar_without_it() -> None:
    details = ShipResult.model_validate(
        {
            "winner": "a",
            "reference": "a",
            "outcome": "better",
            "stages": {"winner": {"decode": 1.0}},
            "infinite_network_images_per_second": 5.0,
        }
    )
    assert [bar.name for bar in stages.bars(details)] == ["ships"]


def test_text_in_a_drawing_is_escaped_and_markup_is_not() -> None:
    drawn = element("g", "a < b", Markup("<b>c</b>"), title='"\u202e{0}', data_x="'")
    assert drawn == '<g title="&#34;\ufffd{0}" data-x="&#39;">a &lt; b<b>c</b></g>'
    assert element("line", x1=-0.001, x2=1 / 3, y1=1e-9, class_=None) == '<line x1="0" x2="0.33" y1="0"></line>'


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb, as WCAG 2.2 defines it."""
    shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def colours(scheme: str) -> dict[str, str]:
    style = resources.files("plimsoll.report.page").joinpath("page.css").read_text(encoding="utf-8")
    light, dark, printed = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{([^}]*)\}", style)
    )
    return {"light": light, "dark": light | dark, "print": light | printed}[scheme]


TEXT_ON = [
    *[(text, ground) for text in ("ink", "soft", "yes", "no") for ground in ("paper", "strip")],
    ("ink", "sea"), ("paper", "yes"), ("hull-ink", "hull"), ("hull-soft", "hull"), ("hull-yes", "hull"),
    ("hull-no", "hull"), ("surface", "hull"),
    ("on-in", "in0"), ("on-in", "in1"), ("on-tint", "in2"), ("on-in", "in3"), ("on-in", "in4"), ("on-tint", "in5"),
    ("on-network", "network"), ("on-network", "answer"), ("ink", "waiting"),
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
@pytest.mark.parametrize(("text", "ground"), TEXT_ON)
def test_text_can_be_read_on_its_ground(scheme: str, text: str, ground: str) -> None:
    assert contrast(colours(scheme)[text], colours(scheme)[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
@pytest.mark.parametrize("mark", ["float32", "float16", "bfloat16", "int8", "dynamic", "other", "line"])
def test_marks_can_be_distinguished_from_paper_and_water(scheme: str, mark: str) -> None:
    assert min(contrast(colours(scheme)[mark], colours(scheme)[ground]) for ground in ("paper", "sea")) >= 3.0


def test_a_smaller_one_is_headed_by_its_size() -> None:
    trials = [
        trial_details(0, measured={"size_bytes": 23.6e6}),
        trial_details(1, measured={"size_bytes": 6.2e6, "speed": {"ratio": 1.5}}),
    ]
    keys = [Trial.model_validate(trial).key for trial in trials]
    details = {"winner": keys[1], "reference": keys[0], "outcome": "better", "objective": "size", "trials": trials}
    assert title(ShipResult.model_validate(details)).startswith("73\u00a0% smaller, ")
    not_smaller = {**details, "winner": keys[0], "outcome": "not_better"}
    assert title(ShipResult.model_validate(not_smaller)) == "Not smaller: the reference ships"
