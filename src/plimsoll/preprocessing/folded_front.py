"""The operators at the front of a folded network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.fit import Shape
from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph, array, attribute
from plimsoll.preprocessing.folded_tail import Affine, Tail
from plimsoll.spec.steps import ImageSpec

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_TO_NCHW = [0, 3, 1, 2]


@dataclass
class Front:
    """Builds the operators between the picture and what the network took before."""

    proto: ModelProto
    old: str
    picture: str
    tail: Tail
    nodes: list[NodeProto] = field(default_factory=list)

    def build(self, old: Any, form: ImageSpec) -> None:
        """Put the operators before all others and replace the input `old`; `form` is the pixels' one."""
        graph = self.proto.graph
        layout, aim = self.tail.layout, self.old
        transpose = Graph(self.proto).sole_reader(self.old)
        if (
            layout == "NHWC"
            and transpose is not None
            and transpose.op_type == "Transpose"
            and attribute(transpose, "perm") == _TO_NCHW
        ):
            # Moving bytes costs a quarter of moving floats, and a mean a plane is subtracted faster than one a pixel.
            layout, aim = "NCHW", str(transpose.output[0])
            graph.node.remove(transpose)
            _forget(graph.value_info, aim)
        rest = self._into_weights(layout, aim)
        if rest is not None:
            self._rename(aim, aim := self._fresh(f"{self.picture}/centred"))
        elif aim == self.picture:
            self._rename(aim, aim := self._fresh(f"{self.picture}/prepared"))
        sizes = load.shape_of(old) or (None,) * 4
        self._emit(layout, aim, rest or self.tail)
        _replace_input(graph, old, self.picture, _sizes(form, sizes, self.tail.layout))
        others = list(graph.node)
        del graph.node[:]
        graph.node.extend([*self.nodes, *others])

    def _into_weights(self, layout: str, name: str) -> Tail | None:
        """Move channel order and factors into the first convolution; return the tail that is left, or None where that
        can't be done exactly."""
        from onnx import numpy_helper

        parts = self.tail.parts
        if len(parts) != 1 or not isinstance(parts[0], Affine):
            return None
        affine = parts[0]
        if not self.tail.reversed and np.all(affine.factor == 1):
            return None
        stored = _convolution_behind(Graph(self.proto), name, 1 if layout == "NCHW" else 3)
        if stored is None:
            return None
        turn = slice(None, None, -1 if self.tail.reversed else 1)
        weights = array(stored)
        scaled = (weights * affine.factor.reshape(1, -1, *[1] * (weights.ndim - 2)))[:, turn]
        stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(scaled, np.float32), stored.name))
        return Tail(False, (Affine(affine.mean[turn], np.ones_like(affine.mean)),), self.tail.layout, "float32")

    def _emit(self, layout: str, aim: str, tail: Tail) -> None:
        name, dtype = self.picture, "uint8"
        if layout == "NCHW":
            name = self._node("Transpose", [name], perm=_TO_NCHW)
        if tail.reversed:
            index = self._constant("reversed", np.array([2, 1, 0], np.int64))
            name = self._node("Gather", [name, index], axis=1 if layout == "NCHW" else 3)
        for part in tail.parts:
            if isinstance(part, Affine):
                name = self._affine(name if dtype == "float32" else self._cast(name, "float32"), part, layout)
                dtype = "float32"
            else:
                name = self._cast(name, part.to, rounds=part.to == "uint8")
                dtype = part.to
        self.nodes[-1].output[0] = aim

    def _affine(self, name: str, part: Affine, layout: str) -> str:
        shape = (1, -1, 1, 1) if layout == "NCHW" else (1, 1, 1, -1)
        if np.any(part.mean != 0):
            name = self._node("Sub", [name, self._constant("mean", part.mean.astype(np.float32).reshape(shape))])
        if np.any(part.factor != 1):
            name = self._node("Mul", [name, self._constant("factor", part.factor.astype(np.float32).reshape(shape))])
        return name

    def _cast(self, name: str, to: str, *, rounds: bool = False) -> str:
        if rounds:  # As the step does it: to the nearest, halves up, clipped.
            name = self._cast(name, "float32")
            name = self._node("Floor", [self._node("Add", [name, self._constant("half", np.array(0.5, np.float32))])])
            name = self._node("Max", [name, self._constant("least", np.array(0, np.float32))])
            name = self._node("Min", [name, self._constant("most", np.array(255, np.float32))])
        return self._node("Cast", [name], to={"float32": 1, "uint8": 2, "float16": 10}[to])

    def _node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        from onnx import helper

        output = self._fresh(f"{self.picture}/{kind.lower()}")
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        from onnx import helper, numpy_helper

        graph = self.proto.graph
        tensor = numpy_helper.from_array(values, self._fresh(f"{self.picture}/{name}"))
        graph.initializer.append(tensor)
        if self.proto.ir_version < 4:  # Until then every stored value had to be an input as well.
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        return str(tensor.name)

    def _fresh(self, wanted: str) -> str:
        taken = {output for node in self.nodes for output in node.output}
        names = (wanted, *(f"{wanted}_{count}" for count in range(1, 10_000)))
        return next(name for name in names if name not in taken and not is_used(self.proto.graph, name))

    def _rename(self, before: str, after: str) -> None:
        """Let whoever read the value `before` read `after`."""
        for node in Graph(self.proto).all_readers(before):
            for place, name in enumerate(node.input):
                if name == before:
                    node.input[place] = after


