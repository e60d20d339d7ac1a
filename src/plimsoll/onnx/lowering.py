"""Operators written with others that compute the same, for converters that lack them.

- Mean of several values: their sum, times a stored number.
- MaxPool with dilations: along each axis, the largest of slices that begin so far apart.
- Slice with negative steps: a Gather of these rows, where the size of the axis is known.
- Max, Min and Sum of more than two values: one after another.
- AveragePool that counts its padding, with more of it on one side: behind a Pad.
- GroupNormalization: an InstanceNormalization over groups, as in opset 18.
- Operators that ONNX defines as functions of others (Mish, RMSNormalization, Attention …): that function, where the
  converter is said to lack them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.core.foreign import translate
from plimsoll.errors import BuildError
from plimsoll.onnx import folding, load, structure
from plimsoll.onnx.graph import Graph, attribute, unique

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_END = 2**31 - 1
_PAIR = 2
_LEAST_OPSET = 11
"""The first whose Slice and Pad both take their sizes as inputs."""


def lower(proto: ModelProto, functions: Iterable[str] = ()) -> None:
    """Write these operators with others, in place, where that is exact. Values that stay keep their names.

    `functions` are the operators that the converter lacks and ONNX defines as functions of others.
    """
    _expand(proto, functions)
    if not any(node.op_type in _RULES for node in proto.graph.node) or load.opset(proto) < _LEAST_OPSET:
        return
    work = _Lowering(Graph(proto), _shapes(proto))
    for node in work.graph.nodes:
        rule = _RULES.get(work.graph.kind(node))
        if rule is None or not rule(work, node):
            work.nodes.append(node)
    work.graph.replace_nodes(work.nodes)


def spell_out_gelus(proto: ModelProto) -> None:
    """Write the 1 + erf(x) of a GELU as (erf(x) / 2 + 1 / 2) · 2, in place: the same to the last bit, and nothing that
    a converter takes for a GELU, to put an approximation in its place."""
    graph = Graph(proto)
    work = _Lowering(graph, {})
    for node in graph.nodes:
        makers = [graph.maker.get(name) for name in node.input]
        errors = [maker.output[0] for maker in makers if maker is not None and graph.kind(maker) == "Erf"]
        others = [graph.value(name) for name in node.input]
        if graph.kind(node) == "Add" and errors and any(other is not None and np.all(other == 1) for other in others):
            work.doubled_half(errors[0], str(node.output[0]))
        else:
            work.nodes.append(node)
    graph.replace_nodes(work.nodes)


def _expand(proto: ModelProto, functions: Iterable[str]) -> None:
    """Write operators as the functions that ONNX defines them as."""
    from onnx import helper, inliner

    kinds = set(functions)
    nodes = [node for node in proto.graph.node if not node.domain and node.op_type in kinds]
    if not nodes:
        return
    for node in nodes:
        _write_defaults(node, load.opset(proto))
    names = [("", kind) for kind in sorted({node.op_type for node in nodes} | {"CastLike"})]
    with translate(BuildError, "an operator's definition can't be put in its place"):
        for _ in range(2):  # The definitions have CastLike, which has one itself.
            structure.infer(proto)
            proto.graph.value_info.extend(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                for tensor in proto.graph.initializer
            )
            proto.CopyFrom(inliner.inline_selected_functions(proto, names, inline_schema_functions=True))
            structure.constants_to_initializers(proto.graph)
        structure.infer(proto)
        folding.fold_sizes(proto)
        folding.fold(proto)
        folding.drop_identities(proto)


def _write_defaults(node: NodeProto, version: int) -> None:
    """Write the attributes that a node leaves to their defaults: the inliner doesn't know these."""
    from onnx import defs

    given = {item.name for item in node.attribute}
    for name, known in defs.get_schema(node.op_type, version).attributes.items():
        if name not in given and known.default_value.name:
            node.attribute.append(known.default_value)


def _shapes(proto: ModelProto) -> dict[str, tuple[Any, ...]]:
    from onnx import shape_inference

    with translate(BuildError, "the network's shapes can't be inferred"):
        inferred = shape_inference.infer_shapes(proto, data_prop=True).graph
    return {info.name: load.shape_of(info) or () for info in (*inferred.value_info, *inferred.input)}


