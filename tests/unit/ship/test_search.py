"""Which variants are tried in which order, and what wins: with made-up measurements, since the order is a matter of figures alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from plimsoll.image import Implementation
from plimsoll.report import Check
from plimsoll.ship import REFERENCE, Attempt, Variant
from plimsoll.ship.search import explore, finalists_of, gain, mixtures, objective_key, simplest_first
from plimsoll.target import Target

FLOAT, INT8 = Target("onnxruntime"), Target("onnxruntime", "cpu", "int8")
OTHER = Target("openvino", "cpu", "int8")
WHOLE = Variant("fast", False, INT8, "minmax")


def attempt(variant: Variant, ratio: float, drift: float, size: float = 1.0) -> Attempt:
    speed = {"ratio": ratio, "low": ratio - 0.05, "high": ratio + 0.05}
    return Attempt(variant, "ok", "", {"speed": speed, "size_bytes": size}, (Check(name="drift", measured=drift, limit=0.01),))


def tried(wanted: Callable[[Variant], Attempt], *targets: Target, calibrators: tuple[str, ...] = ("minmax",)) -> list[Attempt]:
    return list(explore(targets, calibrators, wanted, time.monotonic() + 60))


def layered(drift_of: Callable[[int], float], ratio_of: Callable[[int], float] = lambda count: 4.0 - 0.1 * count) -> Callable[[Variant], Attempt]:
    """Float behind fast steps is twice as fast and keeps the budget; int8 as the functions of its layers in float say."""

    def measured(variant: Variant) -> Attempt:
        if variant.target == FLOAT:
            return attempt(variant, 2.0, 0.001)
        return attempt(variant, ratio_of(variant.float_layers), drift_of(variant.float_layers))

    return measured


def test_what_there_was_no_time_for_is_named() -> None:
    attempts = list(explore((FLOAT, INT8), ("minmax",), lambda variant: Attempt(variant, "ok"), deadline=time.monotonic() - 1))
    assert [one.status for one in attempts] == ["skipped", "skipped"]
    assert all("time limit" in one.reason for one in attempts)


def test_promising_targets_come_first_and_neighbours_of_the_best_follow() -> None:
    order = [one.variant for one in tried(layered(lambda _: 0.0), FLOAT, INT8, calibrators=("minmax", "mse"))]
    assert order[0] == WHOLE
    assert {one.calibrator for one in order} >= {"minmax", "mse"}
    assert any(one.folded for one in order)
    assert len(set(order)) == len(order)


def test_layers_go_back_to_float_until_the_budget_holds() -> None:
    found = tried(layered(lambda count: 0.05 - 0.01 * count), FLOAT, INT8)
    counts = [one.variant.float_layers for one in found if one.variant.float_layers and one.variant.steps == "fast" and not one.variant.folded]
    assert counts == [1, 2, 3, 5]
    best = max((one for one in found if one.passed), key=lambda one: one.ratio)
    assert best.variant.float_layers == 5
    assert "5 layers in float32" in best.variant.name
    assert best.variant.key.endswith("minmax-float5")


def test_layers_go_back_to_float_only_while_that_is_faster() -> None:
    found = tried(layered(lambda _: 0.05, lambda count: 4.0 - count), FLOAT, INT8)
    assert max(one.variant.float_layers for one in found) == 2


def test_one_calibrator_that_keeps_the_budget_is_enough() -> None:
    def measured(variant: Variant) -> Attempt:
        if variant.target == FLOAT:
            return attempt(variant, 2.0, 0.0)
        return attempt(variant, 4.5, 0.05) if variant.calibrator == "minmax" else attempt(variant, 4.0, 0.005)

    found = tried(measured, FLOAT, INT8, calibrators=("minmax", "mse"))
    assert not any(one.variant.float_layers for one in found)


def test_each_runtime_gets_its_own_mixture_from_its_nearest_calibrator() -> None:
    near, far, elsewhere = WHOLE, Variant("fast", False, INT8, "mse"), Variant("fast", False, OTHER, "minmax")
    found = mixtures([attempt(near, 4.0, 0.02), attempt(far, 4.1, 0.09), attempt(elsewhere, 5.0, 0.03)])
    assert [(one.target, one.calibrator, one.float_layers) for one in found] == [(INT8, "minmax", 1), (OTHER, "minmax", 1)]


def test_no_layer_goes_back_to_float_where_that_can_not_help() -> None:
    whole, behind_steps = attempt(WHOLE, 4.0, 0.05), Variant("fast", False, FLOAT)
    assert mixtures([whole])
    assert not mixtures([whole, attempt(behind_steps, 2.0, 0.04)]), "the fast steps alone are over the budget"
    assert not mixtures([attempt(WHOLE, 4.0, float("nan"))]), "its answers are no numbers"
    assert not mixtures([attempt(WHOLE, 0.9, 0.05)]), "it is slower than the reference"
    assert not mixtures([whole, Attempt(Variant("fast", False, INT8, "minmax", 1), "failed", "it crashed")])


@pytest.mark.parametrize(("objective", "best"), [("throughput", 1), ("size", 2)])
def test_the_objective_decides(objective: str, best: int) -> None:
    found = [attempt(REFERENCE, 1.0, 0.0, 4.0), attempt(WHOLE, 4.0, 0.0, 2.0), attempt(Variant("fast", False, OTHER, "mse"), 3.0, 0.0, 1.0)]
    assert sorted(found, key=objective_key(objective))[0] is found[best]


def test_the_gain_is_that_of_the_objective() -> None:
    reference, smaller = attempt(REFERENCE, 1.0, 0.0, 4.0), attempt(WHOLE, 1.5, 0.0, 1.0)
    assert gain(smaller, reference, "size") == pytest.approx(0.75)
    assert gain(smaller, reference, "throughput") == pytest.approx(0.45), "the lower end of the interval counts"


def test_the_best_in_float_is_a_finalist_too_for_the_judges_may_refuse_the_others() -> None:
    ways: list[tuple[Implementation, bool]] = [("reference", False), ("reference", True), ("fast", False), ("fast", True)]
    int8 = [attempt(Variant(steps, folded, INT8, "mse"), 4.0 + place, 0.0) for place, (steps, folded) in enumerate(ways)]
    floats = [attempt(Variant("fast", folded, FLOAT), ratio, 0.0) for folded, ratio in ((False, 2.0), (True, 2.2))]
    over = attempt(Variant("fast", False, OTHER, "mse"), 9.0, 0.5)
    assert finalists_of([*floats, *int8, over], "throughput") == [int8[3], int8[2], int8[1], floats[1]]
    assert finalists_of([*floats, over], "throughput") == [floats[1], floats[0]]


def test_of_calibrators_the_one_that_strains_the_budget_least_is_a_finalist_however_fast_the_noise_made_the_others() -> None:
    of = {name: attempt(Variant("fast", False, INT8, name), ratio, drift) for name, ratio, drift in (("mse", 4.0, 0.002), ("minmax", 4.2, 0.005))}
    folded = attempt(Variant("fast", True, INT8, "minmax"), 3.9, 0.006)
    assert finalists_of([*of.values(), folded], "throughput") == [of["mse"], folded]


def test_a_simpler_one_goes_before_one_that_is_hardly_faster() -> None:
    plain, folded, slow = (attempt(Variant("fast", folded, INT8, "mse"), ratio, 0.0) for folded, ratio in ((False, 4.0), (True, 4.05), (False, 3.0)))
    assert simplest_first([folded, slow, plain]) == [plain, folded, slow]
