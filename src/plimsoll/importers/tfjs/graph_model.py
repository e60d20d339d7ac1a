"""A graph model: TensorFlow's graph in JSON, written as ONNX node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.tfjs.files import Weights
from plimsoll.importers.tfjs.graph_node import DTYPES, Node, Operand
from plimsoll.importers.tfjs.graph_operators import CONVERTERS, depends_on_values
from plimsoll.importers.tfjs.operators import ConvertedGraph, TensorFlowWriter
from plimsoll.importers.tfjs.tensors import Shape, Value, fail, free_shape
from plimsoll.onnx.writer import GraphWriter, require_names

_CUT = (
    "Cut it away: name the nodes that the network proper begins and ends with by --inputs and --outputs, and the sizes"
    " of what it reads by --shape."
)


def write(
    topology: Mapping[str, Any], weights: Weights, signature: Mapping[str, Any], options: ImportOptions, where: str
) -> ConvertedGraph:
    """Return a graph model as a graph, with its inputs and outputs; raises ModelError, naming the node, or InputError
    for options that don't fit.

    Only what lies between the inputs and the outputs that the options name is read.
    """
    try:
        nodes = {str(node["name"]): node for node in topology["node"]}
        outputs = list(options.outputs) or _signed(signature) or _unread(nodes)
        require_names([_node_of(name) for name in outputs], nodes, "node", where)
        require_names([*options.inputs, *options.input_shapes], nodes, "node", where)
        cut = frozenset(options.inputs)
        ordered = list(_ordered(nodes, outputs, cut, where))
        network = _Network(GraphWriter(where, options.batch), weights, where, options)
        for name in ordered:
            network.add(name, nodes[name])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"{where}: its graph can't be read: {type(error).__name__}: {error}", "Is model.json complete?"
        ) from error
    if unused := [name for name in options.inputs if name not in network.inputs]:
        raise InputError(
            f"{where}: {', '.join(outputs)} {'does' if len(outputs) == 1 else 'do'} not depend on {', '.join(unused)}",
            "Choose inputs that the outputs are computed from.",
        )
    given = [(name, network.values.get(name)) for name in outputs]
    require_names([name for name, value in given if not isinstance(value, Value)], (), "computed output", where)
    computed = [(name, value) for name, value in given if isinstance(value, Value)]
    network.writer.outputs(computed)
    dtypes = {name: value.dtype for name, value in computed if value.dtype != "float32"}
    return ConvertedGraph(network.graph, tuple(network.inputs), tuple(outputs), dtypes | network.whole)


class _Network:
    def __init__(self, graph: GraphWriter, weights: Weights, where: str, options: ImportOptions) -> None:
        self.graph = graph
        self.writer = TensorFlowWriter(graph)
        self.values: dict[str, Operand] = {}
        self.inputs: list[str] = []
        self.whole: dict[str, str] = {}
        """Inputs that TensorFlow.js takes as whole numbers."""
        self._weights = weights
        self._where = where
        self._options = options

    def add(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a node; raises ModelError."""
        op, attributes = str(document["op"]), document.get("attr") or {}
        try:
            if op.startswith("Placeholder") or name in self._options.inputs:
                self.values[name] = self._input(name, op, attributes)
            elif op == "Const":
                self.values[name] = self._weights[name]
            elif op == "NoOp":
                return
            elif op in CONVERTERS:
                inputs = [self.values[read] for read in _read_by(document)]
                results = CONVERTERS[op](Node(name, op, attributes, inputs, self.writer))
                for index, operand in enumerate(results if isinstance(results, list) else [results]):
                    self.values[f"{name}:{index}" if index else name] = operand
            elif depends_on_values(op):
                raise fail(
                    self._where, f"the node '{name}'", op, "what it gives depends on the picture, or it repeats", _CUT
                )
            else:
                raise ValueError(f"unknown operation; choose from {', '.join(sorted(CONVERTERS))}")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise fail(self._where, f"the node '{name}'", op, reason) from error

    def _input(self, name: str, op: str, attributes: Mapping[str, Any]) -> Value:
        """Add an input of the graph. The batch is free unless the file, or the user, says how large it is."""
        shape = self._shape(name, op, attributes)
        dtype = (
            DTYPES.get(attributes.get("dtype", {}).get("type", "DT_FLOAT"), "") if op == "Placeholder" else "float32"
        )
        if dtype not in ("float32", "int32"):
            raise ValueError(f"its dtype is {attributes['dtype'].get('type')}, expected numbers")
        if dtype != "float32":
            self.whole[name] = dtype
        if shape[0] is None or self._options.batch is not None:
            shape = (None, *shape[1:])
            self.writer.batched = name
        self.inputs.append(name)
        sizes = (self.graph.batch, *shape[1:]) if shape[0] is None else shape
        return Value(self.graph.input(name, sizes), shape)

    def _shape(self, name: str, op: str, attributes: Mapping[str, Any]) -> Shape:
        if name in self._options.input_shapes:
            return free_shape(self._options.input_shapes[name])
        if op != "Placeholder":
            raise fail(
                self._where, f"the node '{name}'", op, "its sizes are not known where it becomes an input",
                f"Give them: --shape {name}=1,64,64,3 for example.",
            )  # fmt: skip
        return free_shape(
            [axis.get("size", -1) for axis in attributes.get("shape", {}).get("shape", {}).get("dim", [])]
        )


def _ordered(
    nodes: Mapping[str, Mapping[str, Any]], outputs: Iterable[str], cut: frozenset[str], where: str
) -> Iterator[str]:
    """Yield the nodes that the outputs are computed with, each after those that it reads; what lies before the nodes
    `cut` is left out. Raises ModelError for a circle or a missing node."""
    done: dict[str, bool] = {}
    for start in map(_node_of, outputs):
        path = [start]
        while path:
            name = path[-1]
            if name not in nodes:
                raise ModelError(f"{where}: a node reads '{name}', which is missing", "Is model.json complete?")
            first = name not in done
            done.setdefault(name, False)
            reads = [] if name in cut else [_node_of(read) for read in _read_by(nodes[name])]
            ahead = [read for read in reads if not done.get(read, False)] if not done[name] else []
            if not ahead:
                path.pop()
                if not done[name]:
                    done[name] = True
                    yield name
            elif first:
                path.extend(ahead)
            else:
                raise ModelError(f"{where}: the nodes '{name}' and '{ahead[0]}' read each other: a loop", _CUT)


def _read_by(document: Mapping[str, Any]) -> list[str]:
    """Return the values that a node reads, without control dependencies: a node's name, with `:1` for its second
    output."""
    reads = [str(entry) for entry in document.get("input") or []]
    return [entry.removesuffix(":0") for entry in reads if not entry.startswith("^")]


def _node_of(value: str) -> str:
    """Return the node that gives a value."""
    name, _, port = value.rpartition(":")
    return name if name and port.isdecimal() else value


def _signed(signature: Mapping[str, Any]) -> list[str]:
    """Return the outputs that the signature names."""
    return [str(entry["name"]).removesuffix(":0") for entry in (signature.get("outputs") or {}).values()]


def _unread(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    read = {_node_of(value) for node in nodes.values() for value in _read_by(node)}
    return [
        name for name, node in nodes.items() if name not in read and node["op"] not in ("Const", "NoOp", "Placeholder")
    ]
