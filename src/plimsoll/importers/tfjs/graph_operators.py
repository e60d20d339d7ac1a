"""TensorFlow's graph operators, as TensorFlow.js runs them, in ONNX: one function a kind.

Sources: TensorFlow.js 4.22, `tfjs-converter/src/operations/op_list` and `executors`. Shapes that a graph computes
(Shape, StridedSlice, Pack) are followed as numbers, with -1 for the batch.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from plimsoll.importers.tfjs.operators import TensorFlowWriter
from plimsoll.importers.tfjs.tensors import Array, Pair, Value, Window, broadcast

Operand = Value | Array


@dataclass
class Node:
    """A node of the graph: its attributes and what it reads."""

    name: str
    op: str
    attributes: Mapping[str, Any]
    inputs: list[Operand]
    writer: TensorFlowWriter

    def value(self, index: int) -> Value:
        """Return an input that is computed; raises ValueError for a stored one."""
        operand = self.inputs[index]
        if not isinstance(operand, Value):
            raise ValueError(f"its input {index + 1} is stored, expected a computed one")
        return operand

    def stored(self, index: int) -> Array:
        """Return an input that is stored; raises ValueError for a computed one."""
        operand = self.inputs[index]
        if isinstance(operand, Value):
            raise ValueError(f"its input {index + 1} is computed while the network runs, expected a stored one")
        return operand

    def numbers(self, index: int) -> list[int]:
        """Return a stored input as whole numbers."""
        return [int(number) for number in self.stored(index).reshape(-1)]

    def text(self, name: str, default: str = "") -> str:
        """Return an attribute that is a text, plain or in base64."""
        return _text(self.attributes.get(name, {}).get("s", default))

    def texts(self, name: str) -> list[str]:
        """Return an attribute that is a list of texts."""
        return [_text(text) for text in self.attributes.get(name, {}).get("list", {}).get("s", [])]

    def integers(self, name: str) -> list[int]:
        """Return an attribute that is a list of whole numbers."""
        return [int(number) for number in self.attributes.get(name, {}).get("list", {}).get("i", [])]

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number."""
        entry = self.attributes.get(name, {})
        return float(entry.get("f", entry.get("i", default)))

    def flag(self, name: str) -> bool:
        """Return an attribute that is true or false."""
        return bool(self.attributes.get(name, {}).get("b", False))

    def window(self, kernel: Pair) -> Window:
        """Return the window of a convolution or pool; raises ValueError for channels-first ones."""
        if self.text("data_format", "NHWC") != "NHWC":
            raise ValueError(f"its data_format is {self.text('data_format')}, expected NHWC")
        strides, dilations = self.integers("strides") or [1, 1, 1, 1], self.integers("dilations") or [1, 1, 1, 1]
        pads = self.integers("explicit_paddings") or [0] * 8
        if (
            len(strides) != 4
            or len(dilations) != 4
            or len(pads) != 8
            or (strides[0], strides[3], dilations[0], dilations[3]) != (1, 1, 1, 1)
        ):
            raise ValueError(f"strides {strides}, dilations {dilations}, paddings {pads}")
        explicit = ((pads[2], pads[3]), (pads[4], pads[5]))
        padding = self.text("padding", "VALID").lower()
        return Window(
            kernel,
            (strides[1], strides[2]),
            padding,
            (dilations[1], dilations[2]),
            explicit if padding == "explicit" else ((0, 0), (0, 0)),
        )


