"""Where a convolution's result is quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import node
from plimsoll.core.target import Target
from plimsoll.onnx.graph import Graph
from plimsoll.quantize import StaticOptions
from plimsoll.quantize.placement import placement_of

SILU = [node("Sigmoid", ["c0"], ["s"]), node("Mul", ["c0", "s"], ["a"])]
AFFINE_HARD_SWISH = [
    node("Mul", ["c0", "half"], ["m"]),
    node("Add", ["m", "channels"], ["x0"]),
    node("Add", ["x0", "three"], ["x3"]),
    node("Clip", ["x3", "zero", "six"], ["gate"]),
    node("Mul", ["x0", "gate"], ["product"]),
    node("Div", ["product", "six"], ["a"]),
]
GATED = [node("Conv", ["c0", "w1"], ["other"]), node("Mul", ["c0", "other"], ["a"])]
READ_TWICE = [node("Sigmoid", ["c0"], ["a"]), node("Conv", ["c0", "w1"], ["unread"])]
ROOT_OF_SQUARES = [
    node("Mul", ["c0", "c0"], ["square"]),
    node("Add", ["square", "half"], ["sum"]),
    node("Sqrt", ["sum"], ["a"]),
]
BY_PIXEL = [node("Mul", ["c0", "pixels"], ["a"])]


def graph_of(between: list[onnx.NodeProto], folder: Path) -> Graph:
    """A convolution, what follows it, and another convolution."""
    rng = np.random.default_rng(0)
    constants = {"w0": networks.weights(rng, 4, 3, 1, 1), "w1": networks.weights(rng, 4, 4, 1, 1)}
    numbers = {"half": [0.5], "three": 3.0, "zero": 0.0, "six": 6.0, "channels": np.ones((4, 1, 1))}
    constants |= {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    constants["pixels"] = np.ones((4, 4), np.float32)
    nodes = [node("Conv", ["x", "w0"], ["c0"], "first"), *between, node("Conv", ["a", "w1"], ["y"], "last")]
    model = networks.save(folder / "net.onnx", nodes, [["N", 3, 4, 4], ["N", 4, 4, 4]], constants)
    return Graph(onnx.load(model.path))


@pytest.mark.parametrize(
    ("between", "behind"),
    [
        (SILU, "a"),
        (AFFINE_HARD_SWISH, "a"),
        (GATED, "c0"),
        (READ_TWICE, "c0"),
        (ROOT_OF_SQUARES, "c0"),
        (BY_PIXEL, "c0"),
    ],
    ids=["silu", "affine_hard_swish", "gated", "read_twice", "root_of_squares", "by_pixel"],
)
def test_behind_all_that_follows_value_by_value(between: list[onnx.NodeProto], behind: str, tmp_path: Path) -> None:
    graph = graph_of(between, tmp_path)
    fused = placement_of(graph, float_heads=False, fuses_pointwise=True)
    assert fused.tensors["first"] == ("x", behind)
    plain = placement_of(graph, float_heads=False)
    assert plain.tensors["first"] == ("x", "c0")


def test_openvino_computes_them_together_and_onnx_runtime_does_not() -> None:
    assert StaticOptions.for_target(Target("openvino", "cpu", "int8")).fuses_pointwise
    assert not StaticOptions().fuses_pointwise


@pytest.mark.parametrize(("mode", "is_quantized"), [("cubic", False), ("linear", True), ("nearest", True)])
def test_no_cubic_resize_lies_between_quantized_tensors(mode: str, is_quantized: bool, tmp_path: Path) -> None:
    """ONNX Runtime would compute it in integers, and refuses to load it."""
    rng = np.random.default_rng(0)
    constants = {"w0": networks.weights(rng, 4, 3, 1, 1), "w1": networks.weights(rng, 4, 4, 1, 1)}
    constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], "first"),
        node("Resize", ["c0", "", "scales"], ["larger"], mode=mode),
        node("Conv", ["larger", "w1"], ["c1"], "second"),
        node("Relu", ["c1"], ["y"]),
    ]
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 4, 4], ["N", 4, 8, 8]], constants)
    placement = placement_of(Graph(onnx.load(model.path)), float_heads=False)
    assert ("second" in placement.nodes) is is_quantized
