"""FlatBuffers: what is written is read again, and whatever leads out of the file is refused."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from plimsoll.system.flatbuffer import FlatBuffer, FlatBufferError, Table, Writer


def written(rows: int = 3) -> bytes:
    writer = Writer()
    inner = [writer.table([("offset", writer.text(f"row {row} é")), ("uint32", row)]) for row in range(rows)]
    numbers = writer.floats([0.5, -2.0])
    return writer.finish(
        writer.table([("offset", writer.tables(inner)), None, ("offset", numbers), ("int8", -3)]), b"TEST"
    )


def read(data: bytes | bytearray) -> tuple[object, ...]:
    """Return all that the tables of this file hold."""
    root = FlatBuffer(data).root()
    rows = [(row.text(0), row.number(1, "uint32")) for row in root.tables(0)]
    return rows, root.number(1, default=7), root.numbers(2, "float32"), root.number(3, "int8")


def test_what_is_written_is_read_again() -> None:
    rows, absent, numbers, small = read(written())
    assert rows == [("row 0 é", 0), ("row 1 é", 1), ("row 2 é", 2)]
    assert (absent, numbers, small) == (7, (0.5, -2.0), -3)
    root = FlatBuffer(written()).root()
    assert (root.has(0), root.has(1), root.has(9), root.length(0), root.length(1)) == (True, False, False, 3, 0)
    assert root.table(1) is None


def test_a_number_is_changed_in_place_and_only_where_it_is_stored() -> None:
    data = bytearray(written())
    root = FlatBuffer(data).root()
    root.put(3, 5, "int8")
    assert read(data)[3] == 5
    with pytest.raises(FlatBufferError, match="not stored"):
        root.put(1, 5, "int8")


def test_a_vector_is_changed_in_place_and_only_to_as_many_values() -> None:
    data = bytearray(written())
    root = FlatBuffer(data).root()
    root.put_vector(2, np.array([3.0, 4.0], np.float32))
    assert read(data)[2] == (3.0, 4.0)
    with pytest.raises(FlatBufferError, match="holds 2 values, not 3"):
        root.put_vector(2, np.zeros(3, np.float32))
    with pytest.raises(FlatBufferError, match="looked at alone"):
        FlatBuffer(bytes(data)).root().put_vector(2, np.zeros(2, np.float32))


def test_a_field_is_left_out_of_one_table_alone() -> None:
    """Tables of the same fields share the list of where these are."""
    data = bytearray(written())
    first, *others = FlatBuffer(data).root().tables(0)
    first.leave_out(0)
    first.leave_out(0)
    assert read(data)[0] == [("", 0), ("row 1 é", 1), ("row 2 é", 2)]
    assert all(row.has(0) for row in others)


def test_a_file_cut_off_or_changed_anywhere_is_refused_or_read() -> None:
    data, refused = written(), 0
    attempts = [data[:length] for length in range(len(data))]
    chance = random.Random(5)
    for _ in range(3000):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] = chance.randrange(256)
        attempts.append(bytes(changed))
    for attempt in attempts:
        try:
            read(attempt)
        except FlatBufferError:
            refused += 1
    assert refused > len(data) / 2


@pytest.mark.parametrize("offset", [-8, 0, 2**31 - 1, -(2**31)])
def test_fields_out_of_the_file_are_refused(offset: int) -> None:
    """Python would take a negative place for one counted from the file's end."""
    data = bytearray(written())
    (root,) = struct.unpack_from("<I", data, 0)
    struct.pack_into("<i", data, root, root + 8 if offset == -8 else offset)
    if offset == 0:
        struct.pack_into("<I", data, 0, 0)
    with pytest.raises(FlatBufferError, match="leads out of the file"):
        FlatBuffer(data).root()


def test_a_vector_and_a_text_longer_than_the_file_are_refused() -> None:
    data = bytearray(written(1))
    at = data.index(b"row 0") - 4
    struct.pack_into("<I", data, at, 2**31)
    with pytest.raises(FlatBufferError, match="beyond the file"):
        read(data)
    data = bytearray(written(1))
    at = data.index(struct.pack("<ff", 0.5, -2.0)) - 4
    struct.pack_into("<I", data, at, 2**30)
    with pytest.raises(FlatBufferError):
        read(data)


def test_what_is_read_is_counted() -> None:
    """A million tables may share one text."""
    writer = Writer()
    shared = writer.text("x" * 10_000)
    inner = [writer.table([("offset", shared)]) for _ in range(10_000)]
    table: Table = FlatBuffer(writer.finish(writer.table([("offset", writer.tables(inner))]))).root()
    with pytest.raises(FlatBufferError, match="without end"):
        [row.text(0) for row in table.tables(0)]
