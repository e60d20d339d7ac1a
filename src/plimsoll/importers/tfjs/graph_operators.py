"""TensorFlow's graph operators, as TensorFlow.js runs them, in ONNX: those of picture networks, and the table of all.

Sources: TensorFlow.js 4.22, `tfjs-converter/src/operations/op_list` and `executors`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from plimsoll.importers.tfjs.graph_arithmetic import ACTIVATIONS, ARITHMETIC, product
from plimsoll.importers.tfjs.graph_arrangement import ARRANGEMENT
from plimsoll.importers.tfjs.graph_node import Convert, Node, Operand
from plimsoll.importers.tfjs.graph_slices import SLICES
from plimsoll.importers.tfjs.tensors import Array, Pair, Value


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
    matrix = node.inputs[1]
    if isinstance(matrix, Value) or not isinstance(node.inputs[0], Value) or node.flag("transpose_a"):
        if node.texts("fused_ops"):
            raise ValueError(f"{node.texts('fused_ops')} are fused to a product of computed matrices")
        return product(node)
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


def _transposed_convolution(node: Node) -> Operand:
    """The gradient of a convolution: its input's sizes, the kernel [height, width, outputs, inputs], the value."""
    sizes, kernel = node.numbers(0), node.stored(1)
    window = node.window(_sides(kernel))
    return node.writer.transposed_convolution(node.value(2), kernel, None, window, node.name, (sizes[1], sizes[2]))


def _local_response(node: Node) -> Operand:
    value, radius = node.value(0), int(node.number("depth_radius", 5))
    size = 2 * radius + 1
    alpha, beta, bias = (node.number(name, default) for name, default in (("alpha", 1), ("beta", 0.5), ("bias", 1)))
    source = node.writer.arranged(value, "first")
    output = node.writer.graph.add("LRN", [source], node.name, size=size, alpha=alpha * size, beta=beta, bias=bias)
    return Value(output, value.shape, "first")


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


def _sides(kernel: Array) -> Pair:
    if kernel.ndim != 4:
        raise ValueError(f"its kernel is {list(kernel.shape)}, expected four axes")
    return kernel.shape[0], kernel.shape[1]


CONVERTERS: dict[str, Convert] = {
    **ARITHMETIC,
    **ARRANGEMENT,
    **SLICES,
    **dict.fromkeys(("Conv2D", "_FusedConv2D"), _convolution),
    **dict.fromkeys(("DepthwiseConv2dNative", "DepthwiseConv2d", "FusedDepthwiseConv2dNative"), _depthwise),
    **dict.fromkeys(("MatMul", "_FusedMatMul"), _matmul),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _batch_norm),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), _resize),
    "AvgPool": _pool("Average"),
    "Conv2DBackpropInput": _transposed_convolution,
    "LRN": _local_response,
    "MaxPool": _pool("Max"),
}
"""How each kind of node is written in ONNX."""

_CONTROL_FLOW = (
    "Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "While", "StatelessWhile", "If", "StatelessIf",
    "TensorList", "TensorArray", "NonMaxSuppression", "Where", "CropAndResize",
)  # fmt: skip
"""How those begin whose results' sizes depend on the picture, or that repeat."""


def depends_on_values(op: str) -> bool:
    """Tell whether an operator branches, repeats, or gives results whose number depends on the picture."""
    return op.startswith(_CONTROL_FLOW)


__all__ = ["CONVERTERS", "Node", "Operand", "depends_on_values"]
