"""float16 and dynamic int8."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import node
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.errors import BuildError


@pytest.mark.parametrize(
    ("verb", "target", "bound"), [(quantize.float16, "float16", 2e-3), (quantize.dynamic, "dynamic", 2e-2)]
)
def test_answers_stay_close_and_inputs_and_outputs_float32(
    tmp_path: Path, verb: object, target: str, bound: float, caplog: pytest.LogCaptureFixture
) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    with caplog.at_level(logging.WARNING):
        smaller: Model = verb(model, tmp_path)  # type: ignore[operator]
    assert not caplog.records
    onnx.checker.check_model(str(smaller.path), full_check=True)
    graph = onnx.load(smaller.path).graph
    assert [tensor.type.tensor_type.elem_type for tensor in (*graph.input, *graph.output)] == [1, 1]
    batch = networks.pictures()
    difference = np.abs(networks.run(smaller, batch, f"onnxruntime:cpu:{target}") - networks.run(model, batch)).max()
    assert 0 < difference < bound
    assert smaller.parent == model


def test_dynamic_leaves_convolutions_unless_told(tmp_path: Path) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    assert networks.operators(quantize.dynamic(model, tmp_path)).count("Conv") == 5
    operators = networks.operators(quantize.dynamic(model, tmp_path, convolutions=True))
    assert operators.count("ConvInteger") == 5
    assert "Conv" not in operators


def test_what_is_dynamic_already_runs_as_it_is(tmp_path: Path) -> None:
    integers = quantize.dynamic(networks.residual(tmp_path / "net.onnx"), tmp_path)
    assert quantize.dynamic(integers, tmp_path) is integers
    with pytest.raises(BuildError) as refused:
        quantize.float32(integers, tmp_path)
    assert "--target onnxruntime:cpu:dynamic" in refused.value.hint


def test_dynamic_says_where_there_is_no_product(tmp_path: Path) -> None:
    constants = {"a": np.ones((2, 3, 1, 1), np.float32)}
    model = networks.save(
        tmp_path / "net.onnx", [node("Conv", ["x", "a"], ["y"])], [["N", 3, 4, 4], ["N", 2, 4, 4]], constants
    )
    with pytest.raises(BuildError, match="no matrix product"):
        quantize.dynamic(model, tmp_path)


def test_float16_halves_open_nsfw(nsfw_model_path: Path, tmp_path: Path) -> None:
    model = Model(nsfw_model_path, "onnx")
    half = quantize.float16(model, tmp_path)
    assert half.size < 0.51 * model.size
    batch = np.random.default_rng(0).uniform(-120, 150, size=(1, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(
        networks.run(half, batch, "onnxruntime:cpu:float16"), networks.run(model, batch), atol=5e-3
    )


def test_numbers_that_float16_cannot_hold_stay_in_float32(tmp_path: Path) -> None:
    constants = {"big": np.array([[70_000.0, 1.0]], np.float32).T.copy(), "half": np.array(0.5, np.float32)}
    constants["tiny"] = np.array(1e-12, np.float32)
    nodes = [node("MatMul", ["x", "big"], ["a"]), node("Add", ["a", "tiny"], ["b"]), node("Div", ["a", "b"], ["c"])]
    model = networks.save(
        tmp_path / "net.onnx", [*nodes, node("Mul", ["c", "half"], ["y"])], [["N", 2], ["N", 1]], constants
    )
    result = quantize.float16(model, tmp_path)
    for batch in (np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)):
        expected = networks.run(model, batch)
        np.testing.assert_allclose(networks.run(result, batch, "onnxruntime:cpu:float16"), expected, rtol=1e-3)
    model = networks.save(tmp_path / "net.onnx", [node("MatMul", ["x", "big"], ["y"])], [["N", 2], ["N", 1]], constants)
    with pytest.raises(BuildError, match="none of its weights can be stored in float16"):
        quantize.float16(model, tmp_path)


def branches() -> list[onnx.NodeProto]:
    """An If that depends on the picture, and reads values from outside of it."""
    out = [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)]
    then = onnx.helper.make_graph([node("Mul", ["a", "w"], ["inner"])], "then", [], out)
    other = [onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, None)]
    otherwise = onnx.helper.make_graph([node("Add", ["a", "w"], ["other"])], "otherwise", [], other)
    return [
        node("Mul", ["x", "w"], ["a"]),
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "w"], ["condition"]),
        node("If", ["condition"], ["b"], then_branch=then, else_branch=otherwise),
        node("Add", ["b", "a"], ["y"]),
    ]


@pytest.mark.parametrize(
    "nodes",
    [
        branches(),
        [node("Gelu", ["x"], ["g"]), node("Mul", ["g", "w"], ["y"])],
        [node("Mul", ["x", "w"], ["a"]), node("Resize", ["a", "", "scales"], ["y"], mode="linear")],
        [node("LayerNormalization", ["x", "ones"], ["y"])],
        [node("Mul", ["x", "w"], ["y"]), node("Relu", ["y"], ["unread"])],
        [node("Mul", ["x", "w"], ["a"]), node("Softmax", ["a"], ["b"], axis=1), node("MatMul", ["b", "b"], ["y"])],
        [
            node("Mul", ["x", "w"], ["m"]),
            node("Split", ["m"], ["a", "b"], axis=1, num_outputs=2),
            node("Concat", ["b", "a"], ["y"], axis=1),
        ],
        [node("Shape", ["x"], ["s"]), node("Mul", ["x", "w"], ["a"]), node("Reshape", ["a", "s"], ["y"])],
        [node("Pad", ["x", "pads", "w"], ["p"]), node("Clip", ["p", "", "w"], ["y"])],
        [
            node("Mul", ["x", "w"], ["m"]),
            node("Where", ["mask", "m", "lowest"], ["a"]),
            node("Softmax", ["a"], ["y"]),
        ],
    ],
    ids=["if", "gelu", "resize", "norm", "output read", "attention", "split", "sizes", "pad", "mask"],
)
def test_operators_of_every_kind_come_out_right_in_float16(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    constants: dict[str, networks.Array] = {
        "w": np.array(0.5, np.float32),
        "ones": np.ones(4, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "mask": np.array([[True, False, True, True]]),
        "lowest": np.array(-3e38, np.float32),
    }
    inputs = {name for node in nodes for name in node.input} | {"w"}
    used = {name: value for name, value in constants.items() if name in inputs}
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 4, 4, 4], [None] * 4], used, opset=20)
    batch = np.random.default_rng(4).uniform(-2, 2, (2, 4, 4, 4)).astype(np.float32)
    reference = networks.run(model, batch)
    answer = networks.run(quantize.float16(model, tmp_path), batch, "onnxruntime:cpu:float16")
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, reference, rtol=5e-3, atol=5e-3)


def test_sums_that_overflow_float16_stay_in_float32(tmp_path: Path) -> None:
    nodes = [node("ReduceSum", ["x", "axes"], ["s"]), node("Mul", ["s", "small"], ["y"])]
    constants: dict[str, networks.Array] = {"axes": np.array([1], np.int64), "small": np.array(1e-3, np.float32)}
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 4], ["N", 1]], constants)
    batch = np.full((1, 4), 30_000, np.float32)
    np.testing.assert_allclose(
        networks.run(quantize.float16(model, tmp_path), batch, "onnxruntime:cpu:float16"), [[120.0]], rtol=1e-2
    )