def _text(value: Any) -> str:
    """Return a text of the JSON form of a graph, where bytes are in base64 or a list of numbers."""
    if isinstance(value, list):
        return bytes(value).decode()
    try:
        decoded = base64.b64decode(str(value), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return str(value)
    return decoded if decoded.isprintable() and len(str(value)) % 4 == 0 and decoded else str(value)


def _convolution(node: Node) -> Operand:
    kernel = node.stored(1)
    return _fused(
        node, lambda bias, name: node.writer.convolution(node.value(0), kernel, bias, node.window(_sides(kernel)), name)
    )


def _depthwise(node: Node) -> Operand:
    kernel = node.stored(1)
    return _fused(
        node, lambda bias, name: node.writer.depthwise(node.value(0), kernel, bias, node.window(_sides(kernel)), name)
    )


def _matmul(node: Node) -> Operand:
    matrix = node.stored(1)
    if node.flag("transpose_a"):
        raise ValueError("its first input is transposed")
    return _fused(
        node,
        lambda bias, name: node.writer.product(
            node.value(0), matrix.T if node.flag("transpose_b") else matrix, bias, name
        ),
    )


def _fused(node: Node, convert: Callable[[Array | None, str], Value]) -> Value:
    """Write an operator with what is fused to it: a bias, a batch norm's rest, an activation."""
    steps = node.texts("fused_ops") if node.op.startswith(("_Fused", "Fused")) else []
    extras = list(range(2, len(node.inputs)))
    bias = node.stored(extras.pop(0)) if steps and steps[0] == "BiasAdd" else None
    rest = steps[1:] if bias is not None else steps
    value = convert(bias, f"{node.name}/linear" if rest else node.name)
    for step in rest:
        if step == "Prelu":
            value = node.writer.binary("PRelu", value, node.stored(extras.pop(0)), node.name)
        elif step == "LeakyRelu":
            value = node.writer.unary("LeakyRelu", value, node.name, alpha=node.number("leakyrelu_alpha", 0.2))
        elif step in ACTIVATIONS:
            value = ACTIVATIONS[step](node.writer, value, node.name)
        else:
            raise ValueError(f"{step} is fused to it; known are BiasAdd, Prelu, LeakyRelu, {', '.join(ACTIVATIONS)}")
    return value


def _simple(operator: str, **attributes: Any) -> Callable[[TensorFlowWriter, Value, str], Value]:
    return lambda writer, value, name: writer.unary(operator, value, name, **attributes)


ACTIVATIONS: dict[str, Callable[[TensorFlowWriter, Value, str], Value]] = {
    "Relu": _simple("Relu"),
    "Relu6": lambda writer, value, name: writer.clipped(value, 0, 6, name),
    "Elu": _simple("Elu"),
    "Selu": _simple("Selu"),
    "Sigmoid": _simple("Sigmoid"),
    "Tanh": _simple("Tanh"),
    "Softplus": _simple("Softplus"),
    "Exp": _simple("Exp"),
    "Sqrt": _simple("Sqrt"),
    "Neg": _simple("Neg"),
    "Abs": _simple("Abs"),
    "Log": _simple("Log"),
    "Rsqrt": lambda writer, value, name: writer.unary("Reciprocal", writer.unary("Sqrt", value, f"{name}/root"), name),
    "Square": lambda writer, value, name: writer.binary("Mul", value, value, name),
}


def _activation(node: Node) -> Operand:
    return ACTIVATIONS[node.op](node.writer, node.value(0), node.name)


def _leaky_relu(node: Node) -> Operand:
    return node.writer.unary("LeakyRelu", node.value(0), node.name, alpha=node.number("alpha", 0.2))


def _prelu(node: Node) -> Operand:
    return node.writer.binary("PRelu", node.value(0), node.stored(1), node.name)


def _binary(operator: str, exact: Callable[[Array, Array], Array]) -> Callable[[Node], Operand]:
    def convert(node: Node) -> Operand:
        first, second = node.inputs[0], node.inputs[1]
        if isinstance(first, Value) or isinstance(second, Value):
            return node.writer.binary(operator, first, second, node.name)
        broadcast(first.shape, second.shape)
        return np.asarray(exact(first, second))

    return convert


def _batch_norm(node: Node) -> Operand:
    if node.flag("is_training") or node.text("data_format", "NHWC") != "NHWC":
        raise ValueError("it normalizes by the statistics of the batch, or channels-first")
    statistics = {part: node.stored(index) for index, part in enumerate(("scale", "bias", "mean", "variance"), 1)}
    return node.writer.normalized(node.value(0), statistics, node.number("epsilon", 1e-4), node.name)


def _pool(method: Literal["Max", "Average"]) -> Callable[[Node], Operand]:
    def convert(node: Node) -> Operand:
        size = node.integers("ksize")
        if len(size) != 4 or (size[0], size[3]) != (1, 1):
            raise ValueError(f"its window is {size}")
        return node.writer.pool(node.value(0), method, node.window((size[1], size[2])), node.name)

    return convert


def _reduce(operator: str) -> Callable[[Node], Operand]:
    def convert(node: Node) -> Operand:
        return node.writer.reduced(operator, node.value(0), node.numbers(1), node.name, keep=node.flag("keep_dims"))

    return convert


def _softmax(node: Node) -> Operand:
    return node.writer.softmax(node.value(0), -1, node.name)


def _pad(node: Node) -> Operand:
    pads = [(int(before), int(after)) for before, after in node.stored(1)]
    fill = float(node.stored(2)) if node.op == "PadV2" else 0.0
    mode = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}[node.text("mode")] if node.op == "MirrorPad" else "constant"
    if mode == "symmetric" or min(min(pair) for pair in pads) < 0:
        raise ValueError(f"it pads by {pads}, {mode}")
    return node.writer.pad(node.value(0), pads, node.name, mode, fill)


def _reshape(node: Node) -> Operand:
    shape = node.numbers(1)
    if not isinstance(node.inputs[0], Value):
        return node.inputs[0].reshape(shape)
    if not shape:
        raise ValueError("it reshapes to a single number")
    return node.writer.reshaped(node.inputs[0], (None, *shape[1:]), node.name)


def _squeeze(node: Node) -> Operand:
    value = node.value(0)
    axes = [axis % len(value.shape) for axis in node.integers("squeeze_dims") or node.integers("axis")] or [
        axis for axis, size in enumerate(value.shape) if size == 1
    ]
    if any(value.shape[axis] != 1 for axis in axes):
        raise ValueError(f"it drops the axes {axes} of {list(value.shape)}")
    return node.writer.reshaped(value, [size for axis, size in enumerate(value.shape) if axis not in axes], node.name)


