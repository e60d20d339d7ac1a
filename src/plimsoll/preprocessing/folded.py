"""Fold input steps into the network, so that a deployment feeds it the picture as it is: uint8, RGB, height x width x
3.

Everything after the last step on pixels (channels, scale, mean, std, layout, dtype) becomes a few operators at the
front of the graph: cast, subtract, multiply. The subtraction stays an operator of its own and never becomes part of the
first convolution's bias: a convolution pads with zeros *after* the mean is gone, so along the borders its bias would be
wrong. The order of the channels and a factor a channel do commute with that padding; where the first convolution is
reached directly they move into its weights and cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.fit import Shape, only_input
from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph, array, attribute
from plimsoll.onnx.opset import raise_opset
from plimsoll.preprocessing.affine import PIXEL_STEPS, Affine, Normalization
from plimsoll.spec import Input, Spec
from plimsoll.spec.steps import Channels, ImageSpec, Step

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

INPUT = "picture"
"""The name of the folded network's input."""

_MINIMUM_OPSET = 8
"""Max and Min broadcast from here on, Add and Sub from 7."""
_TO_NCHW = [0, 3, 1, 2]


def fold(model: Model, folder: Path) -> Model:
    """Return a child whose graph takes uint8 `[N, H, W, 3]` (RGB; 1 channel where it is grey) and whose Spec has the
    pixel steps only.

    Written into `folder`; opset and IR version stay. Outputs equal the parent's behind its own steps up to float32's
    rounding. Raises ModelError, naming the steps that are left outside, where values are no longer 8-bit pixels at the
    last step on pixels, or where there is nothing to fold; BuildError where the graph can't be written.
    """
    spec = model.require_spec()
    if spec.input.is_packed:
        raise ModelError(
            f"{spec.name}: can't fold its input steps: the network takes several views of a picture",
            "Use it without folding.",
        )
    pixel_steps, normalization = split(spec)
    raised = raise_opset(model, folder, _MINIMUM_OPSET) if model.format == "onnx" else model
    proto = onnx_graph.load(raised)
    inputs = load.inputs_and_outputs(proto)[0]
    taken = only_input(spec, inputs, model.path.name)
    if len(inputs) > 1:
        raise ModelError(
            f"{model.name}: its further inputs depend on the size of each picture, so its input steps can't be folded",
            "Give the resize step a fixed width and height.",
        )
    old_input = next(value for value in proto.graph.input if value.name == taken.name)
    name = INPUT if old_input.name == INPUT else _unused(proto.graph, INPUT)
    with translate(BuildError, f"{model.source}: can't fold its input steps"):
        _Front(proto, old_input.name, name, normalization).build(old_input, Input(steps=pixel_steps).tensor_spec)
        path = folder / f"{model.path.stem}.folded.onnx"
        written = onnx_graph.write(proto, path, raised)
        _check(path)
    folded = spec.model_copy(update={"input": Input(tensor=name, steps=pixel_steps)})
    return replace(written, spec=folded)


def split(spec: Spec) -> tuple[tuple[Step, ...], Normalization]:
    """Return the steps that stay outside, and what those after them compute; raises ModelError where that can't be
    folded.

    A `channels` step between steps on pixels moves behind them: all of these treat every channel alike.
    """
    steps = spec.input.steps
    end = next(
        (index for index, step in enumerate(steps) if not isinstance(step, (*PIXEL_STEPS, Channels))), len(steps)
    )
    outside = f"all steps stay outside: {', '.join(step.step for step in steps)}"
    if late := next((step for step in steps[end:] if isinstance(step, PIXEL_STEPS)), None):
        raise ModelError(
            f"{spec.name}: can't fold its input steps: '{late.step}' works on pixels after '{steps[end].step}';"
            f" {outside}",
            f"Put '{late.step}' before '{steps[end].step}' where the network allows it.",
        )
    pixel_steps = tuple(step for step in steps[:end] if not isinstance(step, Channels))
    pixels = Input(steps=pixel_steps).tensor_spec
    if pixels.dtype != "uint8":
        raise ModelError(
            f"{spec.name}: can't fold its input steps: after '{pixel_steps[-1].step}' the values are {pixels.dtype},"
            f" not 8-bit pixels; {outside}",
            "A resize with rounding = 'nearest' gives 8-bit pixels.",
        )
    channels = [step for step in steps[:end] if isinstance(step, Channels)]
    normalization = Normalization.of(pixels, (*channels, *steps[end:]))
    if normalization.is_identity:
        raise ModelError(
            f"{spec.name}: nothing to fold: the network takes the picture as it is; {outside}", "Use it as it is."
        )
    return pixel_steps, normalization


def _check(path: Path) -> None:
    from onnx import checker

    checker.check_model(str(path), full_check=True)


