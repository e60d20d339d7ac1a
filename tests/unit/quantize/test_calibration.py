"""Calibration tables of our own: written readably, checked when they are read, refused where they don't fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import networks_to_quantize as networks
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.errors import InputError, ModelError
from plimsoll.quantize import METHODS, Calibration
from plimsoll.quantize.parameters import Symmetry


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return networks.residual(tmp_path / "net.onnx")


def test_a_table_is_written_readably_and_read_again(model: Model, tmp_path: Path) -> None:
    table = quantize.calibrate(model, [networks.pictures(3)], "percentile", parameter=99.9)
    file = tmp_path / "table.json"
    table.write(file)
    assert Calibration.read(file) == table
    assert (table.method, table.parameter, table.images, table.model) == ("percentile", 99.9, 3, model.sha256)
    lines = file.read_text().splitlines()
    assert sum(line.lstrip().startswith('"r1": [0.0, ') for line in lines) == 1
    assert json.loads(file.read_text())["method"] == "percentile"


def test_a_table_of_ones_own_needs_ranges_only(model: Model, tmp_path: Path) -> None:
    table = quantize.calibrate(model, [networks.pictures(3)], "minmax")
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"ranges": table.ranges}))
    quantized = quantize.static(model, Calibration.read(file), tmp_path)
    assert "QuantizeLinear" in networks.operators(quantized)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Invalid JSON"),
        ("{}", "ranges: missing"),
        ('{"ranges": {}}', "ranges"),
        ('{"ranges": {"a": [2, 1]}}', "'a' is .2, 1.: its low end lies above"),
        ('{"ranges": {"a": [0, "NaN"]}}', "finite number"),
        ('{"ranges": {"a": [0, 1e39]}}', "can't hold"),
        ('{"ranges": {"a": [0]}}', "ranges.a"),
        ('{"ranges": {"a": [0, 1]}, "mood": 1}', "mood"),
        ('{"ranges": {"a": [0, 1]}, "model": "short"}', "model"),
    ],
)
def test_a_bad_table_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "table.json"
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        Calibration.read(file)


def test_a_table_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        Calibration.read(tmp_path / "none.json")


def test_a_table_for_another_network_or_with_a_gap_is_refused(model: Model, tmp_path: Path) -> None:
    table = quantize.calibrate(model, [networks.pictures(3)], "minmax")
    other = networks.residual(tmp_path / "other.onnx", channels=4)
    with pytest.raises(ModelError, match="made with another network"):
        quantize.static(other, table, tmp_path)
    less = table.model_copy(update={"ranges": {name: ends for name, ends in table.ranges.items() if name != "r1"}})
    with pytest.raises(ModelError, match=r"no range for 1 of the .*'r1'"):
        quantize.static(model, less, tmp_path)


@pytest.mark.parametrize("symmetry", ["auto", "always", "never"])
@pytest.mark.parametrize("method", METHODS)
def test_a_network_quantized_by_a_table_from_its_file_is_that_of_the_table_itself(
    method: str, symmetry: Symmetry, model: Model, tmp_path: Path
) -> None:
    table = quantize.observe(model, [networks.pictures(3)]).calibration(method, symmetry=symmetry)
    assert (table.method, table.symmetry) == (method, symmetry)
    table.write(tmp_path / "table.json")
    (tmp_path / "again").mkdir()
    quantized = quantize.static(model, table, tmp_path)
    again = quantize.static(model, Calibration.read(tmp_path / "table.json"), tmp_path / "again")
    assert again.path.read_bytes() == quantized.path.read_bytes()
