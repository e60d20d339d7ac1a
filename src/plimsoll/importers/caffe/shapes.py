"""Caffe's layers that join, cut or reshape blobs, and the fully connected one.

Sources: Caffe's `inner_product_layer.cpp`, `concat_layer.cpp`, `slice_layer.cpp`, `crop_layer.cpp`,
`reshape_layer.cpp`, `flatten_layer.cpp`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from plimsoll.importers.caffe.layer import ANY, Layer, Value


def inner_product(layer: Layer) -> list[Value]:
    """A matrix product with everything but the batch, plus a bias."""
    params = layer.params("inner_product_param")
    outputs, value = params.integer("num_output"), layer.bottom
    if outputs < 1 or layer.axis(params.integer("axis"), len(value.shape)) != 1:
        layer.fail("unsupported axis (expected all but the batch), or missing num_output")
    size = math.prod(value.shape[1:])
    transposed = params.flag("transpose")
    weights = layer.constant("weights", layer.weights(0, (size, outputs) if transposed else (outputs, size)))
    name = value.name if len(value.shape) == 2 else layer.emit("Flatten", [value.name], layer.inner("flat"), axis=1)
    biases = [layer.constant("bias", layer.weights(1, (outputs,)))] if params.flag("bias_term") else []
    return [layer.value(layer.emit("Gemm", [name, weights, *biases], transB=int(not transposed)), (ANY, outputs))]


def softmax(layer: Layer) -> list[Value]:
    """Softmax over one axis, the channels where none is named."""
    value = layer.bottom
    axis = layer.axis(layer.params("softmax_param").integer("axis"), len(value.shape))
    return [layer.value(layer.emit("Softmax", [value.name], axis=axis), value.shape)]


def concat(layer: Layer) -> list[Value]:
    """Join blobs along one axis."""
    params = layer.params("concat_param")
    first = layer.bottoms[0]
    axis = layer.axis(params.integer("axis", params.integer("concat_dim")), len(first.shape))
    rests = {(*value.shape[:axis], 0, *value.shape[axis + 1 :]) for value in layer.bottoms}
    if len(rests) != 1:
        layer.fail(
            f"it concatenates blobs of the shapes {[list(value.shape) for value in layer.bottoms]} along axis {axis}"
        )
    shape = (*first.shape[:axis], sum(value.shape[axis] for value in layer.bottoms), *first.shape[axis + 1 :])
    return [layer.value(layer.emit("Concat", [value.name for value in layer.bottoms], axis=axis), shape)]


def slices(layer: Layer) -> list[Value]:
    """Cut a blob into several along one axis, at given places or evenly."""
    params = layer.params("slice_param")
    value, count = layer.bottom, len(layer.tops)
    axis = layer.axis(params.integer("axis", params.integer("slice_dim")), len(value.shape))
    size = value.shape[axis]
    points = params.integers("slice_point") or [size * index // count for index in range(1, count)]
    edges = [0, *points, size]
    sizes = [end - start for start, end in itertools.pairwise(edges)]
    if len(sizes) != count or min(sizes) < 1 or (not params.has("slice_point") and size % count):
        layer.fail(f"it cuts {size} into {sizes} for {count} blobs")
    if count == 1:
        return [value]
    names = layer.graph.add_many(
        "Split", [value.name, layer.constant("sizes", np.array(sizes, np.int64))], layer.tops, axis=axis
    )
    return [
        layer.value(name, (*value.shape[:axis], part, *value.shape[axis + 1 :]))
        for name, part in zip(names, sizes, strict=True)
    ]


def crop(layer: Layer) -> list[Value]:
    """Cut the first blob to the sizes of the second, from `axis` on."""
    if len(layer.bottoms) != 2:
        layer.fail(f"it reads {len(layer.bottoms)} blobs, expected two")
    params = layer.params("crop_param")
    value, target = layer.bottoms
    axis = layer.axis(params.integer("axis"), len(value.shape))
    count = len(value.shape) - axis
    offsets = params.integers("offset") or [0]
    offsets = offsets * count if len(offsets) == 1 else offsets
    sizes = target.shape[axis:]
    if len(target.shape) != len(value.shape) or len(offsets) != count:
        layer.fail(f"it cuts {list(value.shape)} to {list(target.shape)} with {len(offsets)} offsets")
    ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
    if min(offsets) < 0 or any(end > have for end, have in zip(ends, value.shape[axis:], strict=True)):
        layer.fail(f"it cuts {list(sizes)} at {offsets} out of {list(value.shape[axis:])}")
    bounds = [
        layer.constant(what, np.array(numbers, np.int64))
        for what, numbers in (("starts", offsets), ("ends", ends), ("axes", range(axis, axis + count)))
    ]
    return [layer.value(layer.emit("Slice", [value.name, *bounds]), (*value.shape[:axis], *sizes))]


def flatten(layer: Layer) -> list[Value]:
    """Make one axis of those from `axis` to `end_axis`."""
    params = layer.params("flatten_param")
    value = layer.bottom
    rank = len(value.shape)
    start, end = layer.axis(params.integer("axis"), rank), layer.axis(params.integer("end_axis"), rank)
    if end < start:
        layer.fail(f"it flattens the axes {start} to {end}")
    shape = (*value.shape[:start], math.prod(value.shape[start : end + 1]), *value.shape[end + 1 :])
    if start == 1 and end == rank - 1:
        return [layer.value(layer.emit("Flatten", [value.name], axis=1), shape)]
    return [_reshaped(layer, value, shape)]


def reshape(layer: Layer) -> list[Value]:
    """Give a blob another shape: 0 keeps a size, -1 is what is left over. The batch stays as it is."""
    params = layer.params("reshape_param")
    if params.integer("axis") != 0 or params.integer("num_axes") != -1:
        layer.fail("unsupported axis or num_axes; give the whole shape")
    value = layer.bottom
    target = params.message("shape").integers("dim")
    size = math.prod(value.shape[1:])
    sizes = [
        value.shape[axis] if given == 0 and axis < len(value.shape) else given for axis, given in enumerate(target)
    ][1:]
    known = math.prod(size for size in sizes if size != ANY)
    if sizes.count(ANY) == 1 and known > 0 and size % known == 0:
        sizes[sizes.index(ANY)] = size // known
    if not target or math.prod(sizes) != size or min(sizes, default=1) < 1:
        layer.fail(
            f"it reshapes {['N', *value.shape[1:]]} to {target}, which changes the batch or the number of values"
        )
    return [_reshaped(layer, value, (ANY, *sizes))]


def permute(layer: Layer) -> list[Value]:
    """Put the axes into another order, as SSD's fork of Caffe does; the batch stays first."""
    value = layer.bottom
    order = layer.params("permute_param").integers("order")
    order = [*order, *(axis for axis in range(len(value.shape)) if axis not in order)]
    if order[0] != 0 or sorted(order) != list(range(len(value.shape))):
        layer.fail(f"it orders the axes as {order}")
    return [layer.value(layer.emit("Transpose", [value.name], perm=order), tuple(value.shape[axis] for axis in order))]


def _reshaped(layer: Layer, value: Value, shape: tuple[int, ...]) -> Value:
    sizes = layer.constant(
        "shape", np.array([0, *shape[1:]], np.int64)
    )  # ONNX too: 0 keeps the size, here the batch's.
    return layer.value(layer.emit("Reshape", [value.name, sizes]), shape)