@dataclass
class _Front:
    """Builds the operators between the picture and what the network took before."""

    proto: ModelProto
    old_input: str
    picture: str
    normalization: Normalization
    nodes: list[NodeProto] = field(default_factory=list)

    def build(self, old_input: Any, pixels: ImageSpec) -> None:
        """Put the operators before all others and replace the input; `pixels` is what the steps outside make."""
        graph = self.proto.graph
        layout, output = self.normalization.layout, self.old_input
        transpose = Graph(self.proto).sole_reader(self.old_input)
        if (
            layout == "NHWC"
            and transpose is not None
            and transpose.op_type == "Transpose"
            and attribute(transpose, "perm") == _TO_NCHW
        ):
            # Moving bytes costs a quarter of moving floats, and a mean a plane is subtracted faster than one a pixel.
            layout, output = "NCHW", str(transpose.output[0])
            graph.node.remove(transpose)
            _remove_value_info(graph, output)
        remaining = self._fold_into_convolution(layout, output)
        if remaining is not None:
            self._rename(output, output := self._unused(f"{self.picture}/centred"))
        elif output == self.picture:
            self._rename(output, output := self._unused(f"{self.picture}/prepared"))
        shape = _input_shape(pixels, load.shape_of(old_input) or (None,) * 4, self.normalization.layout)
        self._add_operators(layout, output, remaining or self.normalization)
        _replace_input(graph, old_input, self.picture, shape)
        others = list(graph.node)
        del graph.node[:]
        graph.node.extend([*self.nodes, *others])

    def _fold_into_convolution(self, layout: str, name: str) -> Normalization | None:
        """Move channel order and factors into the first convolution; return what is left, or None where that can't be
        done exactly."""
        from onnx import numpy_helper

        parts = self.normalization.parts
        if len(parts) != 1 or not isinstance(parts[0], Affine):
            return None
        affine = parts[0]
        if not self.normalization.reverses_channels and np.all(affine.factor == 1):
            return None
        stored = _first_weights(Graph(self.proto), name, 1 if layout == "NCHW" else 3)
        if stored is None:
            return None
        order = slice(None, None, -1 if self.normalization.reverses_channels else 1)
        weights = array(stored)
        scaled = (weights * affine.factor.reshape(1, -1, *[1] * (weights.ndim - 2)))[:, order]
        stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(scaled, np.float32), stored.name))
        centring = Affine(np.ones_like(affine.factor), -affine.mean[order])
        return Normalization(False, (centring,), self.normalization.layout, "float32")

    def _add_operators(self, layout: str, output: str, normalization: Normalization) -> None:
        name, dtype = self.picture, "uint8"
        if layout == "NCHW":
            name = self._node("Transpose", [name], perm=_TO_NCHW)
        if normalization.reverses_channels:
            index = self._constant("reversed", np.array([2, 1, 0], np.int64))
            name = self._node("Gather", [name, index], axis=1 if layout == "NCHW" else 3)
        for part in normalization.parts:
            if isinstance(part, Affine):
                name = self._affine(name if dtype == "float32" else self._cast(name, "float32"), part, layout)
                dtype = "float32"
            else:
                name = self._cast(name, part.to, rounds=part.to == "uint8")
                dtype = part.to
        self.nodes[-1].output[0] = output

    def _affine(self, name: str, affine: Affine, layout: str) -> str:
        shape = (1, -1, 1, 1) if layout == "NCHW" else (1, 1, 1, -1)
        if np.any(affine.offset != 0):
            name = self._node("Sub", [name, self._constant("mean", affine.mean.astype(np.float32).reshape(shape))])
        if np.any(affine.factor != 1):
            name = self._node("Mul", [name, self._constant("factor", affine.factor.astype(np.float32).reshape(shape))])
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

        output = self._unused(f"{self.picture}/{kind.lower()}")
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        from onnx import helper, numpy_helper

        graph = self.proto.graph
        tensor = numpy_helper.from_array(values, self._unused(f"{self.picture}/{name}"))
        graph.initializer.append(tensor)
        if self.proto.ir_version < 4:  # Until then every stored value had to be an input as well.
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        return str(tensor.name)

    def _unused(self, name: str) -> str:
        return _unused(self.proto.graph, name, {output for node in self.nodes for output in node.output})

    def _rename(self, before: str, after: str) -> None:
        """Let whatever reads the value `before` read `after`."""
        for node in Graph(self.proto).all_readers(before):
            for index, name in enumerate(node.input):
                if name == before:
                    node.input[index] = after


def _first_weights(graph: Graph, name: str, axis: int) -> Any:
    """Return the stored float32 weights of the convolution that alone reads a value with its channels on `axis`; else
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


def _input_shape(pixels: ImageSpec, old: Shape, layout: str) -> Shape:
    """Return the picture's shape: the batch as it was, each side as the steps or else the network fix it."""
    height, width = old[2:4] if layout == "NCHW" else old[1:3]
    return (old[0], pixels.height or height, pixels.width or width, pixels.channels)


def _replace_input(graph: GraphProto, old: Any, name: str, shape: Shape) -> None:
    from onnx import TensorProto, helper

    new = helper.make_tensor_value_info(name, TensorProto.UINT8, list(shape))
    inputs = [new if value.name == old.name else value for value in graph.input]
    del graph.input[:]
    graph.input.extend(inputs)


def _remove_value_info(graph: GraphProto, name: str) -> None:
    for info in [value for value in graph.value_info if value.name == name]:
        graph.value_info.remove(info)


def _unused(graph: GraphProto, name: str, taken: set[str] | frozenset[str] = frozenset()) -> str:
    """Return `name`, or the first `name_N` that nothing in the graph, or in a graph within it, has."""
    used = {value.name for value in (*graph.input, *graph.output, *graph.initializer)} | taken
    for node in load.messages(graph, "NodeProto"):
        used.update((*node.input, *node.output))
    names = (name, *(f"{name}_{count}" for count in range(1, 10_000)))
    return next(candidate for candidate in names if candidate not in used)
