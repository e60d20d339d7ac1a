"""Preparing changes the graph and never the answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import node
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.errors import BuildError


def strides(model: Model) -> dict[str, list[int]]:
    by_name = {}
    for operator in onnx.load(model.path).graph.node:
        value = [list(item.ints) for item in operator.attribute if item.name == "strides"]
        if operator.op_type in ("Conv", "MaxPool"):
            by_name[operator.name] = value[0] if value else [1, 1]
    return by_name


@pytest.mark.parametrize("size", [16, 20])
def test_strides_move_up_through_the_block_and_the_answers_stay(tmp_path: Path, size: int) -> None:
    model = networks.residual(tmp_path / "net.onnx", size=size)
    prepared = quantize.prepare(model, tmp_path)
    batch = networks.pictures(4, size)
    np.testing.assert_allclose(networks.run(prepared, batch), networks.run(model, batch), atol=1e-6)
    moved = strides(prepared)
    assert moved["conv3"] == moved["conv4"] == [1, 1]
    assert moved["conv2"] == [1, 1]
    assert moved["conv1"] == [2, 2]  # The 3×3 one computes every second pixel alone.
    assert [value for name, value in moved.items() if "every" in name] == [[2, 2]]
    assert prepared.parent == model


def test_strides_stay_where_somebody_else_reads_all_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "a"], ["c"], "first", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "b"], ["d"], "second", strides=[2, 2]),
        node("MaxPool", ["r"], ["e"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Add", ["d", "e"], ["y"]),
    ]
    constants = {"a": networks.weights(rng, 4, 3, 3, 3), "b": networks.weights(rng, 4, 4, 1, 1)}
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 8, 8], ["N", 4, 4, 4]], constants)
    prepared = quantize.prepare(model, tmp_path)
    assert strides(prepared) == {"first": [1, 1], "second": [2, 2], "pool": [2, 2]}


def test_strides_that_would_only_meet_an_input_or_same_padding_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "a"], ["c"], "first", auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
        node("Conv", ["c", "b"], ["y"], "second", strides=[2, 2]),
    ]
    constants = {"a": networks.weights(rng, 4, 3, 3, 3), "b": networks.weights(rng, 4, 4, 1, 1)}
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 8, 8], ["N", 4, 4, 4]], constants)
    assert strides(quantize.prepare(model, tmp_path))["second"] == [2, 2]


@pytest.mark.parametrize("shapes", [((3, 3), (3, 3), 7), ((3, 5), (1, 1), 9), ((1, 1), (3, 3), 12)])
def test_chains_of_strides_multiply(tmp_path: Path, shapes: tuple[tuple[int, int], tuple[int, int], int]) -> None:
    rng = np.random.default_rng(0)
    first, second, size = shapes
    nodes = [
        node("Conv", ["x", "a"], ["c"], "first", strides=[2, 1], pads=[first[0] // 2, first[1] // 2] * 2),
        node("Conv", ["c", "m"], ["d"], "middle", strides=[1, 2], pads=[second[0] // 2, second[1] // 2] * 2),
        node("LeakyRelu", ["d"], ["l"]),
        node("Conv", ["l", "b"], ["y"], "last", strides=[2, 2]),
    ]
    constants = {
        "a": networks.weights(rng, 4, 3, *first),
        "m": networks.weights(rng, 4, 4, *second),
        "b": networks.weights(rng, 2, 4, 1, 1),
    }
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, size, size + 1], ["N", 2, "h", "w"]], constants)
    prepared = quantize.prepare(model, tmp_path)
    batch = rng.normal(size=(2, 3, size, size + 1)).astype(np.float32)
    expected = networks.run(model, batch)
    answers = networks.run(prepared, batch)
    assert answers.shape == expected.shape
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    assert strides(prepared)["last"] == [1, 1]


def test_batch_norms_and_constants_are_folded_and_the_opset_is_raised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        node("Constant", [], ["a"], value=onnx.numpy_helper.from_array(networks.weights(rng, 4, 3, 3, 3))),
        node("Conv", ["x", "a"], ["c"], "conv"),
        node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        node("Relu", ["n"], ["y"]),
    ]
    constants = {name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in "sbmv"}
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 8, 8], ["N", 4, 6, 6]], constants, opset=11)
    prepared = quantize.prepare(model, tmp_path)
    assert networks.operators(prepared) == ["Conv", "Relu"]
    assert {opset.domain for opset in onnx.load(prepared.path).opset_import} == {""}
    batch = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(networks.run(prepared, batch), networks.run(model, batch), atol=1e-5)
    assert quantize.prepare(prepared, tmp_path) is prepared
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.prepared.onnx"]


def test_open_nsfw_answers_alike_prepared(nsfw_model_path: Path, tmp_path: Path) -> None:
    model = Model(nsfw_model_path, "onnx")
    prepared = quantize.prepare(model, tmp_path)
    batch = np.random.default_rng(0).uniform(-120, 150, size=(1, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(networks.run(prepared, batch), networks.run(model, batch), atol=1e-5)
    assert sum("every" in name for name in strides(prepared)) == 3


def test_pairs_become_the_limits_that_they_set(tmp_path: Path) -> None:
    """A Relu is left out where the zero point is the smallest integer: without the pair's limits it would be lost."""
    nodes = [
        node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0),
        node("Conv", ["x", "w"], ["c"]),
        node("QuantizeLinear", ["c", "s", "z"], ["q"]),
        node("MaxPool", ["q"], ["m"], kernel_shape=[2, 2]),
        node("DequantizeLinear", ["m", "s", "z"], ["y"]),
    ]
    integers = np.random.default_rng(2).integers(-127, 128, (4, 3, 1, 1)).astype(np.int8)
    scales = np.array([0.01, 0.02, 0.003, 0.1], np.float32)
    constants: dict[str, networks.Array] = {"wq": integers, "ws": scales, "wz": np.zeros(4, np.int8)}
    constants |= {"s": np.array(0.01, np.float32), "z": np.array(0, np.uint8)}
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 8, 8], ["N", 4, 7, 7]], constants)
    assert quantize.is_quantized(model)
    lifted = quantize.float32(model, tmp_path)
    assert not quantize.is_quantized(lifted)
    batch = networks.pictures(2, 8).transpose(0, 3, 1, 2)
    rounded, exact = networks.run(model, batch), networks.run(lifted, batch)
    assert rounded.min() == 0 < np.ptp(rounded)
    np.testing.assert_allclose(exact, rounded, rtol=0, atol=0.0051)
    assert quantize.prepare(model, tmp_path).parent == model


def test_operators_on_integers_are_refused_with_what_runs_them(tmp_path: Path) -> None:
    nodes = [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3], ["N", 3]], {})
    with pytest.raises(BuildError, match="computes in integers by DynamicQuantizeLinear") as caught:
        quantize.prepare(model, tmp_path)
    assert "onnxruntime:cpu:" in caught.value.hint
