"""A layers model: Keras's topology of layers, nested models and all, written as ONNX layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plimsoll.errors import ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.tfjs.files import Weights
from plimsoll.importers.tfjs.keras_layers import MANY, ONE, Layer
from plimsoll.importers.tfjs.operators import ConvertedGraph, TensorFlowWriter
from plimsoll.importers.tfjs.tensors import Array, Value, fail, free_shape
from plimsoll.onnx.writer import GraphWriter, require_names

MAX_DEPTH = 8
"""Models within models."""
MAX_PASSES = 100
"""Keras lists layers nearly in the order in which they run."""
_MODELS = ("Model", "Functional", "Sequential")

Key = tuple[str, int, int]
"""A layer's name, which of its calls, which of the call's outputs: how Keras names a value."""
Named = list[tuple[str, Value]]


def write(topology: Mapping[str, Any], weights: Weights, where: str, options: ImportOptions) -> ConvertedGraph:
    """Return a layers model as a graph, with its inputs and outputs; raises ModelError, naming the layer, or InputError
    for options that don't fit."""
    graph = GraphWriter(where, options.batch)
    network = _Network(TensorFlowWriter(graph), weights, where, options)
    try:
        outputs = network.model(topology.get("model_config", topology), None, 0)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ModelError(
            f"{where}: its topology can't be read: {type(error).__name__}: {error}",
            "Is it a model of Keras 2, written by tensorflowjs?",
        ) from error
    require_names([*options.inputs, *options.input_shapes], network.inputs, "input", where)
    if options.outputs:
        require_names(options.outputs, network.given, "layer", where)
        outputs = [(name, network.given[name]) for name in options.outputs]
    network.writer.outputs(outputs)
    return ConvertedGraph(graph, tuple(network.inputs), tuple(name for name, _ in outputs))


@dataclass(frozen=True)
class _Call:
    """A layer at work: it may be called several times, on other values each time."""

    layer: Mapping[str, Any]
    number: int
    reads: tuple[Key, ...]


