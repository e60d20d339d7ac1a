"""Caffe's layers that slide a window: convolution, its transpose, pooling and local response normalization.

Sources: Caffe's `conv_layer.cpp`, `deconv_layer.cpp`, `pooling_layer.cpp`, `lrn_layer.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.importers.caffe.files import Settings
from plimsoll.importers.caffe.layer import Layer, Value

Pair = tuple[int, int]
_MAX_MAP = 1 << 20


@dataclass(frozen=True)
class Window:
    """How a window slides; each pair is (height, width)."""

    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair = (1, 1)

    def check(self, layer: Layer) -> None:
        """Raise ModelError for an invalid window."""
        sizes = (*self.kernel, *self.stride, *self.dilation)
        if min(sizes) < 1 or min(self.pad) < 0 or max(*sizes, *self.pad) > 65_535:
            layer.fail(
                f"invalid window: kernel {self.kernel}, stride {self.stride}, pad {self.pad}, dilation {self.dilation}"
            )


def convolution(layer: Layer) -> list[Value]:
    """Convolution with groups and dilation; sizes round down."""
    params, window, outputs, group = _settings(layer)
    value = layer.bottom
    if layer.kind != "Convolution" and not params.has("group"):  # the depthwise layers of Caffe's forks
        group = value.shape[1]
    channels = _channels(layer, value, outputs, group)
    weights = layer.constant("weights", layer.weights(0, (outputs, channels // group, *window.kernel)))
    inputs = [value.name, weights, *_bias(layer, params, outputs)]
    spans = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(window.kernel, window.dilation, strict=True)]
    sizes = [
        (size + 2 * pad - span) // stride + 1
        for size, pad, span, stride in zip(value.shape[2:], window.pad, spans, window.stride, strict=True)
    ]
    return [
        layer.value(layer.emit("Conv", inputs, group=group, **_attributes(window)), (value.shape[0], outputs, *sizes))
    ]


def deconvolution(layer: Layer) -> list[Value]:
    """Transposed convolution."""
    params, window, outputs, group = _settings(layer)
    value = layer.bottom
    channels = _channels(layer, value, outputs, group)
    weights = layer.constant("weights", layer.weights(0, (channels, outputs // group, *window.kernel)))
    inputs = [value.name, weights, *_bias(layer, params, outputs)]
    spans = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(window.kernel, window.dilation, strict=True)]
    sizes = [
        (size - 1) * stride + span - 2 * pad
        for size, pad, span, stride in zip(value.shape[2:], window.pad, spans, window.stride, strict=True)
    ]
    return [
        layer.value(
            layer.emit("ConvTranspose", inputs, group=group, **_attributes(window)), (value.shape[0], outputs, *sizes)
        )
    ]


def pooling(layer: Layer) -> list[Value]:
    """Max or average pooling, sizes rounded up as Caffe does.

    The last window starts inside the picture or its leading padding, else it is dropped (where there is padding). An
    average divides by the window's size clipped to the picture with its padding. Both are written with explicit padding
    at the end and, where windows reach beyond it, a map of factors: runtimes disagree about ONNX's own ceil_mode.
    """
    params = layer.params("pooling_param")
    value = layer.bottom
    if len(value.shape) != 4:
        layer.fail(f"it pools a blob with {len(value.shape)} axes, expected 4")
    method = params.choice("pool")
    if method not in ("MAX", "AVE"):
        layer.fail(f"unsupported pooling method '{method}'; choose MAX or AVE")
    average = method == "AVE"
    if params.flag("global_pooling"):
        params.ignore("stride", "pad", "kernel_size")
        return [
            layer.value(
                layer.emit(f"Global{'Average' if average else 'Max'}Pool", [value.name]), (*value.shape[:2], 1, 1)
            )
        ]
    window = _window(layer, params)
    ceil = params.choice("round_mode") == "CEIL"
    axes = [_pooled(layer, value.shape[2 + axis], window, axis, ceil=ceil) for axis in (0, 1)]
    pads = [*window.pad, *(axis.end for axis in axes)]
    shape = (*value.shape[:2], *(axis.size for axis in axes))
    attributes: dict[str, Any] = {"kernel_shape": list(window.kernel), "strides": list(window.stride), "pads": pads}
    if not average:
        return [layer.value(layer.emit("MaxPool", [value.name], **attributes), shape)]
    layer.value("", shape)
    factors = np.outer(*(axis.factors for axis in axes)).astype(np.float32)
    if (factors == 1).all():
        return [layer.value(layer.emit("AveragePool", [value.name], count_include_pad=1, **attributes), shape)]
    mean = layer.emit("AveragePool", [value.name], layer.inner("mean"), count_include_pad=1, **attributes)
    return [layer.value(layer.emit("Mul", [mean, layer.constant("factors", factors[np.newaxis, np.newaxis])]), shape)]


def lrn(layer: Layer) -> list[Value]:
    """Local response normalization, across channels or within each."""
    params = layer.params("lrn_param")
    size, alpha, beta, k = (
        params.integer("local_size"),
        params.number("alpha"),
        params.number("beta"),
        params.number("k"),
    )
    value = layer.bottom
    if size < 1 or size % 2 == 0 or size > 65_535:
        layer.fail(f"its local_size is {size}, expected an odd number")
    if params.choice("norm_region") == "ACROSS_CHANNELS":
        return [layer.value(layer.emit("LRN", [value.name], size=size, alpha=alpha, beta=beta, bias=k), value.shape)]
    squares = layer.emit("Mul", [value.name, value.name], layer.inner("squares"))
    margin = [(size - 1) // 2] * 4
    mean = layer.emit(
        "AveragePool",
        [squares],
        layer.inner("mean"),
        kernel_shape=[size, size],
        strides=[1, 1],
        pads=margin,
        count_include_pad=1,
    )
    scaled = layer.emit("Mul", [mean, layer.constant("alpha", np.float32(alpha).reshape(1))], layer.inner("scaled"))
    shifted = layer.emit("Add", [scaled, layer.constant("one", np.ones(1, np.float32))], layer.inner("shifted"))
    power = layer.emit("Pow", [shifted, layer.constant("beta", np.float32(-beta).reshape(1))], layer.inner("power"))
    return [layer.value(layer.emit("Mul", [value.name, power]), value.shape)]


@dataclass(frozen=True)
class _Axis:
    """How pooling goes along one axis."""

    size: int
    """Windows."""
    end: int
    """Padding at the end."""
    factors: NDArray[np.float64]
    """The kernel's size by what the average of each window is divided by."""


