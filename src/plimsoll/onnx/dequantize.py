"""A quantized or half-precision network in float32: the source of every conversion that starts from float32.

Q/DQ pairs become the limits that they set: an integer's range ends, and networks rely on that (a Relu is often left out
because the zero point is the smallest integer). Weights become the values that their integers stand for. Only the
rounding between the layers is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import BuildError
from plimsoll.onnx import folding, load, structure
from plimsoll.onnx.graph import Graph, unique

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

AS_IT_IS = replace(REFERENCE_TARGET, precision="int8")
"""What runs a network in integers as it is written."""

_FLOAT, _FLOAT16 = 1, 10
_PASSING = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Slice", "Split", "DepthToSpace")
"""Operators whose every output value is one of their first input's."""
_MOST_OPERATORS_BETWEEN = 1000


def is_lifted(proto: ModelProto) -> bool:
    """Tell whether `to_float` has something to do."""
    return folding.is_quantized(proto) or has_float16(proto)


def has_float16(proto: ModelProto) -> bool:
    """Tell whether a network stores, takes or returns float16, or computes in it."""
    values = (*proto.graph.input, *proto.graph.output)
    return (
        any(value.type.tensor_type.elem_type == _FLOAT16 for value in values)
        or any(tensor.data_type == _FLOAT16 for graph in structure.graphs(proto) for tensor in graph.initializer)
        or any(_casts_to_half(node) for node in load.messages(proto, "NodeProto"))
    )


def to_float(proto: ModelProto) -> None:
    """Make a network compute in float32, in place; inputs and outputs stay as they are. Raises BuildError for one that
    computes in integers otherwise than by Q/DQ pairs."""
    structure.forget_shapes(proto)
    if folding.is_quantized(proto):
        _undo_quantization(proto)
    if has_float16(proto):
        _undo_float16(proto)
    folding.fold(proto)
    folding.drop_identities(proto)
    folding.drop_unused(proto.graph)


def _undo_quantization(proto: ModelProto) -> None:
    folding.fold(proto, with_quantizers=True)
    kinds = ("QuantizeLinear", "DequantizeLinear")
    if integer := next((node for node in load.messages(proto, "NodeProto") if _is_integer(node, kinds)), None):
        target = AS_IT_IS if integer.op_type.startswith("QLinear") else replace(AS_IT_IS, precision="dynamic")
        raise BuildError(
            f"it computes in integers by {integer.op_type} ({integer.name!r}), which only ONNX Runtime runs",
            f"Run it as it is with --target {target}, or export it with Q/DQ pairs.",
        )
    graph = Graph(proto)
    ends = {*graph.outputs, *graph.inputs}
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    limits: dict[str, tuple[float, float]] = {}
    nodes: list[NodeProto] = []
    for node in list(proto.graph.node):
        if node.op_type == "DequantizeLinear":
            _require_pair(graph, node, ends)
            if node.input[0] in limits:
                limits[node.output[0]] = limits[node.input[0]]
            nodes.append(_renamed("Identity", node))
        elif node.op_type == "QuantizeLinear":
            if node.output[0] in ends:
                raise _unpaired(node)
            nodes.append(_limited(graph, node, limits, taken))
        else:
            read = {limits.get(name) for name in (node.input if node.op_type == "Concat" else node.input[:1])}
            if node.op_type in (*_PASSING, "Concat") and len(read) == 1 and (same := read.pop()) is not None:
                limits.update(dict.fromkeys(node.output, same))
            nodes.append(node)
    structure.replace_nodes(proto.graph, nodes)


