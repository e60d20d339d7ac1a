"""Budgets: what is read, what is refused and how, and that the bound is judged, not the figure."""

from __future__ import annotations

import math

import pytest

from plimsoll.core.budget import DEFAULT_BUDGET, METRICS, TASK_METRICS, BoundedFigure, Budget, Limit, default_budget
from plimsoll.errors import InputError
from plimsoll.metrics.decisions import pictures_needed, upper_bound

EVIDENCE = {
    "flips": [BoundedFigure("flips at 0.2", 0.0, 0.0237), BoundedFigure("flips at 0.8", 0.008, 0.0374)],
    "mean_deviation": [BoundedFigure("mean score deviation", 0.004, 0.006)],
    "top1": [BoundedFigure("change of top1", -0.001, -0.004)],
    "auc": [BoundedFigure("change of auc", 0.0, -0.002)],
    "snr": [BoundedFigure("signal to noise", 40.0, 38.0)],
}


def passed(text: str) -> list[bool]:
    return [check.passed for check in Budget.parse(text).verdict(EVIDENCE)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flips=0.5%", {"flips": 0.005}),
        ("flips=0.005", {"flips": 0.005}),
        ("flips=0.5%,mean_deviation=0.05", {"flips": 0.005, "mean_deviation": 0.05}),
        ("  flips = 1 %  top1=-0.5% ", None),
        ("top1=-0.5% auc=-0.01 snr=30", {"top1": -0.005, "auc": -0.01, "snr": 30.0}),
        ("top5=-1%", {"top5": -0.01}),
        ("mean_deviation=1e-3", {"mean_deviation": 0.001}),
    ],
)
def test_reading(text: str, expected: dict[str, float] | None) -> None:
    if expected is None:
        with pytest.raises(InputError):
            Budget.parse(text)
        return
    budget = Budget.parse(text)
    assert {limit.metric: limit.value for limit in budget.limits} == pytest.approx(expected)
    assert Budget.parse(str(budget)) == budget


def test_several_texts_are_one_budget() -> None:
    assert Budget.parse(["flips=0.5%", "mean_deviation=0.05"]) == Budget(
        (Limit("flips", 0.005), Limit("mean_deviation", 0.05))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flip=1%", "unknown metric 'flip'; did you mean 'flips'"),
        ("deviation=0.01", "unknown metric 'deviation'; did you mean 'mean_deviation'?"),
        ("speed=2", "unknown metric 'speed'"),
        ("top0=-1%", "unknown metric 'top0'"),
        ("flips", "expected metric=value"),
        ("flips=much", "'much' is not a number"),
        ("flips=nan", "'nan' is not a number"),
        ("mean_deviation=1e999", "too large"),
        ("flips=0", "no number of pictures proves"),
        ("flips=-1%", "above 0 and below 1"),
        ("flips=100%", "above 0 and below 1"),
        ("flips=0.5", "0.5 means 50 %; write 50% if you mean that, or 0.5%"),
        ("mean_deviation=5%", "in the unit of the scores"),
        ("mean_deviation=-0.1", "above 0"),
        ("top1=0.5%", "a loss is negative"),
        ("auc=0", "a loss is negative"),
        ("snr=30%", "decibels"),
        ("box_recall=100%", "an agreement is above 0 and below 1"),
        ("", "is empty"),
        ("flips=1% flips=2%", "duplicate metric 'flips'"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Budget.parse(text)
    assert message in caught.value.message
    assert caught.value.hint


def test_the_bound_is_judged_and_not_the_figure() -> None:
    assert passed("flips=3%") == [True, False]
    assert passed("flips=4%") == [True, True]
    assert passed("mean_deviation=0.005") == [False]
    assert passed("mean_deviation=0.006") == [True]
    assert passed("top1=-0.3%") == [False]
    assert passed("top1=-0.5%") == [True]
    assert passed("auc=-0.001") == [False]
    assert passed("snr=39") == [False]
    assert passed("snr=38") == [True]


def test_checks_are_reported_in_their_own_units() -> None:
    flips, *_ = Budget.parse("flips=3%").verdict(EVIDENCE)
    assert (flips.name, flips.unit) == ("flips at 0.2", "%")
    assert (flips.measured, flips.bound, flips.limit) == pytest.approx((0.0, 2.37, 3.0))
    (auc,) = Budget.parse("auc=-0.01").verdict(EVIDENCE)
    assert (auc.direction, auc.unit, auc.limit) == ("at_least", "", -0.01)


def test_what_was_not_measured_is_not_proven() -> None:
    (check,) = Budget.parse("recall=-1%").verdict(EVIDENCE)
    assert not check.passed
    assert "not measured" in check.detail
    (check,) = Budget.parse("mean_deviation=0.1").verdict(
        {"mean_deviation": [BoundedFigure("mean score deviation", math.nan, math.nan)]}
    )
    assert not check.passed


def test_the_default_can_be_met_with_125_pictures_even_after_a_flip() -> None:
    flips, mean, largest = DEFAULT_BUDGET.limits
    assert (flips.metric, mean.metric, largest.metric) == ("flips", "mean_deviation", "max_deviation")
    assert upper_bound(1, 125) <= flips.value < upper_bound(2, 125)
    assert pictures_needed(flips.value) == 74
    assert default_budget("tensor").metrics == ("snr",)


def test_a_metric_of_another_task_is_refused_in_words() -> None:
    for task, metrics in TASK_METRICS.items():
        default_budget(task).require_task(task)
        assert set(default_budget(task).metrics) <= set(metrics)
    Budget.parse("top5=-1%").require_task("classify")
    with pytest.raises(InputError, match="the budget limits flips, which the answers of the task 'detect'") as caught:
        Budget.parse("box_recall=90%,flips=4%").require_task("detect")
    assert "box_recall=90% box_precision=90%" in str(caught.value.hint)


def test_every_metric_says_what_it_is() -> None:
    assert {metric for metrics in TASK_METRICS.values() for metric in metrics} == METRICS.keys()
    assert all(len(text) > 10 for _, text in METRICS.values())
