"""Compute what doesn't depend on a network's inputs, and take out what does nothing.

Values are computed by ONNX Runtime, which would do it at every start, and only after their sizes are known: a file of a
hundred bytes can ask for a tensor of a thousand gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import translate
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx import load, structure
from plimsoll.onnx.graph import array, attribute, open_in_runtime
from plimsoll.onnx.structure import inner_graphs, reads, replace_nodes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

MAX_TENSOR_BYTES = 16 * 1024 * 1024
"""A computed constant may have this many bytes, or GROWTH times what it is computed from."""
GROWTH = 8
"""4 bits a weight become 32."""
MAX_GROWTH_BYTES = 64 * 1024 * 1024
"""How much larger all computed constants together may be than what they are computed from, beyond GROWTH times it."""
ABSURD_BYTES = 2**32
"""A constant this large could not be computed on any machine that runs vision networks."""

_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
_QUANTIZING = ("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_SIZES = ("Shape", "Size")


def is_quantized(proto: ModelProto) -> bool:
    """Tell whether a network computes in integers, so that its DequantizeLinear operators are to stay."""
    return any(
        node.op_type in _QUANTIZING or str(node.op_type).startswith("QLinear")
        for node in load.messages(proto, "NodeProto")
    )


def foldable(proto: ModelProto, *, with_quantizers: bool = False) -> list[NodeProto]:
    """Return the nodes of the main graph that read stored tensors alone and could be computed now; the quantizers of a
    quantized network only when told so."""
    known = {tensor.name for tensor in proto.graph.initializer if not is_external(tensor)}
    left = ["Constant"]
    if not with_quantizers and is_quantized(proto):
        left += ["DequantizeLinear", "QuantizeLinear"]
    return [node for node in proto.graph.node if node.op_type not in left and _is_fixed(node, known)]


def is_external(tensor: TensorProto) -> bool:
    """Tell whether a tensor's values lie in another file."""
    return bool(tensor.data_location == 1)


def fold(proto: ModelProto, *, with_quantizers: bool = False) -> None:
    """Compute constant values, in waves: the sizes of one wave may depend on the values of the wave before.

    Raises ModelError for a constant of absurd size.
    """
    allowance = _Allowance()
    skipped: set[str] = set()
    while wave := _wave(proto, foldable(proto, with_quantizers=with_quantizers), skipped, allowance):
        values = _computed(proto, wave)
        skipped.update(node.output[0] for node in wave if not all(name in values for name in node.output if name))
        _store(proto.graph, values)


class _Allowance:
    """How much constants may still grow."""

    def __init__(self) -> None:
        self.bytes = MAX_GROWTH_BYTES

    def takes(self, size: int, source: int) -> bool:
        """Tell whether a constant of `size` bytes, computed from `source` bytes, may be stored, and count it."""
        growth = max(size - GROWTH * source, 0)
        if size > max(MAX_TENSOR_BYTES, GROWTH * source) or growth > self.bytes:
            return False
        self.bytes -= growth
        return True


def _is_fixed(node: NodeProto, known: set[str]) -> bool:
    return (
        node.domain in load.DEFAULT_DOMAINS
        and node.op_type not in _RANDOM
        and all(name in known for name in node.input if name)
        and next(inner_graphs(node), None) is None
        and bool(node.output and node.output[0])
    )


