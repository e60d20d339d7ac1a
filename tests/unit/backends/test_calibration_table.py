"""ONNX Runtime's tables against ONNX Runtime's own reader and writer."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.backends.onnxruntime import calibration_table
from plimsoll.backends.onnxruntime.calibration_table import TableFormat
from plimsoll.errors import InputError

ends = st.floats(-1e30, 1e30, allow_nan=False)
plain = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=30)
anything = st.text(st.characters(codec="utf-8"), max_size=30)


def tables(names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, tuple[float, float]]]:
    return st.dictionaries(
        names, st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=20
    )


@given(tables(anything))
def test_flatbuffers_are_read_again(table: dict[str, tuple[float, float]]) -> None:
    again = calibration_table.loads(calibration_table.dumps(table))
    assert again == {name: (-max(-low, high, 0.0), max(-low, high, 0.0)) for name, (low, high) in table.items()}


@given(tables(plain))
def test_the_cache_is_read_again(table: dict[str, tuple[float, float]]) -> None:
    again = calibration_table.loads(calibration_table.dumps(table, "cache"))
    assert again == {name: (-max(-low, high, 0.0), max(-low, high, 0.0)) for name, (low, high) in table.items()}


@given(tables(anything))
def test_json_keeps_both_ends(table: dict[str, tuple[float, float]]) -> None:
    assert calibration_table.loads(calibration_table.dumps(table, "json")) == {
        name: (low, high) for name, (low, high) in table.items()
    }


@given(tables(anything))
def test_onnx_runtimes_own_reader_takes_our_flatbuffers(table: dict[str, tuple[float, float]]) -> None:
    from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable

    read: Any = TrtTable.GetRootAs(calibration_table.dumps(table), 0)
    pairs = {read.Dict(index).Key().decode(): float(read.Dict(index).Value()) for index in range(read.DictLength())}
    assert pairs == {name: max(-low, high, 0.0) for name, (low, high) in table.items()}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """What ONNX Runtime writes itself."""
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.quant_utils import write_calibration_table

    table = {"first": (-0.5, 2.0), "second:0/part": (-1.0, 4.0)}
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in table.items()
    }
    write_calibration_table(data, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", ["flatbuffers", "cache"])
def test_what_onnx_runtime_writes_is_read(written: Path, kind: str) -> None:
    assert calibration_table.loads((written / f"calibration.{kind}").read_bytes()) == {
        "first": (-2.0, 2.0),
        "second:0/part": (-4.0, 4.0),
    }


def test_its_json_is_read_with_both_ends(written: Path) -> None:
    assert calibration_table.loads((written / "calibration.json").read_bytes()) == {
        "first": (-0.5, 2.0),
        "second:0/part": (-1.0, 4.0),
    }


def test_onnx_runtimes_own_reader_takes_our_json(tmp_path: Path) -> None:
    from onnxruntime.quantization.calibrate import load_tensors_data

    (tmp_path / "table.json").write_bytes(calibration_table.dumps({"x": (-1.0, 2.0)}, "json"))
    read = load_tensors_data(tmp_path / "table.json")
    assert [float(end.item()) for end in read["x"].range_value] == [-1.0, 2.0]


def test_the_end_further_from_zero_counts() -> None:
    """ONNX Runtime would write 1, and cut off three quarters of what is below zero."""
    assert calibration_table.dumps({"x": (-4.0, 1.0)}, "cache") == b"x 4.0\n"


@pytest.mark.parametrize("kind", ["cache", "flatbuffers"])
def test_a_range_that_is_not_finite_is_refused(kind: TableFormat) -> None:
    with pytest.raises(InputError, match="inf"):
        calibration_table.dumps({"x": (0.0, float("inf"))}, kind)


def test_a_name_with_a_space_can_not_stand_in_the_cache() -> None:
    with pytest.raises(InputError, match="flatbuffers"):
        calibration_table.dumps({"a b": (0.0, 1.0)}, "cache")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no tensor"),
        (b"x", "line 1"),
        (b"x one\n", "'one'"),
        (b"x nan\n", "nan"),
        (b"x -1\n", "-1"),
        (b"x 1\nx 2\n", "line 2"),
        (b"{", "JSON"),
        (b"{}", "no tensor"),
        (b'{"data": {"x": {"lowest": 1}}}', "KeyError"),
        (b'{"data": {"x": {"lowest": [], "highest": 1}}}', "IndexError"),
        (b'{"x": {"lowest": 0, "highest": 1e999}}', "inf"),
        (b"[" * 100_000, "can't be read|line 1"),
        (b'{"a":' * 100_000, "RecursionError|JSON"),
        (b"\x00" * 40, "leads out"),
        (b"\x0c\x00\x00\x00\xff\xff\xff\xff" * 8, "no tensor"),
        (b"\x04\x00\x00\x00\xff\xff\xff\x7f" * 8, "leads out"),
    ],
)
def test_mistakes_are_reported(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibration_table.loads(data, "a table")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        calibration_table.loads(data)


@given(st.data())
def test_a_damaged_flatbuffer_is_read_or_refused(data: st.DataObject) -> None:
    table = bytearray(calibration_table.dumps({"first": (0.0, 1.0), "second": (0.0, 2.0)}))
    for _ in range(data.draw(st.integers(1, 4))):
        table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        calibration_table.loads(bytes(table))


def test_json_is_json() -> None:
    assert json.loads(calibration_table.dumps({"x": (0.0, 1.0)}, "json"))["CLS"] == "TensorsData"
