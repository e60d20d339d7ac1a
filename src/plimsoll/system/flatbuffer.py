"""Read untrusted FlatBuffers without a compiled schema, and write FlatBuffers; based on the library `flatbuffers`.

A field is identified by its number in the schema (a union takes two). An offset out of the file, or a small file that
would be read endlessly, is a FlatBufferError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import flatbuffers
import numpy as np
from flatbuffers import encode, number_types
from flatbuffers.table import Table as RawTable
from numpy.typing import NDArray

Number = Literal["int8", "uint8", "int32", "uint32", "int64", "uint64", "float32"]
Field = tuple[str, int] | None
"""A field to write: int8, uint8, uint32 or offset, and the value; None for one that is left out."""

_FLAGS = {
    "int8": number_types.Int8Flags,
    "uint8": number_types.Uint8Flags,
    "int32": number_types.Int32Flags,
    "uint32": number_types.Uint32Flags,
    "int64": number_types.Int64Flags,
    "uint64": number_types.Uint64Flags,
    "float32": number_types.Float32Flags,
}
_OFFSET_BYTES = 4


class FlatBufferError(ValueError):
    """The file is damaged or hostile."""


class FlatBuffer:
    """A file's bytes, and a budget of bytes to read: in a small file, a million tables can share one vector."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self._budget = 8 * len(data) + 100_000

    def root(self) -> Table:
        """Return the root table."""
        return self.table_at(0)

    def table_at(self, position: int) -> Table:
        """Return the table that the offset at a position refers to."""
        self.spend(_OFFSET_BYTES)
        with self.checked():
            target = int(RawTable(self.data, 0).Indirect(position))
            if target == position:
                raise FlatBufferError("an offset leads out of the file: to itself")
            return Table(self, target)

    def spend(self, size: int) -> None:
        """Take bytes from the budget."""
        self._budget -= size
        if self._budget < 0:
            raise FlatBufferError("its parts refer to one another without end")

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Turn the library's exceptions for offsets out of the file into FlatBufferError."""
        try:
            yield
        except FlatBufferError:
            raise
        except (struct.error, TypeError, ValueError, IndexError, OverflowError) as error:
            raise FlatBufferError("an offset leads out of the file") from error


