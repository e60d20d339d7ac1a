"""How a network is written down, changed without changing what it computes: order, functions, constants, inputs, names.

Nothing here computes a value. Every function changes the ModelProto in place, or returns another one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.onnx import load
from plimsoll.onnx.graph import array, attribute, open_in_runtime, unique

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

IR_VERSION = 8
"""From version 4 on, a stored tensor need not be listed as an input."""
MAX_DENSE_BYTES = 64 * 1024 * 1024
"""A sparse tensor larger than this stays sparse."""

_LARGE_BYTES = 1_000_000
"""No operator takes its sizes from a tensor larger than this."""

_NUMBERS: Mapping[str, tuple[str, type[Any]]] = {
    "value_float": ("f", np.float32),
    "value_floats": ("floats", np.float32),
    "value_int": ("i", np.int64),
    "value_ints": ("ints", np.int64),
}
"""A Constant's attributes that hold numbers as they are: the attribute's field, and the tensor's dtype."""


def graphs(proto: ModelProto) -> list[GraphProto]:
    """Return the main graph and all subgraphs, the main one first."""
    return list(load.messages(proto.graph, "GraphProto"))


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the subgraphs that are a node's attributes."""
    for entry in node.attribute:
        if entry.HasField("g"):
            yield entry.g
        yield from entry.graphs


def reads(node: NodeProto) -> set[str]:
    """Return the names that a node reads, in its subgraphs too (those that a subgraph makes itself included)."""
    names = {name for name in node.input if name}
    for graph in inner_graphs(node):
        names.update(value.name for value in graph.output)
        for inner in graph.node:
            names |= reads(inner)
    return names


def is_sorted(graph: GraphProto) -> bool:
    """Tell whether each node comes after the nodes whose outputs it reads."""
    makers = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if not makers.isdisjoint(reads(node)):
            return False
        makers.difference_update(node.output)
    return True


