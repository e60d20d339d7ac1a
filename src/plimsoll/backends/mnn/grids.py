"""Decide the 8-bit grid of each tensor in a quantized MNN network: what MNN's tool leaves to be desired on the way from
ranges to grids.

Seen in MNN 3.6.1 on x86, each by comparing a tensor with its float original:

- Everything down to the output is quantized, a Softmax's own result to 127 steps: here the last product and what
  follows stay in float.
- The average pooling in int8 rounds down, by half a step on average: here averages are computed in float.
- Values after a Relu get half of the steps, since zero is stored as 0: here their grid begins at zero, where the
  kernels around it take an offset. A sum with a fused Relu does not: it cuts off at the stored 0, so its Relu is
  dropped (the grid's end does the same). A max pooling that reaches over the border does not either.
- Functions of single values are looked up in a table that holds for the tool's grids alone, also where what they read
  or make is in float: here it is computed for the grids that are chosen, or taken out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.mnn.graph import MOVING, POOLING, Graph, Operator

Range = tuple[float, float]
Grid = tuple[float, int]
"""Scale and zero point."""
Values = NDArray[np.float64]


def _sigmoid(values: Values) -> Values:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)))


def _gelu(values: Values) -> Values:
    return np.array([0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in values])


_FUNCTIONS: dict[int, Callable[[Values], Values]] = {
    25: lambda values: np.array([math.erf(value) for value in values]),
    29: _sigmoid,
    30: np.tanh,
    31: lambda values: values * np.clip(values + 3, 0, 6) / 6,
    32: _gelu,
    33: _gelu,
    34: lambda values: values * _sigmoid(values),
}
"""Functions that 8 bits can hold, by MNN's numbers. Exponentials, logarithms, roots and quotients stay in float."""

_INPUT = 34
_STEPS = 127
_LEAST = 1e-9
_DIFFERENT = 1.001
"""A pooling runs in int8 between equal grids alone."""


def settle(graph: Graph, ranges: Mapping[str, Range]) -> None:
    """Change the grids of a network that MNN's tool quantized: to `ranges` (by tensor names) where they are known, else
    to what the tool found."""
    _, tail = graph.heads()
    for tensor in graph.quantized.keys() & tail:
        graph.keep_float(tensor)
    work = _Grids(graph, ranges, graph.quantized.keys() - tail)
    grids = {tensor: work.grid(tensor) for tensor in sorted(work.tensors)}
    for tensor, (scale, zero) in grids.items():
        graph.set_grid(tensor, scale, zero)
    for operator in graph.operators:
        if not operator.inputs or not operator.outputs:
            continue
        operator.set_grids(grids.get(operator.inputs[0]), grids.get(operator.outputs[0]))
        if operator.has_relu and grids.get(operator.outputs[0], (0.0, 0))[1] != 0:
            operator.drop_relu()
        if operator.has_table:
            operator.set_table(_table(operator, grids.get(operator.inputs[0]), grids.get(operator.outputs[0])))


def _table(operator: Operator, before: Grid | None, after: Grid | None) -> bytes | None:
    """Return what a function of single values makes of each stored integer; None where it is better computed in
    float."""
    function = _FUNCTIONS.get(operator.function or 0)
    if function is None or before is None or after is None:
        return None
    values = (np.arange(-_STEPS, _STEPS + 1) - before[1]) * before[0]
    stored = np.rint(function(np.asarray(values, np.float64)) / after[0]) + after[1]
    return bytes(np.clip(stored, -_STEPS, _STEPS).astype(np.int8).tobytes())


def ranges_of(quantized: Graph, original: Graph) -> dict[str, Range]:
    """Return the ranges of a quantized network's tensors by the names that the operators at the same places have in the
    original.

    Raises ValueError where it isn't the same sequence of operators.
    """
    if [operator.kind for operator in quantized.operators] != [operator.kind for operator in original.operators]:
        raise ValueError("its operators are others than before")
    ranges: dict[str, Range] = {}
    for operator, other in zip(quantized.operators, original.operators, strict=True):
        for tensor, same in zip(operator.outputs, other.outputs, strict=True):
            if tensor in quantized.quantized:
                scale, zero = quantized.grid(tensor)
                ranges[original.names[same]] = scale * (-_STEPS - zero), scale * (_STEPS - zero)
    return ranges


class _Grids:
    def __init__(self, graph: Graph, ranges: Mapping[str, Range], tensors: set[int]) -> None:
        self._graph = graph
        self._ranges = ranges
        self.tensors = tensors
        self._groups: dict[int, list[int]] = {}
        for tensor in tensors:
            self._groups.setdefault(self._root(tensor), []).append(tensor)

    def _source(self, tensor: int) -> int | None:
        """Return the tensor whose values this one holds, moved or chosen; None where it holds values of its own."""
        maker = self._graph.makers.get(tensor)
        same = maker is not None and (maker.kind in MOVING or (maker.kind == POOLING and not maker.is_average))
        return maker.inputs[0] if maker is not None and same and maker.inputs else None

    def _root(self, tensor: int) -> int:
        while (source := self._source(tensor)) is not None:
            tensor = source
        return tensor

    def grid(self, tensor: int) -> tuple[float, int]:
        """Return scale and zero point: values are `scale × (stored − zero)`, stored from −127 to 127."""
        root = self._root(tensor)
        low, high = self._range(root)
        if all(self._takes_offsets(member) for member in self._groups[root]):
            scale = max(high - low, _LEAST) / (2 * _STEPS)
            return scale, max(-_STEPS, min(_STEPS, round(-_STEPS - low / scale)))
        return max(-low, high, _LEAST) / _STEPS, 0

    def _range(self, root: int) -> Range:
        """Return a range that contains zero, and nothing below it behind a Relu."""
        maker = self._graph.makers.get(root)
        averaged = maker is not None and maker.is_average
        if (known := self._known(root)) is not None:
            low, high = known
        elif averaged and maker is not None and maker.inputs[0] in self.tensors:
            low, high = (_DIFFERENT * end for end in self._range(self._root(maker.inputs[0])))
        else:
            held = root if root in self._graph.quantized else self._groups[root][0]
            scale, zero = self._graph.grid(held)
            low, high = scale * (-_STEPS - zero), scale * (_STEPS - zero)
        if maker is not None and maker.has_relu:
            low = 0.0
        return min(low, 0.0), max(high, 0.0)

    def _known(self, root: int) -> Range | None:
        """Return the given range of a tensor, under its own name or that of what only changes its layout: MNN puts such
        operators in between."""
        open_ = [root]
        while open_:
            tensor = open_.pop()
            if (known := self._ranges.get(self._graph.names[tensor])) is not None:
                return known
            open_ += [
                output
                for reader in self._graph.readers.get(tensor, [])
                if reader.kind in MOVING and reader.inputs[0] == tensor
                for output in reader.outputs
            ]
        return None

    def _takes_offsets(self, tensor: int) -> bool:
        around: list[Operator] = list(self._graph.readers.get(tensor, []))
        maker = self._graph.makers.get(tensor)
        if maker is not None and maker.kind != _INPUT:
            around.append(maker)
        return all(operator.takes_offsets for operator in around)
