"""`spec check --model` runs the network on sample pictures and says what doesn't fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from plimsoll.core.model import Model
from plimsoll.errors import SpecError
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.inference.spec_check import Trial, try_out
from plimsoll.spec.files import loads

INPUT = """
name = "it"
[[input.steps]]
step = "decode"
[[input.steps]]
step = "resize"
width = 32
height = 32
[[input.steps]]
step = "scale"
divisor = 255
[output]
"""
LOGITS = INPUT + 'task = "classify"\nlabels = ["r", "g", "b"]\nactivation = "softmax"\n'
PLAIN = LOGITS.replace('activation = "softmax"\n', "")
Node = tuple[str, list[str], dict[str, Any]]


def tried(folder: Path, nodes: Sequence[Node], spec: str, shape: Sequence[Any] = ("N", 3)) -> Trial:
    """Try out a network that begins with the mean colours `[N, 3]` of pictures; a node reads what is before it as
    `_`."""
    written = [helper.make_node("ReduceMean", ["x", "sides"], ["0"], keepdims=0)]
    for number, (operator, names, attributes) in enumerate(nodes):
        result = "y" if number == len(nodes) - 1 else str(number + 1)
        written.append(
            helper.make_node(operator, [str(number) if name == "_" else name for name in names], [result], **attributes)
        )
    constants = {
        "sides": np.array([1, 2]),
        "batch": np.array([0]),
        "ten": np.float32(10),
        "nothing": np.float32(0),
        "last": np.array([2]),
        "scores": np.eye(7, dtype=np.float32)[4:],
        "pixels": np.array([16, 16, 8, 8, 0, 0, 0], np.float32).reshape(1, 7, 1),
        "fractions": np.array([0.5, 0.5, 0.2, 0.2, 0, 0, 0], np.float32).reshape(1, 7, 1),
    }
    graph = helper.make_graph(
        written,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(shape))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = folder / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    with Predictor(ResolvedModel(Model(path, "onnx", loads(spec)))) as predictor:
        return try_out(predictor)


TEN: Node = ("Mul", ["_", "ten"], {})
SOFTMAX: Node = ("Softmax", ["_"], {})


def test_what_fits_is_answered_without_a_word(tmp_path: Path) -> None:
    trial = tried(tmp_path, [TEN], LOGITS)
    assert not trial.findings
    assert len(trial.answers) == len(trial.pictures) == 2
    assert not tried(tmp_path, [SOFTMAX], PLAIN).findings


@pytest.mark.parametrize(
    ("nodes", "spec", "says", "is_error"),
    [
        ([TEN], PLAIN, "the scores go from", True),
        ([SOFTMAX], LOGITS, "probabilities already, and activation = 'softmax' is applied once more", True),
        ([("Sigmoid", ["_"], {})], PLAIN, "the scores of a picture sum up to", False),
        ([("RandomUniformLike", ["_"], {}), TEN], LOGITS, "another the second time", True),
        ([("Div", ["_", "nothing"], {})], LOGITS, "non-finite scores", True),
        ([("Mul", ["_", "nothing"], {})], LOGITS, "is the same for two different pictures", False),
        ([("Transpose", ["_"], {"perm": [1, 0]})], LOGITS, "hold the pictures", None),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, nodes: list[Node], spec: str, says: str, is_error: bool | None
) -> None:
    if is_error is None:
        with pytest.raises(SpecError, match=says):
            tried(tmp_path, nodes, spec, (3, "N"))
        return
    findings = tried(tmp_path, nodes, spec).findings
    assert [says in finding.message for finding in findings] == [True]
    assert findings[0].is_error == is_error
    assert findings[0].hint


def test_a_batch_s_own_statistics_are_seen(tmp_path: Path) -> None:
    """As batch normalization in training mode has it: a picture's answer depends on those beside it."""
    softened: list[Node] = [("ReduceMax", ["_", "batch"], {"keepdims": 1}), ("Add", ["_", "0"], {})]
    findings = tried(tmp_path, softened, LOGITS).findings
    assert "of two pictures together is another than of each alone" in findings[0].message


@pytest.mark.parametrize(
    ("constant", "output", "says"),
    [
        ("fractions", "", "look like fractions of the input, which is 32 x 32"),
        ("pixels", "normalized = true", "says that they are fractions"),
        ("pixels", "", ""),
        ("fractions", "normalized = true", ""),
    ],
)
def test_a_detector_s_coordinates_are_pixels_or_fractions_as_the_spec_says(
    tmp_path: Path, constant: str, output: str, says: str
) -> None:
    nodes: list[Node] = [
        ("MatMul", ["_", "scores"], {}),
        ("Unsqueeze", ["_", "last"], {}),
        ("Add", ["_", constant], {}),
    ]
    spec = INPUT + f'task = "detect"\nhead = "yolov8"\nlabels = ["r", "g", "b"]\n{output}\n'
    trial = tried(tmp_path, nodes, spec, ("N", 7, 1))
    assert [finding.message for finding in trial.findings if says not in finding.message] == []
    assert bool(trial.findings) == bool(says)
