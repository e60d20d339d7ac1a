"""Find the first layer at which a conversion goes wrong: cut the network after a layer, convert and compare what comes
before the cut, and halve what is left, some ten times."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.core.wording import printable
from plimsoll.errors import BuildError, PlimsollError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph
from plimsoll.spec.spec import Tensors

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

SECONDS = 60.0
"""How long is searched."""
_END = "end"
_MOST_KINDS = 3
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_NO_PICTURES = ("Shape", "Size", "Constant")
"""Operators whose output holds nothing of the picture."""

Agrees = Callable[[Model, Model, Path], bool]
"""Tells of the original up to a layer, and of what is to be built up to there, whether they agree once it is built in
the folder; raises PlimsollError where that can't be told."""


def find(source: Model, given: Model, output: str, agrees: Agrees) -> str:
    """Return the first layer at which `given`, once it is built, differs from `source`, as `'name' (Conv + Relu)`: one
    on the way to `output`, which is wrong.

    Where the time runs out before it is found, the layers are named between which it lies; empty where nothing is known
    of it, or the network can't be cut. Both are ONNX networks that share the names of values.
    """
    deadline = time.monotonic() + SECONDS
    with contextlib.suppress(PlimsollError), tempfile.TemporaryDirectory(prefix="plimsoll-layers-") as folder:
        search = _Search(source, given, output, agrees, Path(folder))
        right, wrong = -1, len(search.values) - 1
        while wrong - right > 1 and time.monotonic() < deadline:
            middle = (right + wrong) // 2
            if search.agrees(middle):
                right = middle
            else:
                wrong = middle
        searched = wrong - right < len(search.values)
        return search.described(right, wrong) if searched or len(search.values) == 1 else ""
    return ""


class _Search:
    def __init__(self, source: Model, given: Model, output: str, agrees: Agrees, folder: Path) -> None:
        from onnx import shape_inference

        self._models = source, given
        self._agrees = agrees
        self._folder = folder
        with translate(BuildError, "its shapes can't be inferred"):
            self._protos = [shape_inference.infer_shapes(onnx_graph.load(model)) for model in self._models]
        self._types = [{entry.name: entry for entry in proto.graph.value_info} for proto in self._protos]
        self._graph = Graph(self._protos[0])
        self._names = [dict(onnx_graph.computed_values(proto)) for proto in self._protos]
        on_the_way = _reached(self._graph) & _needed(self._graph, output)
        self.values = [
            name
            for name in self._names[0]
            if name in on_the_way and self._is_float(0, name) and self._is_float(1, self._names[1].get(name, ""))
        ]
        self.values += [output] if output in self._graph.maker else []

    def _is_float(self, side: int, name: str) -> bool:
        entry = self._types[side].get(name)
        return entry is not None and load.dtype_of(entry) == "float32" and load.shape_of(entry) is not None

    def agrees(self, index: int) -> bool:
        """Compare up to a value; a neighbour before it stands for one that can't be compared."""
        for position in range(index, max(index - 3, -1), -1):
            with contextlib.suppress(PlimsollError), tempfile.TemporaryDirectory(dir=self._folder) as work:
                return self._agrees(*self._cuts(position, Path(work)), Path(work))
        raise PlimsollError("no part of the network can be compared")

    def _cuts(self, index: int, folder: Path) -> tuple[Model, Model]:
        value, cuts = self.values[index], []
        for side, (model, proto) in enumerate(zip(self._models, self._protos, strict=True)):
            name, path = self._names[side][value], folder / f"{side}.onnx"
            onnx_graph.save(cut(proto, self._types[side][name]), path)
            spec = model.spec.model_copy(update={"output": Tensors()}) if model.spec is not None else None
            cuts.append(Model(path, "onnx", spec))
        return cuts[0], cuts[1]

    def described(self, right: int, wrong: int) -> str:
        if wrong < 0:
            return ""
        if wrong - right <= 1:
            return self._layer(self.values[wrong])
        before = self._layer(self.values[right]) if right >= 0 else "the input"
        return f"after {before} and by {self._layer(self.values[wrong])}"

    def _layer(self, value: str) -> str:
        node = self._graph.maker[value]
        name, kinds = node.name or value, [node.op_type]
        while kinds[0] not in _WITH_WEIGHTS:
            before = self._graph.maker.get(node.input[0]) if node.input else None
            if before is None or len(kinds) == _MOST_KINDS or self._graph.sole_reader(node.input[0]) is None:
                return printable(f"'{name}' ({kinds[-1]})", 120)
            node = before
            kinds.insert(0, node.op_type)
        return printable(f"'{name}' ({' + '.join(kinds)})", 120)


def _reached(graph: Graph) -> set[str]:
    """Return the values that hold something of what the network reads, by more than its sizes."""
    reached = set(graph.inputs)
    for node in graph.nodes:
        if node.op_type not in _NO_PICTURES and not reached.isdisjoint(node.input):
            reached.update(node.output)
    return reached


def cut(proto: ModelProto, value: ValueInfoProto) -> ModelProto:
    """Return the network up to a value, as its only output, under a name of its own."""
    from onnx import helper

    graph = Graph(proto)
    needed = _needed(graph, value.name)
    part = type(proto)()
    part.CopyFrom(proto)
    end = onnx_graph.unique(set(graph.maker) | set(graph.readers), _END)
    for field in ("node", "input", "output", "initializer", "value_info"):
        part.graph.ClearField(field)
    part.graph.node.extend(node for node in graph.nodes if not needed.isdisjoint(node.output))
    part.graph.node.append(helper.make_node("Identity", [value.name], [end], end))
    part.graph.input.extend(entry for entry in proto.graph.input if entry.name in needed)
    part.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in needed)
    part.graph.output.add(name=end).type.CopyFrom(value.type)
    return part


def _needed(graph: Graph, value: str) -> set[str]:
    """Return the names of all values from which a value is computed, with its own."""
    needed: set[str] = set()
    open_ = [value]
    while open_:
        name = open_.pop()
        if name not in needed:
            needed.add(name)
            if (node := graph.maker.get(name)) is not None:
                open_ += _read_by(node)
    return needed


def _read_by(node: NodeProto) -> list[str]:
    """Return the names that a node reads, those in its subgraphs too."""
    return [name for part in load.messages(node, "NodeProto") for name in part.input if name]
