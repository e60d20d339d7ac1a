"""Trials as the work folder and reports hold them: written and read again, nothing is lost and no NaN passes."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from plimsoll.core.budget import Check
from plimsoll.core.target import Target
from plimsoll.report.measurements import Deviations, Evaluation, FlippedDecisions, Measurements, Speed
from plimsoll.report.trial import Candidate, Trial

INT8 = Candidate("fast", True, Target("openvino", "cpu", "int8"), "mse", 5)


def test_a_trial_is_the_same_after_the_way_through_its_json() -> None:
    checks = (
        Check(name="mean deviation", measured=0.1 + 0.2, limit=0.5),
        Check(name="snr", measured=math.inf, limit=9),
    )
    trial = Trial(
        candidate=INT8,
        status="ok",
        passed=False,
        measured=Measurements(
            speed=Speed(ratio=4.8000000000000001, low=math.nan, high=math.inf), stages={"decode": 1e-9}
        ),
        validation=Evaluation(deviation=Deviations(max=1 / 3, p99=math.nan), checks=checks, headline="0 of 29"),
    )
    read = Trial.model_validate_json(trial.model_dump_json())
    assert read.candidate == INT8
    assert read.model_dump_json() == trial.model_dump_json()
    assert (read.ratio, read.measured.stages, read.validation.checks) == (4.8, {"decode": 1e-9}, checks)
    assert math.isnan(read.measured.speed.low)
    assert math.isnan(read.validation.deviation.p99)
    assert math.isinf(read.measured.speed.high)


def test_what_was_not_measured_neither_passes_nor_counts_as_fast() -> None:
    unmeasured = Evaluation(checks=(Check(name="deviation", measured=math.nan, limit=1.0),))
    assert not unmeasured.passed
    assert not Evaluation().passed, "nothing was checked"
    trial = Trial(candidate=INT8, status="ok", passed=unmeasured.passed, validation=unmeasured)
    assert math.isinf(trial.violation)
    assert math.isinf(trial.budget_used)
    assert math.isnan(trial.ratio)
    with pytest.raises(ValidationError, match="a check of the validation part failed"):
        Trial(candidate=INT8, status="ok", passed=True, validation=unmeasured)


def test_the_violation_is_that_of_the_worst_check_and_the_use_of_all() -> None:
    checks = (
        Check(name="deviation", measured=0.02, limit=0.01),
        Check(name="flips", measured=1.0, limit=4.0),
        Check(name="change of top1", measured=-0.5, limit=-1.0, direction="at_least"),
        Check(name="snr", measured=40.0, limit=20.0, direction="at_least"),
    )
    trial = Trial(candidate=INT8, status="ok", passed=False, validation=Evaluation(checks=checks))
    assert trial.violation == 2.0
    assert trial.budget_used == pytest.approx(2.0 + 0.25 + 0.5 + 0.5)


def test_the_worst_flips_are_those_with_the_largest_bound() -> None:
    flips = (
        FlippedDecisions(threshold=0.2, count=50, flipped=3, upper=0.15),
        FlippedDecisions(threshold=0.5, count=50, flipped=9),
        FlippedDecisions(threshold=0.8, count=0, flipped=0, upper=0.9),
    )
    assert Evaluation(flips=flips).worst_flips == flips[0]
    assert Evaluation(flips=flips[2:]).worst_flips is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocessing", "slow"),
        ("target", "openvino:cpu:int3"),
        ("target", ""),
        ("folded", "perhaps"),
        ("calibrator", 3),
    ],
)
def test_a_candidate_that_cannot_exist_is_refused(key: str, value: object) -> None:
    candidate = {"preprocessing": "fast", "folded": False, "target": "openvino:cpu:int8"}
    assert Trial.model_validate({"candidate": candidate, "status": "ok"}).key == "fast-plain-openvino-cpu-int8"
    with pytest.raises(ValidationError, match=key):
        Trial.model_validate({"candidate": candidate | {key: value}, "status": "ok"})
