"""What outputs mean is told in the page as it is in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.javascript import HAS_NODE, SITE, node
from plimsoll.spec.spec import Classify, Tensors
from plimsoll.tasks.classify import ClassifyTask
from plimsoll.tasks.tensor import TensorTask

pytestmark = pytest.mark.skipif(not HAS_NODE, reason="Node.js is not installed")

BANDS = [{"label": "safe", "below": 0.2}, {"label": "review", "below": 0.8}, {"label": "not safe"}]


def answers(
    cases: list[tuple[Classify | Tensors, dict[str, np.ndarray[Any, Any]], float | None]], folder: Path
) -> list[dict[str, Any]]:
    request = [
        [
            output.model_dump(mode="json"),
            {name: {"data": value.ravel().tolist(), "dims": value.shape} for name, value in outputs.items()},
            threshold,
        ]
        for output, outputs, threshold in cases
    ]
    (folder / "request.json").write_text(json.dumps(request))
    result: list[dict[str, Any]] = node("web_answers.mjs", str(folder / "request.json"), str(SITE / "answer.js"))
    return result


def test_classifications_have_pythons_rows(tmp_path: Path) -> None:
    chance = np.random.default_rng(5)
    outputs = [
        Classify(labels=("a", "b", "c", "d")),
        Classify(labels=("a", "b", "c", "d"), threshold=0.4),
        Classify(labels=("a", "b", "c", "d"), positive="c", activation="softmax"),
        Classify(labels=("a", "b", "c", "d"), positive="b", activation="sigmoid", threshold=0.7, bands=BANDS),
        Classify(labels=("only",), positive="only", activation="sigmoid"),
        Classify(labels=("a", "b"), positive="b"),
    ]
    cases = [
        (output, {"scores": value}, threshold)
        for output in outputs
        for value in [
            *chance.normal(size=(6, 1, len(output.labels))).astype(np.float32),
            *np.full((2, 1, len(output.labels)), [[[0.25]], [[0.5]]], np.float32),
        ]
        for threshold in (None, 0.25)
    ]
    for (output, given, threshold), actual in zip(cases, answers(list(cases), tmp_path), strict=True):
        expected = ClassifyTask(output).decode(given, threshold)[0]
        assert actual["row"]["label"] == expected.label
        assert list(actual["row"]["scores"]) == list(expected.scores)
        assert actual["row"]["scores"] == pytest.approx(dict(expected.scores), abs=1e-7)
        assert actual["row"]["score"] == pytest.approx(expected.score, abs=1e-7)
        assert actual["band"] == expected.band
        if output.activation == "none":
            assert actual["row"] == expected.row()


def test_what_is_not_a_score_is_refused(tmp_path: Path) -> None:
    output = Classify(labels=("a", "b"))
    few, none = answers(
        [
            (output, {"s": np.zeros((1, 3), np.float32)}, None),
            (output, {"s": np.zeros((1, 2)), "t": np.zeros((1, 2))}, None),
        ],
        tmp_path,
    )
    assert "3 scores" in few["error"]
    assert "s, t" in none["error"]


def test_raw_tensors_have_pythons_rows(tmp_path: Path) -> None:
    given = {"a": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "b": np.array([[0.5]], np.float32)}
    whole, chosen = answers([(Tensors(), given, None), (Tensors(tensors=("b",)), given, None)], tmp_path)
    assert whole["row"] == TensorTask(Tensors()).decode(given)[0].row()
    assert chosen["row"] == {"outputs": {"b": [0.5]}}
