"""Let the first convolution of a folded network read the picture's bytes as they are: no cast, no subtraction, no
rounding of pixels.

A folded network begins with uint8 pixels, their cast to float32 and the subtraction of a mean. Pixels are whole numbers
from 0 to 255, so as uint8 with scale 1 and zero point 0 they are exact already. The mean moves into the convolution's
bias, `b - Σ W × mean`, with the weights as quantized, which makes it exact too. What stands in the way is the padding,
zeros *after* the subtraction: so the picture is padded before it, with the mean. A mean that is no whole number is
rounded for that, which puts the border off by half a level at most; a quantized input is off by as much everywhere.

Bytes differ from channel to channel along the border, which ONNX's Pad can't do. So zeros are padded, and a constant
that is the mean along the border and zero inside is laid over them by Max: of all ways in ONNX by far the fastest in
ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph, attribute, set_attributes, unique
from plimsoll.quantize.placement import Placement, node_key

if TYPE_CHECKING:
    from onnx import NodeProto

_TO_NCHW = [0, 3, 1, 2]
_UINT8, _FLOAT = 2, 1

Floats = NDArray[np.float64]
Pads = tuple[int, int, int, int]
"""Top, left, bottom, right."""


@dataclass(frozen=True)
class PixelInput:
    """A picture whose bytes are the quantized values."""

    pixels: str
    """The uint8 tensor [N, H, W, C]."""
    real: str
    """The name of its dequantized float32 form in the graph; no node makes it yet."""
    convolution: str
    """The `node_key` of the convolution that reads it."""
    mean: Floats
    """[C], subtracted by way of the bias."""


@dataclass(frozen=True)
class _InputPath:
    """A folded picture's path into its convolution."""

    source: str
    """The uint8 input [N, H, W, C]."""
    size: tuple[int, int] | None
    """Height and width, where the network fixes them."""
    between: list[NodeProto]
    """A Cast, a Transpose to planes and mostly a Sub, in any order."""
    mean: Floats
    convolution: NodeProto


def fold_normalization(graph: Graph, placement: Placement) -> PixelInput | None:
    """Fold a folded picture's normalization into the quantized convolution that reads it, rewriting graph and placement
    in place; None where no convolution fits.

    The graph is incomplete until `static` has inserted the result's DequantizeLinear and bias.
    """
    path = _match(graph, placement)
    pads = None if path is None else _pads(graph, path)
    if (
        path is None
        or pads is None
        or (any(pads) and (path.size is None or np.abs(_bytes(path.mean) - path.mean).max() > 0.5))
    ):
        return None
    names = {name for node in graph.nodes for name in (*node.input, *node.output)} | {
        tensor.name for tensor in graph.proto.graph.initializer
    }
    padding = _pad_with_mean(graph, path, pads, names) if any(pads) else []
    real, planes = unique(names, f"{path.source}/real"), unique(names, f"{path.source}/planes")
    before = path.convolution.input[0]
    path.convolution.input[0] = planes
    set_attributes(path.convolution, pads=[0, 0, 0, 0], auto_pad="NOTSET")
    pixels = str(padding[-1].output[0]) if padding else path.source
    graph.replace_nodes(
        [
            *padding,
            _node("Transpose", [real], planes, perm=_TO_NCHW),
            *(node for node in graph.nodes if node not in path.between),
        ]
    )
    for name in (before, *(name for node in path.between for name in node.output)):
        placement.roots.pop(name, None)
    placement.roots[real] = real
    return PixelInput(pixels, real, node_key(path.convolution), path.mean)


