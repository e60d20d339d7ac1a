"""TFLite files: read what strangers wrote without trusting it, and without a runtime.

A TFLite file is a FlatBuffer (https://github.com/google-ai-edge/LiteRT, `schema.fbs`), perhaps with a zip of labels
behind it. Only its outline is read: what goes in and out, which operators, which numbers. Every offset is checked
against the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from plimsoll.errors import ModelError

IDENTIFIER = b"TFL3"
MAX_BYTES = 2**31 - 1
"""FlatBuffers' own limit."""

Precision = Literal["float32", "float16", "dynamic", "int8", "int16x8"]

_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MARK = "PLIMSOLL_"
"""How the metadata begins that says which precision Plimsoll made a file for."""

_DTYPES = (
    "float32", "float16", "int32", "uint8", "int64", "object", "bool", "int16", "complex64", "int8", "float64", "complex128",
    "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip
"""By `TensorType`; text is `object`, and what NumPy doesn't know has the schema's name."""
_CUSTOM = 32
_DEQUANTIZE = 6
_SELECT = "Flex"
"""How the names of TensorFlow's own ("Select") operators begin."""
_DAMAGED = "Was it copied completely? Convert or download it again."


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor of the main graph, as the file describes it."""

    name: str
    shape: tuple[int | None, ...]
    """None for a free size."""
    dtype: str
    scales: tuple[float, ...] = ()
    """The real value of a step, one for all or one a channel; none where the numbers mean themselves."""
    zero_points: tuple[int, ...] = ()
    stored: bool = False
    """Whether its values lie in the file."""

    @property
    def quantized(self) -> bool:
        """Whether its integers stand for real values."""
        return bool(self.scales) and self.dtype in {"int8", "uint8", "int16", "int4"}


@dataclass(frozen=True)
class TfliteFile:
    """The outline of a TFLite file."""

    path: Path
    tensors: tuple[TfliteTensor, ...]
    inputs: tuple[TfliteTensor, ...]
    outputs: tuple[TfliteTensor, ...]
    operators: int
    """How many the main graph has."""
    custom: tuple[str, ...]
    """The custom operators that it calls, sorted."""
    read_stored: frozenset[str]
    """Names of the stored tensors that operators other than DEQUANTIZE read."""
    metadata: tuple[str, ...] = ()
    """The names of the metadata in it, for example TFLITE_METADATA."""

    @property
    def select(self) -> tuple[str, ...]:
        """The operators among the custom ones that are TensorFlow's own ("Select", "Flex"), without that prefix."""
        return tuple(name.removeprefix(_SELECT) for name in self.custom if name.startswith(_SELECT))

    @cached_property
    def precision(self) -> Precision:
        """What it computes in. Weights that are only stored as int8, and dequantized before anything reads them, count
        as float32.

        A file that Plimsoll made says it: one that has next to no weights looks the same in float32, float16 and
        dynamic.
        """
        for precision in _PRECISIONS:
            if f"{MARK}{precision}" in self.metadata:
                return precision
        computed = [one for one in self.tensors if not one.stored and one.quantized]
        if any(one.dtype == "int16" for one in computed):
            return "int16x8"
        if computed:
            return "int8"
        stored = [one for one in self.tensors if one.stored]
        if any(one.quantized and one.name in self.read_stored for one in stored):
            return "dynamic"
        return "float16" if any(one.dtype == "float16" for one in stored) else "float32"

    @property
    def quantized(self) -> bool:
        """Whether any of its integers stand for real values, if only in stored weights."""
        return any(one.quantized for one in self.tensors)

    def describe_custom(self) -> str:
        """Say which operators LiteRT itself has not, or nothing."""
        own = [name for name in self.custom if not name.startswith(_SELECT)]
        parts = [f"the custom operators {', '.join(own)}"] if own else []
        parts += [f"TensorFlow's own (Select) operators {', '.join(self.select)}"] if self.select else []
        return " and ".join(parts)


def read(path: Path) -> TfliteFile:
    """Read the outline of a TFLite file; raises ModelError."""
    try:
        size = path.stat().st_size
        if not path.is_file() or not 8 <= size <= MAX_BYTES:
            raise ModelError(f"{path}: not a TFLite file: it has {size:,} bytes", _DAMAGED)
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: can't read the file: {error.strerror or error}", "Check the path.") from error
    if data[4:8] != IDENTIFIER:
        raise ModelError(
            f"{path}: not a TFLite file: it begins with {data[:8]!r}, expected {IDENTIFIER!r} at the fifth byte",
            "Is this the right file?",
        )
    try:
        return _outline(path, _Table(_Bytes(data), _Bytes(data).offset(0)))
    except (struct.error, ValueError, IndexError, RecursionError) as error:
        raise ModelError(f"{path}: a damaged TFLite file: {error}", _DAMAGED) from error


def _outline(path: Path, model: _Table) -> TfliteFile:
    subgraphs = list(model.tables(2))
    if not subgraphs:
        raise ValueError("it holds no graph")
    codes = [(_operator(code), code.string(1)) for code in model.tables(1)]
    buffers = [bool(buffer.length(0) or buffer.number(1, "Q")) for buffer in model.tables(4)]
    tensors = tuple(_tensor(one, buffers) for one in subgraphs[0].tables(0))
    custom, operators, read_stored = set(), 0, set()
    for graph in subgraphs:
        for operator in graph.tables(3):
            operators += graph is subgraphs[0]
            code, name = codes[operator.number(0, "I")]
            if code == _CUSTOM:
                custom.add(name or "without a name")
            if graph is subgraphs[0] and code != _DEQUANTIZE:
                read_stored |= {
                    tensors[place].name for place in operator.ints(1) if place >= 0 and tensors[place].stored
                }
    inputs, outputs = (tuple(tensors[_place(place)] for place in subgraphs[0].ints(slot)) for slot in (1, 2))
    metadata = tuple(one.string(0) for one in model.tables(6))
    return TfliteFile(
        path, tensors, inputs, outputs, operators, tuple(sorted(custom)), frozenset(read_stored), metadata
    )


def _place(place: int) -> int:
    if place < 0:
        raise ValueError(f"a graph's input or output is tensor {place}")
    return place


def _operator(code: _Table) -> int:
    """Return the operator's number: newer files write it as int32, since the byte of older ones has run out."""
    return max(code.number(0, "b"), code.number(3, "i"))


def _tensor(table: _Table, buffers: list[bool]) -> TfliteTensor:
    kind = table.number(1, "b")
    if not 0 <= kind < len(_DTYPES):
        raise ValueError(f"a tensor has the unknown type {kind}")
    free = table.ints(7) or table.ints(0)
    quantization = table.table(4)
    return TfliteTensor(
        table.string(3),
        tuple(None if size < 0 else size for size in free),
        _DTYPES[kind],
        quantization.floats(2) if quantization else (),
        quantization.ints(3, "q") if quantization else (),
        buffers[table.number(2, "I")],
    )


class _Bytes:
    """The file's bytes, and how many of them may still be read: a small file can have a million tables share one long
    list."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = 8 * len(data) + 100_000

    def read(self, kind: str, place: int, size: int) -> tuple[Any, ...]:
        """Return what the struct module reads there; raises ValueError or struct.error for what lies outside."""
        if place < 0:
            raise ValueError("an offset leads out of the file")
        self.spend(size)
        return struct.unpack_from(f"<{kind}", self._data, place)

    def text(self, place: int, length: int) -> str:
        """Return text; what is no UTF-8 in it is replaced."""
        self.spend(length)
        return self._data[place : place + length].decode("utf-8", errors="replace")

    def offset(self, place: int) -> int:
        """Return where the offset that lies at `place` leads."""
        return place + int(self.read("I", place, 4)[0])

    def spend(self, size: int) -> None:
        """Count what is read; raises ValueError where that is far more than the file holds."""
        self._left -= size
        if self._left < 0:
            raise ValueError("its parts refer to one another without end")


class _Table:
    """A table of a FlatBuffer: fields by their slot, absent ones at their default. Raises ValueError or struct.error
    for what lies outside."""

    def __init__(self, data: _Bytes, place: int) -> None:
        self._data = data
        self._at = place
        self._fields = place - int(data.read("i", place, 4)[0])
        self._length = int(data.read("H", self._fields, 2)[0])

    def _place(self, slot: int) -> int:
        """Return where a field lies; 0 where the table has none."""
        entry = 4 + 2 * slot
        within = int(self._data.read("H", self._fields + entry, 2)[0]) if entry + 2 <= self._length else 0
        return self._at + within if within else 0

    def number(self, slot: int, kind: str) -> int:
        """Return a scalar field of the struct module's kind."""
        place = self._place(slot)
        return int(self._data.read(kind, place, 8)[0]) if place else 0

    def table(self, slot: int) -> _Table | None:
        """Return the table that a field leads to."""
        place = self._place(slot)
        return _Table(self._data, self._data.offset(place)) if place else None

    def length(self, slot: int) -> int:
        """Return how many items a vector has."""
        return self._vector(slot)[1]

    def ints(self, slot: int, kind: Literal["i", "q"] = "i") -> tuple[int, ...]:
        """Return a vector of whole numbers of 4 or 8 bytes."""
        start, length = self._vector(slot)
        return self._data.read(f"{length}{kind}", start, 8 * length) if length else ()

    def floats(self, slot: int) -> tuple[float, ...]:
        """Return a vector of float32."""
        start, length = self._vector(slot)
        return self._data.read(f"{length}f", start, 4 * length) if length else ()

    def tables(self, slot: int) -> Iterator[_Table]:
        """Yield the tables of a vector."""
        start, length = self._vector(slot)
        for place in range(start, start + 4 * length, 4):
            yield _Table(self._data, self._data.offset(place))

    def string(self, slot: int) -> str:
        """Return a text, empty where there is none."""
        return self._data.text(*self._vector(slot))

    def _vector(self, slot: int) -> tuple[int, int]:
        """Return where a vector's items begin, and how many there are."""
        place = self._place(slot)
        if not place:
            return 0, 0
        start = self._data.offset(place)
        return start + 4, int(self._data.read("I", start, 4)[0])
