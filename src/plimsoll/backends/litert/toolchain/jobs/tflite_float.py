"""Which operators of a TFLite file an int8 network has to compute in float.

Where a value divides, or a root or logarithm is taken of it, a step of its integers may be most of it, and zero is
refused. The integer kernels of softmax, sigmoid and tanh have fixed steps (1/256, 1/128), which leave nothing of a
softmax over 200 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

_KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_SENSITIVE = ("SQRT", "RSQRT", "LOG", "POW")
"""What magnifies the errors of small values."""
_THROUGH = ("ADD", "SUB", "MUL", "MEAN", "SUM", "SQUARE", "SQUARED_DIFFERENCE", "SQRT", "MAXIMUM", "ABS", "EXP", "POW")
"""What a value that must be exact is computed with: a variance, a norm."""
_SQUARES = ("MUL", "SQUARE", "SQUARED_DIFFERENCE", "ABS", "EXP")
"""Where the way back to the quantized values ends."""
_FIXED_SPAN = {"SOFTMAX": 1.0, "LOGISTIC": 1.0, "TANH": 2.0}
_LEAST_SHARE = 0.25
"""Of a fixed span, the share that a value has to use: 64 steps."""


def needing_float(path: Path, ranges: Mapping[str, Sequence[float]], bits: int) -> list[str]:
    """Return the names of the tensors whose operators stay in float, for activations of so many bits."""
    model = flatbuffer_utils.read_model(str(path))
    out: list[str] = []
    for graph in model.subgraphs:
        operators = [(_KINDS[model.operatorCodes[entry.opcodeIndex].builtinCode], entry) for entry in graph.operators]
        maker = {index: operator for operator in operators for index in operator[1].outputs}
        exact: set[int] = set()
        for kind, operator in operators:
            computed = [index for index in operator.inputs if index in maker]
            if kind in _SENSITIVE:
                _add_chain(operator.outputs[0], maker, exact)
            elif kind == "DIV" and operator.inputs[1] in maker:
                exact.update(operator.outputs)
                _add_chain(operator.inputs[1], maker, exact)
            elif kind == "MUL" and any(_is_reciprocal(maker[index]) for index in computed):
                exact.update(operator.outputs)
            elif bits == 8 and kind in _FIXED_SPAN:
                low, high = ranges.get(graph.tensors[operator.outputs[0]].name.decode(), (0.0, 0.0))
                if kind == "SOFTMAX" or high - low < _LEAST_SHARE * _FIXED_SPAN[kind]:
                    exact.update(operator.outputs)
        out += [graph.tensors[index].name.decode() for index in sorted(exact)]
    return out


def _is_reciprocal(operator: tuple[str, Any]) -> bool:
    return operator[0] in ("RSQRT", "DIV")


def _add_chain(start: int, maker: Mapping[int, tuple[str, Any]], exact: set[int]) -> None:
    """Add what a value is computed with, back to the squares (or the like) of quantized values."""
    waiting = [start]
    while waiting:
        index = waiting.pop()
        kind, operator = maker.get(index, ("", None))
        if operator is None or index in exact or (index != start and kind not in _THROUGH):
            continue
        exact.add(index)
        if kind not in _SQUARES:
            waiting += list(operator.inputs)
