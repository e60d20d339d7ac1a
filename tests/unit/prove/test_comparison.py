"""Flips, deviation and metrics of scores, checked by hand."""

from __future__ import annotations

import pytest

from plimsoll.prove import compare, default_thresholds
from plimsoll.spec.spec import Band, Classify

POSITIVE = Classify(
    labels=("no", "yes"),
    positive="yes",
    threshold=0.3,
    bands=(Band(label="low", below=0.2), Band(label="high", below=None)),
)


def yes(score: float) -> dict[str, float]:
    return {"yes": score, "no": 1 - score}


def test_thresholds_are_the_specs_then_half_then_the_edges_each_once() -> None:
    assert default_thresholds(POSITIVE) == (0.3, 0.5, 0.2)
    assert default_thresholds(Classify(labels=("a", "b"))) == ()


def test_comparison_by_hand() -> None:
    comparison = compare(
        POSITIVE, [(yes(0.1), yes(0.25)), (yes(0.4), yes(0.35)), (yes(0.6), yes(0.45)), (yes(0.9), None)]
    )
    assert {threshold: (flipped.count, flipped.total) for threshold, flipped in comparison.flips} == {
        0.3: (1, 4),
        0.5: (2, 4),
        0.2: (2, 4),
    }
    assert comparison.failed == 1
    assert comparison.deviation is not None
    assert comparison.deviation.maximum == pytest.approx(0.15)
    assert comparison.headline.startswith("2 of 4 decisions flipped at 0.5; with 95 % confidence at most")


def test_best_label_decides_where_none_is_positive() -> None:
    output = Classify(labels=("a", "b", "c"), threshold=0.5)
    pairs = [
        ({"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 0.55, "b": 0.35, "c": 0.1}),
        ({"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 0.45, "b": 0.35, "c": 0.2}),
        ({"a": 0.1, "b": 0.8, "c": 0.1}, {"a": 0.7, "b": 0.2, "c": 0.1}),
    ]
    comparison = compare(output, pairs, truths=["a", "a", None])
    assert [(threshold, flipped.count, flipped.total) for threshold, flipped in comparison.flips] == [(None, 2, 3)]
    assert comparison.deviation is not None
    assert comparison.deviation.maximum == pytest.approx(0.6)
    top1 = comparison.changes[0]
    assert (top1.name, top1.reference, top1.other) == ("top1", 1.0, 0.5)
    assert comparison.labelled == 2


def test_constant_scores_have_no_rank_and_nothing_answered_has_no_deviation() -> None:
    assert compare(POSITIVE, [(yes(0.5), yes(0.5))] * 4).rank_correlation is None
    nothing = compare(POSITIVE, [(yes(0.5), None)])
    assert nothing.deviation is None
    assert nothing.headline.startswith("1 of 1 decisions flipped")
    assert compare(POSITIVE, []).headline == "no decision was compared"