def _wave(proto: ModelProto, nodes: list[NodeProto], skipped: set[str], allowance: _Allowance) -> list[NodeProto]:
    """Return those of `nodes` whose outputs' sizes are known and small."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    wave = []
    for node in nodes:
        if node.output[0] in skipped:
            continue
        tensors = [stored[name] for name in node.input if name]
        size = _size_of_outputs(proto, node, stored)
        source = sum(tensor.ByteSize() for tensor in tensors)
        if size is not None and size > ABSURD_BYTES:
            raise ModelError(
                f"the operator {node.op_type} {node.name!r} makes a constant of {size:,} bytes",
                "Export the network anew; no machine can run this one.",
            )
        if size is None or not allowance.takes(size, source):
            skipped.add(node.output[0])
        else:
            wave.append(node)
    return wave


def _size_of_outputs(proto: ModelProto, node: NodeProto, stored: Mapping[str, TensorProto]) -> int | None:
    """Return how many bytes a node's outputs have; None where that isn't known."""
    types = _types_of_outputs(proto, node, stored)
    if types is None:
        return None
    total = 0
    for kind in types.values():
        tensor = kind.tensor_type
        if kind.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
            return None
        size = np.dtype(load.dtype_name(tensor.elem_type)).itemsize
        for axis in tensor.shape.dim:
            if not axis.HasField("dim_value"):
                return None
            size *= max(int(axis.dim_value), 0)
        total += size
    return total


def _types_of_outputs(
    proto: ModelProto, node: NodeProto, stored: Mapping[str, TensorProto]
) -> Mapping[str, TypeProto] | None:
    from onnx import defs, helper, shape_inference

    try:
        with translate(BuildError, f"{node.op_type}: its sizes can't be inferred"):
            schema = defs.get_schema(node.op_type, load.opset(proto), "")
            types = {
                name: helper.make_tensor_type_proto(stored[name].data_type, list(stored[name].dims))
                for name in node.input
                if name
            }
            values = {name: stored[name] for name in types}
            inferred = shape_inference.infer_node_outputs(
                schema, node, types, values, opset_imports=list(proto.opset_import), ir_version=proto.ir_version
            )
    except BuildError:  # Whatever is wrong with the node, it is not computed here; the checker tells.
        return None
    return inferred if all(name in inferred for name in node.output if name) else None


def _computed(proto: ModelProto, nodes: list[NodeProto]) -> dict[str, NDArray[Any]]:
    """Return the nodes' outputs, computed by ONNX Runtime; nothing of those that it can't compute."""
    try:
        with translate(BuildError, "ONNX Runtime can't compute a constant"):
            return _run(proto, nodes)
    except BuildError:  # One node that ONNX Runtime lacks must not keep the others from being computed.
        if len(nodes) == 1:
            return {}
        half = len(nodes) // 2
        return _computed(proto, nodes[:half]) | _computed(proto, nodes[half:])


def _run(proto: ModelProto, nodes: list[NodeProto]) -> dict[str, NDArray[Any]]:
    from onnx import helper

    needed = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in proto.graph.initializer if tensor.name in needed]
    names = [name for node in nodes for name in node.output if name]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    part = helper.make_model(
        helper.make_graph(nodes, "constants", [], outputs, tensors),
        opset_imports=list(proto.opset_import),
        ir_version=proto.ir_version,
    )
    values = open_in_runtime(part.SerializeToString(), "DISABLE_ALL").run(names, {})
    return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}


def _store(graph: GraphProto, values: Mapping[str, NDArray[Any]]) -> None:
    """Store computed values in place of the nodes that compute them."""
    from onnx import numpy_helper

    def is_stored(node: NodeProto) -> bool:
        return all(name in values for name in node.output if name) and any(node.output)

    gone = [node for node in graph.node if is_stored(node)]
    for node in gone:
        for name in node.output:
            if name:
                graph.initializer.append(numpy_helper.from_array(np.asarray(values[name], order="C"), name))
    replace_nodes(graph, [node for node in graph.node if not is_stored(node)])
    drop_unused(graph)


def fold_sizes(proto: ModelProto) -> None:
    """Store what Shape and Size return for values whose sizes are all fixed."""
    known = {
        value.name: load.shape_of(value)
        for value in (*proto.graph.input, *proto.graph.value_info)
        if value.type.HasField("tensor_type")
    } | {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    values: dict[str, NDArray[Any]] = {}
    for node in proto.graph.node:
        if node.op_type not in _SIZES or node.domain not in load.DEFAULT_DOMAINS:
            continue
        shape = known.get(node.input[0])
        if shape is None or not all(isinstance(size, int) for size in shape):
            continue
        sizes = np.array(shape, np.int64)
        part = sizes[slice(attribute(node, "start"), attribute(node, "end"))]
        values[node.output[0]] = part if node.op_type == "Shape" else np.array(sizes.prod(), np.int64)
    _store(proto.graph, values)


def drop_unused(graph: GraphProto) -> None:
    """Drop nodes and stored tensors of the main graph that no output depends on."""
    needed = {value.name for value in graph.output}
    used = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            used.append(node)
            needed |= reads(node)
    if len(used) < len(graph.node):
        replace_nodes(graph, used[::-1])
    keep_constants(graph, needed)


def keep_constants(graph: GraphProto, names: Iterable[str]) -> None:
    """Drop stored tensors but those of `names`, and all but the first of a name."""
    needed = set(names)
    for field in (graph.initializer, graph.sparse_initializer):
        unread = []
        for index, tensor in enumerate(field):
            name = tensor.values.name if hasattr(tensor, "values") else tensor.name
            if name not in needed:
                unread.append(index)
        for index in reversed(unread):
            del field[index]


def drop_identities(proto: ModelProto) -> None:
    """Take out operators of the main graph that return what they read: Identity, Dropout outside of training, and a
    Cast to the type that a value has."""
    graph = proto.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    ends = {value.name for value in graph.output}
    starts = {value.name for value in graph.input}
    names: dict[str, str] = {}
    remaining = []
    read = {name for node in graph.node for name in reads(node)} | ends
    for node in graph.node:
        if not _is_identity(node, types, stored, read):
            remaining.append(node)
            continue
        source, result = names.get(node.input[0], node.input[0]), node.output[0]
        if result not in ends:
            names[result] = source
        elif source in ends or source in starts or source in stored:
            remaining.append(node)
        else:
            # The output's name is the user's: what makes the value takes it.
            names = {name: result if other == source else other for name, other in names.items()}
            names[source] = result
    if len(remaining) == len(graph.node):
        return
    replace_nodes(graph, remaining)
    for node in graph.node:
        structure.rename(node, names)


def _is_identity(node: NodeProto, types: Mapping[str, int], stored: Mapping[str, TensorProto], read: set[str]) -> bool:
    if node.domain not in load.DEFAULT_DOMAINS or any(name in read for name in node.output[1:] if name):
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Cast":
        return bool(attribute(node, "to") == types.get(node.input[0], 0))
    if node.op_type == "Dropout":
        training = stored.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        is_computed = len(node.input) > 2 and node.input[2] != "" and training is None
        return not is_computed and (training is None or not bool(array(training).any()))
    return False
