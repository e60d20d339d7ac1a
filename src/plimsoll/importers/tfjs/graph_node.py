"""A node of TensorFlow's graph, as TensorFlow.js reads it: its attributes and what it reads."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from plimsoll.importers.tfjs.operators import TensorFlowWriter
from plimsoll.importers.tfjs.tensors import Array, Pair, Value, Window

Operand = Value | Array


@dataclass
class Node:
    """A node of the graph: its attributes and what it reads."""

    name: str
    op: str
    attributes: Mapping[str, Any]
    inputs: list[Operand]
    writer: TensorFlowWriter

    def value(self, index: int) -> Value:
        """Return an input that is computed; raises ValueError for a stored one."""
        operand = self.inputs[index]
        if not isinstance(operand, Value):
            raise ValueError(f"its input {index + 1} is stored, expected a computed one")
        return operand

    def stored(self, index: int) -> Array:
        """Return an input that is stored; raises ValueError for a computed one."""
        operand = self.inputs[index]
        if isinstance(operand, Value):
            raise ValueError(f"its input {index + 1} is computed while the network runs, expected a stored one")
        return operand

    def computed(self, index: int) -> Value:
        """Return an input as a computed value, a stored one too."""
        operand = self.inputs[index]
        return operand if isinstance(operand, Value) else self.writer.stored(operand, f"{self.name}/constant")

    @property
    def arrays(self) -> list[Array] | None:
        """All inputs, where all are stored; else None."""
        stored = [operand for operand in self.inputs if not isinstance(operand, Value)]
        return stored if len(stored) == len(self.inputs) else None

    def numbers(self, index: int) -> list[int]:
        """Return a stored input as whole numbers."""
        return [int(number) for number in self.stored(index).reshape(-1)]

    def text(self, name: str, default: str = "") -> str:
        """Return an attribute that is a text, plain or in base64."""
        return _text(self.attributes.get(name, {}).get("s", default))

    def texts(self, name: str) -> list[str]:
        """Return an attribute that is a list of texts."""
        return [_text(text) for text in self.attributes.get(name, {}).get("list", {}).get("s", [])]

    def integers(self, name: str) -> list[int]:
        """Return an attribute that is a list of whole numbers."""
        return [int(number) for number in self.attributes.get(name, {}).get("list", {}).get("i", [])]

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number."""
        entry = self.attributes.get(name, {})
        return float(entry.get("f", entry.get("i", default)))

    def flag(self, name: str) -> bool:
        """Return an attribute that is true or false."""
        return bool(self.attributes.get(name, {}).get("b", False))

    def mask(self, name: str) -> int:
        """Return an attribute that is a mask of bits."""
        return int(self.number(name, 0))

    def dtype(self, name: str, default: str = "DT_FLOAT") -> str:
        """Return an attribute that is a dtype, by NumPy's name as TensorFlow.js computes with it."""
        kind = self.attributes.get(name, {}).get("type", default)
        if kind not in DTYPES:
            raise ValueError(f"its dtype is {kind}; known are {', '.join(map(str, DTYPES))}")
        return DTYPES[kind]

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


Convert = Callable[[Node], Operand | list[Operand]]
"""Writes a node in ONNX; a list where it has several outputs."""

DTYPES: Mapping[Any, str] = {
    "DT_FLOAT": "float32", 1: "float32", "DT_HALF": "float32", 19: "float32", "DT_DOUBLE": "float32", 2: "float32",
    "DT_INT32": "int32", 3: "int32", "DT_INT64": "int32", 9: "int32", "DT_UINT8": "int32", 4: "int32",
    "DT_BOOL": "bool", 10: "bool",
}  # fmt: skip
"""TensorFlow.js has float32, int32 and bool."""
