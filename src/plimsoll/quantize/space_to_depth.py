"""Space-to-depth: a picture's first convolution with stride 2 reads squares of 2 × 2 pixels as one of four times the
channels.

A convolution over three channels copies its input in pieces of three bytes and multiplies them by matrices three deep;
ONNX Runtime spends a third of a quantized ResNet's time in it. With stride 2 the same sums can be read from half as
many, four times deeper pixels in each direction: a 7×7 kernel with stride 2 over 3 channels is a 4×4 one with stride 1
over 12 (its weights padded with zeros on one side). The trick is known from MLPerf's ResNet-50 entries (C. Ying et al.,
"Image Classification at Supercomputer Scale", 2018, section 2.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph, attribute, set_attributes, unique

if TYPE_CHECKING:
    from onnx import NodeProto

_MOST_CHANNELS = 4
_TO_NCHW = [0, 3, 1, 2]
_TO_NHWC = [0, 2, 3, 1]


def apply_space_to_depth(graph: Graph) -> bool:
    """Rewrite the convolution that reads a quantized picture, in place; returns whether one fitted.

    Call it on a quantized graph: bytes are moved, before the picture's DequantizeLinear.
    """
    sizes: dict[str, tuple[int, ...]] | None = None
    for node in graph.nodes:
        first = _match(graph, node)
        if first is None:
            continue
        sizes = _sizes(graph) if sizes is None else sizes
        shape = sizes.get(first.pixels, ())
        height, width = (
            shape[1:3] if first.transpose is not None and len(shape) == 4 else shape[2:4] if len(shape) == 4 else (0, 0)
        )
        if height and width and height % 2 == 0 and width % 2 == 0 and _rewrite(graph, first, height, width):
            return True
    return False


@dataclass(frozen=True)
class _FirstConvolution:
    """A picture's path into its convolution: 8-bit pixels, DequantizeLinear, perhaps a Transpose to NCHW, and Conv."""

    pixels: str
    dequantize: NodeProto
    transpose: NodeProto | None
    convolution: NodeProto
    weights: NodeProto
    """The DequantizeLinear of the weights."""


def _match(graph: Graph, node: NodeProto) -> _FirstConvolution | None:
    if (
        graph.kind(node) != "Conv"
        or attribute(node, "group", 1) != 1
        or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
    ):
        return None
    strides, dilations = tuple(attribute(node, "strides", (1, 1))), set(attribute(node, "dilations", (1, 1)))
    weights = graph.maker.get(node.input[1])
    if (
        strides != (2, 2)
        or dilations != {1}
        or weights is None
        or graph.sole_reader(weights.input[0]) is None
        or graph.sole_reader(node.input[1]) is None
    ):
        return None
    outputs, channels, *kernel = graph.dims(weights.input[0])
    del outputs
    if len(kernel) != 2 or min(kernel) < 2 or channels > _MOST_CHANNELS:
        return None
    before = _only(graph, node.input[0])
    transpose = (
        before
        if before is not None and graph.kind(before) == "Transpose" and attribute(before, "perm") == _TO_NCHW
        else None
    )
    dequantize = before if transpose is None else _only(graph, transpose.input[0])
    if dequantize is None or graph.kind(dequantize) != "DequantizeLinear":
        return None
    pixels = dequantize.input[0]
    return (
        _FirstConvolution(pixels, dequantize, transpose, node, weights)
        if graph.sole_reader(pixels) is not None
        else None
    )


def _only(graph: Graph, name: str) -> NodeProto | None:
    """Return what makes a tensor, where one node alone reads it."""
    return graph.maker.get(name) if graph.sole_reader(name) is not None else None


