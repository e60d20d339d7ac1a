"""Calibration tables in other tools' formats, by way of a real network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.residual_network import pictures, residual
from helpers.toolchain_required import require
from plimsoll import quantize
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.quantize import Calibration
from plimsoll.quantize.calibration import read_table, table_names, write_table


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return residual(tmp_path / "net.onnx")


@pytest.fixture
def table(model: Model) -> Calibration:
    return quantize.calibrate(model, [pictures(20)], "minmax")


@pytest.mark.parametrize("format_", [name for name in table_names() if name != "ncnn"])
def test_every_format_is_known_again_and_quantizes(
    tmp_path: Path, model: Model, table: Calibration, format_: str
) -> None:
    write_table(table, tmp_path / "table", format_, model)
    again = read_table(tmp_path / "table", model)
    assert set(again.ranges) == set(table.ranges)
    for name, (low, high) in table.ranges.items():
        assert again.ranges[name][1] == pytest.approx(
            max(-low, high) if format_ not in ("plimsoll", "onnxruntime-json") else high, rel=1e-6
        )
    quantized = quantize.static(model, again, tmp_path)
    judged = pictures(10, seed=6)
    with (
        Runner.open(quantized, Target("onnxruntime", "cpu", "int8")) as runner,
        Runner.open(model, Target("onnxruntime")) as reference,
    ):
        np.testing.assert_allclose(runner.infer(judged)["scores"], reference.infer(judged)["scores"], atol=0.05)


def test_ncnns_table_is_of_layers(tmp_path: Path, model: Model, table: Calibration) -> None:
    pytest.importorskip("ncnn")
    require("pnnx")
    write_table(table, tmp_path / "table", "ncnn", model, pictures(1))
    again = read_table(tmp_path / "table", model)
    assert set(again.ranges) < set(table.ranges)
    assert len(again.ranges) == 4
    for name, (low, high) in again.ranges.items():
        assert high == -low == pytest.approx(max(-table.ranges[name][0], table.ranges[name][1]), rel=1e-6)


def test_an_unknown_format_is_named(tmp_path: Path, model: Model, table: Calibration) -> None:
    with pytest.raises(InputError, match="'excel'") as caught:
        write_table(table, tmp_path / "table", "excel", model)
    assert "tensorrt" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"TRT-", b"{}", b'{"kind": "calibration"}', b"nonsense", b"\xff\xfe\xfd", b"TRT-1-\xff"]
)
def test_what_is_not_a_table_is_refused(tmp_path: Path, model: Model, content: bytes) -> None:
    (tmp_path / "table").write_bytes(content)
    with pytest.raises(InputError, match="table"):
        read_table(tmp_path / "table", model)


def test_a_missing_table_is_reported(tmp_path: Path, model: Model) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_table(tmp_path / "absent", model)


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path, model: Model, table: Calibration) -> None:
    with pytest.raises(InputError, match="can't write"):
        write_table(table, tmp_path / "absent" / "table", "tensorrt", model)
