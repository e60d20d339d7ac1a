"""Caffe's layers without a window: those that treat each value or channel by itself, those that join, cut or reshape
blobs, and the fully connected layer.

Sources: the file of each layer in Caffe's `src/caffe/layers`, such as `batch_norm_layer.cpp` and `crop_layer.cpp`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from plimsoll.importers.caffe.layer import ANY, Layer, Value

Array = NDArray[np.float32]


def simple(operator: str) -> Callable[[Layer], list[Value]]:
    """Return the conversion of a layer that is one operator of ONNX without settings."""

    def convert(layer: Layer) -> list[Value]:
        return [layer.value(layer.emit(operator, [layer.bottom.name]), layer.bottom.shape)]

    return convert


def same(layer: Layer) -> list[Value]:
    """Give the bottom to every top: Split, and Dropout once a network is trained."""
    layer.settings.ignore("dropout_param")
    return [layer.bottom] * len(layer.tops)


def relu(layer: Layer) -> list[Value]:
    """max(x, 0), with a slope below zero where one is given."""
    slope = layer.params("relu_param").number("negative_slope")
    operator, alpha = ("LeakyRelu", slope) if slope else ("Relu", None)
    return [layer.value(layer.emit(operator, [layer.bottom.name], alpha=alpha), layer.bottom.shape)]


def relu6(layer: Layer) -> list[Value]:
    """min(max(x, 0), 6), of Caffe's forks."""
    limits = [layer.constant(what, np.array(limit, np.float32)) for what, limit in (("low", 0), ("high", 6))]
    return [layer.value(layer.emit("Clip", [layer.bottom.name, *limits]), layer.bottom.shape)]


def elu(layer: Layer) -> list[Value]:
    """The exponential linear unit."""
    alpha = layer.params("elu_param").number("alpha")
    return [layer.value(layer.emit("Elu", [layer.bottom.name], alpha=alpha), layer.bottom.shape)]


def prelu(layer: Layer) -> list[Value]:
    """A learned slope below zero, one a channel or one for all."""
    value = layer.bottom
    shared = layer.params("prelu_param").flag("channel_shared")
    slopes = layer.weights(0, (1,) if shared else (value.shape[1],))
    return [
        layer.value(layer.emit("PRelu", [value.name, layer.constant("slopes", _channels(slopes, value))]), value.shape)
    ]


def power(layer: Layer) -> list[Value]:
    """(shift + scale · x) ^ power."""
    params = layer.params("power_param")
    steps = [
        ("Mul", "scale", params.number("scale"), 1),
        ("Add", "shift", params.number("shift"), 0),
        ("Pow", "power", params.number("power"), 1),
    ]
    steps = [step for step in steps if step[2] != step[3]]
    value = layer.bottom
    if not steps:
        return [value]
    name = value.name
    for operator, what, number, _ in steps:
        last = what == steps[-1][1]
        name = layer.emit(
            operator,
            [name, layer.constant(what, np.array([number], np.float32))],
            None if last else layer.inner(f"after.{what}"),
        )
    return [layer.value(name, value.shape)]


def batch_norm(layer: Layer) -> list[Value]:
    """(x - mean) / sqrt(variance + eps) by the stored statistics, and the Scale layer after it where that was joined to
    it."""
    return normalized(layer, None)


def normalized(layer: Layer, scale: Layer | None) -> list[Value]:
    """Convert a BatchNorm and the Scale that alone reads it, as one operator.

    The file stores sums of statistics, and their weight in the third blob. A weight of zero makes them zero, as in
    Caffe.
    """
    params = layer.params("batch_norm_param")
    params.ignore("moving_average_fraction")
    if not params.flag("use_global_stats"):
        layer.fail(
            "it normalizes by the statistics of the batch (use_global_stats: false), so its answer depends on the other"
            " pictures of a batch"
        )
    value = layer.bottom
    channels = value.shape[1]
    total = float(layer.weights(2, (1,))[0])
    factor = np.float32(0 if total == 0 else 1 / total)
    mean, variance = layer.weights(0, (channels,)) * factor, layer.weights(1, (channels,)) * factor
    gain, shift = (
        (np.ones(channels, np.float32), np.zeros(channels, np.float32))
        if scale is None
        else _gain_and_shift(scale, channels)
    )
    parts = {"scale": gain, "bias": shift, "mean": mean, "variance": variance}
    names = [layer.constant(what, values) for what, values in parts.items()]
    output = layer.tops[0] if scale is None else scale.tops[0]
    return [
        layer.value(
            layer.emit("BatchNormalization", [value.name, *names], output, epsilon=params.number("eps")),
            value.shape,
        )
    ]


