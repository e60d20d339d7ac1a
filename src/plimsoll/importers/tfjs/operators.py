"""TensorFlow's operators in ONNX.

Operators that don't care about the order of channels keep the one that comes, so that a network has a Transpose where a
picture enters and hardly any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from plimsoll.importers.tfjs.tensor_writer import ConvertedGraph, TensorWriter
from plimsoll.importers.tfjs.tensors import Array, Pair, Value, Window, channels_of


class TensorFlowWriter(TensorWriter):
    """Adds the operators of pictures: windows that slide, and resizing."""

    def convolution(self, value: Value, kernel: Array, bias: Array | None, window: Window, name: str) -> Value:
        """Convolve with a kernel [height, width, inputs of a group, outputs]."""
        channels = channels_of(value)
        inputs, outputs = kernel.shape[2:]
        if channels % inputs or outputs % (channels // inputs):
            raise ValueError(f"a kernel {list(kernel.shape)} on {channels} channels")
        return self._convolved(value, kernel.transpose(3, 2, 0, 1), bias, window, (name, channels // inputs))

    def depthwise(self, value: Value, kernel: Array, bias: Array | None, window: Window, name: str) -> Value:
        """Convolve each channel by itself with a kernel [height, width, channels, outputs a channel]."""
        channels = channels_of(value)
        if kernel.shape[2] != channels:
            raise ValueError(f"a kernel {list(kernel.shape)} on {channels} channels")
        height, width, _, multiplier = kernel.shape
        weights = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
        return self._convolved(value, weights, bias, window, (name, channels))

    def _convolved(
        self, value: Value, weights: Array, bias: Array | None, window: Window, form: tuple[str, int]
    ) -> Value:
        name, groups = form
        sizes, padding = window.slid(value.shape[1:3])
        inputs = [self.arranged(value, "first"), self.constant(f"{name}/kernel", weights)]
        inputs += [] if bias is None else [self.constant(f"{name}/bias", bias)]
        output = self.graph.add(
            "Conv",
            inputs,
            name,
            kernel_shape=list(window.kernel),
            strides=list(window.strides),
            dilations=list(window.dilations),
            group=groups,
            **padding,
        )
        return Value(output, (value.shape[0], *sizes, len(weights)), "first")

    def transposed_convolution(
        self, value: Value, kernel: Array, bias: Array | None, window: Window, name: str, target: Pair | None = None
    ) -> Value:
        """Convolve backwards with a kernel [height, width, outputs, inputs]; `same` gives size · stride, or the sizes
        of `target`, from which a convolution would come here."""
        if kernel.shape[3] != channels_of(value):
            raise ValueError(f"a kernel {list(kernel.shape)} on {channels_of(value)} channels")
        if window.dilations != (1, 1) or window.padding == "explicit":
            raise ValueError("a transposed convolution with dilation or explicit padding")
        pads, extra, sizes = [], [], []
        known: Sequence[int | None] = target or (None, None)
        for size, span, stride, end in zip(value.shape[1:3], window.kernel, window.strides, known, strict=True):
            surplus = span - stride if window.padding == "same" else min(span - stride, 0)
            if size is not None and end is not None:
                if -(-(end if window.padding == "same" else end - span + 1) // stride) != size:
                    raise ValueError(f"a convolution doesn't make {list(value.shape)} of the sizes {list(known)}")
                surplus = (size - 1) * stride + span - end
            before = max(surplus, 0) // 2 if window.padding == "same" else 0
            pads.append((before, max(surplus, 0) - before))
            extra.append(max(-surplus, 0))
            sizes.append(None if size is None else (size - 1) * stride + span - surplus)
        inputs = [self.arranged(value, "first"), self.constant(f"{name}/kernel", kernel.transpose(3, 2, 0, 1))]
        inputs += [] if bias is None else [self.constant(f"{name}/bias", bias)]
        output = self.graph.add(
            "ConvTranspose", inputs, name, kernel_shape=list(window.kernel), strides=list(window.strides),
            pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]], output_padding=extra if any(extra) else None,
        )  # fmt: skip
        return Value(output, (value.shape[0], *sizes, kernel.shape[2]), "first")

    def pool(self, value: Value, method: Literal["Max", "Average"], window: Window, name: str) -> Value:
        """Take the maximum or mean of windows; a mean leaves padding out."""
        channels = channels_of(value)
        sizes, padding = window.slid(value.shape[1:3])
        output = self.graph.add(
            f"{method}Pool",
            [self.arranged(value, "first")],
            name,
            kernel_shape=list(window.kernel),
            strides=list(window.strides),
            **padding,
        )
        return Value(output, (value.shape[0], *sizes, channels), "first")

    def normalized(self, value: Value, statistics: dict[str, Array], epsilon: float, name: str) -> Value:
        """Normalize each channel by stored `scale`, `bias`, `mean` and `variance`."""
        inputs = [self.arranged(value, "first") if len(value.shape) == 4 else value.name]
        if len(value.shape) not in (2, 4) or any(
            statistic.shape != (value.shape[-1],) for statistic in statistics.values()
        ):
            shapes = [list(statistic.shape) for statistic in statistics.values()]
            raise ValueError(f"batch normalization of {list(value.shape)} by {shapes}")
        inputs += [
            self.constant(f"{name}/{part}", statistics[part].astype(np.float32))
            for part in ("scale", "bias", "mean", "variance")
        ]
        output = self.graph.add("BatchNormalization", inputs, name, epsilon=epsilon)
        return Value(output, value.shape, "first" if len(value.shape) == 4 else "last")

    def resized(self, value: Value, sizes: Pair, method: str, coordinates: str, name: str) -> Value:
        """Resize a picture to (height, width); `method` is nearest or linear, `coordinates` ONNX's name for where
        pixels lie."""
        channels = channels_of(value)
        have = value.shape[1:3]
        if None in have:
            raise ValueError(f"resizing a picture of the size {list(have)}: it has to be known")
        exact = coordinates != "align_corners" and all(
            new % (old or 1) == 0 for new, old in zip(sizes, have, strict=True)
        )
        inputs = [self.arranged(value, "first"), ""]
        if exact:
            scales = [1, 1, *(new // (old or 1) for new, old in zip(sizes, have, strict=True))]
            inputs.append(self.constant(f"{name}/scales", np.array(scales, np.float32)))
        else:
            # Runtimes round size times scale differently, so the sizes are given; ONNX wants the batch's too.
            shape = self.graph.add("Shape", [inputs[0]], f"{name}/have", end=2)
            target = self.constant(f"{name}/wanted", np.array(sizes, np.int64))
            inputs += ["", self.graph.add("Concat", [shape, target], f"{name}/sizes", axis=0)]
        rounding = (
            {"align_corners": "round_prefer_ceil", "asymmetric": "floor"}.get(coordinates, "round_prefer_ceil")
            if method == "nearest"
            else None
        )
        output = self.graph.add(
            "Resize", inputs, name, mode=method, coordinate_transformation_mode=coordinates, nearest_mode=rounding
        )
        return Value(output, (value.shape[0], *sizes, channels), "first")


__all__ = ["ConvertedGraph", "TensorFlowWriter"]
