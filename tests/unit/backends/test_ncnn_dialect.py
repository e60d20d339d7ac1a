"""What pnnx gets wrong is written otherwise, and computes the same: in ONNX Runtime, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from plimsoll.backends.ncnn import dialect
from plimsoll.errors import BuildError

SHAPE = (1, 8, 6, 10)


def network(operator: str, *constants: list[int], **attributes: Any) -> onnx.ModelProto:
    """An operator between two others, so that its value has a name that must stay."""
    names = [f"constant{index}" for index in range(len(constants))]
    nodes = [
        helper.make_node("Abs", ["x"], ["inner"], "abs"),
        helper.make_node(operator, ["inner", *names], ["moved"], "moving", **attributes),
        helper.make_node("Neg", ["moved"], ["y"], "neg"),
    ]
    stored = [
        numpy_helper.from_array(np.array(values, np.int64), name) for name, values in zip(names, constants, strict=True)
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)
    graph = helper.make_graph(nodes, "small", [x], [helper.make_empty_tensor_value_info("y")], stored)
    return shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )


def answer(proto: onnx.ModelProto) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    values = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    return np.asarray(session.run(["y"], {"x": values})[0])


@pytest.mark.parametrize(
    "proto",
    [
        network("Gather", [3, 4, 5, 0, 7, -1], axis=1),
        network("Gather", [2, 1], axis=3),
        network("Slice", [1, 0], [1000, 1000], [2, 3], [2, 3]),
        network("Slice", [1], [-1], [-1], [4]),
        network("Slice", [1], [8], [1], [3]),
        network("Slice", [-1], [-1000], [3], [-1]),
        network("Slice", [5, 7], [0, 1], [2, 1], [-2, -3]),
        network("SpaceToDepth", blocksize=2),
        network("DepthToSpace", blocksize=2),
        network("DepthToSpace", blocksize=2, mode="CRD"),
    ],
    ids=lambda proto: proto.graph.node[1].op_type,
)
def test_a_rewritten_operator_moves_the_same_values(proto: onnx.ModelProto) -> None:
    before = answer(proto)
    rewritten = onnx.ModelProto.FromString(proto.SerializeToString())
    dialect.rewrite(rewritten, "net.onnx")
    onnx.checker.check_model(rewritten)
    np.testing.assert_array_equal(answer(rewritten), before)
    steps = [
        numpy_helper.to_array(stored)
        for node in rewritten.graph.node
        for stored in rewritten.graph.initializer
        if node.op_type == "Slice" and len(node.input) > 4 and stored.name == node.input[4]
    ]
    assert not steps
    assert not {"Gather", "SpaceToDepth"} & {node.op_type for node in rewritten.graph.node}


def test_an_operator_that_pnnx_converts_right_stays() -> None:
    proto = network("Slice", [1], [5], [2])
    rewritten = onnx.ModelProto.FromString(proto.SerializeToString())
    dialect.rewrite(rewritten, "net.onnx")
    assert [node.op_type for node in rewritten.graph.node] == ["Abs", "Slice", "Neg"]


def padded(pads: list[int], *further: NDArray[Any] | None) -> onnx.ModelProto:
    """A Pad by stored numbers; `further` are its value and its axes."""
    proto = network("Pad", pads)
    for name, array in zip(("value", "axes"), further, strict=False):
        proto.graph.node[1].input.append(name if array is not None else "")
        if array is not None:
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    proto.opset_import[0].version = 18
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        padded([0, 0, 0, 0, 0, 4, 0, 0]),
        padded([0, 2, 1, 0, 0, 3, 0, 2], np.array(-1.5, np.float32)),
        padded([1, 1], None, np.array([1])),
        padded([0, 2, 1, 0], np.array(2, np.float32), np.array([-1, 1])),
    ],
)
def test_stored_numbers_are_put_beside_what_is_padded(proto: onnx.ModelProto) -> None:
    rewritten = onnx.ModelProto.FromString(proto.SerializeToString())
    dialect.rewrite(rewritten, "net.onnx")
    np.testing.assert_array_equal(answer(rewritten), answer(proto))
    assert {node.op_type for node in rewritten.graph.node} == {"Abs", "Concat", "Neg"}


def test_rows_are_normalized_as_pictures_of_one_column() -> None:
    rng = np.random.default_rng(2)
    names = [("rows", np.array([1, 4, -1])), ("scale", rng.normal(size=4)), ("bias", rng.normal(size=4))]
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["apart"]),
        helper.make_node("InstanceNormalization", ["apart", "scale", "bias"], ["y"], epsilon=1e-3),
    ]
    stored = [
        numpy_helper.from_array(value.astype(np.int64 if name == "rows" else np.float32), name) for name, value in names
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)
    graph = helper.make_graph(nodes, "groups", [x], [helper.make_empty_tensor_value_info("y")], stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rewritten = onnx.ModelProto.FromString(proto.SerializeToString())
    dialect.rewrite(rewritten, "net.onnx")
    shapes = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in shape_inference.infer_shapes(rewritten).graph.value_info
    }
    (normalizing,) = (node for node in rewritten.graph.node if node.op_type == "InstanceNormalization")
    assert shapes[normalizing.input[0]] == 4
    np.testing.assert_allclose(answer(rewritten), answer(proto), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_other_padding_stays(mode: str) -> None:
    proto = network("Pad", [0, 0, 1, 1, 0, 0, 1, 1], mode=mode)
    dialect.rewrite(proto, "net.onnx")
    assert [node.op_type for node in proto.graph.node] == ["Abs", "Pad", "Neg"]


@pytest.mark.parametrize(
    "attributes", [{"coordinate_transformation_mode": "asymmetric"}, {"mode": "cubic", "cubic_coeff_a": -0.5}]
)
def test_an_interpolation_that_ncnn_computes_otherwise_is_refused(attributes: dict[str, Any]) -> None:
    proto = network("Resize", **{"mode": "linear", **attributes})
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    proto.graph.node[1].input.extend(["", "scales"])
    with pytest.raises(BuildError, match=r"net\.onnx: ncnn can't resize as 'moving' does"):
        dialect.rewrite(proto, "net.onnx")
