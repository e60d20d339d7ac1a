"""Walk protobuf messages without their schema: field numbers and where their bytes lie, nothing copied.

For files of which little matters (what an ONNX file computes in), or whose schema no package brings (Caffe's weights).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, overload


class Bytes(Protocol):
    """Something that is indexed like bytes: bytes themselves, a memory map, a memoryview."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, place: int, /) -> int: ...
    @overload
    def __getitem__(self, place: slice, /) -> bytes | memoryview: ...


Value = int | slice
"""A whole number, or where a field's bytes lie."""

_SIZES = {1: 8, 2: None, 5: 4}
"""Bytes of a field by its wire type; None where the length stands before it."""


def fields(data: Bytes, where: slice) -> Iterator[tuple[int, Value]]:
    """Yield (number, value) of a message's fields that are whole numbers, or have a length; raises ValueError for
    damaged bytes."""
    place, end = where.start, where.stop
    while place < end:
        tag, place = varint(data, place)
        wire = tag & 7
        if wire == 0:
            value, place = varint(data, place)
            yield tag >> 3, value
            continue
        if wire not in _SIZES:
            raise ValueError(f"no field can have the wire type {wire}")
        size = _SIZES[wire]
        if size is None:
            size, place = varint(data, place)
        if place + size > end:
            raise ValueError("it ends in the middle of a field")
        if wire == 2:
            yield tag >> 3, slice(place, place + size)
        place += size


def varint(data: Bytes, place: int) -> tuple[int, int]:
    """Return the number that starts at `place`, and where the next thing starts; raises ValueError."""
    result = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, place
    raise ValueError("a number is cut off or too long")