def _expand(node: Node) -> Operand:
    (axis,) = node.numbers(1)
    if not isinstance(node.inputs[0], Value):
        return np.expand_dims(node.inputs[0], axis)
    value = node.inputs[0]
    axis %= len(value.shape) + 1
    if axis == 0:
        raise ValueError("it puts an axis before the batch")
    return node.writer.reshaped(value, (*value.shape[:axis], 1, *value.shape[axis:]), node.name)


def _concat(node: Node) -> Operand:
    (axis,) = node.numbers(len(node.inputs) - 1)
    parts = node.inputs[:-1]
    values = [part for part in parts if isinstance(part, Value)]
    if not values:
        return np.concatenate([part for part in parts if not isinstance(part, Value)], axis)
    if len(values) != len(parts) or axis % len(values[0].shape) == 0:
        raise ValueError(f"it joins stored and computed values, or along axis {axis}")
    return node.writer.joined(values, axis, node.name)


def _transpose(node: Node) -> Operand:
    return node.writer.transposed(node.value(0), node.numbers(1), node.name)


def _resize(node: Node) -> Operand:
    sizes = node.numbers(1)
    method = "linear" if node.op == "ResizeBilinear" else "nearest"
    coordinates = (
        "align_corners"
        if node.flag("align_corners")
        else "half_pixel"
        if node.flag("half_pixel_centers")
        else "asymmetric"
    )
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"it resizes to {sizes}")
    return node.writer.resized(node.value(0), (sizes[0], sizes[1]), method, coordinates, node.name)


def _shape(node: Node) -> Operand:
    return np.array([-1 if size is None else size for size in node.value(0).shape], np.int32)


def _strided_slice(node: Node) -> Operand:
    """Slice a shape (or other stored numbers) along its one axis."""
    source = node.stored(0)
    begin, end, step = (node.numbers(index) for index in (1, 2, 3))
    if source.ndim != 1 or len(begin) != 1 or node.number("new_axis_mask", 0) or node.number("ellipsis_mask", 0):
        raise ValueError("it slices something other than a shape")
    start = None if int(node.number("begin_mask", 0)) else begin[0]
    stop = None if int(node.number("end_mask", 0)) else end[0]
    return np.asarray(source[begin[0]]) if int(node.number("shrink_axis_mask", 0)) else source[start : stop : step[0]]


def _pack(node: Node) -> Operand:
    return np.stack([node.stored(index) for index in range(len(node.inputs))], int(node.number("axis", 0)))


def _cast(node: Node) -> Operand:
    if isinstance(node.inputs[0], Value):
        raise ValueError("it converts numbers while the network runs")
    return node.inputs[0]


def _same(node: Node) -> Operand:
    return node.inputs[0]


def _sides(kernel: Array) -> Pair:
    if kernel.ndim != 4:
        raise ValueError(f"its kernel is {list(kernel.shape)}, expected four axes")
    return kernel.shape[0], kernel.shape[1]


def _bias(node: Node) -> Operand:
    return node.writer.binary("Add", node.value(0), node.stored(1), node.name)


_Exact = Callable[[Array, Array], Array]
_ARITHMETIC: Mapping[str, tuple[str, _Exact]] = {
    "Add": ("Add", np.add), "AddV2": ("Add", np.add), "Sub": ("Sub", np.subtract), "Mul": ("Mul", np.multiply),
    "RealDiv": ("Div", np.divide),
    "Maximum": ("Max", np.maximum), "Minimum": ("Min", np.minimum), "Pow": ("Pow", np.power),
}  # fmt: skip
_REDUCTIONS: Sequence[tuple[str, str]] = (
    ("Mean", "ReduceMean"),
    ("Max", "ReduceMax"),
    ("Min", "ReduceMin"),
    ("Sum", "ReduceSum"),
)

CONVERTERS: dict[str, Callable[[Node], Operand]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    **{name: _binary(operator, exact) for name, (operator, exact) in _ARITHMETIC.items()},
    **{name: _reduce(operator) for name, operator in _REDUCTIONS},
    **dict.fromkeys(("Conv2D", "_FusedConv2D"), _convolution),
    **dict.fromkeys(("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"), _depthwise),
    **dict.fromkeys(("MatMul", "_FusedMatMul"), _matmul),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _batch_norm),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _pad),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), _resize),
    **dict.fromkeys(("Identity", "StopGradient", "PreventGradient"), _same),
    "AvgPool": _pool("Average"),
    "BiasAdd": _bias,
    "Cast": _cast,
    "ConcatV2": _concat,
    "ExpandDims": _expand,
    "LeakyRelu": _leaky_relu,
    "MaxPool": _pool("Max"),
    "Pack": _pack,
    "Prelu": _prelu,
    "Reshape": _reshape,
    "Shape": _shape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Transpose": _transpose,
}
"""How each kind of node is written in ONNX."""