def _pooled(layer: Layer, size: int, window: Window, axis: int, *, ceil: bool) -> _Axis:
    kernel, stride, pad = window.kernel[axis], window.stride[axis], window.pad[axis]
    rest = size + 2 * pad - kernel
    count = (-(-rest // stride) if ceil else rest // stride) + 1
    if pad and (count - 1) * stride >= size + pad:
        count -= 1
    if count < 1 or count > _MAX_MAP or pad >= kernel or (count - 1) * stride - pad >= size:
        layer.fail(f"its windows of {kernel} with stride {stride} and padding {pad} don't fit on {size} pixels")
    starts = np.arange(count) * stride - pad
    divisors = np.minimum(starts + kernel, size + pad) - starts
    return _Axis(count, max(0, (count - 1) * stride + kernel - size - pad), kernel / divisors)


def _settings(layer: Layer) -> tuple[Settings, Window, int, int]:
    params = layer.params("convolution_param")
    group, outputs = params.integer("group"), params.integer("num_output")
    if len(layer.bottom.shape) != 4 or params.integer("axis") != 1:
        layer.fail(f"it reads a blob with {len(layer.bottom.shape)} axes, expected 4, with the channels second")
    if outputs < 1 or group < 1 or outputs % group:
        layer.fail(f"num_output is {outputs} in {group} groups")
    return params, _window(layer, params), outputs, group


def _channels(layer: Layer, value: Value, outputs: int, group: int) -> int:
    channels = value.shape[1]
    if channels % group or outputs % group:
        layer.fail(f"its {group} groups don't divide {channels} channels to {outputs}")
    return channels


def _bias(layer: Layer, params: Settings, outputs: int) -> list[str]:
    return [layer.constant("bias", layer.weights(1, (outputs,)))] if params.flag("bias_term") else []


def _window(layer: Layer, params: Settings) -> Window:
    kernel = _pair(layer, params, "kernel_size", "kernel", 0)
    stride, pad = _pair(layer, params, "stride", "stride", 1), _pair(layer, params, "pad", "pad", 0)
    dilation = _both(layer, params, "dilation", 1) if layer.kind != "Pooling" else (1, 1)
    window = Window(kernel, stride, pad, dilation)
    window.check(layer)
    return window


def _pair(layer: Layer, params: Settings, name: str, prefix: str, default: int) -> Pair:
    height, width = _both(layer, params, name, default)
    return params.integer(f"{prefix}_h", height), params.integer(f"{prefix}_w", width)


def _both(layer: Layer, params: Settings, name: str, default: int) -> Pair:
    """Return a setting for height and width that is given once for both, or once each."""
    values = params.integers(name)
    if len(values) > 2:
        layer.fail(f"{name} has {len(values)} values, expected 1 or 2")
    height, width = (values * 2)[:2] if values else (default, default)
    return height, width


def _attributes(window: Window) -> dict[str, Any]:
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "pads": [*window.pad, *window.pad],
        "dilations": list(window.dilation),
    }
