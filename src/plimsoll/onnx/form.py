"""Which number format an ONNX file computes in, read from its bytes alone.

A runtime computes what the file says, whatever the target is called: an int8 file would run as `float32`, and a float32
file as `int8`. So each backend checks the file first. The walk needs neither onnx, whose import takes longer than
loading most networks, nor the weights: it reads field headers and skips the rest. Field numbers are those of ONNX's
`onnx.proto`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import BuildError

OnnxForm = Literal["float32", "float16", "qdq", "integer", "dynamic"]
"""All in float32; in float16; QuantizeLinear and DequantizeLinear around each quantized operator (explicit int8);
operators that take and return integers themselves (QLinearConv); int8 weights with operators that quantize activations
at run time (DynamicQuantizeLinear)."""

_MEANINGS: dict[OnnxForm, str] = {
    "float32": "float32 throughout",
    "float16": "weights or inputs in float16",
    "qdq": "QuantizeLinear and DequantizeLinear around its operators",
    "integer": "operators on integers (QLinearConv and its like)",
    "dynamic": "int8 weights and operators that quantize activations at run time",
}

_PRECISIONS: dict[OnnxForm, str] = {
    "float32": "float32",
    "float16": "float16",
    "qdq": "int8",
    "integer": "int8",
    "dynamic": "dynamic",
}
_DYNAMIC = {
    b"DynamicQuantizeLinear",
    b"ConvInteger",
    b"MatMulInteger",
    b"DynamicQuantizeMatMul",
    b"DynamicQuantizeLSTM",
    b"MatMulIntegerToFloat",
}
_FLOAT16 = 10
"""TensorProto.DataType.FLOAT16."""
_METADATA = 14
"""ModelProto.metadata_props."""
_MAX_DEPTH = 100
"""Protobuf's own limit for messages within messages."""
_OPERATOR = ("node", 4)
_ELEMENT_TYPES = {("tensor", 2), ("tensor type", 1)}

_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "value"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "value": {2: "type"},
    "type": {1: "tensor type"},
}
"""The messages worth entering, by the message that holds them and its field's number."""


_Value = int | slice
"""A whole number, or where a field's bytes lie."""

_WIRE_SIZES = {1: 8, 2: None, 5: 4}
"""Bytes of a field by its wire type; None if it is length-delimited."""


def form_of(path: Path) -> OnnxForm:
    """Return the form of an ONNX file; raises BuildError if the file can't be read or is no ONNX file.

    A file that quantizes anything counts as quantized, wherever the rest is float. Weights that are only stored in int8
    (DequantizeLinear alone) count as float32, since that is what they compute in.
    """
    operators: set[bytes] = set()
    half = False
    doing = f"{path}: can't be read as an ONNX file"
    with (
        translate(BuildError, doing),
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        for kind, number, value in _walk(data, slice(0, len(data)), "model", 0):
            if isinstance(value, slice):
                if (kind, number) == _OPERATOR:
                    operators.add(data[value])
            else:
                half = half or ((kind, number) in _ELEMENT_TYPES and value == _FLOAT16)
    if not operators:
        raise BuildError(f"{doing}: no operators", "Check the file with `plimsoll inspect`.")
    if any(name.startswith(b"QLinear") for name in operators):
        return "integer"
    if b"QuantizeLinear" in operators:
        return "qdq"
    if operators & _DYNAMIC:
        return "dynamic"
    return "float16" if half else "float32"


def precision_of(path: Path) -> str:
    """Return the precision of the targets that run an ONNX file as it is; raises BuildError as `form_of` does."""
    return _PRECISIONS[form_of(path)]


def metadata(path: Path) -> dict[str, str]:
    """Return the notes in an ONNX file, by their names; raises BuildError if the file can't be read."""
    notes: dict[str, str] = {}
    with (
        translate(BuildError, f"{path}: can't be read as an ONNX file"),
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        for number, value in _fields(data, slice(0, len(data))):
            if number == _METADATA and isinstance(value, slice):
                entry = {part: data[where] for part, where in _fields(data, value) if isinstance(where, slice)}
                notes[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
    return notes


def require_form(model: Model, target: Target, needed: OnnxForm) -> None:
    """Raise BuildError if the model is no ONNX file, or not in the form that the target's runtime needs."""
    if model.format != "onnx":
        raise BuildError(
            f"{model.source}: {target.runtime} loads ONNX files, this one is {model.format}", "Convert it first."
        )
    form = form_of(model.path)
    if form == needed:
        return
    if needed == "float32":
        hint = (
            f"Run it as it is with --target {replace(REFERENCE_TARGET, precision=_PRECISIONS[form])}, build it for"
            f" {target} with `plimsoll convert`, or give the float32 original."
        )
    else:
        hint = "Convert the float32 original with plimsoll.quantize first; `plimsoll ship` does that by itself."
    raise BuildError(
        f"{model.source}: {target} needs a network with {_MEANINGS[needed]}; this one has {_MEANINGS[form]}", hint
    )


def _walk(data: mmap.mmap, where: slice, kind: str, depth: int) -> Iterator[tuple[str, int, _Value]]:
    """Yield every field of the message and of the messages within it that matter, as (kind of message, number,
    value)."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"messages lie more than {_MAX_DEPTH} deep")
    inner = _NESTED.get(kind, {})
    for number, value in _fields(data, where):
        if number in inner and isinstance(value, slice):
            yield from _walk(data, value, inner[number], depth + 1)
        else:
            yield kind, number, value


def _fields(data: mmap.mmap, where: slice) -> Iterator[tuple[int, _Value]]:
    """Yield (number, value) of a message's fields that are whole numbers, or have a length; raises ValueError for
    damaged bytes."""
    position, end = where.start, where.stop
    while position < end:
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        if wire not in _WIRE_SIZES:
            raise ValueError(f"invalid wire type {wire}")
        size = _WIRE_SIZES[wire]
        if size is None:
            size, position = _varint(data, position)
        if position + size > end:
            raise ValueError("ends in the middle of a field")
        if wire == 2:
            yield tag >> 3, slice(position, position + size)
        position += size


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """Return the number that starts at `position`, and where the next field starts; raises ValueError."""
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError("a number is truncated or too long")