def sort(graph: GraphProto) -> None:
    """Sort the nodes topologically; those that may stand in any order keep theirs. What lies in a circle stays last."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waiting: list[set[int]] = []
    followers: dict[int, list[int]] = {}
    for index, node in enumerate(graph.node):
        before = {makers[name] for name in reads(node) if name in makers}
        waiting.append(before)
        for maker in before:
            followers.setdefault(maker, []).append(index)
    ready = [index for index, before in enumerate(waiting) if not before]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers.get(index, ()):
            waiting[follower].discard(index)
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    order += sorted(set(range(len(waiting))) - set(order))
    replace_nodes(graph, [graph.node[index] for index in order])


def replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Replace a graph's nodes; the new ones may be among the old ones."""
    copies = [copy_of(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def copy_of(message: Any) -> Any:
    """Return a copy of a protobuf message."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def inline_functions(proto: ModelProto) -> ModelProto:
    """Return the model with its local functions written out."""
    from onnx import inliner

    return inliner.inline_local_functions(proto) if proto.functions else proto


def constants_to_initializers(graph: GraphProto) -> None:
    """Store the values of Constant operators as initializers."""
    remaining = []
    for node in graph.node:
        tensor = constant_of(node)
        if tensor is None:
            remaining.append(node)
        else:
            graph.initializer.append(tensor)
    if len(remaining) < len(graph.node):
        replace_nodes(graph, remaining)


def constant_of(node: NodeProto) -> TensorProto | None:
    """Return the value of a Constant as a tensor of its output's name; None for another operator, and for text and
    sparse values."""
    from onnx import numpy_helper

    if node.op_type != "Constant" or node.domain not in load.DEFAULT_DOMAINS or len(node.attribute) != 1:
        return None
    (entry,) = node.attribute
    if entry.name == "value" and entry.HasField("t"):
        tensor = copy_of(entry.t)
        tensor.name = node.output[0]
        return tensor
    if entry.name in _NUMBERS:
        field, dtype = _NUMBERS[entry.name]
        return numpy_helper.from_array(np.array(getattr(entry, field), dtype), node.output[0])
    return None


def densify(graph: GraphProto) -> None:
    """Store sparse tensors with all their zeros, where they are small."""
    from onnx import numpy_helper

    sparse = [copy_of(tensor) for tensor in graph.sparse_initializer]
    del graph.sparse_initializer[:]
    for tensor in sparse:
        values, indices = array(tensor.values), array(tensor.indices)
        sizes = [int(size) for size in tensor.dims]
        total = 1
        for size in sizes:
            total *= size
        flat = np.ravel_multi_index(tuple(indices.T), sizes) if indices.ndim == 2 and sizes else indices
        if total * values.itemsize > MAX_DENSE_BYTES or (flat.size and (flat.min() < 0 or flat.max() >= total)):
            graph.sparse_initializer.append(tensor)
            continue
        dense = np.zeros(total, values.dtype)
        dense[flat] = values
        graph.initializer.append(numpy_helper.from_array(dense.reshape(sizes), tensor.values.name))


def has_listed_constants(graph: GraphProto) -> bool:
    """Tell whether stored tensors are listed as inputs, as files of before 2019 have them."""
    stored = {tensor.name for tensor in graph.initializer}
    return any(value.name in stored for value in graph.input)


def unlist_constants(graph: GraphProto) -> None:
    """Take stored tensors off the list of inputs. (A caller could have replaced their values; Plimsoll never does.)"""
    stored = {tensor.name for tensor in graph.initializer}
    fed = [copy_of(value) for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(fed)


def name_nodes(proto: ModelProto) -> None:
    """Give every node a name, and no two nodes the same; the first one keeps it."""
    taken: set[str] = set()
    for node in load.messages(proto.graph, "NodeProto"):
        first_output = next((name for name in node.output if name), node.op_type)
        node.name = unique(taken, node.name or first_output)


def resolve_conditions(proto: ModelProto) -> None:
    """Replace every If of the main graph whose condition is stored by the branch that is taken."""
    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    while chosen := next(
        ((index, node) for index, node in enumerate(graph.node) if _is_if(node) and node.input[0] in stored), None
    ):
        index, node = chosen
        value = array(stored[node.input[0]])
        if value.size != 1:
            return
        branch = attribute(node, "then_branch" if bool(value.ravel()[0]) else "else_branch")
        nodes = list(graph.node)
        nodes[index : index + 1] = _inlined(proto, copy_of(branch), list(node.output))
        replace_nodes(graph, nodes)
        stored = {tensor.name: tensor for tensor in graph.initializer}


def _is_if(node: NodeProto) -> bool:
    return node.op_type == "If" and node.domain in load.DEFAULT_DOMAINS and len(node.input) == 1


def _inlined(proto: ModelProto, branch: GraphProto, outputs: list[str]) -> list[NodeProto]:
    """Return the nodes of a branch for the main graph, under names that are free there; store its tensors there."""
    from onnx import helper

    taken = {name for node in load.messages(proto.graph, "NodeProto") for name in (*node.input, *node.output)}
    taken |= {tensor.name for graph in graphs(proto) for tensor in graph.initializer}
    taken |= {value.name for graph in graphs(proto) for value in (*graph.input, *graph.output)}
    own = [tensor.name for tensor in branch.initializer]
    own += [name for node in branch.node for name in node.output if name]
    names = {name: unique(taken, f"{name}.taken") for name in own}
    for node in branch.node:
        rename(node, names)
    for tensor in branch.initializer:
        tensor.name = names[tensor.name]
        proto.graph.initializer.append(tensor)
    ends = [
        helper.make_node("Identity", [names.get(value.name, value.name)], [output])
        for value, output in zip(branch.output, outputs, strict=True)
        if output
    ]
    return [*branch.node, *ends]


def rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename what a node reads and makes, in its subgraphs too, but for names that these define anew."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in inner_graphs(node):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {name for inner in graph.node for name in inner.output}
        outer = {name: other for name, other in names.items() if name not in own}
        for inner in graph.node:
            rename(inner, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)


def has_untyped_outputs(proto: ModelProto) -> bool:
    """Tell whether an output's type is left open: runtimes infer it, and ONNX wants it written."""
    return any(value.type.WhichOneof("value") is None for value in proto.graph.output)


def type_outputs(proto: ModelProto) -> None:
    """Write the types of outputs that have none, as ONNX Runtime infers them: it knows operators of its own, too."""
    from onnx import TensorProto, helper

    if not has_untyped_outputs(proto):
        return
    types = dict(TensorProto.DataType.items())
    session = open_in_runtime(proto.SerializeToString(), "DISABLE_ALL")
    for value, known in zip(proto.graph.output, session.get_outputs(), strict=True):
        element = known.type.removeprefix("tensor(").removesuffix(")").upper()
        if value.type.WhichOneof("value") is None and element in types:
            value.CopyFrom(helper.make_tensor_value_info(value.name, types[element], known.shape))


def is_old_group_norm(node: NodeProto, opset: int) -> bool:
    """Tell whether a node is a GroupNormalization of opset 18, which has a scale for each group. ONNX has withdrawn it
    for that of opset 21, which has one for each channel."""
    return node.op_type == "GroupNormalization" and node.domain in load.DEFAULT_DOMAINS and opset < 21


def write_out_group_norms(graph: GraphProto, opset: int) -> None:
    """Write each GroupNormalization of opset 18 as it is defined: an InstanceNormalization over groups."""
    from onnx import helper, numpy_helper

    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if not is_old_group_norm(node, opset):
            nodes.append(node)
            continue
        sizes, groups, apart, normed = (
            unique(taken, f"{node.output[0]}/{part}") for part in ("sizes", "groups", "apart", "normed")
        )
        graph.initializer.append(
            numpy_helper.from_array(np.array([0, attribute(node, "num_groups"), -1], np.int64), groups)
        )
        nodes += [
            helper.make_node("Shape", [node.input[0]], [sizes], name=sizes),
            helper.make_node("Reshape", [node.input[0], groups], [apart], name=apart),
            helper.make_node(
                "InstanceNormalization", [apart, *node.input[1:]], [normed], epsilon=attribute(node, "epsilon", 1e-5)
            ),
            helper.make_node("Reshape", [normed, sizes], [node.output[0]], name=node.name),
        ]
    replace_nodes(graph, nodes)


def forget_shapes(proto: ModelProto) -> None:
    """Drop the shapes that were written for inner values: some files have them of another export."""
    for graph in graphs(proto):
        del graph.value_info[:]


def infer(proto: ModelProto) -> None:
    """Write the shapes of inner values anew. Weights don't matter for them, and would be copied several times."""
    from onnx import shape_inference

    light = copy_of(proto)
    for tensor in light.graph.initializer:
        if len(tensor.raw_data) > _LARGE_BYTES:
            tensor.ClearField("raw_data")
    forget_shapes(light)
    try:
        light = shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError:
        light = shape_inference.infer_shapes(light, check_type=False, strict_mode=False, data_prop=True)
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(light.graph.value_info)
    for value, inferred in zip(proto.graph.output, light.graph.output, strict=True):
        if not value.type.tensor_type.HasField("shape"):
            value.CopyFrom(inferred)
