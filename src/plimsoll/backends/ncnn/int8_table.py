"""ncnn's int8 table: text that `ncnn2table` writes and `ncnn2int8` reads.

A line `<layer>_param_0 s s …` holds the scales of a layer's weights, one an output channel (one a group for depthwise
convolutions); a line `<layer> s` that of what it reads. A value is stored as `round(value × scale)`, so that the range
is ±127 / scale. A weight line that begins with `#` keeps its layer in float.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from plimsoll.errors import InputError

_WEIGHTS = re.compile(r"(.+)_param_(\d+)")
_HINT = "A line is a layer's name and its scales, as ncnn2table writes them."


@dataclass(frozen=True)
class Table:
    """Scales by layers."""

    weights: Mapping[str, tuple[float, ...]]
    activations: Mapping[str, float]
    in_float: frozenset[str] = field(default_factory=frozenset)
    """Layers whose line of weights is commented out."""

    @classmethod
    def loads(cls, text: str, where: str = "table") -> Self:
        """Read the text of a table; raises InputError that names the line."""
        weights: dict[str, tuple[float, ...]] = {}
        activations: dict[str, float] = {}
        in_float: set[str] = set()
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words:
                continue
            name = words[0].removeprefix("#")
            weights_of = _WEIGHTS.fullmatch(name)
            if words[0].startswith("#"):
                in_float.add(weights_of[1] if weights_of else name)
                continue
            scales = _scales(words[1:], f"{where}, line {number}")
            if weights_of and weights_of[2] == "0":
                _add(weights, weights_of[1], scales, f"{where}, line {number}")
            elif weights_of:
                raise InputError(
                    f"{where}, line {number}: '{name}': only layers with one set of weights are read", _HINT
                )
            elif len(scales) == 1:
                _add(activations, name, scales[0], f"{where}, line {number}")
            else:
                raise InputError(f"{where}, line {number}: '{name}' has {len(scales)} scales, expected 1", _HINT)
        if not activations:
            raise InputError(f"{where}: no line of it holds a layer's scale", _HINT)
        return cls(
            weights, {name: scale for name, scale in activations.items() if name not in in_float}, frozenset(in_float)
        )

    def dumps(self) -> str:
        """Return the text: all weights first, as ncnn2table writes them."""
        if odd := [
            name
            for name in (*self.weights, *self.activations)
            if not name or name != "".join(name.split()) or name.startswith("#")
        ]:
            raise InputError(
                f"the layer's name {odd[0]!r} can't stand in ncnn's table",
                "Names there have no spaces and don't begin with #.",
            )
        lines = [
            " ".join([f"{name}_param_0", *(f"{scale:.9g}" for scale in scales)])
            for name, scales in self.weights.items()
        ]
        return "\n".join([*lines, *(f"{name} {scale:.9g}" for name, scale in self.activations.items())]) + "\n"


def _add(rows: dict[str, Any], name: str, value: Any, where: str) -> None:
    if name in rows:
        raise InputError(f"{where}: duplicate layer '{name}'", _HINT)
    rows[name] = value


def _scales(words: list[str], where: str) -> tuple[float, ...]:
    try:
        scales = tuple(map(float, words))
    except ValueError as error:
        raise InputError(f"{where}: {error}", _HINT) from error
    if wrong := [scale for scale in scales if not math.isfinite(scale) or scale <= 0]:
        raise InputError(f"{where}: a scale is {wrong[0]}, expected a positive number", _HINT)
    return scales
