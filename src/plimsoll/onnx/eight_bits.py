"""An ONNX network as it answers where every value and every weight is rounded to 8 bits: what int8 loses at the least.

Nothing is calibrated: each value is rounded within the range that it has for the picture at hand, each weight within
that of its output channel. What a runtime's int8 loses beyond that comes of its ranges and kernels; and where even this
loses the answer, the network needs more than 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph

if TYPE_CHECKING:
    from onnx import NodeProto

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ROUNDED = _LAYERS | {
    *("Add", "Sub", "Mul", "Concat", "Resize", "ReduceMean", "BatchNormalization", "LayerNormalization"),
    *("AveragePool", "GlobalAveragePool", "MaxPool"),
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Gelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softmax"),
}
"""What runtimes compute in int8 where they can; the network's outputs stay as they are."""
_FIRST_OPSET = 11
"""The first that has DynamicQuantizeLinear."""


def rounded(model: Model) -> bytes:
    """Return the network with its values and weights rounded, as a file; raises BuildError or ModelError where it can't
    be done: for old opsets, and for networks in float16, which would keep what isn't float32."""
    from onnx import TensorProto, shape_inference

    proto = onnx_graph.load(model)
    if load.opset(proto) < _FIRST_OPSET or any(
        tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for tensor in proto.graph.initializer
    ):
        raise BuildError(f"{model.source}: its values can't be rounded to 8 bits")
    with translate(BuildError, f"{model.source}: its shapes can't be inferred"):
        typed = shape_inference.infer_shapes(proto)
    graph = Graph(proto)
    floats = {
        value.name
        for value in (*typed.graph.value_info, *typed.graph.input)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    _round_weights(graph)
    with translate(BuildError, f"{model.source}: it can't be rounded to 8 bits"):
        graph.replace_nodes(list(_with_rounding(graph, floats - set(graph.outputs))))
        proto.graph.ClearField("value_info")
        content: bytes = proto.SerializeToString()
        return content


def _round_weights(graph: Graph) -> None:
    for node in graph.nodes:
        if graph.kind(node) not in _LAYERS or len(node.input) < 2 or not graph.is_float_constant(node.input[1]):
            continue
        weights = graph.constant(node.input[1])
        if weights.ndim < 2:
            continue
        channel = {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, weights.ndim - 1)
        if node.op_type == "Gemm" and onnx_graph.attribute(node, "transB", 0):
            channel = 0
        others = tuple(axis for axis in range(weights.ndim) if axis != channel)
        step = np.maximum(np.abs(weights).max(axis=others, keepdims=True) / 127, np.finfo(np.float32).tiny)
        graph.add_constant(node.input[1], (np.rint(weights / step) * step).astype(np.float32))


def _with_rounding(graph: Graph, floats: set[str]) -> Iterator[NodeProto]:
    """Yield the nodes, each behind the rounding of what it reads."""
    from onnx import helper

    names: dict[str, str] = {}
    taken = set(graph.maker) | set(graph.readers)

    def pair(value: str) -> Iterator[NodeProto]:
        parts = [onnx_graph.unique(taken, f"{value}_{part}") for part in ("integers", "scale", "zero")]
        names[value] = onnx_graph.unique(taken, f"{value}_rounded")
        yield helper.make_node("DynamicQuantizeLinear", [value], parts)
        yield helper.make_node("DequantizeLinear", parts, [names[value]])

    reached = set(graph.inputs)
    for value in floats.intersection(graph.inputs):
        yield from pair(value)
    for node in graph.nodes:
        if not reached.isdisjoint(node.input):
            reached.update(node.output)
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        yield node
        value = node.output[0]
        if graph.kind(node) in _ROUNDED and value in reached and value in floats:
            yield from pair(value)


__all__ = ["rounded"]
