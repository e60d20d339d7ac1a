"""The original rounded to 8 bits says how much int8 must lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from helpers.answer_networks import draw, network, saved, spec_of
from plimsoll.backends.base import Session
from plimsoll.backends.trial_inputs import TriedNetwork, feeds_of
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import BuildError
from plimsoll.onnx import eight_bits
from plimsoll.onnx.answers import ReferenceNetwork
from plimsoll.preprocessing import Preprocessor


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return saved(network("segment"), tmp_path / "segment.onnx", spec_of("segment"))


def tried(model: Model, session: Session) -> TriedNetwork:
    return TriedNetwork(model, session, REFERENCE_TARGET)


def convolution(path: Path, bias: float, opset: int = 13) -> Model:
    """`picture` `[1, 3, 8, 8]` → a convolution whose values lie around `bias`, less that."""
    chance = np.random.default_rng(5)
    stored = {
        "weights": chance.normal(size=(4, 3, 3, 3)),
        "bias": np.full(4, bias),
        "middle": np.array(bias),
    }
    nodes = [
        helper.make_node("Conv", ["picture", "weights", "bias"], ["far"]),
        helper.make_node("Sub", ["far", "middle"], ["values"]),
    ]
    inputs = [helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, [1, 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("values", onnx.TensorProto.FLOAT, [1, 4, 6, 6])]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return Model(path, "onnx")


@pytest.mark.parametrize(("bias", "least", "most"), [(0.0, 35, 50), (2000.0, -10, 15)])
def test_rounding_leaves_little_where_a_small_difference_of_large_values_counts(
    tmp_path: Path, bias: float, least: float, most: float
) -> None:
    model = convolution(tmp_path / "network.onnx", bias)
    feeds = {"picture": np.random.default_rng(1).uniform(0, 1, (1, 3, 8, 8)).astype(np.float32)}
    expected, rounded = (
        ReferenceNetwork(model, changed).run(feeds)["values"] for changed in (None, eight_bits.rounded(model))
    )
    assert least < 10 * np.log10((expected**2).sum() / ((rounded - expected) ** 2).sum()) < most


def test_an_opset_without_the_operators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="can't be rounded"):
        eight_bits.rounded(convolution(tmp_path / "network.onnx", 0.0, opset=10))


def test_a_calibrated_network_is_judged_by_the_users_pictures(model: Model, tmp_path: Path) -> None:
    pictures = draw(tmp_path / "drawn", 2)
    network = tried(model, ReferenceNetwork(model))
    preprocess = Preprocessor(model.require_spec().input)
    own, *others = feeds_of(network, network, pictures[:1], calibrated=True)
    np.testing.assert_array_equal(own.source["picture"][0], preprocess(pictures[0]))
    assert (own.unlike, {feeds.unlike for feeds in others}) == (False, {True})
    for given, calibrated in (((), True), (pictures, False)):
        assert not any(feeds.unlike for feeds in feeds_of(network, network, given, calibrated=calibrated))
    assert len(list(feeds_of(network, network, pictures, calibrated=False))) == len(others) + 2