def can_join(scale: Layer) -> bool:
    """Tell whether a Scale layer, seen before its bottoms are known, multiplies each channel by a stored number."""
    params = scale.settings.message("scale_param")
    return len(scale.blobs) > 0 and params.integer("axis") == 1 and params.integer("num_axes") == 1


def scale(layer: Layer) -> list[Value]:
    """Multiply by stored values, or by a second blob, and add a bias if there is one."""
    value = layer.bottoms[0]
    if len(layer.bottoms) == 1:
        params = layer.params("scale_param")
        if params.integer("axis") != 1 or params.integer("num_axes") != 1:
            layer.fail("unsupported scale: more than one number per channel")
        gain, shift = _gain_and_shift(layer, value.shape[1])
        biased = bool(shift.any())
        name = layer.emit(
            "Mul",
            [value.name, layer.constant("scale", _channels(gain, value))],
            layer.inner("scaled") if biased else None,
        )
        if biased:
            name = layer.emit("Add", [name, layer.constant("bias", _channels(shift, value))])
        return [layer.value(name, value.shape)]
    return [_combined(layer, "scale_param", "Mul")]


def bias(layer: Layer) -> list[Value]:
    """Add stored values, one a channel, or a second blob."""
    value = layer.bottoms[0]
    if len(layer.bottoms) > 1:
        return [_combined(layer, "bias_param", "Add")]
    params = layer.params("bias_param")
    if params.integer("axis") != 1 or params.integer("num_axes") != 1:
        layer.fail("unsupported bias: more than one number per channel")
    shift = layer.constant("bias", _channels(layer.weights(0, (value.shape[1],)), value))
    return [layer.value(layer.emit("Add", [value.name, shift]), value.shape)]


def eltwise(layer: Layer) -> list[Value]:
    """The sum (each with a coefficient), product or maximum of several blobs of one shape."""
    params = layer.params("eltwise_param")
    params.ignore("stable_prod_grad")
    method = params.choice("operation")
    shapes = {value.shape for value in layer.bottoms}
    coefficients = params.numbers("coeff")
    if len(shapes) != 1 or len(layer.bottoms) < 2:
        layer.fail(
            f"it combines {len(layer.bottoms)} blobs of the shapes {sorted(shapes)}, expected at least two of one shape"
        )
    if coefficients and (len(coefficients) != len(layer.bottoms) or method != "SUM"):
        layer.fail(
            f"it has {len(coefficients)} coefficients for {len(layer.bottoms)} blobs; expected one each, with"
            " operation SUM"
        )
    names = [value.name for value in layer.bottoms]
    for index, coefficient in enumerate(coefficients):
        if coefficient != 1:
            factor = layer.constant("coefficient", np.array([coefficient], np.float32))
            names[index] = layer.emit("Mul", [names[index], factor], layer.inner(f"scaled.{index}"))
    pairwise = {"SUM": "Add", "PROD": "Mul", "MAX": "Max"}[method]
    name = names[0]
    for index, other in enumerate(names[1:], 2):
        name = layer.emit(pairwise, [name, other], None if index == len(names) else layer.inner(f"first.{index}"))
    return [layer.value(name, layer.bottoms[0].shape)]


def _combined(layer: Layer, params: str, operator: str) -> Value:
    """Combine a blob with a smaller one whose axes start at `axis`, as scale and bias layers with two bottoms do."""
    if len(layer.bottoms) != 2:
        layer.fail(f"it reads {len(layer.bottoms)} blobs, expected 1 or 2")
    settings = layer.params(params)
    if settings.has("bias_term") and settings.flag("bias_term"):
        layer.fail("unsupported bias in addition to a second blob")
    settings.ignore("num_axes")
    value, other = layer.bottoms
    axis = settings.integer("axis")
    if (
        axis != 0
        or len(other.shape) > len(value.shape)
        or any(a != b for a, b in zip(value.shape, other.shape, strict=False))
    ):
        layer.fail(
            f"it joins {list(value.shape)} with {list(other.shape)} at axis {axis}; expected the first axes of both to"
            " be equal, from axis 0 on"
        )
    name = other.name
    missing = range(len(other.shape), len(value.shape))
    if missing:
        name = layer.emit("Unsqueeze", [name, layer.constant("axes", np.array(missing, np.int64))], layer.inner("wide"))
    return layer.value(layer.emit(operator, [value.name, name]), value.shape)


def _gain_and_shift(layer: Layer, channels: int) -> tuple[Array, Array]:
    params = layer.params("scale_param")
    biased = params.flag("bias_term")
    return layer.weights(0, (channels,)), layer.weights(1, (channels,)) if biased else np.zeros(channels, np.float32)


def _channels(values: Array, value: Value) -> Array:
    """Shape a value a channel so that it broadcasts along the channels of `value`."""
    return values.reshape(-1, *[1] * (len(value.shape) - 2))


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
    """Softmax over one axis, the channels if none is named."""
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
