"""A network's graph with its edges indexed: who makes a tensor, who reads it, which ones are constant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.onnx.load import DEFAULT_DOMAINS, inputs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


class Graph:
    """An index over a ModelProto. After nodes or their inputs were changed, call `index` again."""

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        self.inputs = tuple(value.name for value in inputs(proto.graph))
        self.outputs = tuple(value.name for value in proto.graph.output)
        self._constants = {one.name: one for one in proto.graph.initializer}
        self.index()

    def index(self) -> None:
        """Read the edges anew."""
        self.nodes: list[NodeProto] = list(self.proto.graph.node)
        self.maker: dict[str, NodeProto] = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    self.readers.setdefault(name, []).append(node)

    def kind(self, node: NodeProto) -> str:
        """Return the operator's name; empty for one that is not ONNX's own."""
        return node.op_type if node.domain in DEFAULT_DOMAINS else ""

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is stored in the file."""
        return name in self._constants

    def constant(self, name: str) -> NDArray[Any]:
        """Return a stored tensor."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self._constants[name]))

    def is_float_constant(self, name: str) -> bool:
        """Tell whether a tensor is stored in the file as float32."""
        return name in self._constants and self._constants[name].data_type == 1

    def rank(self, name: str) -> int:
        """Return how many axes a stored tensor has."""
        return len(self._constants[name].dims)

    def dims(self, name: str) -> tuple[int, ...]:
        """Return the shape of a stored tensor."""
        return tuple(self._constants[name].dims)

    def sole_reader(self, name: str) -> NodeProto | None:
        """Return the only node that reads a tensor; None where several do, or the caller of the network does."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Store a tensor, replacing one of that name; returns its name."""
        from onnx import numpy_helper

        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        if name in self._constants:
            self._constants[name].CopyFrom(tensor)
        else:
            self.proto.graph.initializer.append(tensor)
            self._constants[name] = self.proto.graph.initializer[-1]
        return name

    def replace_nodes(self, nodes: list[NodeProto]) -> None:
        """Take these nodes, in this order, instead of the present ones; drop constants that nobody reads any more."""
        from onnx import NodeProto

        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        graph = self.proto.graph
        del graph.node[:]
        graph.node.extend(copies)
        read = {name for node in copies for name in node.input} | set(self.outputs)
        kept = [one.SerializeToString() for one in graph.initializer if one.name in read]
        del graph.initializer[:]
        for data in kept:
            graph.initializer.add().ParseFromString(data)
        self._constants = {one.name: one for one in graph.initializer}
        self.index()


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute's value as Python has it, or the default."""
    from onnx import helper

    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def set_attributes(node: NodeProto, **values: Any) -> None:
    """Set attributes of a node."""
    from onnx import helper

    kept = [one for one in node.attribute if one.name not in values]
    added = [helper.make_attribute(name, value) for name, value in values.items()]
    copies = [type(one).FromString(one.SerializeToString()) for one in kept]
    del node.attribute[:]
    node.attribute.extend(copies + added)


def unique(taken: set[str], wanted: str) -> str:
    """Return `wanted`, or `wanted` with a number, such that nobody in `taken` has it; and take it."""
    name = wanted
    number = 2
    while name in taken:
        name = f"{wanted}.{number}"
        number += 1
    taken.add(name)
    return name
