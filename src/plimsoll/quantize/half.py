"""A network in float16: which operators compute in it, and the casts between them and the others.

Inputs and outputs stay float32. An operator stays in float32 where ONNX has no float16 for it, where its sums or powers
overflow at 65504, where it has subgraphs, or where a number that it reads doesn't fit: beyond 65504, or so small that
float16 has few digits of it, as the 1e-12 that keeps a division from zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.onnx import folding, load, structure
from plimsoll.onnx.graph import array, unique

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

LARGEST = 65504.0
"""float16's largest number."""
SMALLEST_NORMAL = 2.0**-14
"""Below it float16 has ever fewer digits."""

KEEP_FLOAT32 = (
    *("Softmax", "LogSoftmax", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceLogSumExp", "Exp", "Pow", "CumSum"),
    *("InstanceNormalization", "GroupNormalization", "LpNormalization", "MeanVarianceNormalization", "Gelu", "Mish"),
    *("Resize", "Upsample", "Range", "TopK", "NonMaxSuppression", "RoiAlign", "GridSample", "AffineGrid", "CastLike"),
    *("ArgMax", "ArgMin", "Cast", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "RandomNormalLike"),
    *("RandomUniformLike", "Bernoulli", "Multinomial", "LRN", "LSTM", "GRU", "RNN", "DeformConv", "Det", "Einsum"),
)
"""Operators whose sums or powers overflow at 65504, that choose places or sizes, whose type is an attribute, or that
runtimes mostly lack in float16."""

_FLOAT, _FLOAT16 = 1, 10
_FEW_NUMBERS = 64
"""In so small a tensor every number counts; in a larger one, those near zero hardly do."""


def convert(proto: ModelProto) -> bool:
    """Change a sorted float32 network into one that computes in float16, in place; tell whether it stores any of its
    weights in it."""
    return _Halver(proto).run()


class _Halver:
    def __init__(self, proto: ModelProto) -> None:
        self._proto = proto
        structure.infer(proto)
        graph = proto.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._stored: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._types |= {name: tensor.data_type for name, tensor in self._stored.items()}
        self._taken = set(self._types) | {name for node in graph.node for name in (*node.input, *node.output)}
        self._halves: set[str] = set()
        """Values that are in float16 under their own name."""
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[NodeProto] = []

    def run(self) -> bool:
        """Convert all nodes; tell whether a weight is in float16 then."""
        graph = self._proto.graph
        for node in [structure.copy_of(node) for node in graph.node]:
            if self._computes_in_half(node):
                self._halves.update(name for name in node.output if self._types.get(name) == _FLOAT)
                self._read(node, _FLOAT16)
            else:
                self._read(node, _FLOAT)
            self._nodes.append(node)
        self._finish()
        structure.replace_nodes(graph, self._nodes)
        structure.forget_shapes(self._proto)
        folding.drop_unused(graph)
        return any(tensor.data_type == _FLOAT16 for tensor in graph.initializer)

    def _computes_in_half(self, node: NodeProto) -> bool:
        from onnx import defs

        if node.domain not in load.DEFAULT_DOMAINS or node.op_type in KEEP_FLOAT32:
            return False
        names = [name for name in (*node.input, *node.output) if name]
        if next(structure.inner_graphs(node), None) is not None or any(name not in self._types for name in names):
            return False
        floats = [name for name in node.output if self._types.get(name) == _FLOAT]
        schema = defs.get_schema(node.op_type, load.opset(self._proto), "")
        return bool(floats) and self._allows_half(node, schema) and all(map(self._fits, node.input))

    def _allows_half(self, node: NodeProto, schema: Any) -> bool:
        for formal, actual in ((schema.inputs, node.input), (schema.outputs, node.output)):
            for index, name in enumerate(actual):
                parameter = formal[min(index, len(formal) - 1)]
                if self._types.get(name) == _FLOAT and "tensor(float16)" not in parameter.types:
                    return False
        return True

    def _fits(self, name: str) -> bool:
        tensor = self._stored.get(name)
        if tensor is None or tensor.data_type != _FLOAT:
            return True
        sizes = np.abs(array(tensor))
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        few = tensor.dims and int(np.prod(tensor.dims)) > _FEW_NUMBERS
        return not sizes.size or bool(sizes.max() <= LARGEST and (few or sizes.min() >= SMALLEST_NORMAL))

    def _read(self, node: NodeProto, kind: int) -> None:
        """Let a node, with its subgraphs, read its floats as `kind`."""
        names = {name: self._as(name, kind) for name in structure.reads(node) if self._types.get(name) == _FLOAT}
        node.input[:] = [names.get(name, name) for name in node.input]
        for graph in structure.inner_graphs(node):
            for inner in graph.node:
                structure.rename(inner, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)

    def _as(self, name: str, kind: int) -> str:
        """Return the name of a value in float32 or float16, cast where it is the other."""
        from onnx import helper, numpy_helper

        if (name in self._halves) == (kind == _FLOAT16):
            return name
        if (name, kind) not in self._casts:
            result = unique(self._taken, f"{name}/{'float16' if kind == _FLOAT16 else 'float32'}")
            self._casts[name, kind] = result
            if name in self._stored:
                values = array(self._stored[name]).astype(np.float16)
                self._proto.graph.initializer.append(numpy_helper.from_array(values, result))
            else:
                self._nodes.append(helper.make_node("Cast", [name], [result], result, to=kind))
        return self._casts[name, kind]

    def _finish(self) -> None:
        """Return float32 where a network's output is computed in float16; the inner value gets another name."""
        from onnx import helper

        names = {}
        for value in self._proto.graph.output:
            if value.name in self._halves:
                names[value.name] = unique(self._taken, f"{value.name}/float16")
        for node in self._nodes:
            structure.rename(node, names)
        for name, inner in names.items():
            self._nodes.append(helper.make_node("Cast", [inner], [name], f"{name}/cast", to=_FLOAT))


def float_weights(proto: ModelProto) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the float32 tensors that are stored in a graph and its subgraphs, by name."""
    for graph in structure.graphs(proto):
        for tensor in graph.initializer:
            if tensor.data_type == _FLOAT:
                yield tensor.name, array(tensor)