class Table:
    """A table: absent fields are read as their default."""

    def __init__(self, buffer: FlatBuffer, position: int) -> None:
        self._buffer = buffer
        self._raw = RawTable(buffer.data, position)
        self.has(0)  # checks that the vtable is inside the file

    def _offset(self, field: int) -> int:
        """Return a field's offset from the table's start; 0 if it is absent."""
        self._buffer.spend(8)
        return int(self._raw.Offset(4 + 2 * field))

    def has(self, field: int) -> bool:
        """Tell whether the file stores a field."""
        with self._buffer.checked():
            return bool(self._offset(field))

    def number(self, field: int, kind: Number = "int32", default: float = 0) -> Any:
        """Return a number: an int, or a float for `float32`."""
        with self._buffer.checked():
            offset = self._offset(field)
            return self._raw.Get(_FLAGS[kind], self._raw.Pos + offset) if offset else default

    def put(self, field: int, value: float, kind: Number = "float32") -> None:
        """Change a number in place; raises FlatBufferError if the file doesn't store it."""
        if not self.has(field):
            raise FlatBufferError(f"field {field} is not stored")
        with self._buffer.checked():
            flags = _FLAGS[kind]
            number = float(value) if kind == "float32" else int(value)
            encode.Write(flags.packer_type, self._buffer.data, self._raw.Pos + self._offset(field), number)

    def put_vector(self, field: int, values: NDArray[Any]) -> None:
        """Change a vector in place to numbers of the same size; raises FlatBufferError if the file's has another
        length."""
        start, length = self._vector(field)
        if length != len(values):
            raise FlatBufferError(f"field {field} holds {length} values, not {len(values)}")
        data = values.astype(values.dtype.newbyteorder("<")).tobytes()
        self._writable()[start : start + len(data)] = data

    def leave_out(self, field: int) -> None:
        """Take a field out. Tables share lists of fields, so this one gets its own, at the file's end."""
        if not self.has(field):
            return
        data = self._writable()
        with self._buffer.checked():
            listed = self._raw.Pos - int(self._raw.Get(number_types.Int32Flags, self._raw.Pos))
            (size,) = struct.unpack_from("<H", data, listed)
            fields = bytearray(data[listed : listed + size])
            struct.pack_into("<H", fields, _OFFSET_BYTES + 2 * field, 0)
            data += bytes(-len(data) % _OFFSET_BYTES)
            struct.pack_into("<i", data, self._raw.Pos, self._raw.Pos - len(data))
            data += fields

    def _writable(self) -> bytearray:
        if not isinstance(self._buffer.data, bytearray):
            raise FlatBufferError("it was read to be looked at alone")
        return self._buffer.data

    def table(self, field: int) -> Table | None:
        """Return the table in a field."""
        with self._buffer.checked():
            offset = self._offset(field)
            return self._buffer.table_at(self._raw.Pos + offset) if offset else None

    def length(self, field: int) -> int:
        """Return how many items a vector has; 0 if it is absent."""
        return self._vector(field)[1]

    def numbers(self, field: int, kind: Literal["int32", "int64", "float32"] = "int32") -> tuple[Any, ...]:
        """Return a vector of numbers."""
        start, length = self._vector(field)
        self._buffer.spend(8 * length)
        with self._buffer.checked():
            values = np.frombuffer(self._buffer.data, np.dtype(kind).newbyteorder("<"), length, start)
        return tuple(values.tolist())

    def tables(self, field: int) -> Iterator[Table]:
        """Yield the tables of a vector."""
        start, length = self._vector(field)
        for position in range(start, start + _OFFSET_BYTES * length, _OFFSET_BYTES):
            yield self._buffer.table_at(position)

    def text(self, field: int, errors: Literal["strict", "replace"] = "replace") -> str:
        """Return a text, empty if it is absent; raises UnicodeDecodeError with `errors="strict"`."""
        return self._text(*self._vector(field), errors)

    def texts(self, field: int) -> list[str]:
        """Return a vector of texts."""
        start, length = self._vector(field)
        texts = []
        for position in range(start, start + _OFFSET_BYTES * length, _OFFSET_BYTES):
            with self._buffer.checked():
                target = int(RawTable(self._buffer.data, 0).Indirect(position))
                texts.append(self._text(target + _OFFSET_BYTES, self._length_at(target), "replace"))
        return texts

    def _text(self, start: int, length: int, errors: str) -> str:
        if start + length > len(self._buffer.data):
            raise FlatBufferError("a text reaches beyond the file")
        self._buffer.spend(length)
        return bytes(self._buffer.data[start : start + length]).decode("utf-8", errors)

    def _vector(self, field: int) -> tuple[int, int]:
        """Return where a vector's items begin, and how many there are."""
        with self._buffer.checked():
            offset = self._offset(field)
            if not offset:
                return 0, 0
            start = int(self._raw.Vector(offset))
            return start, self._length_at(start - _OFFSET_BYTES)

    def _length_at(self, position: int) -> int:
        self._buffer.spend(_OFFSET_BYTES)
        return int(self._raw.Get(number_types.UOffsetTFlags, position))


class Writer:
    """Writes a FlatBuffer from its leaves to its root."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)

    def text(self, value: str) -> int:
        """Write a text; returns its offset, as all methods do."""
        return int(self._builder.CreateString(value))

    def floats(self, values: Sequence[float]) -> int:
        """Write a vector of float32."""
        return int(self._builder.CreateNumpyVector(np.asarray(values, np.float32)))

    def tables(self, offsets: Sequence[int]) -> int:
        """Write a vector of tables."""
        self._builder.StartVector(_OFFSET_BYTES, len(offsets), _OFFSET_BYTES)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def table(self, fields: Sequence[Field]) -> int:
        """Write a table, its fields in the schema's order."""
        builder = self._builder
        builder.StartObject(len(fields))
        write = {
            "int8": builder.PrependInt8Slot,
            "uint8": builder.PrependUint8Slot,
            "uint32": builder.PrependUint32Slot,
            "offset": builder.PrependUOffsetTRelativeSlot,
        }
        for slot, field in enumerate(fields):
            if field is not None:
                write[field[0]](slot, field[1], 0)
        return int(builder.EndObject())

    def finish(self, root: int, identifier: bytes | None = None) -> bytes:
        """Return the file."""
        self._builder.Finish(root, file_identifier=identifier)
        return bytes(self._builder.Output())