def _convolution_behind(graph: Graph, name: str, axis: int) -> Any:
    """Return the stored float32 weights of the convolution that a value reaches alone, its channels on `axis`; else
    None.

    Only what commutes with a factor a channel may lie between: transposing, and padding with zeros in height and width.
    """
    while (node := graph.sole_reader(name)) is not None:
        if node.op_type == "Transpose":
            axis = list(attribute(node, "perm") or [3, 2, 1, 0]).index(axis)
        elif node.op_type == "Conv" and node.input[0] == name and axis == 1 and (attribute(node, "group") or 1) == 1:
            weights = graph.stored(node.input[1])
            shared = len(graph.all_readers(node.input[1])) != 1
            return None if weights is None or weights.data_type != 1 or shared else weights
        elif node.op_type != "Identity" and not (node.op_type == "Pad" and _pads_with_zeros(graph, node, axis)):
            return None
        name = str(node.output[0])
    return None


def _pads_with_zeros(graph: Graph, node: NodeProto, axis: int) -> bool:
    if attribute(node, "mode") not in (None, b"constant"):
        return False
    if len(node.input) == 1:  # Until opset 10.
        pads, value = (
            attribute(node, "pads") or attribute(node, "paddings"),
            attribute(node, "value") or 0.0,
        )
    elif len(node.input) <= 3:
        pads = graph.value(node.input[1])
        value = graph.value(node.input[2]) if len(node.input) == 3 and node.input[2] else 0.0
    else:
        return False
    if pads is None or value is None or len(pads) != 8:
        return False
    return bool(np.all(np.asarray(value) == 0)) and pads[axis] == pads[axis + 4] == 0


def _sizes(form: ImageSpec, old: Shape, layout: str) -> Shape:
    """Return the picture's shape: the batch as it was, each side as the steps or else the network fix it."""
    height, width = old[2:4] if layout == "NCHW" else old[1:3]
    return (old[0], form.height or height, form.width or width, form.channels)


def _replace_input(graph: GraphProto, old: Any, name: str, sizes: Shape) -> None:
    from onnx import TensorProto, helper

    place = next(place for place, one in enumerate(graph.input) if one.name == old.name)
    others = list(graph.input)
    others[place] = helper.make_tensor_value_info(name, TensorProto.UINT8, list(sizes))
    del graph.input[:]
    graph.input.extend(others)


def _forget(infos: Any, name: str) -> None:
    for info in [one for one in infos if one.name == name]:
        infos.remove(info)


def is_used(graph: GraphProto, name: str) -> bool:
    """Tell whether anything in the graph, or in a graph within it, has this name."""
    named = {one.name for one in (*graph.input, *graph.output, *graph.initializer)}
    return name in named or any(name in (*node.input, *node.output) for node in load.messages(graph, "NodeProto"))


def unused(graph: GraphProto, wanted: str) -> str:
    """Return a name like `wanted` that nothing has."""
    return next(name for count in range(1, 10_000) if not is_used(graph, name := f"{wanted}_{count}"))