def _sizes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the shapes that can be inferred; free sizes as 0."""
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(graph.proto).graph
    shapes = {value.name: load.shape_of(value) for value in (*inferred.input, *inferred.value_info)}
    return {
        name: tuple(size if isinstance(size, int) else 0 for size in shape)
        for name, shape in shapes.items()
        if shape is not None
    }


def _rewrite(graph: Graph, first: _FirstConvolution, height: int, width: int) -> bool:
    values = graph.constant(first.weights.input[0])
    kernel = values.shape[2:]
    pads = list(attribute(first.convolution, "pads", (0, 0, 0, 0)))
    kernels = [
        _axis_kernel(size, pads[axis], pads[axis + 2], kernel[axis]) for axis, size in enumerate((height, width))
    ]
    if any(axis is None for axis in kernels):
        return False
    rows, columns = (axis for axis in kernels if axis is not None)
    graph.add_constant(first.weights.input[0], _rearranged(values, rows, columns))
    set_attributes(
        first.convolution,
        kernel_shape=[rows.kernel, columns.kernel],
        strides=[1, 1],
        pads=[rows.before, columns.before, rows.after, columns.after],
    )
    channels = values.shape[1]
    gathering = _space_to_depth(graph, first, height // 2, width // 2, channels)
    nodes = []
    for node in graph.nodes:
        if node is first.transpose:
            continue
        if node is first.dequantize:
            nodes += gathering
        nodes.append(node)
    first.dequantize.input[0] = gathering[-1].output[0]
    first.convolution.input[0] = first.dequantize.output[0]
    graph.replace_nodes(nodes)
    del graph.proto.graph.value_info[:]
    return True


@dataclass(frozen=True)
class _AxisKernel:
    """A kernel along one axis of the deeper picture."""

    kernel: int
    shift: int
    """Zeros to put before the weights, so that they begin at an even pixel."""
    before: int
    after: int
    """Padding."""


def _axis_kernel(size: int, before: int, after: int, kernel: int) -> _AxisKernel | None:
    """Return the kernel that reads pairs; None where it would need less padding than none.

    Output `o` reads pixels `2o - before + i`. With `before` nodes even by `shift`, weight `i + shift` belongs to pair
    `o - (before + shift)/2 + (i + shift)//2`.
    """
    shift = before % 2
    pairs = -(-(kernel + shift) // 2)
    outputs = (size + before + after - kernel) // 2 + 1
    ahead = (before + shift) // 2
    behind = outputs - 1 + pairs - size // 2 - ahead
    return _AxisKernel(pairs, shift, ahead, behind) if behind >= 0 else None


def _rearranged(values: NDArray[Any], rows: _AxisKernel, columns: _AxisKernel) -> NDArray[Any]:
    """Rearrange weights [O, C, h, w] to [O, 4C, rows, columns], channels in the order (row, column, C) of a square."""
    outputs, channels, height, width = values.shape
    padded = np.zeros((outputs, channels, 2 * rows.kernel, 2 * columns.kernel), values.dtype)
    padded[:, :, rows.shift : rows.shift + height, columns.shift : columns.shift + width] = values
    squares = padded.reshape(outputs, channels, rows.kernel, 2, columns.kernel, 2)
    return np.ascontiguousarray(
        squares.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, 4 * channels, rows.kernel, columns.kernel)
    )


def _space_to_depth(graph: Graph, first: _FirstConvolution, height: int, width: int, channels: int) -> list[NodeProto]:
    """Return the operators that gather squares. Rows are split and joined, which takes ONNX Runtime a fifth of the
    time of a 5-D Transpose."""
    from onnx import helper

    names = {name for node in graph.nodes for name in (*node.input, *node.output)} | {
        tensor.name for tensor in graph.proto.graph.initializer
    }
    base = first.pixels
    pairs = graph.add_constant(
        unique(names, f"{base}/pairs_of_rows"), np.array([0, height, 2, width * 2 * channels], np.int64)
    )
    halves = graph.add_constant(unique(names, f"{base}/halves"), np.array([1, 1], np.int64))
    pixels = graph.add_constant(
        unique(names, f"{base}/deep_pixels"), np.array([0, height, width, 2 * channels], np.int64)
    )
    nodes: list[NodeProto] = []

    def node(kind: str, reads: list[str], count: int = 1, **attributes: Any) -> list[str]:
        outputs = [unique(names, f"{base}/deep") for _ in range(count)]
        nodes.append(helper.make_node(kind, reads, outputs, outputs[0], **attributes))
        return outputs

    source = base if first.transpose is not None else node("Transpose", [base], perm=_TO_NHWC)[0]
    rows = node("Split", [*node("Reshape", [source, pairs]), halves], 2, axis=2)
    joined = node("Concat", [node("Reshape", [row, pixels])[0] for row in rows], axis=3)
    node("Transpose", joined, perm=_TO_NCHW)
    return nodes
