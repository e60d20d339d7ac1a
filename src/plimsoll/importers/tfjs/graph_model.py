"""A graph model: TensorFlow's graph in JSON, written as ONNX node by node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plimsoll.errors import ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.tfjs.files import Weights
from plimsoll.importers.tfjs.graph_operators import CONVERTERS, Node, Operand
from plimsoll.importers.tfjs.operators import ConvertedGraph, TensorFlowWriter
from plimsoll.importers.tfjs.tensors import Value, fail, free_shape
from plimsoll.onnx.writer import GraphWriter, require_names

_FLOAT = ("DT_FLOAT", 1)


def write(
    topology: Mapping[str, Any], weights: Weights, signature: Mapping[str, Any], options: ImportOptions, where: str
) -> ConvertedGraph:
    """Return a graph model as a graph, with its inputs and outputs; raises ModelError, naming the node, or InputError
    for options that don't fit."""
    try:
        nodes = {str(node["name"]): node for node in topology["node"]}
        ordered = list(_ordered(nodes, where))
        outputs = list(options.outputs) or _signed(signature) or _unread(nodes)
        network = _Network(GraphWriter(where, options.batch), weights, where, options)
        for name in ordered:
            network.add(name, nodes[name])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"{where}: its graph can't be read: {type(error).__name__}: {error}", "Is model.json complete?"
        ) from error
    require_names([*options.inputs, *options.input_shapes], network.inputs, "input", where)
    require_names(outputs, [name for name, value in network.values.items() if isinstance(value, Value)], "node", where)
    network.writer.outputs([(name, value) for name in outputs if isinstance(value := network.values[name], Value)])
    return ConvertedGraph(network.graph, tuple(network.inputs), tuple(outputs))


class _Network:
    def __init__(self, graph: GraphWriter, weights: Weights, where: str, options: ImportOptions) -> None:
        self.graph = graph
        self.writer = TensorFlowWriter(graph)
        self.values: dict[str, Operand] = {}
        self.inputs: list[str] = []
        self._weights = weights
        self._where = where
        self._options = options

    def add(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a node; raises ModelError."""
        op, attributes = str(document["op"]), document.get("attr") or {}
        try:
            if op == "Placeholder":
                self.values[name] = self._input(name, attributes)
            elif op == "Const":
                self.values[name] = self._weights[name]
            elif op == "NoOp":
                return
            elif op in CONVERTERS:
                inputs = [self.values[read] for read in _read_by(document)]
                self.values[name] = CONVERTERS[op](Node(name, op, attributes, inputs, self.writer))
            else:
                raise ValueError(f"unknown operation; choose from {', '.join(sorted(CONVERTERS))}")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise fail(self._where, f"the node '{name}'", op, reason) from error

    def _input(self, name: str, attributes: Mapping[str, Any]) -> Value:
        dtype = attributes.get("dtype", {}).get("type", "DT_FLOAT")
        if dtype not in _FLOAT:
            raise ValueError(f"its dtype is {dtype}, expected DT_FLOAT")
        stated = [axis.get("size", -1) for axis in attributes.get("shape", {}).get("shape", {}).get("dim", [])]
        shape = free_shape(self._options.input_shapes.get(name) or stated)
        self.inputs.append(name)
        return Value(self.graph.input(name, (self.graph.batch, *shape[1:])), shape)


def _ordered(nodes: Mapping[str, Mapping[str, Any]], where: str) -> Iterator[str]:
    """Yield the nodes so that each comes after those that it reads; raises ModelError for a circle or a missing
    node."""
    done: dict[str, bool] = {}
    for start in nodes:
        path = [start]
        while path:
            name = path[-1]
            if name not in nodes:
                raise ModelError(f"{where}: a node reads '{name}', which is missing", "Is model.json complete?")
            first = name not in done
            done.setdefault(name, False)
            ahead = [read for read in _read_by(nodes[name]) if not done.get(read, False)] if not done[name] else []
            if not ahead:
                path.pop()
                if not done[name]:
                    done[name] = True
                    yield name
            elif first:
                path.extend(ahead)
            else:
                raise ModelError(
                    f"{where}: the nodes '{name}' and '{ahead[0]}' read each other",
                    "Only graphs without cycles can be converted.",
                )


def _read_by(document: Mapping[str, Any]) -> list[str]:
    """Return the nodes that a node reads, without control dependencies; raises ValueError for a further output of a
    node."""
    out = []
    for entry in document.get("input") or []:
        name, _, port = str(entry).partition(":")
        if port not in ("", "0"):
            raise ValueError(
                f"the node '{document['name']}' reads output {port} of '{name}'; only first outputs are known"
            )
        if not name.startswith("^"):
            out.append(name)
    return out


def _signed(signature: Mapping[str, Any]) -> list[str]:
    """Return the outputs that the signature names."""
    return [str(entry["name"]).partition(":")[0] for entry in (signature.get("outputs") or {}).values()]


def _unread(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    read = {name for node in nodes.values() for name in _read_by(node)}
    return [
        name for name, node in nodes.items() if name not in read and node["op"] not in ("Const", "NoOp", "Placeholder")
    ]
