"""Keras layers, as TensorFlow.js runs them, in ONNX: one function a kind.

Sources: the layers of TensorFlow.js 4.22 (`tfjs-layers/src/layers`). Every setting that a function doesn't read must
stand at its default: see `Settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plimsoll.importers.tfjs.operators import TensorFlowWriter
from plimsoll.importers.tfjs.tensors import Array, Pair, Value, Window


@dataclass
class Layer:
    """A layer: its settings, its weights, and where it is written."""

    name: str
    config: Mapping[str, Any]
    weights: Callable[[str], Array | None]
    """The layer's weights by their short names (`kernel`, `bias` …), None if there are none."""
    writer: TensorFlowWriter

    def weight(self, name: str) -> Array:
        """Return weights that have to be there; raises ValueError."""
        weights = self.weights(name)
        if weights is None:
            raise ValueError(f"its weights '{name}' are not in the shards")
        return weights

    def pair(self, key: str, default: int) -> Pair:
        """Return a setting of one or two numbers as (height, width); raises ValueError."""
        value = self.config.get(key)
        value = default if value is None else value
        pair = (value, value) if isinstance(value, int) else tuple(value)
        if len(pair) != 2 or not all(isinstance(number, int) for number in pair):
            raise ValueError(f"{key} is {value}")
        return pair[0], pair[1]

    def require(self, key: str, *allowed: Any) -> Any:
        """Return a setting; raises ValueError for one that is not among `allowed` (absent ones count as the first)."""
        value = self.config.get(key, allowed[0])
        value = allowed[0] if value is None else value
        if value not in allowed:
            raise ValueError(f"its {key} is {value!r}; Plimsoll knows {', '.join(map(repr, allowed))}")
        return value

    def channels_last(self) -> None:
        """Refuse channels_first."""
        self.require("data_format", "channels_last", "channelsLast")

    def window(self, kernel: Pair, strides: Pair) -> Window:
        """Return the window of a convolution or pool."""
        self.channels_last()
        return Window(kernel, strides, self.require("padding", "valid", "same"), self.pair("dilation_rate", 1))

    def activated(self, write: Callable[[str], Value]) -> Value:
        """Write the layer under the name that it is given, and its own activation behind it."""
        kind = self.config.get("activation") or "linear"
        return activation(self, write(self.name if kind == "linear" else f"{self.name}/linear"), kind, self.name)


def activation(layer: Layer, value: Value, kind: Any, name: str) -> Value:
    """Apply an activation by its name; raises ValueError for one that isn't known."""
    writer = layer.writer
    kind = kind["class_name"].lower() if isinstance(kind, dict) and isinstance(kind.get("class_name"), str) else kind
    simple = {
        "relu": "Relu",
        "sigmoid": "Sigmoid",
        "tanh": "Tanh",
        "elu": "Elu",
        "selu": "Selu",
        "softplus": "Softplus",
        "softsign": "Softsign",
    }
    if kind == "linear":
        return value
    if kind in simple:
        return writer.unary(simple[kind], value, name)
    if kind == "relu6":
        return writer.clipped(value, 0, 6, name)
    if kind in ("hard_sigmoid", "hardSigmoid"):
        return writer.unary("HardSigmoid", value, name, alpha=0.2, beta=0.5)
    if kind in ("swish", "silu"):
        return writer.binary("Mul", value, writer.unary("Sigmoid", value, f"{name}/sigmoid"), name)
    if kind == "softmax":
        return writer.softmax(value, -1, name)
    raise ValueError(
        f"its activation is {kind!r}; Plimsoll knows linear, relu6, hard_sigmoid, swish, softmax, {', '.join(simple)}"
    )


def _convolution(layer: Layer, value: Value) -> Value:
    kernel = layer.weight("kernel")
    window = layer.window(_sides(kernel), layer.pair("strides", 1))
    return layer.activated(lambda name: layer.writer.convolution(value, kernel, layer.weights("bias"), window, name))


def _depthwise(layer: Layer, value: Value) -> Value:
    kernel = layer.weights("depthwise_kernel")
    kernel = layer.weight("kernel") if kernel is None else kernel  # Keras 3 calls it so.
    window = layer.window(_sides(kernel), layer.pair("strides", 1))
    return layer.activated(lambda name: layer.writer.depthwise(value, kernel, layer.weights("bias"), window, name))


