"""Which operators of a TFLite file an int8 network has to compute in float.

Where a value divides, or a root or logarithm is taken of it, a step of its integers may be most of it, and zero is
refused. The integer kernels of softmax, sigmoid and tanh have fixed steps (1/256, 1/128), which leave nothing of a
softmax over 200 tokens. An average gets the steps of what it averages, which are coarse for it.

Behind the last layers that have weights, boxes of 640 pixels and scores of 1 would share 256 steps, and what lies
beyond every calibration picture would be clipped. What is left there is computed in float, and the last layers
themselves with integer weights that give float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

_KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_SENSITIVE = ("SQRT", "RSQRT", "LOG", "POW")
"""What magnifies the errors of small values."""
_THROUGH = ("ADD", "SUB", "MUL", "MEAN", "SUM", "SQUARE", "SQUARED_DIFFERENCE", "SQRT", "MAXIMUM", "ABS", "EXP", "POW")
"""What a value that must be exact is computed with: a variance, a norm."""
_SQUARES = ("MUL", "SQUARE", "SQUARED_DIFFERENCE", "ABS", "EXP")
"""Where the way back to the quantized values ends."""
_JOINS = ("CONCATENATION", "PACK")
"""Where a stored value is joined (a class token), the quantizer fails (seen in 0.10)."""
_AVERAGES = ("MEAN", "AVERAGE_POOL_2D")
_FIXED_SPAN = {"SOFTMAX": 1.0, "LOGISTIC": 1.0, "TANH": 2.0}
_LEAST_SHARE = 0.25
"""Of a fixed span, the share that a value has to use: 64 steps."""
_LEAST_SPREAD = 0.5
"""Of the span of what is averaged, the same for an average, which other layers go by."""
_NEGLIGIBLE = {"LOGISTIC": -8.0, "HARD_SWISH": -3.0, "RELU": 0.0, "RELU6": 0.0}
_WEIGHTED = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
"""Layers that take integer weights with float values."""
_LAYOUT = ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS")
_FEW_WEIGHTS = 64
"""A layer of no more is part of what follows the last layers: the 16 weights that make a side of a box of its bins."""
_TAIL = (
    *_THROUGH, *_SENSITIVE, *_FIXED_SPAN, *_LAYOUT, "DIV", "NEG", "MINIMUM", "RELU", "RELU6", "LEAKY_RELU", "PRELU",
    "ELU", "HARD_SWISH", "GELU", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "CONCATENATION", "PACK", "UNPACK",
    "GATHER", "GATHER_ND", "CAST", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "ARG_MAX", "TOPK_V2", "REDUCE_MAX", "REDUCE_MIN",
)  # fmt: skip
"""What may lie behind the last layers."""


@dataclass
class FloatOperators:
    """The tensors, by name, whose operators are not quantized as all others."""

    exact: list[str] = field(default_factory=list)
    """Of operators in float."""
    last: list[str] = field(default_factory=list)
    """Of layers that take float, multiply by integer weights and give float."""
    least: dict[str, float] = field(default_factory=dict)
    """Below this, a tensor's values make no difference, and its range need not go."""


def float_operators(
    path: Path, ranges: Mapping[str, Sequence[float]], bits: int, *, float_ends: bool
) -> FloatOperators:
    """Return what stays in float, for activations of so many bits; `float_ends`: the outputs are to be float32."""
    model = flatbuffer_utils.read_model(str(path))
    out = FloatOperators()
    for position, graph in enumerate(model.subgraphs):
        search = _Search(model, graph, ranges)
        search.find_sensitive()
        if bits == 8:
            search.find_coarse()
            if float_ends and position == 0:
                search.find_tail()
            search.find_between()
        search.find_indices()
        if bits == 8:
            out.least |= {graph.tensors[index].name.decode(): low for index, low in search.negligible().items()}
        names = [[graph.tensors[index].name.decode() for index in sorted(part)] for part in (search.exact, search.last)]
        out.exact += names[0]
        out.last += names[1]
    return out