class _Lowering:
    """The nodes as they are to be; each rule adds its own and returns whether it applied."""

    def __init__(self, graph: Graph, shapes: dict[str, tuple[Any, ...]]) -> None:
        self.graph = graph
        self.nodes: list[NodeProto] = []
        self._shapes = shapes
        self._taken = {name for node in graph.nodes for name in (*node.input, *node.output)}
        self._taken |= {tensor.name for tensor in graph.proto.graph.initializer}

    def mean(self, node: NodeProto) -> bool:
        """Add up, and multiply."""
        total, *others = node.input
        for other in others:
            total = self._add("Add", [total, other], f"{node.output[0]}/sum")
        share = self._constant(f"{node.output[0]}/share", np.array(1 / len(node.input), np.float32))
        self._add("Mul", [total, share], node.output[0], last=True)
        return True

    def in_pairs(self, node: NodeProto) -> bool:
        """Take one value after another."""
        if len(node.input) <= _PAIR:
            return False
        result, *others, last = node.input
        for other in others:
            result = self._add(node.op_type, [result, other], f"{node.output[0]}/part")
        self._add(node.op_type, [result, last], node.output[0], last=True)
        return True

    def doubled_half(self, value: str, output: str) -> None:
        """Add 1, with exact halves in between."""
        half, two = (
            self._constant(f"{output}/{name}", np.float32(number)) for name, number in (("half", 0.5), ("two", 2))
        )
        halved = self._add("Mul", [value, half], f"{output}/halved")
        moved = self._add("Add", [halved, half], f"{output}/moved")
        self._add("Mul", [moved, two], output, last=True)

    def average_pool(self, node: NodeProto) -> bool:
        """Pad with zeros first, and count them."""
        pads = list(attribute(node, "pads", ()))
        before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
        counted = attribute(node, "count_include_pad", 0) and not attribute(node, "ceil_mode", 0)
        if before == after or not counted or set(attribute(node, "dilations", (1,))) != {1}:
            return False
        amounts = self._constant(f"{node.output[0]}/pads", np.array([0, 0, *before, 0, 0, *after], np.int64))
        padded = self._add("Pad", [node.input[0], amounts], f"{node.output[0]}/padded")
        sides, strides = attribute(node, "kernel_shape"), attribute(node, "strides", [1] * len(before))
        self._add("AveragePool", [padded], node.output[0], last=True, kernel_shape=list(sides), strides=list(strides))
        return True

    def group_normalization(self, node: NodeProto) -> bool:
        """Normalize groups as instances; then each channel has its scale and its shift."""
        value, *affine = node.input
        shape = self._shapes.get(value, ())
        weights = [part for name in affine if (part := self.graph.value(name)) is not None]
        if not shape or not all(isinstance(size, int) for size in shape[1:]) or len(weights) < len(affine):
            return False
        output, groups = str(node.output[0]), attribute(node, "num_groups")
        apart = self._constant(f"{output}/apart", np.array([0, groups, -1], np.int64))
        together = self._constant(f"{output}/together", np.array([0, *shape[1:]], np.int64))
        plain = [self._constant(f"{output}/plain", part(groups, np.float32)) for part in (np.ones, np.zeros)]
        grouped = self._add("Reshape", [value, apart], f"{output}/groups")
        epsilon = attribute(node, "epsilon", 1e-5)
        normal = self._add("InstanceNormalization", [grouped, *plain], f"{output}/normal", epsilon=epsilon)
        result = self._add("Reshape", [normal, together], f"{output}/channels")
        scale, shift = (
            self._constant(f"{output}/affine", np.reshape(part, (-1, *[1] * (len(shape) - 2)))) for part in weights
        )
        result = self._add("Mul", [result, scale], f"{output}/scaled")
        self._add("Add", [result, shift], output, last=True)
        return True

    def max_pool(self, node: NodeProto) -> bool:
        """Take the largest of slices, one axis after another; what pads is the least float32."""
        sides = attribute(node, "kernel_shape", ())
        ones, zeros = [1] * len(sides), [0] * 2 * len(sides)
        dilations, strides = attribute(node, "dilations", ones), attribute(node, "strides", ones)
        pads = attribute(node, "pads", zeros)
        plain = attribute(node, "auto_pad", b"NOTSET") == b"NOTSET" and not attribute(node, "ceil_mode", 0)
        if set(dilations) == {1} or not plain or [name for name in node.output[1:] if name]:
            return False
        output = str(node.output[0])
        value = str(node.input[0])
        if any(pads):
            before, after = pads[: len(sides)], pads[len(sides) :]
            amounts = self._constant(f"{output}/pads", np.array([0, 0, *before, 0, 0, *after], np.int64))
            least = self._constant(f"{output}/least", np.array(np.finfo(np.float32).min, np.float32))
            value = self._add("Pad", [value, amounts, least], f"{output}/padded")
        for axis, (side, dilation, stride) in enumerate(zip(sides, dilations, strides, strict=True)):
            is_last = axis == len(sides) - 1
            value = self._largest(value, axis + 2, (side, dilation, stride), output if is_last else "")
        return True

    def _largest(self, value: str, axis: int, window: tuple[int, int, int], output: str) -> str:
        """Return the largest of each window along an axis, called `output` where that is given."""
        side, dilation, stride = window
        name = output or f"{value}/rows"
        starts = [(index * dilation, (index - side + 1) * dilation or _END) for index in range(side)]
        slices = [self._slice(value, axis, start, end, stride) for start, end in starts]
        largest = slices[0]
        for number, other in enumerate(slices[1:], 2):
            ends = bool(output) and number == side
            largest = self._add("Max", [largest, other], output if ends else f"{name}/largest", last=ends)
        return largest if side > 1 or not output else self._add("Identity", [largest], output, last=True)

    def _slice(self, value: str, axis: int, start: int, end: int, step: int) -> str:
        name = f"{value}/shifted"
        limits = [
            self._constant(f"{name}/{part}", np.array([number], np.int64))
            for part, number in (("start", start), ("end", end), ("axis", axis), ("step", step))
        ]
        return self._add("Slice", [value, *limits], name)

    def slice(self, node: NodeProto) -> bool:
        """Gather the rows in their order."""
        value, *limits = node.input
        starts, ends, axes, steps = [self.graph.value(name) if name else None for name in (*limits, "", "")[:4]]
        if starts is None or ends is None or steps is None or steps.min() > 0 or self.graph.is_constant(value):
            return False
        shape = self._shapes.get(value, ())
        chosen = range(len(starts)) if axes is None else [int(axis) % max(len(shape), 1) for axis in axes]
        if any(axis >= len(shape) or not isinstance(shape[axis], int) for axis in chosen):
            return False
        given = list(zip(chosen, starts, ends, steps, strict=True))
        for number, (axis, start, end, step) in enumerate(given, 1):
            rows = list(range(shape[axis]))[int(start) : _end(int(end), shape[axis], int(step)) : int(step)]
            indices = self._constant(f"{node.output[0]}/rows", np.array(rows, np.int64))
            last = number == len(given)
            value = self._add("Gather", [value, indices], str(node.output[0]), last=last, axis=axis)
        return True

    def _constant(self, name: str, values: Any) -> str:
        return self.graph.add_constant(unique(self._taken, name), values)

    def _add(self, kind: str, inputs: list[str], name: str, *, last: bool = False, **attributes: Any) -> str:
        """Add an operator; the `last` gives the value of that name, others a new one."""
        from onnx import helper

        output = name if last else unique(self._taken, name)
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output


def _end(end: int, size: int, step: int) -> int | None:
    """Return the end as Python has it: before the first row, backwards, there is no number for it."""
    return None if step < 0 and end < -size else end


_RULES: dict[str, Callable[[_Lowering, NodeProto], bool]] = {
    "AveragePool": _Lowering.average_pool,
    "GroupNormalization": _Lowering.group_normalization,
    "Max": _Lowering.in_pairs,
    "MaxPool": _Lowering.max_pool,
    "Mean": _Lowering.mean,
    "Min": _Lowering.in_pairs,
    "Slice": _Lowering.slice,
    "Sum": _Lowering.in_pairs,
}
