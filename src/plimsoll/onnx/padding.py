"""Padding as numbers: `auto_pad`, and a transposed convolution's `output_shape`, which runtimes read differently; and
padding by minus infinity, which a maximum does by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from plimsoll.core.fit import Shape
from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph, attribute, set_attributes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_POOLS = ("MaxPool", "AveragePool", "LpPool")
_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Operators that have weights, and which input holds them."""
_SAME = (b"SAME_UPPER", b"SAME_LOWER")


def has_automatic_padding(node: NodeProto) -> bool:
    """Tell whether an operator leaves its padding to be computed."""
    return (
        (node.op_type in _POOLS or node.op_type in _WEIGHTS)
        and node.domain in load.DEFAULT_DOMAINS
        and any(
            entry.name == "output_shape" or (entry.name == "auto_pad" and entry.s != b"NOTSET")
            for entry in node.attribute
        )
    )


def resolve(proto: ModelProto) -> None:
    """Write the padding of the main graph's operators as numbers, wherever it follows from sizes that are known."""
    shapes: dict[str, Shape | None] = {
        value.name: load.shape_of(value) for value in (*proto.graph.input, *proto.graph.value_info)
    } | {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if has_automatic_padding(node):
            _resolve(node, shapes)


def _resolve(node: NodeProto, shapes: Mapping[str, Shape | None]) -> None:
    kernel = _kernel(node, shapes)
    if kernel is None:
        return
    mode = attribute(node, "auto_pad", b"NOTSET")
    if mode == b"VALID":
        _set(node, [0] * (2 * len(kernel)))
        return
    shape = shapes.get(node.input[0])
    sizes = shape[2:] if shape is not None else (None,) * len(kernel)
    if len(sizes) != len(kernel):
        return
    if node.op_type == "ConvTranspose":
        _resolve_transposed(node, kernel, sizes)
        return
    totals = [
        _total(size, stride, dilation * (length - 1) + 1)
        for size, stride, dilation, length in zip(sizes, *_steps(node, len(kernel)), kernel, strict=True)
    ]
    known = [total for total in totals if total is not None]
    if len(known) == len(totals):
        _set(node, _split(known, upper=mode == b"SAME_UPPER"))


def _kernel(node: NodeProto, shapes: Mapping[str, Shape | None]) -> tuple[int, ...] | None:
    stated = attribute(node, "kernel_shape")
    if stated:
        return tuple(stated)
    index = _WEIGHTS.get(node.op_type)
    shape = shapes.get(node.input[index]) if index is not None else None
    if shape is None:
        return None
    sizes = tuple(size for size in shape[2:] if isinstance(size, int))
    return sizes if len(sizes) == len(shape) - 2 else None


def _steps(node: NodeProto, axes: int) -> tuple[list[int], list[int]]:
    return list(attribute(node, "strides", [1] * axes)), list(attribute(node, "dilations", [1] * axes))


def _total(size: int | str | None, stride: int, reach: int) -> int | None:
    """Return the padding of an axis, both ends together; None where it depends on a size that is free.

    With it there are as many results as strides fit into the input, the last one cut off or not.
    """
    if stride == 1:
        return reach - 1
    if not isinstance(size, int):
        return None
    return max((-(-size // stride) - 1) * stride + reach - size, 0)


def _split(totals: list[int], *, upper: bool) -> list[int]:
    """Return the padding at all starts, then at all ends; what is odd goes to the end with SAME_UPPER."""
    starts = [total // 2 if upper else total - total // 2 for total in totals]
    return [*starts, *(total - start for total, start in zip(totals, starts, strict=True))]


def _set(node: NodeProto, pads: list[int], **further: list[int]) -> None:
    others = [entry for entry in node.attribute if entry.name not in ("auto_pad", "output_shape", "ceil_mode")]
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in others]
    del node.attribute[:]
    node.attribute.extend(copies)
    set_attributes(node, pads=pads, **further)


def _resolve_transposed(node: NodeProto, kernel: tuple[int, ...], sizes: Shape) -> None:
    """Write a transposed convolution's padding as ONNX Runtime computes it: with an output shape, what is too much is
    cut off, more of it at the start but with SAME_UPPER; what is missing is zeros at the end."""
    strides, dilations = _steps(node, len(kernel))
    further = list(attribute(node, "output_padding", [0] * len(kernel)))
    mode = attribute(node, "auto_pad", b"NOTSET")
    shape = attribute(node, "output_shape")
    reaches = [dilation * (length - 1) + 1 for dilation, length in zip(dilations, kernel, strict=True)]
    if shape is None:
        # The output has `stride` values for each value of the input.
        totals = [reach + more - stride for reach, more, stride in zip(reaches, further, strides, strict=True)]
    else:
        if not all(isinstance(size, int) for size in sizes):
            return
        known = [size for size in sizes if isinstance(size, int)]
        totals = [
            (size - 1) * stride + more + reach - result
            for size, stride, more, reach, result in zip(
                known, strides, further, reaches, list(shape)[-len(kernel) :], strict=True
            )
        ]
    longer = [more + max(-total, 0) for more, total in zip(further, totals, strict=True)]
    if any(more >= max(pair) for more, *pair in zip(longer, strides, dilations, strict=True) if more):
        return
    pads = _split([max(total, 0) for total in totals], upper=mode == b"SAME_UPPER")
    _set(node, pads, output_padding=longer)


def infinite_pads(proto: ModelProto) -> dict[str, tuple[str, list[int]]]:
    """Return the MaxPools of the main graph that follow a Pad by minus infinity, as TensorFlow writes them: of each by
    its output what the Pad reads, and the `pads` with which the MaxPool answers the same without it."""
    if not {"Pad", "MaxPool"} <= {node.op_type for node in proto.graph.node}:
        return {}
    graph = Graph(proto)
    pools = [node for node in graph.nodes if graph.kind(node) == "MaxPool"]
    return {str(pool.output[0]): joined for pool in pools if (joined := _joined(graph, pool)) is not None}


def join_infinite_pads(proto: ModelProto) -> None:
    """Let MaxPools pad by themselves, in place."""
    joined = infinite_pads(proto)
    for node in proto.graph.node:
        if node.op_type == "MaxPool" and node.output[0] in joined:
            node.input[0], pads = joined[node.output[0]]
            _set(node, pads)


def _joined(graph: Graph, pool: NodeProto) -> tuple[str, list[int]] | None:
    kernel = list(attribute(pool, "kernel_shape", ()))
    own = list(attribute(pool, "pads", [0] * 2 * len(kernel)))
    if has_automatic_padding(pool) or attribute(pool, "ceil_mode", 0) or any(pool.output[1:]):
        return None  # Where the largest values lie, too, is counted with the padding.
    pad = _before_transposes(graph, str(pool.input[0]))
    if pad is None or graph.kind(pad) != "Pad" or len(pad.input) != 3 or not _is_least(graph, pad.input[2]):
        return None
    amounts = graph.value(pad.input[1])
    if amounts is None or amounts.size != 2 * (len(kernel) + 2):
        return None
    starts, ends = amounts.reshape(2, -1).tolist()
    pads = [pair[0] + pair[1] for pair in zip((*starts[2:], *ends[2:]), own, strict=True)]
    # A maximum of padding alone is no number; runtimes refuse it.
    fits = all(0 <= amount < size for amount, size in zip(pads, kernel * 2, strict=True))
    return (str(pad.input[0]), pads) if fits and not any((*starts[:2], *ends[:2])) else None


def _before_transposes(graph: Graph, name: str) -> NodeProto | None:
    """Return what makes a value, or, where two Transposes that undo each other make it, what makes theirs."""
    last = graph.maker.get(name)
    first = graph.maker.get(last.input[0]) if last is not None and graph.kind(last) == "Transpose" else None
    if last is None or first is None or graph.kind(first) != "Transpose":
        return last
    order, before = attribute(last, "perm", ()), attribute(first, "perm", ())
    undone = bool(order) and [before[axis] for axis in order] == sorted(order)
    return graph.maker.get(first.input[0]) if undone else last


def _is_least(graph: Graph, name: str) -> bool:
    value = graph.value(name)
    return value is not None and value.dtype.kind == "f" and bool(np.all(value <= np.finfo(value.dtype).min))