class _Search:
    def __init__(self, model: Any, graph: Any, ranges: Mapping[str, Sequence[float]]) -> None:
        self.exact: set[int] = set()
        self.last: set[int] = set()
        self._graph = graph
        self._ranges = ranges
        self._operators = [
            (_KINDS[model.operatorCodes[entry.opcodeIndex].builtinCode], entry) for entry in graph.operators
        ]
        self._maker = {index: operator for operator in self._operators for index in operator[1].outputs}
        self._readers: dict[int, list[Any]] = {}
        for _, operator in self._operators:
            for index in set(operator.inputs):
                self._readers.setdefault(index, []).append(operator)

    def find_sensitive(self) -> None:
        """Find what divides, or magnifies small values, and what that is computed with."""
        for kind, operator in self._operators:
            computed = [self._maker[index][0] for index in operator.inputs if index in self._maker]
            if kind in _SENSITIVE:
                self._add_chain(operator.outputs[0])
            elif kind == "DIV" and operator.inputs[1] in self._maker:
                self.exact.update(operator.outputs)
                self._add_chain(operator.inputs[1])
            magnified = kind == "MUL" and ("RSQRT" in computed or "DIV" in computed)
            if magnified or (kind in _JOINS and len(computed) < len(operator.inputs)):
                self.exact.update(operator.outputs)

    def _add_chain(self, start: int) -> None:
        """Add what a value is computed with, back to the squares (or the like) of quantized values."""
        waiting, seen = [start], set()
        while waiting:
            index = waiting.pop()
            kind, operator = self._maker.get(index, ("", None))
            if operator is None or index in seen or (index != start and kind not in _THROUGH):
                continue
            seen.add(index)
            if kind not in _SQUARES:
                waiting += list(operator.inputs)
        self.exact |= seen

    def find_coarse(self) -> None:
        """Find what would use few of 256 steps."""
        for kind, operator in self._operators:
            spread = self._span(operator.outputs[0]) if kind in _FIXED_SPAN or kind in _AVERAGES else 0.0
            least = _LEAST_SHARE * _FIXED_SPAN.get(kind, 0)
            if kind in _AVERAGES:
                least = _LEAST_SPREAD * self._span(operator.inputs[0])
            if kind == "SOFTMAX" or spread < least:
                self.exact.update(operator.outputs)

    def _span(self, index: int) -> float:
        low, high = self._ranges.get(self._graph.tensors[index].name.decode(), (0.0, 0.0))
        return float(max(high, 0) - min(low, 0))

    def negligible(self) -> dict[int, float]:
        """Return from where on what only activations read is nothing for them: x · sigmoid(x) is -0.0027 at -8."""
        out: dict[int, float] = {}
        for _, operator in self._operators:
            for index in operator.outputs:
                kinds = [self._activation(reader, index) for reader in self._readers.get(index, [])]
                if kinds and all(kind in _NEGLIGIBLE for kind in kinds) and index not in set(self._graph.outputs):
                    out[index] = min(_NEGLIGIBLE[kind] for kind in kinds)
        return out

    def _activation(self, reader: Any, index: int) -> str:
        """Return what an operator is as a reader of a value; a product with the value's own sigmoid is one with it."""
        (kind, _) = self._maker[reader.outputs[0]]
        others = [read for read in reader.inputs if read != index]
        gate, operator = self._maker.get(others[0], ("", None)) if len(others) == 1 else ("", None)
        gated = kind == "MUL" and gate == "LOGISTIC" and operator is not None and operator.inputs[0] == index
        return gate if gated else kind

    def find_tail(self) -> None:
        """Find what nothing but the outputs is computed from, back to the last layers that have weights."""
        outputs = set(self._graph.outputs)
        behind: set[int] = set()
        for kind, operator in reversed(self._operators):
            readers = [id(reader) for index in operator.outputs for reader in self._readers.get(index, [])]
            if not (readers or outputs & set(operator.outputs)) or not behind.issuperset(readers):
                continue
            if kind in _WEIGHTED and self._weights(operator) > _FEW_WEIGHTS:
                self.last.update(operator.outputs)
            elif kind in _TAIL or kind in _WEIGHTED or operator.outputs[0] in self.exact:
                self.exact.update(operator.outputs)
                behind.add(id(operator))

    def _weights(self, operator: Any) -> int:
        return int(np.prod(self._graph.tensors[operator.inputs[1]].shape))

    def find_indices(self) -> None:
        """Find what numbers of rows and columns are computed from: rounded to 256 steps, they lie elsewhere."""
        for kind, operator in self._operators:
            if kind in ("GATHER", "GATHER_ND"):
                waiting = [operator.inputs[1]]
                while waiting:
                    index = waiting.pop()
                    before, maker = self._maker.get(index, ("", None))
                    if maker is not None and before in _TAIL and index not in self.exact:
                        self.exact.add(index)
                        waiting += list(maker.inputs)

    def find_between(self) -> None:
        """Find what only moves values from operators in float to others in float."""
        for kind, operator in self._operators:
            index = operator.outputs[0]
            behind = {read for reader in self._readers.get(index, []) for read in reader.outputs}
            if kind in _LAYOUT and operator.inputs[0] in self.exact and behind and behind <= self.exact | self.last:
                self.exact.add(index)
