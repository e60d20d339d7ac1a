"""The index over a network's edges: who makes and reads a tensor, and what is known of its value."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from plimsoll.onnx.graph import Graph, first_convolution
from plimsoll.onnx.structure import sort


def network(nodes: list[object], constants: dict[str, NDArray[np.generic]] | None = None) -> ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [value("x", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [value("y", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph)


def branches(name: str) -> object:
    """An If whose two subgraphs give `name` on."""
    inner = [
        helper.make_graph(
            [helper.make_node("Identity", [name], [f"{name}_{side}"])],
            side,
            [],
            [helper.make_tensor_value_info(f"{name}_{side}", TensorProto.FLOAT, None)],
        )
        for side in ("then", "else")
    ]
    return helper.make_node("If", ["flag"], ["y"], then_branch=inner[0], else_branch=inner[1])


def test_readers_in_subgraphs_count() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    alone = Graph(network([*nodes, helper.make_node("Identity", ["b"], ["y"])]))
    assert [node.op_type for node in alone.readers["a"]] == ["Neg"]
    reader = alone.sole_reader("a")
    assert reader is not None
    assert reader.op_type == "Neg"
    assert alone.sole_reader("y") is None
    shared = Graph(network([*nodes, branches("a")], {"flag": np.array(True)}))
    assert shared.sole_reader("a") is None
    assert sorted(node.op_type for node in shared.all_readers("a")) == ["Identity", "Identity", "Neg"]


def test_a_value_is_known_where_it_is_stored_or_dequantized_from_stored_ones() -> None:
    constants: dict[str, NDArray[np.generic]] = {
        "q": np.array([[1, 2], [3, 5]], np.int8),
        "scale": np.array([0.5, 2.0], np.float32),
        "zero": np.array([1, 1], np.int8),
    }
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([7.0], np.float32))),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["rows"], axis=0),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["columns"]),
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["y"]),
    ]
    graph = Graph(network(nodes, constants))
    assert graph.value("c") == pytest.approx([7.0])
    np.testing.assert_array_equal(graph.value("q"), constants["q"])
    np.testing.assert_array_equal(graph.value("rows"), [[0, 0.5], [4, 8]])
    np.testing.assert_array_equal(graph.value("columns"), [[0, 2], [1, 8]])
    assert graph.value("y") is None
    assert graph.value("x") is None


def test_the_first_convolution_is_found_behind_a_quantized_picture() -> None:
    constants: dict[str, NDArray[np.generic]] = {
        "scale": np.array(0.5, np.float32),
        "zero": np.array(0, np.int8),
        "w": np.ones((2, 2, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "scale", "zero"], ["x_dq"]),
        helper.make_node("Conv", ["x_dq", "w"], ["y"]),
    ]
    actual = first_convolution(network(nodes, constants), "x")
    assert actual is not None
    assert actual.source == "x"
    np.testing.assert_array_equal(actual.weights, constants["w"])
    assert first_convolution(network(nodes, constants), "other") is None


def test_nodes_are_put_after_what_they_read() -> None:
    proto = network([helper.make_node("Neg", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])])
    sort(proto.graph)
    assert [node.op_type for node in proto.graph.node] == ["Relu", "Neg"]


def test_constants_that_a_subgraph_reads_stay_when_nodes_are_replaced() -> None:
    constants = {"flag": np.array(True), "inside": np.ones((1, 2, 4, 4), np.float32), "idle": np.ones(3, np.float32)}
    graph = Graph(network([branches("inside")], constants))
    graph.replace_nodes(graph.nodes)
    assert graph.is_constant("inside")
    assert not graph.is_constant("idle")
