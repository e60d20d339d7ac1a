"""Which candidates are tried in which order, and what wins: with made-up measurements, since the order is a matter of
figures alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from plimsoll.core.budget import Check
from plimsoll.core.target import Target
from plimsoll.preprocessing import Preprocessing
from plimsoll.report.measurements import Evaluation, Measurements, Speed
from plimsoll.report.reason import BetterShips, Failed, NotFinalist, OutOfTime, SiblingUsesLess, SimplerShips, in_words
from plimsoll.report.ship_result import Objective
from plimsoll.ship import REFERENCE, Candidate, Trial, strategy
from plimsoll.ship.strategy import (
    explore,
    finalists,
    first_round,
    gain,
    mixed_precision,
    ranking_key,
    runner_up,
    scaled_sides,
    simplest_first,
)
from plimsoll.spec import Input

FLOAT, INT8 = Target("onnxruntime"), Target("onnxruntime", "cpu", "int8")
OTHER = Target("openvino", "cpu", "int8")
WHOLE = Candidate("fast", False, INT8, "minmax")


def make_trial(candidate: Candidate, ratio: float, deviation: float, size: float = 1.0) -> Trial:
    validation = Evaluation(checks=(Check(name="deviation", measured=deviation, limit=0.01),))
    speed = Speed(ratio=ratio, low=ratio - 0.05, high=ratio + 0.05)
    return Trial(
        candidate=candidate,
        status="ok",
        passed=validation.passed,
        measured=Measurements(speed=speed, size_bytes=size),
        validation=validation,
    )


def tried(
    try_candidate: Callable[[Candidate], Trial], *targets: Target, calibrators: tuple[str, ...] = ("minmax",)
) -> list[Trial]:
    return list(explore(targets, calibrators, try_candidate, 60.0))


def layered(
    deviation_of: Callable[[int], float], ratio_of: Callable[[int], float] = lambda count: 4.0 - 0.1 * count
) -> Callable[[Candidate], Trial]:
    """Float with fast preprocessing is twice as fast and keeps the budget; int8 as the functions of its layers in
    float say."""

    def measured(candidate: Candidate) -> Trial:
        if candidate.target == FLOAT:
            return make_trial(candidate, 2.0, 0.001)
        return make_trial(candidate, ratio_of(candidate.float_layers), deviation_of(candidate.float_layers))

    return measured


def test_what_there_was_no_time_for_is_named() -> None:
    trials = list(
        explore(
            (FLOAT, INT8),
            ("minmax",),
            lambda candidate: Trial(candidate=candidate, status="ok"),
            seconds=0.0,
        )
    )
    assert [trial.status for trial in trials] == ["skipped", "skipped"]
    assert all(trial.reason == OutOfTime(limit_seconds=0.0) for trial in trials)


def test_with_little_time_every_precision_and_every_runtime_has_a_turn_before_a_second_of_either() -> None:
    precisions = ("int8", "float32", "float16")
    runtimes = ("litert", "mnn", "openvino")
    targets = [Target(runtime, "cpu", precision) for runtime in runtimes for precision in precisions]
    order = list(first_round(targets, ("percentile", "mse")))
    assert {candidate.target for candidate in order} == set(targets)
    assert len(order) == len(targets), "a second calibrator came before another target"
    for first in (0, 3, 6):
        assert {candidate.target.precision for candidate in order[first : first + 3]} == set(precisions)
    assert {candidate.target.runtime for candidate in order[:3]} == set(runtimes)
    assert order[0].target.precision == "int8"


def test_promising_targets_come_first_and_neighbours_of_the_best_follow() -> None:
    order = [trial.candidate for trial in tried(layered(lambda _: 0.0), FLOAT, INT8, calibrators=("minmax", "mse"))]
    assert order[0] == WHOLE
    assert {candidate.calibrator for candidate in order} >= {"minmax", "mse"}
    assert any(candidate.folded for candidate in order)
    assert len(set(order)) == len(order)


def test_layers_go_back_to_float_until_the_budget_holds() -> None:
    trials = tried(layered(lambda count: 0.05 - 0.01 * count), FLOAT, INT8)
    counts = [
        trial.candidate.float_layers
        for trial in trials
        if trial.candidate.float_layers and trial.candidate.preprocessing == "fast" and not trial.candidate.folded
    ]
    assert counts == [1, 2, 3, 5]
    best = max((trial for trial in trials if trial.passed), key=lambda trial: trial.ratio)
    assert best.candidate.float_layers == 5
    assert "5 layers in float32" in best.candidate.name
    assert best.candidate.key.endswith("minmax-float5")


def test_layers_go_back_to_float_only_while_that_is_faster() -> None:
    trials = tried(layered(lambda _: 0.05, lambda count: 4.0 - count), FLOAT, INT8)
    assert max(trial.candidate.float_layers for trial in trials) == 2


def test_one_calibrator_that_keeps_the_budget_is_enough() -> None:
    def measured(candidate: Candidate) -> Trial:
        if candidate.target == FLOAT:
            return make_trial(candidate, 2.0, 0.0)
        return (
            make_trial(candidate, 4.5, 0.05) if candidate.calibrator == "minmax" else make_trial(candidate, 4.0, 0.005)
        )

    trials = tried(measured, FLOAT, INT8, calibrators=("minmax", "mse"))
    assert not any(trial.candidate.float_layers for trial in trials)


def test_each_runtime_gets_its_own_mixture_from_its_nearest_calibrator() -> None:
    near, far, elsewhere = WHOLE, Candidate("fast", False, INT8, "mse"), Candidate("fast", False, OTHER, "minmax")
    candidates = mixed_precision(
        [make_trial(near, 4.0, 0.02), make_trial(far, 4.1, 0.09), make_trial(elsewhere, 5.0, 0.03)]
    )
    assert [(candidate.target, candidate.calibrator, candidate.float_layers) for candidate in candidates] == [
        (INT8, "minmax", 1),
        (OTHER, "minmax", 1),
    ]


def test_no_layer_goes_back_to_float_where_that_can_not_help() -> None:
    whole, float32 = make_trial(WHOLE, 4.0, 0.05), Candidate("fast", False, FLOAT)
    assert mixed_precision([whole])
    assert not mixed_precision([whole, make_trial(float32, 2.0, 0.04)]), "fast preprocessing alone is over the budget"
    assert not mixed_precision([make_trial(WHOLE, 4.0, float("nan"))]), "its answers are no numbers"
    assert not mixed_precision([make_trial(WHOLE, 0.9, 0.05)]), "it is slower than the reference"
    assert not mixed_precision(
        [whole, Trial(candidate=replace(WHOLE, float_layers=1), status="failed", reason=Failed(message="it crashed"))]
    )


@pytest.mark.parametrize(("objective", "best"), [("throughput", 1), ("size", 2)])
def test_the_objective_decides(objective: Objective, best: int) -> None:
    trials = [
        make_trial(REFERENCE, 1.0, 0.0, 4.0),
        make_trial(WHOLE, 4.0, 0.0, 2.0),
        make_trial(Candidate("fast", False, OTHER, "mse"), 3.0, 0.0, 1.0),
    ]
    assert sorted(trials, key=ranking_key(objective))[0] is trials[best]


def test_the_gain_is_that_of_the_objective() -> None:
    reference, smaller = make_trial(REFERENCE, 1.0, 0.0, 4.0), make_trial(WHOLE, 1.5, 0.0, 1.0)
    assert gain(smaller, reference, "size") == pytest.approx(0.75)
    assert gain(smaller, reference, "throughput") == pytest.approx(0.45), "the lower end of the interval counts"
    unmeasured = make_trial(WHOLE, math.nan, 0.0, math.nan)
    assert gain(unmeasured, reference, "size") == gain(unmeasured, reference, "throughput") == -math.inf


def test_the_best_in_float_is_a_finalist_too_for_the_others_may_fail_the_test() -> None:
    ways: list[tuple[Preprocessing, bool]] = [
        ("reference", False),
        ("reference", True),
        ("fast", False),
        ("fast", True),
    ]
    int8 = [
        make_trial(Candidate(preprocessing, folded, INT8, "mse"), 4.0 + index, 0.0)
        for index, (preprocessing, folded) in enumerate(ways)
    ]
    floats = [make_trial(Candidate("fast", folded, FLOAT), ratio, 0.0) for folded, ratio in ((False, 2.0), (True, 2.2))]
    over = make_trial(Candidate("fast", False, OTHER, "mse"), 9.0, 0.5)
    best, reasons = finalists([*floats, *int8, over], "throughput")
    assert best == [int8[3], int8[2], int8[1], floats[1]]
    assert reasons == {
        trial.candidate: NotFinalist(ranking="speed", figure=trial.ratio, last_finalist=5.0, finalists=3)
        for trial in (int8[0], floats[0])
    }
    assert finalists([*floats, over], "throughput") == ([floats[1], floats[0]], {})


def test_of_calibrators_the_one_that_uses_the_least_budget_is_a_finalist_whatever_the_noise_in_their_speeds() -> None:
    by_calibrator = {
        name: make_trial(Candidate("fast", False, INT8, name), ratio, deviation)
        for name, ratio, deviation in (("mse", 4.0, 0.002), ("minmax", 4.2, 0.005))
    }
    folded = make_trial(Candidate("fast", True, INT8, "minmax"), 3.9, 0.006)
    best, reasons = finalists([*by_calibrator.values(), folded], "throughput")
    assert best == [by_calibrator["mse"], folded]
    reason = reasons[by_calibrator["minmax"].candidate]
    assert reason == SiblingUsesLess(sibling=by_calibrator["mse"].key, used=0.5, sibling_used=0.2)
    words = in_words(reason, {by_calibrator["mse"].key: "the other"})
    assert words.replace("\u00a0", " ") == (
        "set aside: the other is the same but for its calibrator, and uses less of the budget (20.0 %, this one 50.0 %)"
    )


def test_a_finalist_after_the_winner_says_whether_it_was_slower_or_less_simple() -> None:
    winner = make_trial(Candidate("fast", False, INT8, "mse"), 4.0, 0.0, size=2.0)
    slower, faster = (make_trial(Candidate("fast", True, INT8, "mse"), ratio, 0.0, size=3.0) for ratio in (3.9, 4.05))
    assert runner_up(slower, winner, "throughput") == BetterShips(
        winner=winner.key, ranking="speed", figure=3.9, winner_figure=4.0
    )
    assert isinstance(runner_up(faster, winner, "throughput"), SimplerShips)
    assert runner_up(faster, winner, "size") == BetterShips(
        winner=winner.key, ranking="size", figure=3.0, winner_figure=2.0
    )


def test_a_simpler_one_goes_before_one_that_is_hardly_faster() -> None:
    plain, folded, slow = (
        make_trial(Candidate("fast", folded, INT8, "mse"), ratio, 0.0)
        for folded, ratio in ((False, 4.0), (True, 4.05), (False, 3.0))
    )
    assert simplest_first([folded, slow, plain]) == [plain, folded, slow]


def test_toolchains_do_not_take_the_time_of_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(strategy, "is_built_in_toolchain", lambda target: target.runtime in ("litert", "ncnn"))
    precisions = ("int8", "float32", "float16")
    targets = [Target(name, "cpu", kind) for name in ("litert", "mnn", "ncnn", "onnxruntime") for kind in precisions]

    def measured(candidate: Candidate) -> Trial:
        nonlocal now
        now += 12.0 if strategy.is_built_in_toolchain(candidate.target) else 3.0
        return make_trial(candidate, 2.0, 0.001)

    def order(seconds: float) -> tuple[list[Candidate], list[Candidate]]:
        nonlocal now
        now = 0.0
        trials = list(explore(targets, ("minmax",), measured, seconds))
        assert len({trial.candidate for trial in trials}) == len(trials)
        return ([t.candidate for t in trials if t.status == "ok"], [t.candidate for t in trials if t.status != "ok"])

    tried, skipped = order(40.0)
    assert {candidate.target.precision for candidate in tried[:3]} == set(precisions)
    assert {candidate.target.runtime for candidate in tried[:3]} == {"mnn", "onnxruntime"}
    assert [candidate.target.runtime for candidate in tried].count("litert") <= 1
    assert len(tried) >= 8, "toolchains took the time of others"
    assert {candidate.target for candidate in (*tried, *skipped)} >= set(targets), "the table names all targets"
    assert now <= 45.0, "a build was begun that could not end in time"
    tried, skipped = order(600.0)
    assert {candidate.target for candidate in tried} == set(targets)
    assert not skipped


def test_scaled_preprocessing_is_tried_first_and_fast_where_it_misses_the_budget() -> None:
    def measured(candidate: Candidate) -> Trial:
        ratio = {"reference": 1.0, "fast": 2.0, "scaled": 4.0}[candidate.preprocessing]
        return make_trial(candidate, ratio, 0.05 if candidate.preprocessing == "scaled" else 0.001)

    trials = list(explore((FLOAT, INT8), ("minmax",), measured, 60.0, "scaled"))
    assert trials[0].candidate.preprocessing == "scaled"
    best = max((trial for trial in trials if trial.passed), key=lambda trial: trial.ratio)
    assert best.candidate.preprocessing == "fast"


def test_scaled_preprocessing_is_tried_where_enough_pictures_are_large(tmp_path: Path) -> None:
    spec = Input.model_validate({"steps": [{"step": "decode"}, {"step": "resize", "width": 64, "height": 64}]})

    def saved(name: str, side: int, format_: str = "JPEG") -> str:
        file = tmp_path / name
        Image.new("RGB", (side + 10, side)).save(file, format_)
        return str(file)

    small = [saved(f"small{number}", 200) for number in range(9)]
    large = [saved(f"large{number}", 400 + number) for number in range(10)]
    others = [saved("large.png", 999, "PNG"), str(tmp_path / "missing")]
    assert scaled_sides(spec, [*small, *large, *others]) == (400, 409)
    assert scaled_sides(spec, [*small, *large[:9], *others]) is None
    assert scaled_sides(spec, [*small * 11, *large]) is None
