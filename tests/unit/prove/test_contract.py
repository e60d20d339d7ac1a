"""A wrong contract shouts: a network that tells colours apart, behind Specs that are right and wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from plimsoll.core.model import Model
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.prove.contract import ContractCheck, check_contract
from plimsoll.spec.files import loads

COLOURS = ("red", "green", "blue")
RIGHT = '[[input.steps]]\nstep = "channels"\norder = "RGB"\n[[input.steps]]\nstep = "scale"\ndivisor = 255.0\n'
BGR = RIGHT.replace("RGB", "BGR")
UNSCALED = '[[input.steps]]\nstep = "dtype"\nto = "float32"\n'
SPEC = """
name = "colours"
[[input.steps]]
step = "decode"
[[input.steps]]
step = "resize"
width = 8
height = 8
{steps}
[[input.steps]]
step = "layout"
order = "NCHW"
[output]
task = "classify"
labels = {labels}
{more}
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`[N, 3, 8, 8]` with values from 0 to 1, red first, → the mean of each channel `[N, 3]`."""
    nodes = [
        helper.make_node("Clip", ["picture"], ["clipped"], min=0.0, max=1.0),
        helper.make_node("ReduceMean", ["clipped"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "colours", [picture], [scores])
    path = tmp_path_factory.mktemp("network") / "colours.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """60 noisy pictures of one colour each → their colours."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    named = {}
    for index in range(60):
        pixels = rng.integers(0, 160, (12, 12, 3)) + 90 * np.eye(3, dtype=np.int64)[index % 3]
        path = folder / f"{index}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        named[str(path.resolve())] = COLOURS[index % 3]
    return named


def checked(
    network: Path, labels: dict[str, str], steps: str, more: str = "", names: tuple[str, ...] = COLOURS
) -> ContractCheck:
    spec = loads(SPEC.format(steps=steps, more=more, labels=list(names)))
    return check_contract(ResolvedModel(Model(network, "onnx", spec)), [*labels, "unlabelled.png"], labels)


def test_a_right_contract_has_no_problem(network: Path, labels: dict[str, str]) -> None:
    check = checked(network, labels, RIGHT)
    assert check.problem == ""
    assert check.in_words == (
        "the model is right on 60 of 60 (100 %) labelled pictures (60 of 61 pictures have a label)"
    )


def test_channels_in_the_wrong_order_are_named(network: Path, labels: dict[str, str]) -> None:
    check = checked(network, labels, BGR)
    assert "right on 20 of 60 (33 %) labelled pictures" in check.problem
    assert "wrong more often than right" in check.problem
    assert "With the channels in the order RGB it is right on 60 of 60 (100 %)" in check.problem


def test_values_on_the_wrong_scale_are_named(network: Path, labels: dict[str, str]) -> None:
    problem = checked(network, labels, UNSCALED).problem
    assert "wrong more often than right" in problem
    assert "With values from 0 to 1 it is right on 60 of 60 (100 %)" in problem


def test_wrong_labels_are_chance_and_no_contract_is_blamed(network: Path, labels: dict[str, str]) -> None:
    shuffled = dict(zip(labels, np.random.default_rng(1).permutation(list(labels.values())).tolist(), strict=True))
    check = checked(network, shuffled, RIGHT)
    assert "wrong more often than right" in check.problem
    assert check.likely is None


def test_a_positive_label_is_judged_by_its_ranking_not_by_its_threshold(network: Path, labels: dict[str, str]) -> None:
    never = checked(network, labels, RIGHT, 'positive = "blue"\nthreshold = 0.99')
    assert never.problem == "", "a threshold that nothing reaches is no wrong contract"
    assert never.auc == 1.0
    turned = checked(network, labels, BGR, 'positive = "blue"\nthreshold = 0.4')
    assert "not tell the labels apart better than chance" in turned.problem
    assert "With the channels in the order RGB" in turned.problem


def test_without_labels_nothing_is_said(network: Path, labels: dict[str, str]) -> None:
    assert checked(network, {}, BGR).problem == ""
    one_class = {path: label for path, label in labels.items() if label == "red"}
    assert checked(network, one_class, RIGHT).problem == ""
