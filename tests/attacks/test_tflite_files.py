"""Hostile TFLite files: cut off, with bytes changed at random, and with parts that refer to one another without end."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tflite_writer import network
from plimsoll.backends.litert import tflite_file
from plimsoll.errors import ModelError


@pytest.fixture
def honest(tmp_path: Path) -> bytes:
    return network(tmp_path / "honest.tflite", "int8").read_bytes()


def attempt(folder: Path, content: bytes) -> str:
    """Read a file; whatever is in it, that ends soon, in an outline or a ModelError."""
    path = folder / "net.tflite"
    path.write_bytes(content)
    started = time.perf_counter()
    try:
        return tflite_file.read_file(path).precision
    except ModelError as error:
        return error.message
    finally:
        assert time.perf_counter() - started < 60


def test_a_file_that_was_cut_off_anywhere_is_refused_or_read(tmp_path: Path, honest: bytes) -> None:
    messages = {attempt(tmp_path, honest[:length]) for length in range(0, len(honest), 3)}
    assert any("damaged" in message for message in messages)


def test_bytes_changed_at_random_are_refused_or_read(tmp_path: Path, honest: bytes) -> None:
    chance = random.Random(3)
    for _ in range(1500):
        content = bytearray(honest)
        for _ in range(chance.choice((1, 2, 8))):
            content[chance.randrange(8, len(content))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        attempt(tmp_path, bytes(content))


def test_a_hundred_thousand_tensors_that_share_one_long_shape_are_refused(tmp_path: Path) -> None:
    """Less than 1 MB, of which 40 GB would be read."""
    builder = pytest.importorskip("flatbuffers").Builder(0)
    shape = builder.CreateNumpyVector(np.zeros(100_000, np.int32))
    tensor = _table(builder, [shape])
    tensors = _vector(builder, [tensor] * 100_000)
    graphs = _vector(builder, [_table(builder, [tensors])])
    builder.Finish(
        _table(builder, [None, None, graphs, None, _vector(builder, [_table(builder, [])])]), file_identifier=b"TFL3"
    )
    content = bytes(builder.Output())
    assert len(content) < 1_000_000
    assert "without end" in attempt(tmp_path, content)


def _table(builder: Any, fields: list[int | None]) -> int:
    builder.StartObject(len(fields))
    for slot, field in enumerate(fields):
        if field is not None:
            builder.PrependUOffsetTRelativeSlot(slot, field, 0)
    return int(builder.EndObject())


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in offsets:
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def test_a_list_that_claims_to_be_longer_than_the_file_is_refused(tmp_path: Path, honest: bytes) -> None:
    for index in range(8, len(honest) - 4, 4):
        content = bytearray(honest)
        content[index : index + 4] = struct.pack("<I", 0x7FFFFFF0)
        attempt(tmp_path, bytes(content))
