"""Tensors of any shape in ONNX: arranged, combined, cut and joined, as TensorFlow's operators need it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from plimsoll.importers.tfjs.tensors import Array, Order, Pair, Shape, Value, broadcast
from plimsoll.onnx.writer import GraphWriter

_TO_FIRST, _TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class ConvertedGraph:
    """A model as a graph of ONNX, with the names of its inputs and outputs, which are TensorFlow.js's."""

    graph: GraphWriter
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Of outputs that are not float32; and of inputs that TensorFlow.js takes as int32, ONNX as whole numbers in
    float32."""


class TensorWriter:
    """Writes TensorFlow's operators into a graph; errors are ValueError, whose layer or node the caller names."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph
        self.batched = ""
        """An input whose first axis is the batch."""
        self._turned: dict[tuple[str, Order], str] = {}

    def constant(self, name: str, values: Array) -> str:
        """Store values."""
        return self.graph.constant(name, values)

    def stored(self, values: Array, name: str) -> Value:
        """Store values, as a value."""
        return Value(self.constant(name, values), values.shape, dtype=str(values.dtype))

    def write(
        self,
        operator: str,
        inputs: Sequence[Value | Array],
        shape: Shape,
        name: str,
        dtype: str = "",
        **attributes: Any,
    ) -> Value:
        """Apply an operator to values with their channels last; the result has the first one's dtype unless given."""
        names = [
            self.arranged(operand, "last") if isinstance(operand, Value) else self.constant(f"{name}/constant", operand)
            for operand in inputs
        ]
        kinds = [operand.dtype for operand in inputs if isinstance(operand, Value)]
        return Value(self.graph.add(operator, names, name, **attributes), shape, dtype=dtype or (*kinds, "float32")[0])

    def cast(self, value: Value, dtype: str, name: str) -> Value:
        """Convert to another dtype; `int64` for ONNX's indices."""
        if value.dtype == dtype:
            return value
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return replace(value, name=self.graph.add("Cast", [value.name], name, to=kind), dtype=dtype)

    def sizes(self, shape: Sequence[int], name: str) -> str:
        """Return the name of a shape in ONNX; -1 at its begin is the batch."""
        if not shape or shape[0] != -1:
            return self.constant(f"{name}/sizes", np.array(shape, np.int64))
        if not self.batched or -1 in shape[1:]:
            raise ValueError(f"its shape {list(shape)} is not known before the network runs")
        batch = self.graph.add("Shape", [self.batched], f"{name}/batch", start=0, end=1)
        if len(shape) == 1:
            return batch
        rest = self.constant(f"{name}/sizes", np.array(shape[1:], np.int64))
        return self.graph.add("Concat", [batch, rest], f"{name}/shape", axis=0)

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
            sizes = (self.graph.batch, *value.shape[1:]) if value.free else value.shape
            self.graph.output(read, name, sizes, value.dtype)

    def unary(self, operator: str, value: Value, name: str, **attributes: Any) -> Value:
        """Apply an operator to every number by itself."""
        return replace(value, name=self.graph.add(operator, [value.name], name, **attributes))

    def clipped(self, value: Value, low: float | None, high: float | None, name: str) -> Value:
        """Limit every number."""
        limits = [
            "" if limit is None else self.constant(f"{name}/{what}", np.array(limit, value.dtype))
            for what, limit in (("low", low), ("high", high))
        ]
        return replace(value, name=self.graph.add("Clip", [value.name, *limits], name))

    def softmax(self, value: Value, axis: int, name: str) -> Value:
        """Softmax over an axis, in TensorFlow's count."""
        return Value(
            self.graph.add("Softmax", [self.arranged(value, "last")], name, axis=axis % len(value.shape)), value.shape
        )

    def binary(self, operator: str, first: Value | Array, second: Value | Array, name: str, dtype: str = "") -> Value:
        """Combine two operands, either of which may be stored; the smaller is repeated along missing axes. The result
        has the computed one's dtype unless given."""
        values = [operand for operand in (first, second) if isinstance(operand, Value)]
        shape = broadcast(*(operand.shape for operand in (first, second)))
        alike = all(
            len(operand.shape) in (len(shape), 0) or not isinstance(operand, Value) for operand in (first, second)
        )
        order: Order = (
            "first" if alike and len(shape) == 4 and any(operand.order == "first" for operand in values) else "last"
        )
        kind = values[0].dtype
        names = [self._operand(operand, order, len(shape), f"{name}/constant", kind) for operand in (first, second)]
        return Value(self.graph.add(operator, names, name), shape, order, dtype or kind)

    def _operand(self, operand: Value | Array, order: Order, rank: int, name: str, dtype: str) -> str:
        if isinstance(operand, Value):
            return self.arranged(self.cast(operand, dtype, f"{name}/cast"), order)
        operand = operand.astype(dtype)
        if order == "first" and operand.ndim:
            operand = operand.reshape(*[1] * (rank - operand.ndim), *operand.shape).transpose(*_TO_FIRST)
        return self.constant(name, operand)

    def pad(self, value: Value, pads: Sequence[Pair], name: str, mode: str = "constant", fill: float = 0) -> Value:
        """Add a border; one pair (before, after) an axis, in TensorFlow's order."""
        shape = tuple(None if size is None else size + sum(pair) for size, pair in zip(value.shape, pads, strict=True))
        order = _TO_FIRST if value.order == "first" else range(len(pads))
        amounts = [pads[axis][side] for side in (0, 1) for axis in order]
        inputs = [value.name, self.constant(f"{name}/pads", np.array(amounts, np.int64))]
        inputs += [self.constant(f"{name}/fill", np.array(fill, value.dtype))] if mode == "constant" else []
        return Value(self.graph.add("Pad", inputs, name, mode=mode), shape, value.order, value.dtype)

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
        return Value(self.graph.add("Slice", inputs, name), shape, dtype=value.dtype)

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
        return Value(output, (*values[0].shape[:axis], total, *values[0].shape[axis + 1 :]), order, values[0].dtype)

    def parts(self, value: Value, sizes: Sequence[int], axis: int, name: str) -> list[Value]:
        """Split along an axis, in TensorFlow's count; the channels stay where they are."""
        axis %= len(value.shape)
        position = _TO_FIRST.index(axis) if value.order == "first" else axis
        stored = self.constant(f"{name}/sizes", np.array(sizes, np.int64))
        outputs = [name, *(f"{name}:{index}" for index in range(1, len(sizes)))]
        names = self.graph.add_many("Split", [value.name, stored], outputs, axis=position)
        shapes = [(*value.shape[:axis], size, *value.shape[axis + 1 :]) for size in sizes]
        return [replace(value, name=part, shape=shape) for part, shape in zip(names, shapes, strict=True)]

    def reshaped(self, value: Value, shape: Sequence[int | None], name: str) -> Value:
        """Give a value another shape; a free batch axis stays, and one further size may be open (None or -1)."""
        if not value.free:
            return self._reshaped(value, shape, name)
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
        return Value(output, (value.shape[0], *(None if size == -1 else size for size in sizes[1:])), dtype=value.dtype)

    def _reshaped(self, value: Value, shape: Sequence[int | None], name: str) -> Value:
        """Reshape a value whose first size is known, or that is a single number."""
        sizes = [-1 if size is None else size for size in shape]
        if None not in value.shape:
            have, known = math.prod(size or 1 for size in value.shape), math.prod(size for size in sizes if size != -1)
            if sizes.count(-1) == 1 and have % known == 0:
                sizes[sizes.index(-1)] = have // known
            if -1 in sizes or math.prod(sizes) != have:
                raise ValueError(f"reshaping {list(value.shape)} to {list(shape)}")
        if sizes.count(-1) > 1:
            raise ValueError(f"reshaping {list(value.shape)} to {list(shape)}")
        target = self.constant(f"{name}/shape", np.array(sizes, np.int64))
        output = self.graph.add("Reshape", [self.arranged(value, "last"), target], name)
        return Value(output, tuple(None if size == -1 else size for size in sizes), dtype=value.dtype)

    def transposed(self, value: Value, perm: Sequence[int], name: str) -> Value:
        """Put the axes into another order; the batch stays first."""
        if (value.free and perm[0] != 0) or sorted(perm) != list(range(len(value.shape))):
            raise ValueError(f"the order of axes {list(perm)}")
        output = self.graph.add("Transpose", [self.arranged(value, "last")], name, perm=list(perm))
        return Value(output, tuple(value.shape[axis] for axis in perm), dtype=value.dtype)

    def reduced(self, operator: str, value: Value, axes: Sequence[int], name: str, *, keep: bool) -> Value:
        """Reduce over axes (ReduceMean, ReduceMax, ReduceMin, ReduceSum), in TensorFlow's count."""
        gone = sorted(axis % len(value.shape) for axis in axes)
        if 0 in gone and value.free:
            raise ValueError("reducing over the batch")
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(value.shape) if keep or axis not in gone)
        first = value.order == "first"
        glob = (
            {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}.get(operator)
            if gone == [1, 2] and len(value.shape) == 4 and value.dtype == "float32"
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
            value = replace(value, name=self.arranged(value, "last"), order="last")
        if operator == "ReduceSum":
            output = self.graph.add(
                operator,
                [value.name, self.constant(f"{name}/axes", np.array(gone, np.int64))],
                name,
                keepdims=int(keep),
            )
        else:
            output = self.graph.add(operator, [value.name], name, axes=gone, keepdims=int(keep))
        return Value(output, shape, dtype=value.dtype)

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
