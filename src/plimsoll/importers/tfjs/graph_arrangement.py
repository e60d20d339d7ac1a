"""TensorFlow's operators that move values without computing with them, in ONNX: shapes, joins, paddings, blocks.

Sources: TensorFlow.js 4.22, `tfjs-converter/src/operations/op_list` (slice_join, transformation, creation). Shapes that
a graph computes are followed as numbers, with -1 for the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plimsoll.importers.tfjs.graph_node import Convert, Node, Operand
from plimsoll.importers.tfjs.graph_slices import cut
from plimsoll.importers.tfjs.tensors import Array, Value


def _stored_sizes(value: Value) -> list[int]:
    return [-1 if size is None else size for size in value.shape]


def _pad(node: Node) -> Operand:
    pads = [(int(before), int(after)) for before, after in node.stored(1)]
    fill = float(node.stored(2)) if node.op == "PadV2" else 0.0
    mode = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}[node.text("mode")] if node.op == "MirrorPad" else "constant"
    if mode == "symmetric" or min(min(pair) for pair in pads) < 0:
        raise ValueError(f"it pads by {pads}, {mode}")
    return node.writer.pad(node.value(0), pads, node.name, mode, fill)


def _reshape(node: Node) -> Operand:
    shape = node.numbers(1)
    operand = node.inputs[0]
    if not isinstance(operand, Value):
        return operand.reshape(shape)
    if not operand.free:
        return node.writer.reshaped(operand, shape, node.name)
    if not shape:
        raise ValueError("it reshapes to a single number")
    return node.writer.reshaped(operand, (None, *shape[1:]), node.name)


def _squeeze(node: Node) -> Operand:
    operand = node.inputs[0]
    axes = [axis % len(operand.shape) for axis in node.integers("squeeze_dims") or node.integers("axis")] or [
        axis for axis, size in enumerate(operand.shape) if size == 1
    ]
    if any(operand.shape[axis] != 1 for axis in axes):
        raise ValueError(f"it drops the axes {axes} of {list(operand.shape)}")
    if not isinstance(operand, Value):
        return np.squeeze(operand, tuple(axes))
    return node.writer.reshaped(
        operand, [size for axis, size in enumerate(operand.shape) if axis not in axes], node.name
    )


def _expand(node: Node) -> Operand:
    (axis,) = node.numbers(1)
    value = node.inputs[0]
    if not isinstance(value, Value):
        return np.expand_dims(value, axis)
    axis %= len(value.shape) + 1
    if axis == 0 and value.free:
        raise ValueError("it puts an axis before the batch")
    return node.writer.reshaped(value, (*value.shape[:axis], 1, *value.shape[axis:]), node.name)


def _concat(node: Node) -> Operand:
    """ConcatV2 has its axis last, Concat first."""
    last = node.op == "ConcatV2"
    (axis,) = node.numbers(len(node.inputs) - 1 if last else 0)
    parts = node.inputs[:-1] if last else node.inputs[1:]
    stored = [part for part in parts if not isinstance(part, Value)]
    if len(stored) == len(parts):
        return np.concatenate(stored, axis)
    dtype = next(part.dtype for part in parts if isinstance(part, Value))
    values = [
        part if isinstance(part, Value) else node.writer.stored(part.astype(dtype), f"{node.name}/constant")
        for part in parts
        if isinstance(part, Value) or part.size
    ]
    if any(value.free for value in values) and (axis % len(values[0].shape) == 0 or stored):
        raise ValueError(f"it joins along the batch, or stored values with those of each picture (axis {axis})")
    return node.writer.joined(values, axis, node.name)


def _transpose(node: Node) -> Operand:
    operand = node.inputs[0]
    if not isinstance(operand, Value):
        return operand.transpose(node.numbers(1))
    return node.writer.transposed(operand, node.numbers(1), node.name)


def _shape(node: Node) -> Operand:
    operand = node.inputs[0]
    return np.array(_stored_sizes(operand) if isinstance(operand, Value) else operand.shape, np.int32)


def _size(node: Node) -> Operand:
    shape = node.inputs[0].shape
    if node.op == "Rank":
        return np.array(len(shape), np.int32)
    if None in shape:
        raise ValueError("it counts values whose number is not known before the network runs")
    return np.array(math.prod(size or 0 for size in shape), np.int32)


def _pack(node: Node) -> Operand:
    axis = int(node.number("axis", 0))
    if (arrays := node.arrays) is not None:
        return np.stack(arrays, axis)
    values = [node.computed(index) for index in range(len(node.inputs))]
    axis %= len(values[0].shape) + 1
    free = next((value for value in values if value.free), None)
    if free is not None and (axis == 0 or not all(value.free for value in values)):
        raise ValueError("it stacks along the batch, or stored values with those of each picture")
    parts = [
        node.writer.reshaped(value, (*value.shape[:axis], 1, *value.shape[axis:]), f"{node.name}/part{index}")
        for index, value in enumerate(values)
    ]
    return node.writer.joined(parts, axis, node.name)


def _tile(node: Node) -> Operand:
    operand, repeats = node.inputs[0], node.numbers(1)
    if not isinstance(operand, Value) and min(repeats, default=1) >= 0:
        return np.tile(operand, repeats)
    if not isinstance(operand, Value):
        return _spread(node, operand, [repeat * size for repeat, size in zip(repeats, operand.shape, strict=True)])
    if operand.free and repeats[0] != 1:
        raise ValueError("it repeats the batch")
    shape = tuple(None if size is None else size * repeat for size, repeat in zip(operand.shape, repeats, strict=True))
    return node.writer.write("Tile", [operand, np.array(repeats, np.int64)], shape, node.name)


def _broadcast(node: Node) -> Operand:
    operand, shape = node.inputs[0], node.numbers(1)
    if not isinstance(operand, Value):
        return np.broadcast_to(operand, shape) if -1 not in shape else _spread(node, operand, shape)
    target = np.array([1, *shape[1:]] if operand.free else shape, np.int64)
    sizes = tuple(operand.shape[:1] + tuple(shape[1:])) if operand.free else tuple(shape)
    return node.writer.write("Expand", [operand, target], sizes, node.name)


def _fill(node: Node) -> Operand:
    shape = node.numbers(0)
    return np.full(shape, node.stored(1)) if -1 not in shape else _spread(node, node.stored(1), shape)


def _spread(node: Node, values: Array, shape: Sequence[int]) -> Value:
    """Repeat stored values for each picture of the batch."""
    stored = node.writer.constant(f"{node.name}/constant", values)
    output = node.writer.graph.add("Expand", [stored, node.writer.sizes(shape, node.name)], node.name)
    return Value(output, (None, *shape[1:]), dtype=str(values.dtype))


def _range(node: Node) -> Operand:
    start, limit, delta = (float(node.stored(index)) for index in range(3))
    if limit < 0 < delta:
        raise ValueError("it counts the batch")
    return np.arange(start, limit, delta).astype(node.stored(0).dtype)


def _sparse(node: Node) -> Operand:
    """SparseToDense and ScatterNd of stored values."""
    arrays = node.arrays
    if arrays is None:
        raise ValueError("it scatters values that are computed while the network runs")
    indices, shape, values = (arrays[0], arrays[1], arrays[2]) if node.op == "SparseToDense" else (
        arrays[0], arrays[2], arrays[1]
    )  # fmt: skip
    fill = arrays[3] if node.op == "SparseToDense" else np.zeros((), values.dtype)
    dense = np.full([int(size) for size in shape], fill, values.dtype)
    places = indices.reshape(-1, dense.ndim) if node.op == "SparseToDense" else indices
    np.add.at(dense, tuple(np.moveaxis(places, -1, 0)), values - fill)
    return dense


def _depth_to_space(node: Node) -> Operand:
    """As ONNX's mode DCR, of channels-first pictures."""
    value, block = node.value(0), int(node.number("block_size", 0))
    if len(value.shape) != 4 or node.text("data_format", "NHWC") != "NHWC" or block < 1:
        raise ValueError(f"blocks of {block}, {node.text('data_format', 'NHWC')}")
    batch, height, width, channels = value.shape
    sides = [None if size is None else size * block for size in (height, width)]
    depth = (channels or 0) // block**2
    output = node.writer.graph.add(
        node.op, [node.writer.arranged(value, "first")], node.name, blocksize=block, mode="DCR"
    )
    return Value(output, (batch, *sides, depth), "first", value.dtype)


