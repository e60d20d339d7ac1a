"""TensorRT quantizes symmetrically: int8, the zero point at 0. Other Q/DQ networks are refused before it refuses them
less clearly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph as onnx_graph

if TYPE_CHECKING:
    from onnx import NodeProto

_INT8, _INT32 = np.dtype(np.int8), np.dtype(np.int32)


def require(model: Model) -> None:
    """Raise BuildError where a network's Q/DQ has another type than int8 (int32 for biases), or a zero point that isn't
    0."""
    graph = onnx_graph.Graph(onnx_graph.load(model))
    foreign = [node.input[0] for node in graph.nodes if not _fits(graph, node)]
    if foreign:
        shown = ", ".join(f"'{name}'" for name in foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise BuildError(
            f"{model.path}: TensorRT takes int8 around zero; {len(foreign)} of its tensors are quantized otherwise"
            f" (uint8, or a zero point): {shown}",
            "Quantize the float32 network for this target: plimsoll.quantize.StaticOptions.for_target(target).",
        )


def _fits(graph: onnx_graph.Graph, node: NodeProto) -> bool:
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return True
    if len(node.input) > 2 and node.input[2]:
        zero = graph.value(node.input[2])
        return zero is not None and zero.dtype in (_INT8, _INT32) and not np.any(zero)
    if node.op_type == "QuantizeLinear":
        return False  # without a zero point it makes uint8
    stored = graph.value(node.input[0])
    return stored is None or stored.dtype in (_INT8, _INT32)
