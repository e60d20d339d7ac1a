"""Operators written with others compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, shape_inference

from plimsoll.onnx import lowering
from plimsoll.onnx.graph import attribute

Array = NDArray[Any]
SHAPE = (2, 3, 11, 12)


def network(
    kind: str, *inputs: str | Array, shape: tuple[Any, ...] = ("N", 3, 11, 12), opset: int = 17, **attributes: Any
) -> ModelProto:
    """One operator, between two that only copy, in a network that reads `x`."""
    constants = [
        numpy_helper.from_array(value, f"s{index}")
        for index, value in enumerate(inputs)
        if isinstance(value, np.ndarray)
    ]
    names = [value if isinstance(value, str) else f"s{index}" for index, value in enumerate(inputs)]
    nodes = [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node(kind, names, ["value"], **attributes),
        helper.make_node("Neg", ["value"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape)),
        helper.make_empty_tensor_value_info("y"),
    ]
    graph = helper.make_graph(nodes, "operator", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def answer(proto: ModelProto, shape: tuple[int, ...] = SHAPE, *, as_written: bool = False) -> Array:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": values})[0])


def stored(proto: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in proto.graph.initializer}


def whole(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "mean": ("Mean", ("x", "size", np.ones((1, 3, 1, 1), np.float32)), {}),
    "mean of one": ("Mean", ("x",), {}),
    "dilated": ("MaxPool", ("x",), {"kernel_shape": [3, 3], "dilations": [2, 2]}),
    "dilated, padded, strided": (
        "MaxPool", ("x",), {"kernel_shape": [3, 2], "dilations": [2, 3], "strides": [2, 3], "pads": [1, 0, 2, 1]},
    ),
    "dilated along one axis": ("MaxPool", ("x",), {"kernel_shape": [1, 3], "dilations": [1, 4], "strides": [2, 1]}),
    "dilated rows of one": ("MaxPool", ("x",), {"kernel_shape": [3, 1], "dilations": [3, 1]}),
    "largest of three": ("Max", ("x", "size", np.full((1, 3, 1, 1), 0.2, np.float32)), {}),
    "least of four": ("Min", ("x", "size", np.full((), 0.2, np.float32), "x"), {}),
    "average of padding": (
        "AveragePool", ("x",),
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 2, 1], "count_include_pad": 1},
    ),
    "backwards": ("Slice", ("x", whole(-1), whole(-10_000), whole(3), whole(-1)), {}),
    "backwards by threes, and forwards": (
        "Slice", ("x", whole(9, 1), whole(1, 10_000), whole(2, -1), whole(-3, 2)), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
def test_it_computes_the_same(case: str) -> None:
    kind, inputs, attributes = CASES[case]
    proto = network(kind, *inputs, **attributes)
    expected = answer(proto)
    lowering.lower(proto)
    checker.check_model(shape_inference.infer_shapes(proto), full_check=True)
    slices = [node for node in proto.graph.node if node.op_type == "Slice"]
    assert all((numpy_helper.to_array(stored(proto)[node.input[4]]) > 0).all() for node in slices)
    assert not any(node.op_type in ("Mean", "MaxPool") for node in proto.graph.node)
    assert not any(node.op_type in ("Max", "Min") and len(node.input) > 2 for node in proto.graph.node)
    pads = [attribute(node, "pads", [0]) for node in proto.graph.node if node.op_type == "AveragePool"]
    assert not any(map(any, pads))
    np.testing.assert_allclose(answer(proto), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "opset", "inputs", "attributes"),
    [
        ("Mish", 18, ("x",), {}),
        ("Swish", 24, ("x",), {}),
        ("Swish", 24, ("x",), {"alpha": 1.7}),
        ("RMSNormalization", 23, ("x", np.linspace(0.5, 2, 12, dtype=np.float32)), {}),
        ("MeanVarianceNormalization", 17, ("x",), {"axes": [0, 2, 3]}),
        ("Attention", 23, ("x", "size", "x"), {}),
    ],
)
def test_what_a_converter_lacks_is_written_as_onnx_defines_it(
    kind: str, opset: int, inputs: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    proto = network(kind, *inputs, opset=opset, **attributes)
    expected = answer(proto)
    lowering.lower(proto)
    assert kind in {node.op_type for node in proto.graph.node}
    lowering.lower(proto, [kind])
    assert not {kind, "CastLike", "Constant"} & {node.op_type for node in proto.graph.node}
    np.testing.assert_allclose(answer(proto), expected, rtol=1e-4, atol=1e-5)


def test_a_gelu_spelled_out_is_the_same_to_the_last_bit() -> None:
    constants = {"root": np.float32(2**0.5), "whole": np.float32(1), "half": np.float32(0.5)}
    nodes = [
        helper.make_node("Div", ["x", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "whole"], ["share"]),
        helper.make_node("Mul", ["x", "share"], ["product"]),
        helper.make_node("Mul", ["product", "half"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, list(SHAPE)),
        helper.make_empty_tensor_value_info("y"),
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "gelu", ends[:1], ends[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    expected = answer(proto, as_written=True)
    lowering.spell_out_gelus(proto)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds == ["Div", "Erf", "Mul", "Add", "Mul", "Mul", "Mul"]
    np.testing.assert_array_equal(answer(proto, as_written=True), expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_are_normalized_as_instances(groups: int) -> None:
    affine = np.linspace(0.5, 2, 4, dtype=np.float32), np.linspace(-1, 1, 4, dtype=np.float32)
    proto = network("GroupNormalization", "x", *affine, shape=("N", 4, 11, 12), opset=21, num_groups=groups)
    expected = answer(proto, (2, 4, 11, 12))
    lowering.lower(proto)
    assert "InstanceNormalization" in {node.op_type for node in proto.graph.node}
    np.testing.assert_allclose(answer(proto, (2, 4, 11, 12)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "shape"),
    [
        ("MaxPool", ("x",), {"kernel_shape": [2, 2]}, ("N", 3, 11, 12)),
        ("MaxPool", ("x",), {"kernel_shape": [2, 2], "dilations": [2, 2], "ceil_mode": 1}, ("N", 3, 11, 12)),
        ("Slice", ("x", whole(0), whole(5), whole(2), whole(2)), {}, ("N", 3, 11, 12)),
        ("Slice", ("x", whole(-1), whole(-10_000), whole(3), whole(-1)), {}, ("N", 3, 11, "width")),
    ],
)
def test_what_needs_nothing_or_has_no_known_size_stays(
    kind: str, inputs: tuple[Any, ...], attributes: dict[str, Any], shape: tuple[Any, ...]
) -> None:
    proto = network(kind, *inputs, shape=shape, **attributes)
    before = proto.SerializeToString(deterministic=True)
    lowering.lower(proto)
    assert [node.op_type for node in proto.graph.node] == ["Abs", kind, "Neg"]
    assert len(before) == len(proto.SerializeToString(deterministic=True))


def test_a_slice_behind_a_computed_shape_is_written_too() -> None:
    """As PyTorch writes a backward LSTM's input: the sizes follow from the input's, though no value says them."""
    shape = ("N", 3, 11, 12)
    constants = {"axes": whole(0), "at": whole(2), "rest": whole(-1), "from": whole(-1), "to": whole(-10_000)}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "at"], ["rows"]),
        helper.make_node("Transpose", ["x"], ["turned"], perm=[2, 0, 1, 3]),
        helper.make_node("Concat", ["rows", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["turned", "wanted"], ["rowwise"]),
        helper.make_node("Slice", ["rowwise", "from", "to", "axes", "rest"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape)),
        helper.make_empty_tensor_value_info("y"),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "reverse", ends[:1], ends[1:], stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    expected = answer(proto)
    lowering.lower(proto)
    assert "Slice" not in {node.op_type for node in proto.graph.node}
    np.testing.assert_array_equal(answer(proto), expected)