class _Network:
    def __init__(self, writer: TensorFlowWriter, weights: Weights, where: str, options: ImportOptions) -> None:
        self.writer = writer
        self.inputs: list[str] = []
        self.given: dict[str, Value] = {}
        """What each layer of the outermost model gave last."""
        self._weights = weights
        self._short = _by_last_parts(weights)
        self._where = where
        self._options = options

    def model(self, document: Mapping[str, Any], given: Sequence[Value] | None, depth: int) -> Named:
        """Write a model and return its outputs with their layers' names; `given` are its inputs, None for the
        outermost."""
        kind = document["class_name"]
        if depth > MAX_DEPTH or kind not in _MODELS:
            raise ModelError(
                f"{self._where}: unsupported model '{kind}', {depth} models deep",
                f"Supported: {', '.join(_MODELS)}, up to {MAX_DEPTH} deep.",
            )
        config = document["config"]
        if kind == "Sequential":
            return self._sequence(config if isinstance(config, list) else config["layers"], given, depth)
        return self._functional(config, given, depth)

    def _functional(self, config: Mapping[str, Any], given: Sequence[Value] | None, depth: int) -> Named:
        feeds = (
            dict(zip([key[0] for key in _keys(config["input_layers"])], given, strict=True))
            if given is not None
            else {}
        )
        values: dict[Key, Value] = {}
        waiting = list(_calls(config))
        for _ in range(MAX_PASSES):
            left = []
            for call in waiting:
                if any(key not in values for key in call.reads):
                    left.append(call)
                    continue
                name = str(call.layer["name"])
                outputs = (
                    [feeds[name]]
                    if name in feeds
                    else self._layer(call.layer, [values[key] for key in call.reads], depth)
                )
                values |= {(name, call.number, index): value for index, value in enumerate(outputs)}
            if not left:
                return [(key[0], values[key]) for key in _keys(config["output_layers"])]
            if len(left) == len(waiting):
                break
            waiting = left
        raise ModelError(
            f"{self._where}: the layer '{left[0].layer['name']}' reads values that no layer before it makes",
            "Is model.json complete?",
        )

    def _sequence(self, layers: Sequence[Mapping[str, Any]], given: Sequence[Value] | None, depth: int) -> Named:
        values = list(given or [])
        name = ""
        for layer in layers:
            name = str(layer["config"]["name"])
            if layer["class_name"] == "InputLayer" and values:
                continue
            if not values and layer["class_name"] != "InputLayer":
                values = [self._input(f"{name}_input", layer["config"])]
            values = self._layer({**layer, "name": name}, values, depth)
        return [(name, value) for value in values]

    def _layer(self, document: Mapping[str, Any], values: list[Value], depth: int) -> list[Value]:
        name, kind, config = str(document["name"]), str(document["class_name"]), document["config"]
        layer = Layer(name, config, lambda short: self._stored(name, short), self.writer)
        try:
            if kind in _MODELS:
                outputs = [value for _, value in self.model(document, values, depth + 1)]
            elif kind == "InputLayer":
                outputs = [self._input(name, config)]
            elif kind in ONE and len(values) == 1:
                outputs = [ONE[kind](layer, values[0])]
            elif kind in MANY and values:
                outputs = [MANY[kind](layer, values)]
            elif kind in ONE or kind in MANY:
                raise ValueError(f"it reads {len(values)} values")
            else:
                raise ValueError(f"unknown layer; choose from {', '.join(sorted([*ONE, *MANY]))}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = (
                str(error)
                if isinstance(error, ValueError)
                else f"its settings can't be read: {type(error).__name__}: {error}"
            )
            raise fail(self._where, f"the layer '{name}'", kind, reason) from error
        if depth == 0:
            self.given[name] = outputs[0]
        return outputs

    def _input(self, name: str, config: Mapping[str, Any]) -> Value:
        if config.get("dtype", "float32") != "float32":
            raise ValueError(f"its dtype is {config['dtype']}, expected float32")
        shape = free_shape(
            self._options.input_shapes.get(name) or config.get("batch_input_shape") or config["batch_shape"]
        )
        self.inputs.append(name)
        if shape[0] is not None and self._options.batch is None:
            self.writer.graph.batch = shape[0]
        shape = (None, *shape[1:])
        return Value(self.writer.graph.input(name, (self.writer.graph.batch, *shape[1:])), shape)

    def _stored(self, layer: str, short: str) -> Array | None:
        exact = self._weights.get(f"{layer}/{short}")
        if exact is not None:
            return exact
        candidates = self._short.get(f"{layer}/{short}", [])
        if len(candidates) > 1:
            raise ValueError(f"its weights '{short}' are ambiguous: {', '.join(candidates[:4])}")
        return self._weights[candidates[0]] if candidates else None


def _by_last_parts(weights: Mapping[str, Any]) -> dict[str, list[str]]:
    """Index weights by their names' last two parts: a nested model's name stands before them."""
    index: dict[str, list[str]] = {}
    for name in weights:
        index.setdefault("/".join(name.removesuffix(":0").split("/")[-2:]), []).append(name)
    return index


def _calls(config: Mapping[str, Any]) -> Iterator[_Call]:
    """Yield the layers' calls. A model within a model counts its calls from 1, or from 0 if it was built without a
    size of its own."""
    listed = [(layer, [_keys(node) for node in layer.get("inbound_nodes") or [[]]]) for layer in config["layers"]]
    read = {key[:2] for _, nodes in listed for keys in nodes for key in keys} | {
        key[:2] for key in _keys(config["output_layers"])
    }
    for layer, nodes in listed:
        start = int(layer["class_name"] in _MODELS and (layer["name"], len(nodes)) in read)
        for number, keys in enumerate(nodes, start):
            yield _Call(layer, number, tuple(keys))


def _keys(listed: Sequence[Any]) -> list[Key]:
    """Return the values that a list names: `[name, call, output, …]` each, or one of these alone; raises ValueError for
    another form."""
    if isinstance(listed, Mapping):
        raise ValueError("written by Keras 3, expected the format of Keras 2")
    entries = [listed] if listed and isinstance(listed[0], str) else listed
    return [(str(entry[0]), int(entry[1]), int(entry[2])) for entry in entries]
