"""Decide the 8-bit grid of each tensor in a quantized MNN network: what MNN's tool leaves to be desired on the way from
ranges to grids.

Seen in MNN 3.6.1 on x86, each by comparing a tensor with its float original:

- Everything down to the output is quantized, a Softmax's own result to 127 steps: here the last product and what
  follows stay in float.
- Poolings in int8 are wrong on x86: averages round down, by half a step on average, and the largest is chosen among
  bytes that are read with the wrong sign. PReLU, the larger and the smaller of two are wrong everywhere; Softmax,
  LayerNorm, linear resizing and others coarse. All of them are computed in float here.
- Values after a Relu get half of the steps, since zero is stored as 0: here every grid spans its range. A sum with a
  fused Relu cuts off at the stored 0, so its Relu is dropped (the grid's end does the same).
- Tensors in float hand what they have on to those that have nothing, backwards too: a layout that is marked as float
  made the PReLU before it read integers as float numbers. Behind a tensor without a grid, layouts have none either.
- A row of weights that are all zero gets no scale but NaN: here it gets one.
- Functions of single values are looked up in a table that holds for the tool's grids alone, also where what they read
  or make is in float: here it is computed for the grids that are chosen, or taken out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.mnn.graph import POOLINGS, Graph, Operator

Range = tuple[float, float]
QuantizationParameters = tuple[float, int]
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

_STEPS = 127
_LEAST = 1e-9
_DIFFERENT = 1e-3
"""A pooling runs in int8 between equal grids alone."""


def settle(graph: Graph, names: Collection[str], ranges: Mapping[str, Range]) -> bool:
    """Change the grids of a network that MNN's tool quantized: to `ranges` (by tensor names) where they are known, else
    to what the tool found.

    Tensors that are not among `names`, those whose grids can be relied on, stay in float: of what MNN makes of an
    operator on the way the tool's few pictures, and its methods that cut off, know little. Returns whether a
    convolution is left that computes in int8.
    """
    work = _Grids(graph, ranges)
    _, tail = graph.heads()
    unknown = {tensor for tensor in graph.quantized.keys() - tail if not work.is_among(names, tensor)}
    floats = _floats(graph, unknown)
    for tensor in graph.quantized.keys() & floats:
        graph.remove_grid(tensor)
    for tensor in graph.quantized.keys() & tail:
        graph.keep_float(tensor)
    grids = {tensor: work.grid(tensor) for tensor in sorted(graph.quantized)}
    for tensor, (scale, zero) in grids.items():
        graph.set_grid(tensor, scale, zero)
    for operator in graph.operators:
        operator.mend_weights()
        if not operator.inputs or not operator.outputs:
            continue
        operator.set_grids(grids.get(operator.inputs[0]), grids.get(operator.outputs[0]))
        if operator.has_relu and grids.get(operator.outputs[0], (0.0, 0))[1] != 0:
            operator.drop_relu()
        if operator.has_table:
            operator.set_table(_table(operator, grids.get(operator.inputs[0]), grids.get(operator.outputs[0])))
    return any(operator.weights_are_stored and operator.inputs[0] in grids for operator in graph.operators)


def _floats(graph: Graph, unknown: set[int]) -> set[int]:
    """Return the tensors that must have no grid: those of operators that are computed in float though what they read is
    quantized, those without a range that can be relied on, and those that would hand a grid of theirs on to them."""
    floats = unknown | {tensor for operator in graph.operators if operator.runs_in_float for tensor in operator.outputs}
    for operator in graph.operators:
        if operator.spreads and not floats.isdisjoint(operator.inputs):
            floats.update(operator.outputs)
    return floats


def _table(
    operator: Operator, before: QuantizationParameters | None, after: QuantizationParameters | None
) -> NDArray[np.int8] | None:
    """Return what a function of single values makes of each stored integer; None where it is better computed in
    float."""
    function = _FUNCTIONS.get(operator.function or 0)
    if function is None or before is None or after is None:
        return None
    values = (np.arange(-_STEPS, _STEPS + 1) - before[1]) * before[0]
    stored = np.rint(function(np.asarray(values, np.float64)) / after[0]) + after[1]
    return np.asarray(np.clip(stored, -_STEPS, _STEPS), np.int8)


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
            if quantized.has_grid(tensor):
                scale, zero = quantized.grid(tensor)
                ranges[original.names[same]] = scale * (-_STEPS - zero), scale * (_STEPS - zero)
    return ranges


class _Grids:
    def __init__(self, graph: Graph, ranges: Mapping[str, Range]) -> None:
        self._graph = graph
        self._ranges = ranges

    def is_among(self, names: Collection[str], tensor: int) -> bool:
        """Tell whether a tensor is one of those named, perhaps in another layout, or a pooling of what is."""
        maker = self._graph.makers.get(self._root(tensor))
        if maker is not None and maker.kind in POOLINGS and self.is_among(names, maker.inputs[0]):
            return True
        same = list(self._layouts(self._root(tensor)))
        if not any(self._graph.names[other] in self._ranges or self._graph.has_grid(other) for other in same):
            return False
        return any(self._graph.names[other] in names for other in same)

    def _source(self, tensor: int) -> int | None:
        """Return the tensor whose values this one holds in another layout; None where it holds values of its own."""
        maker = self._graph.makers.get(tensor)
        return maker.inputs[0] if maker is not None and maker.moves and maker.inputs else None

    def _root(self, tensor: int) -> int:
        while (source := self._source(tensor)) is not None:
            tensor = source
        return tensor

    def grid(self, tensor: int) -> tuple[float, int]:
        """Return scale and zero point: values are `scale × (stored − zero)`, stored from −127 to 127."""
        root = self._root(tensor)
        low, high = self._range(root)
        scale = max(high - low, _LEAST) / (2 * _STEPS)
        return scale, max(-_STEPS, min(_STEPS, round(-_STEPS - low / scale)))

    def _range(self, root: int) -> Range:
        """Return a range that contains zero, and nothing below it behind a Relu; that of a pooling is another than that
        of what it reads."""
        maker = self._graph.makers.get(root)
        pooled = maker.inputs[0] if maker is not None and maker.kind in POOLINGS else None
        before = self._range(self._root(pooled)) if pooled in self._graph.quantized else None
        if (known := self._known(root)) is not None:
            low, high = known
        elif before is not None:
            low, high = before
        else:
            held = next(same for same in self._layouts(root) if self._graph.has_grid(same))
            scale, zero = self._graph.grid(held)
            low, high = scale * (-_STEPS - zero), scale * (_STEPS - zero)
        if maker is not None and maker.has_relu:
            low = 0.0
        low, high = min(low, 0.0), max(high, 0.0)
        if before is not None and math.isclose(high - low, before[1] - before[0], rel_tol=_DIFFERENT / 2):
            low, high = (end * (1 + _DIFFERENT) for end in before)
        return low, high

    def _known(self, root: int) -> Range | None:
        """Return the given range of a tensor, under its own name or that of what only changes its layout: MNN puts such
        operators in between."""
        names = (self._graph.names[same] for same in self._layouts(root))
        return next((self._ranges[name] for name in names if name in self._ranges), None)

    def _layouts(self, root: int) -> Iterator[int]:
        """Yield a tensor, and those that hold its values in other layouts."""
        open_ = [root]
        while open_:
            tensor = open_.pop()
            yield tensor
            open_ += [
                output
                for reader in self._graph.readers.get(tensor, [])
                if reader.moves and reader.inputs[0] == tensor
                for output in reader.outputs
            ]