def _separable(layer: Layer, value: Value) -> Value:
    kernel, point = layer.weight("depthwise_kernel"), layer.weight("pointwise_kernel")
    deep = layer.writer.depthwise(
        value, kernel, None, layer.window(_sides(kernel), layer.pair("strides", 1)), f"{layer.name}/depthwise"
    )
    return layer.activated(
        lambda name: layer.writer.convolution(deep, point, layer.weights("bias"), Window((1, 1), (1, 1), "valid"), name)
    )


def _transposed(layer: Layer, value: Value) -> Value:
    kernel = layer.weight("kernel")
    layer.require("output_padding", None)
    window = layer.window(_sides(kernel), layer.pair("strides", 1))
    return layer.activated(
        lambda name: layer.writer.transposed_convolution(value, kernel, layer.weights("bias"), window, name)
    )


def _dense(layer: Layer, value: Value) -> Value:
    return layer.activated(
        lambda name: layer.writer.product(value, layer.weight("kernel"), layer.weights("bias"), name)
    )


def _batch_norm(layer: Layer, value: Value) -> Value:
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, len(value.shape) - 1):
        raise ValueError(f"it normalizes axis {axis}; Plimsoll knows the last")
    mean, variance = layer.weight("moving_mean"), layer.weight("moving_variance")
    gain, bias = layer.weights("gamma"), layer.weights("beta")
    statistics = {
        "scale": np.ones_like(mean) if gain is None else gain,
        "bias": np.zeros_like(mean) if bias is None else bias,
    }
    return layer.writer.normalized(
        value, statistics | {"mean": mean, "variance": variance}, float(layer.config.get("epsilon", 1e-3)), layer.name
    )


def _relu(layer: Layer, value: Value) -> Value:
    limit, slope, threshold = (layer.config.get(key) or 0 for key in ("max_value", "negative_slope", "threshold"))
    if threshold or (slope and limit):
        raise ValueError(
            f"its threshold is {threshold}, its slope {slope} and its limit {limit}; Plimsoll knows a slope or a limit"
        )
    if slope:
        return layer.writer.unary("LeakyRelu", value, layer.name, alpha=float(slope))
    return (
        layer.writer.clipped(value, 0, float(limit), layer.name)
        if limit
        else layer.writer.unary("Relu", value, layer.name)
    )


def _leaky_relu(layer: Layer, value: Value) -> Value:
    return layer.writer.unary(
        "LeakyRelu", value, layer.name, alpha=float(layer.config.get("alpha", layer.config.get("negative_slope", 0.3)))
    )


def _prelu(layer: Layer, value: Value) -> Value:
    return layer.writer.binary("PRelu", value, layer.weight("alpha"), layer.name)


def _elu(layer: Layer, value: Value) -> Value:
    return layer.writer.unary("Elu", value, layer.name, alpha=float(layer.config.get("alpha", 1.0)))


def _softmax(layer: Layer, value: Value) -> Value:
    axis = layer.config.get("axis", -1)
    if not isinstance(axis, int) or axis % len(value.shape) == 0:
        raise ValueError(f"softmax over axis {axis}")
    return layer.writer.softmax(value, axis, layer.name)


def _activation(layer: Layer, value: Value) -> Value:
    return activation(layer, value, layer.config.get("activation"), layer.name)


def _same(layer: Layer, value: Value) -> Value:
    del layer
    return value


def _pool(method: str) -> Callable[[Layer, Value], Value]:
    def convert(layer: Layer, value: Value) -> Value:
        size = layer.pair("pool_size", 2)
        strides = layer.pair("strides", 0)
        return layer.writer.pool(
            value,
            "Max" if method == "Max" else "Average",
            layer.window(size, size if strides == (0, 0) else strides),
            layer.name,
        )

    return convert


def _global(operator: str) -> Callable[[Layer, Value], Value]:
    def convert(layer: Layer, value: Value) -> Value:
        layer.channels_last()
        return layer.writer.reduced(operator, value, (1, 2), layer.name, keep=bool(layer.config.get("keepdims")))

    return convert


def _flatten(layer: Layer, value: Value) -> Value:
    layer.channels_last()
    return layer.writer.reshaped(value, (None, -1), layer.name)


def _reshape(layer: Layer, value: Value) -> Value:
    return layer.writer.reshaped(value, (None, *layer.config["target_shape"]), layer.name)


def _permute(layer: Layer, value: Value) -> Value:
    return layer.writer.transposed(value, (0, *layer.config["dims"]), layer.name)


def _sides(kernel: Array) -> Pair:
    if kernel.ndim != 4:
        raise ValueError(f"its kernel is {list(kernel.shape)}, expected four axes")
    return kernel.shape[0], kernel.shape[1]


