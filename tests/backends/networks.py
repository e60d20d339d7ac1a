"""Small networks for the contract suite, with what they compute stated in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from plimsoll.model import Model

Array = NDArray[np.float32]
WEIGHTS: Array = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)


def network(path: Path, batch: int | str = "N") -> Model:
    """scores = softmax(mean over pixels of relu(picture - 0.5) x weights): picture [N, 5, 6, 3] to scores [N, 4]."""
    nodes = [
        helper.make_node("Sub", ["picture", "half"], ["centred"]),
        helper.make_node("Relu", ["centred"], ["positive"]),
        helper.make_node("ReduceMean", ["positive", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "weights"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    constants = [
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(WEIGHTS, "weights"),
    ]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, 5, 6, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 4])
    return save(path, nodes, [picture], [scores], constants)


def expected(pictures: Array) -> Array:
    means = np.maximum(pictures - np.float32(0.5), 0).mean(axis=(1, 2))
    logits = means @ WEIGHTS.T
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def two_inputs(path: Path) -> Model:
    """total = a + b, difference = a - b."""
    nodes = [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("a", "b", "total", "difference")]
    return save(path, nodes, infos[:2], infos[2:], [])


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> Model:
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return Model(path, "onnx")
