"""A node of TensorFlow's graph, as the JSON of a graph model has it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plimsoll.importers.tfjs.operators import TensorFlowWriter
from plimsoll.importers.tfjs.value import Array, Pair, Value, Window

Operand = Value | Array


@dataclass
class Node:
    """A node of the graph: its attributes and what it reads."""

    name: str
    op: str
    attributes: Mapping[str, Any]
    inputs: list[Operand]
    writer: TensorFlowWriter

    def value(self, place: int) -> Value:
        """Return an input that is computed; raises ValueError for a stored one."""
        found = self.inputs[place]
        if not isinstance(found, Value):
            raise ValueError(f"its input {place + 1} is stored, expected a computed one")
        return found

    def stored(self, place: int) -> Array:
        """Return an input that is stored; raises ValueError for a computed one."""
        found = self.inputs[place]
        if isinstance(found, Value):
            raise ValueError(f"its input {place + 1} is computed while the network runs, expected a stored one")
        return found

    def numbers(self, place: int) -> list[int]:
        """Return a stored input as whole numbers."""
        return [int(one) for one in self.stored(place).reshape(-1)]

    def text(self, name: str, default: str = "") -> str:
        """Return an attribute that is a text, plain or in base64."""
        return _text(self.attributes.get(name, {}).get("s", default))

    def texts(self, name: str) -> list[str]:
        """Return an attribute that is a list of texts."""
        return [_text(one) for one in self.attributes.get(name, {}).get("list", {}).get("s", [])]

    def integers(self, name: str) -> list[int]:
        """Return an attribute that is a list of whole numbers."""
        return [int(one) for one in self.attributes.get(name, {}).get("list", {}).get("i", [])]

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number."""
        entry = self.attributes.get(name, {})
        return float(entry.get("f", entry.get("i", default)))

    def flag(self, name: str) -> bool:
        """Return an attribute that is true or false."""
        return bool(self.attributes.get(name, {}).get("b", False))

    def window(self, kernel: Pair) -> Window:
        """Return the window of a convolution or pool; raises ValueError for channels-first ones."""
        if self.text("data_format", "NHWC") != "NHWC":
            raise ValueError(f"its data_format is {self.text('data_format')}, expected NHWC")
        strides, dilations = self.integers("strides") or [1, 1, 1, 1], self.integers("dilations") or [1, 1, 1, 1]
        pads = self.integers("explicit_paddings") or [0] * 8
        if (
            len(strides) != 4
            or len(dilations) != 4
            or len(pads) != 8
            or (strides[0], strides[3], dilations[0], dilations[3]) != (1, 1, 1, 1)
        ):
            raise ValueError(f"strides {strides}, dilations {dilations}, paddings {pads}")
        explicit = ((pads[2], pads[3]), (pads[4], pads[5]))
        padding = self.text("padding", "VALID").lower()
        return Window(
            kernel,
            (strides[1], strides[2]),
            padding,
            (dilations[1], dilations[2]),
            explicit if padding == "explicit" else ((0, 0), (0, 0)),
        )


def _text(value: Any) -> str:
    """Return a text of the JSON form of a graph, where bytes are in base64 or a list of numbers."""
    if isinstance(value, list):
        return bytes(value).decode()
    try:
        decoded = base64.b64decode(str(value), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return str(value)
    return decoded if decoded.isprintable() and len(str(value)) % 4 == 0 and decoded else str(value)
