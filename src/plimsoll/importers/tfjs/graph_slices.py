"""TensorFlow's operators that take a part of a tensor, in ONNX: slices, splits, lookups by index.

Sources: TensorFlow.js 4.22, `tfjs-converter/src/operations/op_list/slice_join.ts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import EllipsisType

import numpy as np

from plimsoll.importers.tfjs.graph_node import Convert, Node, Operand
from plimsoll.importers.tfjs.tensors import Value

_BACK_TO_THE_BEGIN = -(2**31)


def _axis(node: Node, value: Value, axis: int) -> int:
    """Return an axis counted from the first; raises ValueError for the batch's, where it is free."""
    axis %= len(value.shape)
    if axis == 0 and value.free:
        raise ValueError(f"{node.op} along the batch")
    return axis


def _strided_slice(node: Node) -> Operand:
    operand = node.inputs[0]
    if isinstance(node.inputs[1], Value) or isinstance(node.inputs[2], Value):
        return _computed_slice(node)
    items = _items(node)
    if not isinstance(operand, Value):
        return np.asarray(operand[tuple(items)])
    rest = [slice(None)] * (len(operand.shape) - sum(isinstance(item, (slice, int)) for item in items))
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    plain = [item for item in items if not isinstance(item, EllipsisType)]
    return cut(node, operand, [*plain[:at], *rest, *plain[at:]])


