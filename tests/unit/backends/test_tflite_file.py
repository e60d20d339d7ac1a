"""The outline of TFLite files, read without a runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.tflite_writer import STEPS, Kind, network
from plimsoll.backends.litert import tflite_file
from plimsoll.errors import ModelError


def test_what_goes_in_and_out_is_reported(tmp_path: Path) -> None:
    file = tflite_file.read_file(network(tmp_path / "net.tflite", "uint8", batch=-1))
    (taken,), (given,) = file.inputs, file.outputs
    assert (taken.name, taken.shape, taken.dtype, taken.quantized) == ("picture", (None, 2, 2, 3), "uint8", True)
    assert (given.name, given.shape, given.dtype) == ("scores", (None, 4), "uint8")
    scale, zero = STEPS["scores"]
    assert given.scales == pytest.approx((scale,))
    assert given.zero_points == (zero + 128,)
    assert file.operators == 1


@pytest.mark.parametrize(
    ("kind", "precision"), [("float32", "float32"), ("int8", "int8"), ("uint8", "int8"), ("dynamic", "dynamic")]
)
def test_the_precision_is_what_the_file_computes_in(tmp_path: Path, kind: Kind, precision: str) -> None:
    file = tflite_file.read_file(network(tmp_path / "net.tflite", kind))
    assert file.precision == precision
    assert file.quantized == (kind != "float32")


def test_operators_that_a_runtime_may_lack_are_distinguished(tmp_path: Path) -> None:
    custom = tflite_file.read_file(network(tmp_path / "custom.tflite", "custom"))
    select = tflite_file.read_file(network(tmp_path / "select.tflite", "select"))
    assert (custom.custom, custom.select) == (("Frobnicate",), ())
    assert (select.custom, select.select) == (("FlexBetainc",), ("Betainc",))
    assert select.describe_custom() == "TensorFlow's own (Select) operators Betainc"


@pytest.mark.parametrize(
    ("kind", "stateful", "unsteady"),
    [
        ("float32", False, ()),
        ("recurrent", True, ()),
        ("random", False, ("RANDOM_UNIFORM",)),
        ("counter", False, ("ASSIGN_VARIABLE",)),
        ("once", False, ()),
    ],
)
def test_what_is_kept_between_calls_is_reported(
    tmp_path: Path, kind: Kind, stateful: bool, unsteady: tuple[str, ...]
) -> None:
    file = tflite_file.read_file(network(tmp_path / "net.tflite", kind))
    assert (file.stateful, file.shared_state, file.unsteady) == (stateful, False, unsteady)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (b"not a network at all", "not a TFLite file"), (b"\0\0\0\0TFL3" + b"\xff" * 90, "damaged")],
)
def test_what_is_not_such_a_file_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        tflite_file.read_file(tmp_path / "net.tflite")
    with pytest.raises(ModelError, match="can't read"):
        tflite_file.read_file(tmp_path / "missing.tflite")