def _margins(layer: Layer, key: str) -> tuple[Pair, Pair]:
    """Return (top, bottom), (left, right) of a setting that is a number, a pair or two pairs."""
    layer.channels_last()
    value = layer.config.get(key, 1)
    sides = (value, value) if isinstance(value, int) else value
    rows, columns = ((side, side) if isinstance(side, int) else tuple(side) for side in sides)
    if (
        len(rows) != 2
        or len(columns) != 2
        or not all(isinstance(number, int) and number >= 0 for number in (*rows, *columns))
    ):
        raise ValueError(f"{key} is {value}")
    return (rows[0], rows[1]), (columns[0], columns[1])


def _zero_padding(layer: Layer, value: Value) -> Value:
    rows, columns = _margins(layer, "padding")
    return layer.writer.pad(value, ((0, 0), rows, columns, (0, 0)), layer.name)


def _cropping(layer: Layer, value: Value) -> Value:
    margins = _margins(layer, "cropping")
    sizes = [
        None if size is None else size - sum(margin) for size, margin in zip(value.shape[1:3], margins, strict=True)
    ]
    if None in sizes or min(size or 0 for size in sizes) < 1:
        raise ValueError(f"it crops {margins} off {list(value.shape)}")
    return layer.writer.crop(value, (0, margins[0][0], margins[1][0], 0), (None, *sizes, None), layer.name)


def _up_sampling(layer: Layer, value: Value) -> Value:
    layer.channels_last()
    factors = layer.pair("size", 2)
    method = {"nearest": "nearest", "bilinear": "linear"}[layer.require("interpolation", "nearest", "bilinear")]
    sizes = [(size or 0) * factor for size, factor in zip(value.shape[1:3], factors, strict=True)]
    # TensorFlow.js resizes without half pixels here, unlike Keras.
    return layer.writer.resized(value, (sizes[0], sizes[1]), method, "asymmetric", layer.name)


def _rescaling(layer: Layer, value: Value) -> Value:
    scaled = layer.writer.binary(
        "Mul", value, np.array(layer.config.get("scale", 1), np.float32), f"{layer.name}/scaled"
    )
    return layer.writer.binary("Add", scaled, np.array(layer.config.get("offset", 0), np.float32), layer.name)


def _merge(operator: str) -> Callable[[Layer, list[Value]], Value]:
    def convert(layer: Layer, values: list[Value]) -> Value:
        total = values[0]
        for count, value in enumerate(values[1:], 2):
            total = layer.writer.binary(
                operator, total, value, layer.name if count == len(values) else f"{layer.name}/first_{count}"
            )
        return total

    return convert


def _average(layer: Layer, values: list[Value]) -> Value:
    total = _merge("Add")(Layer(f"{layer.name}/sum", layer.config, layer.weights, layer.writer), values)
    return layer.writer.binary("Mul", total, np.array(1 / len(values), np.float32), layer.name)


def _concatenate(layer: Layer, values: list[Value]) -> Value:
    axis = layer.config.get("axis", -1)
    if not isinstance(axis, int) or axis % len(values[0].shape) == 0:
        raise ValueError(f"joining along axis {axis}")
    return layer.writer.joined(values, axis, layer.name)


ONE: dict[str, Callable[[Layer, Value], Value]] = {
    "Activation": _activation,
    "AlphaDropout": _same,
    "AveragePooling2D": _pool("Average"),
    "BatchNormalization": _batch_norm,
    "BatchNormalizationV1": _batch_norm,
    "Conv2D": _convolution,
    "Conv2DTranspose": _transposed,
    "Cropping2D": _cropping,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _same,
    "ELU": _elu,
    "Flatten": _flatten,
    "GaussianDropout": _same,
    "GaussianNoise": _same,
    "GlobalAveragePooling2D": _global("ReduceMean"),
    "GlobalMaxPooling2D": _global("ReduceMax"),
    "LeakyReLU": _leaky_relu,
    "MaxPooling2D": _pool("Max"),
    "PReLU": _prelu,
    "Permute": _permute,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "Softmax": _softmax,
    "SpatialDropout2D": _same,
    "UpSampling2D": _up_sampling,
    "ZeroPadding2D": _zero_padding,
}
"""Layers that read one value."""

MANY: dict[str, Callable[[Layer, list[Value]], Value]] = {
    "Add": _merge("Add"),
    "Average": _average,
    "Concatenate": _concatenate,
    "Maximum": _merge("Max"),
    "Minimum": _merge("Min"),
    "Multiply": _merge("Mul"),
    "Subtract": _merge("Sub"),
}
"""Layers that read several values."""