def _space_to_batch(node: Node) -> Operand:
    """Cut pictures into interleaved ones, a batch of their own: how TensorFlow dilates convolutions."""
    block, pads = node.numbers(1), [(int(before), int(after)) for before, after in node.stored(2)]
    value, name = node.writer.pad(node.value(0), [(0, 0), *pads, (0, 0)], f"{node.name}/padded"), node.name
    batch, height, width, channels = _picture(value)
    (down, across), writer = block, node.writer
    rows, columns = height // down, width // across
    apart = _raw_reshape(node, value, [0, rows, down, columns, across, channels], "apart")
    turned = writer.graph.add("Transpose", [apart], f"{name}/turned", perm=[2, 4, 0, 1, 3, 5])
    target = writer.constant(f"{name}/sizes", np.array([-1, rows, columns, channels], np.int64))
    output = writer.graph.add("Reshape", [turned, target], name)
    return Value(output, (None if batch is None else batch * down * across, rows, columns, channels))


def _batch_to_space(node: Node) -> Operand:
    """Put interleaved pictures together again."""
    block, crops = node.numbers(1), [(int(before), int(after)) for before, after in node.stored(2)]
    value, name, writer = node.value(0), node.name, node.writer
    batch, height, width, channels = _picture(value)
    down, across = block
    apart = _raw_reshape(node, value, [down, across, -1, height, width, channels], "apart")
    turned = writer.graph.add("Transpose", [apart], f"{name}/turned", perm=[2, 3, 0, 4, 1, 5])
    target = writer.constant(f"{name}/sizes", np.array([-1, height * down, width * across, channels], np.int64))
    output = writer.graph.add("Reshape", [turned, target], f"{name}/whole")
    shape = (None if batch is None else batch // (down * across), height * down, width * across, channels)
    items = [slice(before, size - after) for (before, after), size in zip(crops, shape[1:3], strict=True)]
    return cut(node, Value(output, shape), [slice(None), *items, slice(None)])


def _picture(value: Value) -> tuple[int | None, int, int, int]:
    if len(value.shape) != 4 or None in value.shape[1:]:
        raise ValueError(f"it cuts {list(value.shape)}, expected pictures of known sizes")
    height, width, channels = (size or 0 for size in value.shape[1:])
    return value.shape[0], height, width, channels


def _raw_reshape(node: Node, value: Value, shape: list[int], what: str) -> str:
    target = node.writer.constant(f"{node.name}/{what}_sizes", np.array(shape, np.int64))
    return node.writer.graph.add("Reshape", [node.writer.arranged(value, "last"), target], f"{node.name}/{what}")


def _same(node: Node) -> Operand:
    return node.inputs[0]


def _all_the_same(node: Node) -> list[Operand]:
    return list(node.inputs)


ARRANGEMENT: dict[str, Convert] = {
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _pad),
    **dict.fromkeys(("Identity", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "CheckNumerics"), _same),
    **dict.fromkeys(("Concat", "ConcatV2"), _concat),
    **dict.fromkeys(("SparseToDense", "ScatterNd"), _sparse),
    **dict.fromkeys(("Size", "Rank"), _size),
    "IdentityN": _all_the_same,
    "BatchToSpaceND": _batch_to_space,
    "BroadcastTo": _broadcast,
    "DepthToSpace": _depth_to_space,
    "ExpandDims": _expand,
    "Fill": _fill,
    "Pack": _pack,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "SpaceToBatchND": _space_to_batch,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
}
"""How each kind of node is written in ONNX."""