def _match(graph: Graph, placement: Placement) -> _InputPath | None:
    """Return the path from a uint8 input through nothing but a Cast, a Transpose to planes and a Sub to a quantized
    convolution."""
    picture = next((value for value in graph.proto.graph.input if value.type.tensor_type.elem_type == _UINT8), None)
    if picture is None:
        return None
    name = str(picture.name)
    between: list[NodeProto] = []
    means: list[Floats | None] = []
    planes = cast = False
    while (reader := graph.sole_reader(name)) is not None and reader.input[0] == name:
        kind = graph.kind(reader)
        if kind == "Transpose" and attribute(reader, "perm") == _TO_NCHW and not planes:
            planes = True
        elif kind == "Sub" and cast and not means and graph.is_float_constant(reader.input[1]):
            means.append(_per_channel(graph.constant(reader.input[1]), 1 if planes else 3))
        elif kind == "Cast" and attribute(reader, "to") == _FLOAT:
            cast = True
        else:
            break
        between.append(reader)
        name = str(reader.output[0])
    if (
        reader is None
        or not planes
        or not cast
        or not _fits(graph, reader, name)
        or node_key(reader) not in placement.nodes
    ):
        return None
    channels = graph.dims(reader.input[1])[1]
    mean = means[0] if means else np.zeros(1)
    if mean is None or mean.size not in (1, channels):
        return None
    shape = load.shape_of(picture) or ()
    height, width = shape[1:3] if len(shape) == 4 else (None, None)
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return _InputPath(str(picture.name), size, between, np.broadcast_to(mean, (channels,)).astype(np.float64), reader)


def _fits(graph: Graph, node: NodeProto, picture: str) -> bool:
    """Tell whether a node is an ordinary convolution over a picture."""
    return (
        graph.kind(node) == "Conv"
        and node.input[0] == picture
        and attribute(node, "group", 1) == 1
        and graph.rank(node.input[1]) == 4
    )


def _per_channel(values: NDArray[np.float32], axis: int) -> Floats | None:
    """Return a constant as one value for each channel; None where it differs along another axis."""
    shape = (1,) * (4 - values.ndim) + values.shape
    others = [size for index, size in enumerate(shape) if index != axis]
    return values.astype(np.float64).ravel() if len(shape) == 4 and set(others) == {1} else None


def _pads(graph: Graph, path: _InputPath) -> Pads | None:
    """Return what the convolution pads, SAME resolved as ONNX has it; None where that needs a size that isn't known."""
    node = path.convolution
    auto = attribute(node, "auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        if path.size is None:
            return None
        steps = zip(
            path.size,
            graph.dims(node.input[1])[2:],
            attribute(node, "strides", (1, 1)),
            attribute(node, "dilations", (1, 1)),
            strict=True,
        )
        totals = [
            max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            for size, kernel, stride, dilation in steps
        ]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        before, after = (less, more) if auto == b"SAME_UPPER" else (more, less)
        return (before[0], before[1], after[0], after[1])
    top, left, bottom, right = attribute(node, "pads", (0, 0, 0, 0)) if auto == b"NOTSET" else (0, 0, 0, 0)
    return (top, left, bottom, right) if min(top, left, bottom, right) >= 0 else None


def _bytes(mean: Floats) -> Floats:
    return np.clip(np.rint(mean), 0, 255)


def _pad_with_mean(graph: Graph, path: _InputPath, pads: Pads, names: set[str]) -> list[NodeProto]:
    """Return the operators that pad the picture with its mean."""
    assert path.size is not None  # noqa: S101 - the caller's condition
    (height, width), (top, left, bottom, right) = path.size, pads
    border = np.broadcast_to(
        _bytes(path.mean).astype(np.uint8), (1, top + height + bottom, left + width + right, len(path.mean))
    ).copy()
    border[:, top : top + height, left : left + width] = 0
    amounts = graph.add_constant(
        unique(names, f"{path.source}/pads"), np.array([0, top, left, 0, 0, bottom, right, 0], np.int64)
    )
    over = graph.add_constant(unique(names, f"{path.source}/border"), border)
    padded = unique(names, f"{path.source}/padded")
    return [
        _node("Pad", [path.source, amounts], padded),
        _node("Max", [padded, over], unique(names, f"{path.source}/framed")),
    ]


def _node(kind: str, reads: list[str], output: str, **attributes: object) -> NodeProto:
    from onnx import helper

    return helper.make_node(kind, reads, [output], output, **attributes)