def limits_of(graph: Graph, names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the ranges that Q/DQ pairs gave tensors of a network that `to_float` changed, as far as they are known:
    each lies between a Clip's constant limits, by the operator that makes it or by the only one that reads it. What
    only such a Clip reads has its range too: the rest is cut off."""
    limits = {}
    for name in names:
        maker = graph.maker.get(name)
        while maker is not None and maker.op_type in _PASSING:
            maker = graph.maker.get(maker.input[0])
        between = [_clip_limits(graph, node) for node in (maker, graph.sole_reader(name)) if node is not None]
        if known := next(filter(None, between), None):
            limits[name] = known
            if maker is not None and _clip_limits(graph, maker) == known and graph.sole_reader(maker.input[0]):
                limits[str(maker.input[0])] = known
    return limits


def _clip_limits(graph: Graph, node: NodeProto) -> tuple[float, float] | None:
    ends = [graph.value(name) for name in node.input[1:] if name] if node.op_type == "Clip" else []
    if len(ends) != 2 or any(end is None or end.size != 1 for end in ends):
        return None
    low, high = (float(end.ravel()[0]) for end in ends if end is not None)
    return low, high


def _is_integer(node: NodeProto, pairs: tuple[str, ...]) -> bool:
    kind = str(node.op_type)
    return kind not in pairs and (kind.startswith("QLinear") or "Quantize" in kind or kind.endswith("Integer"))


def _unpaired(node: NodeProto) -> BuildError:
    return BuildError(
        f"its {node.op_type} {node.name!r} has no counterpart: the network takes or returns integers there",
        f"Run it as it is with --target {AS_IT_IS}, or export it with float inputs and outputs.",
    )


def _require_pair(graph: Graph, node: NodeProto, ends: set[str]) -> None:
    """Raise BuildError where a DequantizeLinear reads other than what QuantizeLinears with its scale wrote."""
    waiting: list[str] = [node.input[0]]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        maker = graph.maker.get(name)
        if maker is None or name in ends or len(seen) > _MOST_OPERATORS_BETWEEN:
            raise _unpaired(node)
        if name in seen:
            continue
        seen.add(name)
        if maker.op_type == "QuantizeLinear":
            pairs = zip(maker.input[1:], node.input[1:], strict=False)
            if not all(_are_equal(graph, first, second) for first, second in pairs if first and second):
                raise _unpaired(node)
        elif maker.op_type in _PASSING:
            waiting.append(maker.input[0])
        elif maker.op_type == "Concat":
            waiting += maker.input
        else:
            raise _unpaired(node)


def _are_equal(graph: Graph, first: str, second: str) -> bool:
    value, other = graph.value(first), graph.value(second)
    return value is not None and other is not None and np.array_equal(value, other)


def _renamed(kind: str, node: NodeProto) -> NodeProto:
    from onnx import helper

    return helper.make_node(kind, [node.input[0]], [node.output[0]], node.name)


def _limited(graph: Graph, node: NodeProto, limits: dict[str, tuple[float, float]], taken: set[str]) -> NodeProto:
    """Return what stands for a QuantizeLinear: a Clip to its range, or nothing where a value has these limits."""
    from onnx import helper

    low, high = _range(graph, node)
    known = limits.get(node.input[0])
    limits[node.output[0]] = (low, high)
    if known is not None and known[0] >= low and known[1] <= high:
        return _renamed("Identity", node)
    names = [unique(taken, f"{node.output[0]}/{part}") for part in ("low", "high")]
    for name, value in zip(names, (low, high), strict=True):
        graph.add_constant(name, np.array(value, np.float32))
    return helper.make_node("Clip", [node.input[0], *names], [node.output[0]], node.name)


def _range(graph: Graph, node: NodeProto) -> tuple[float, float]:
    scale = graph.value(node.input[1])
    zero = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
        raise BuildError(
            f"the scale of its QuantizeLinear {node.name!r} is computed, or isn't one number",
            f"Run it as it is with --target {AS_IT_IS}.",
        )
    ends = np.iinfo(zero.dtype)
    low, high = ((float(end) - float(zero.ravel()[0])) * float(scale.ravel()[0]) for end in (ends.min, ends.max))
    return low, high


def _undo_float16(proto: ModelProto) -> None:
    """Store and compute in float32; inputs and outputs of float16 are cast at the ends."""
    from onnx import helper, numpy_helper

    for tensor in list(load.messages(proto, "TensorProto")):
        if tensor.data_type == _FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in load.messages(proto, "NodeProto"):
        for entry in node.attribute:
            if entry.name in ("to", "dtype") and entry.i == _FLOAT16:
                entry.i = _FLOAT
    taken = {name for node in load.messages(proto, "NodeProto") for name in (*node.input, *node.output)}
    names: dict[str, str] = {}
    before: list[Any] = []
    after: list[Any] = []
    for values, casts, is_input in ((proto.graph.input, before, True), (proto.graph.output, after, False)):
        for value in values:
            if value.type.tensor_type.elem_type == _FLOAT16:
                names[value.name] = inner = unique(taken, f"{value.name}/float32")
                ends = ([value.name], [inner]) if is_input else ([inner], [value.name])
                casts.append(helper.make_node("Cast", *ends, to=_FLOAT if is_input else _FLOAT16))
    for node in proto.graph.node:
        structure.rename(node, names)
    structure.replace_nodes(proto.graph, [*before, *proto.graph.node, *after])


def _casts_to_half(node: NodeProto) -> bool:
    return any(entry.name in ("to", "dtype") and entry.i == _FLOAT16 for entry in node.attribute)
