"""TensorFlow's operators in ONNX.

Operators that don't care about the order of channels keep the one that comes, so that a network has a Transpose where a
picture enters and hardly any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from plimsoll.importers.tfjs.tensors import Array, Order, Pair, Value, Window, broadcast, channels_of
from plimsoll.onnx.writer import GraphWriter

_TO_FIRST, _TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class ConvertedGraph:
    """A model as a graph of ONNX, with the names of its inputs and outputs, which are TensorFlow.js's."""

    graph: GraphWriter
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class TensorFlowWriter:
    """Writes TensorFlow's operators into a graph; errors are ValueError, whose layer or node the caller names."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph
        self._turned: dict[tuple[str, Order], str] = {}

    def constant(self, name: str, values: Array) -> str:
        """Store values."""
        return self.graph.constant(name, values)

    def arranged(self, value: Value, order: Order) -> str:
        """Return the name by which a value is read in this order."""
        if len(value.shape) != 4 or value.order == order:
            return value.name
        key = (value.name, order)
        if key not in self._turned:
            perm = _TO_FIRST if order == "first" else _TO_LAST
            self._turned[key] = self.graph.add("Transpose", [value.name], f"{value.name}.channels_{order}", perm=perm)
        return self._turned[key]

    def outputs(self, named: Sequence[tuple[str, Value]]) -> None:
        """Make values outputs of the graph, channels last."""
        for name, value in named:
            read = self.arranged(value, "last")
            self.graph.output(read, name, (self.graph.batch, *value.shape[1:]))

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
        self, value: Value, kernel: Array, bias: Array | None, window: Window, name: str
    ) -> Value:
        """Convolve backwards with a kernel [height, width, outputs, inputs]; `same` gives size · stride."""
        if kernel.shape[3] != channels_of(value):
            raise ValueError(f"a kernel {list(kernel.shape)} on {channels_of(value)} channels")
        if window.dilations != (1, 1) or window.padding == "explicit":
            raise ValueError("a transposed convolution with dilation or explicit padding")
        pads, extra, sizes = [], [], []
        for size, span, stride in zip(value.shape[1:3], window.kernel, window.strides, strict=True):
            surplus = span - stride if window.padding == "same" else 0
            pads.append((max(surplus, 0) // 2, max(surplus, 0) - max(surplus, 0) // 2))
            extra.append(max(-surplus if window.padding == "same" else stride - span, 0))
            sizes.append(
                None if size is None else size * stride + (max(span - stride, 0) if window.padding == "valid" else 0)
            )
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

    def unary(self, operator: str, value: Value, name: str, **attributes: Any) -> Value:
        """Apply an operator to every number by itself."""
        return Value(self.graph.add(operator, [value.name], name, **attributes), value.shape, value.order)

    def clipped(self, value: Value, low: float | None, high: float | None, name: str) -> Value:
        """Limit every number."""
        limits = [
            "" if limit is None else self.constant(f"{name}/{what}", np.array(limit, np.float32))
            for what, limit in (("low", low), ("high", high))
        ]
        return Value(self.graph.add("Clip", [value.name, *limits], name), value.shape, value.order)

    def softmax(self, value: Value, axis: int, name: str) -> Value:
        """Softmax over an axis, in TensorFlow's count."""
        return Value(
            self.graph.add("Softmax", [self.arranged(value, "last")], name, axis=axis % len(value.shape)), value.shape
        )

    def binary(self, operator: str, first: Value | Array, second: Value | Array, name: str) -> Value:
        """Combine two operands, either of which may be stored; the smaller is repeated along missing axes."""
        values = [operand for operand in (first, second) if isinstance(operand, Value)]
        shape = broadcast(*(operand.shape for operand in (first, second)))
        alike = all(
            len(operand.shape) in (len(shape), 0) or not isinstance(operand, Value) for operand in (first, second)
        )
        order: Order = (
            "first" if alike and len(shape) == 4 and any(operand.order == "first" for operand in values) else "last"
        )
        names = [self._operand(operand, order, len(shape), f"{name}/constant") for operand in (first, second)]
        return Value(self.graph.add(operator, names, name), shape, order)

    def _operand(self, operand: Value | Array, order: Order, rank: int, name: str) -> str:
        if isinstance(operand, Value):
            return self.arranged(operand, order)
        if order == "first" and operand.ndim:
            operand = operand.reshape(*[1] * (rank - operand.ndim), *operand.shape).transpose(*_TO_FIRST)
        return self.constant(name, operand)

    def pad(self, value: Value, pads: Sequence[Pair], name: str, mode: str = "constant", fill: float = 0) -> Value:
        """Add a border; one pair (before, after) an axis, in TensorFlow's order."""
        shape = tuple(None if size is None else size + sum(pair) for size, pair in zip(value.shape, pads, strict=True))
        order = _TO_FIRST if value.order == "first" else range(len(pads))
        amounts = [pads[axis][side] for side in (0, 1) for axis in order]
        inputs = [value.name, self.constant(f"{name}/pads", np.array(amounts, np.int64))]
        inputs += [self.constant(f"{name}/fill", np.array(fill, np.float32))] if mode == "constant" else []
        return Value(self.graph.add("Pad", inputs, name, mode=mode), shape, value.order)

    def crop(self, value: Value, starts: Sequence[int], sizes: Sequence[int | None], name: str) -> Value:
        """Cut out a block: where it starts and how large it is, an axis each; None keeps the axis."""
        shape = tuple(have if size is None else size for have, size in zip(value.shape, sizes, strict=True))
        axes = [axis for axis, size in enumerate(sizes) if size is not None]
        if not axes:
            return value
        source = self.arranged(value, "last")
        bounds = {
            "starts": [starts[axis] for axis in axes],
            "ends": [starts[axis] + (sizes[axis] or 0) for axis in axes],
            "axes": axes,
        }
        inputs = [
            source,
            *(self.constant(f"{name}/{what}", np.array(numbers, np.int64)) for what, numbers in bounds.items()),
        ]
        return Value(self.graph.add("Slice", inputs, name), shape)

    def joined(self, values: Sequence[Value], axis: int, name: str) -> Value:
        """Join along an axis, in TensorFlow's count."""
        rank = len(values[0].shape)
        axis %= rank
        if any(len(part.shape) != rank for part in values):
            raise ValueError(f"joining tensors of {[len(part.shape) for part in values]} axes")
        order: Order = "first" if rank == 4 and any(part.order == "first" for part in values) else "last"
        sizes = [part.shape[axis] for part in values]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        position = _TO_FIRST.index(axis) if order == "first" else axis
        output = self.graph.add("Concat", [self.arranged(part, order) for part in values], name, axis=position)
        return Value(output, (*values[0].shape[:axis], total, *values[0].shape[axis + 1 :]), order)

    def reshaped(self, value: Value, shape: Sequence[int | None], name: str) -> Value:
        """Give a value another shape, of which the batch axis stays; one further size may be open (None or -1)."""
        sizes = [-1 if size is None else size for size in shape]
        have, known = (
            math.prod(size or 0 for size in value.shape[1:]),
            math.prod(size for size in sizes[1:] if size != -1),
        )
        if have and known and sizes[1:].count(-1) == 1 and have % known == 0:
            sizes[1 + sizes[1:].index(-1)] = have // known
        if sizes[1:].count(-1) > 1 or (have and -1 not in sizes[1:] and math.prod(sizes[1:]) != have):
            raise ValueError(f"reshaping {list(value.shape)} to {list(shape)}")
        target = self.constant(f"{name}/shape", np.array([0, *sizes[1:]], np.int64))
        output = self.graph.add("Reshape", [self.arranged(value, "last"), target], name)
        return Value(output, (value.shape[0], *(None if size == -1 else size for size in sizes[1:])))

    def transposed(self, value: Value, perm: Sequence[int], name: str) -> Value:
        """Put the axes into another order; the batch stays first."""
        if perm[0] != 0 or sorted(perm) != list(range(len(value.shape))):
            raise ValueError(f"the order of axes {list(perm)}")
        output = self.graph.add("Transpose", [self.arranged(value, "last")], name, perm=list(perm))
        return Value(output, tuple(value.shape[axis] for axis in perm))

    def reduced(self, operator: str, value: Value, axes: Sequence[int], name: str, *, keep: bool) -> Value:
        """Reduce over axes (ReduceMean, ReduceMax, ReduceMin, ReduceSum), in TensorFlow's count."""
        gone = sorted(axis % len(value.shape) for axis in axes)
        if 0 in gone:
            raise ValueError("reducing over the batch")
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(value.shape) if keep or axis not in gone)
        first = value.order == "first"
        glob = (
            {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}.get(operator)
            if gone == [1, 2] and len(value.shape) == 4
            else None
        )
        if glob:
            output = self.graph.add(glob, [self.arranged(value, "first")], name if keep else f"{name}/pool")
            return (
                Value(output, shape, "first")
                if keep
                else self.reshaped(Value(output, (shape[0], 1, 1, shape[1]), "first"), shape, name)
            )
        if first:
            value = Value(self.arranged(value, "last"), value.shape)
        if operator == "ReduceSum":
            output = self.graph.add(
                operator,
                [value.name, self.constant(f"{name}/axes", np.array(gone, np.int64))],
                name,
                keepdims=int(keep),
            )
        else:
            output = self.graph.add(operator, [value.name], name, axes=gone, keepdims=int(keep))
        return Value(output, shape)

    def product(self, value: Value, matrix: Array, bias: Array | None, name: str) -> Value:
        """Multiply the last axis with a matrix [inputs, outputs]."""
        if matrix.ndim != 2 or value.shape[-1] != matrix.shape[0]:
            raise ValueError(f"multiplying {list(value.shape)} with {list(matrix.shape)}")
        source, stored = self.arranged(value, "last"), self.constant(f"{name}/kernel", matrix)
        shape = (*value.shape[:-1], matrix.shape[1])
        if len(value.shape) == 2:
            biases = [] if bias is None else [self.constant(f"{name}/bias", bias)]
            return Value(self.graph.add("Gemm", [source, stored, *biases], name), shape)
        product = Value(self.graph.add("MatMul", [source, stored], name if bias is None else f"{name}/product"), shape)
        return product if bias is None else self.binary("Add", product, bias, name)

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