def _items(node: Node) -> list[slice | int | EllipsisType | None]:
    """Return what NumPy would be indexed with."""
    begins, ends, steps = (node.numbers(index) for index in (1, 2, 3))
    masks = {name: node.mask(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    items: list[slice | int | EllipsisType | None] = []
    for index, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        given = {name for name, mask in masks.items() if mask >> index & 1}
        if "ellipsis" in given:
            items.append(Ellipsis)
        elif "new_axis" in given:
            items.append(None)
        elif "shrink_axis" in given:
            items.append(begin)
        else:
            items.append(slice(None if "begin" in given else begin, None if "end" in given else end, step))
    return items


def cut(node: Node, value: Value, items: Sequence[slice | int | None]) -> Value:
    """Slice a value: an item for each axis, and None for new ones."""
    bounds: list[tuple[int, int, int, int]] = []
    sizes: list[int | None] = []
    shape: list[int | None] = []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        have = value.shape[axis]
        part = item if isinstance(item, slice) else slice(item, item + 1 or None)
        whole = part.start in (None, 0) and part.stop in (None, -1 if axis == 0 and value.free else None)
        if have is None and not (whole and part.step in (None, 1) and not isinstance(item, int)):
            raise ValueError(f"it slices axis {axis} of {list(value.shape)}, whose size is not known")
        if have is not None:
            start, stop, step = part.indices(have)
            size: int | None = len(range(start, stop, step))
            if (start, size, step) != (0, have, 1):
                bounds.append((axis, start, _BACK_TO_THE_BEGIN if stop < 0 else stop, step))
        else:
            size = None
        sizes.append(size)
        if not isinstance(item, int):
            shape.append(size)
        axis += 1
    cut = _sliced(node, value, bounds, sizes) if bounds else value
    return cut if shape == sizes else node.writer.reshaped(cut, shape, f"{node.name}/shaped")


def _sliced(
    node: Node, value: Value, bounds: Sequence[tuple[int, int, int, int]], sizes: Sequence[int | None]
) -> Value:
    axes, starts, ends, steps = zip(*bounds, strict=True)
    positions = [(0, 2, 3, 1)[axis] if value.order == "first" else axis for axis in axes]
    numbers = {"starts": starts, "ends": ends, "axes": positions, "steps": steps}
    stored = [
        node.writer.constant(f"{node.name}/{what}", np.array(values, np.int64)) for what, values in numbers.items()
    ]
    return replace(value, name=node.writer.graph.add("Slice", [value.name, *stored], node.name), shape=tuple(sizes))


def _computed_slice(node: Node) -> Operand:
    """Take the item at a computed index along the first axis."""
    value, begin = node.computed(0), node.computed(1)
    if node.mask("shrink_axis_mask") != 1 or begin.shape != (1,) or value.free:
        raise ValueError("its bounds are computed while the network runs, and it takes more than one item")
    index = node.writer.cast(node.writer.reshaped(begin, (), f"{node.name}/index"), "int64", f"{node.name}/whole")
    return node.writer.write("Gather", [value, index], value.shape[1:], node.name, axis=0)


def _slice(node: Node) -> Operand:
    operand, begins, sizes = node.inputs[0], node.numbers(1), node.numbers(2)
    items = [slice(begin, None if size == -1 else begin + size) for begin, size in zip(begins, sizes, strict=True)]
    return cut(node, operand, items) if isinstance(operand, Value) else np.asarray(operand[tuple(items)])


def _split(node: Node) -> list[Operand]:
    """Split has its axis first, SplitV its sizes and its axis behind the value."""
    operand = node.inputs[1 if node.op == "Split" else 0]
    (axis,) = node.numbers(0 if node.op == "Split" else 2)
    total = operand.shape[axis]
    if total is None:
        raise ValueError(f"it splits axis {axis} of {list(operand.shape)}")
    count = int(node.number("num_split", 1))
    sizes = [total // count] * count if node.op == "Split" else node.numbers(1)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = total - sum(sizes) - 1
    if sum(sizes) != total or min(sizes) < 1:
        raise ValueError(f"it splits {total} into {sizes}")
    if not isinstance(operand, Value):
        return list(np.split(operand, np.cumsum(sizes)[:-1], axis))
    return list(node.writer.parts(operand, sizes, axis, node.name))


def _unpack(node: Node) -> list[Operand]:
    operand, axis = node.inputs[0], int(node.number("axis", 0))
    if not isinstance(operand, Value):
        return [np.asarray(part) for part in np.moveaxis(operand, axis, 0)]
    axis = _axis(node, operand, axis)
    shape = (*operand.shape[:axis], *operand.shape[axis + 1 :])
    count = operand.shape[axis]
    if count is None:
        raise ValueError(f"it takes apart axis {axis} of {list(operand.shape)}")
    parts = node.writer.parts(operand, [1] * count, axis, f"{node.name}/part")
    return [
        node.writer.reshaped(part, shape, f"{node.name}:{index}" if index else node.name)
        for index, part in enumerate(parts)
    ]


def _gather(node: Node) -> Operand:
    source, indices = node.inputs[0], node.inputs[1]
    axis = node.numbers(2)[0] if len(node.inputs) > 2 else 0
    if node.mask("batch_dims"):
        raise ValueError("it looks up along batch_dims")
    if not isinstance(source, Value) and not isinstance(indices, Value):
        return np.take(source, indices.astype(np.int64), axis)
    axis = _axis(node, source, axis) if isinstance(source, Value) else axis % len(source.shape)
    if isinstance(indices, Value) and indices.free and (axis or isinstance(source, Value)):
        raise ValueError("it looks up another place for each picture of the batch")
    shape = (*source.shape[:axis], *indices.shape, *source.shape[axis + 1 :])
    index = (
        node.writer.cast(indices, "int64", f"{node.name}/index")
        if isinstance(indices, Value)
        else indices.astype(np.int64)
    )
    dtype = source.dtype if isinstance(source, Value) else str(source.dtype)
    return node.writer.write("Gather", [source, index], shape, node.name, dtype, axis=axis)


def _gather_nd(node: Node) -> Operand:
    source, indices = node.computed(0), node.computed(1)
    depth = indices.shape[-1]
    if source.free or depth is None:
        raise ValueError("it looks up along a batch of any size")
    index = node.writer.cast(indices, "int64", f"{node.name}/index")
    return node.writer.write(
        "GatherND", [source, index], (*indices.shape[:-1], *source.shape[depth:]), node.name, source.dtype
    )


def _reverse(node: Node) -> Operand:
    operand, axes = node.inputs[0], node.numbers(1)
    if not isinstance(operand, Value):
        return np.flip(operand, tuple(axes))
    gone = {_axis(node, operand, axis) for axis in axes}
    backwards = [slice(None, None, -1 if axis in gone else 1) for axis in range(len(operand.shape))]
    return cut(node, operand, backwards)


SLICES: dict[str, Convert] = {
    **dict.fromkeys(("Split", "SplitV"), _split),
    **dict.fromkeys(("Gather", "GatherV2"), _gather),
    "GatherNd": _gather_nd,
    "ReverseV2": _reverse,
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "Unpack": _unpack,
}
"""How each kind of node is written in ONNX."""

__all__ = ["SLICES", "cut"]
