"""Ranking, and mixed precision that finds a planted bad layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import quantize_networks as networks
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.errors import CheckError, InputError

BATCH = networks.pictures(8, seed=4)


@pytest.fixture
def planted(tmp_path: Path) -> Model:
    """conv2 computes as before, but one channel of its input is a thousand times larger, and its weights that much
    smaller."""
    model = networks.residual(tmp_path / "net.onnx")
    proto = onnx.load(model.path)
    stored = {one.name: one for one in proto.graph.initializer}
    for name, place, factor in (("w1", np.s_[0], 1000), ("b1", np.s_[0], 1000), ("w2", np.s_[:, 0], 1 / 1000)):
        values = numpy_helper.to_array(stored[name]).copy()
        values[place] *= factor
        stored[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(proto, model.path)
    return Model(model.path, "onnx")


def test_the_planted_layer_leads_the_ranking(planted: Model) -> None:
    table = quantize.calibrate(planted, [networks.pictures()], "minmax")
    ranking = quantize.sensitivity(planted, table, BATCH)
    assert {row.name for row in ranking[:2]} == {"conv1", "conv2"}  # Both touch the tensor with the large channel.
    assert ranking[0].mean_abs > 5 * ranking[2].mean_abs
    assert [row.mean_abs for row in ranking] == sorted((row.mean_abs for row in ranking), reverse=True)
    assert {row.operator for row in ranking} == {"Conv", "Add"}
    assert {row.name for row in ranking} == {"conv0", "conv1", "conv2", "conv3", "conv4", "add0", "add1"}


def test_mixed_puts_the_planted_layer_back_into_float_and_no_more(planted: Model, tmp_path: Path) -> None:
    table = quantize.calibrate(planted, [networks.pictures()], "minmax")
    whole = quantize.static(planted, table, tmp_path)
    reference = networks.run(planted, BATCH)
    before = float(np.abs(networks.run(whole, BATCH, "onnxruntime:cpu:int8") - reference).max())
    found = quantize.mixed(planted, table, BATCH, before / 3, tmp_path)
    assert set(found.kept) == {"conv1", "conv2"}
    measured = float(np.abs(networks.run(found.model, BATCH, "onnxruntime:cpu:int8") - reference).max())
    assert measured == pytest.approx(found.deviation)
    assert found.deviation <= before / 3
    assert found.model.parent == planted


def test_mixed_keeps_everything_in_int8_where_that_holds(tmp_path: Path) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    table = quantize.calibrate(model, [networks.pictures()], "minmax")
    assert quantize.mixed(model, table, BATCH, 0.05, tmp_path).kept == ()


def test_a_limit_that_nothing_keeps_is_said(tmp_path: Path) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    table = quantize.calibrate(model, [networks.pictures()], "minmax")
    with pytest.raises(CheckError, match="deviates by more than 1e-09"):
        quantize.mixed(model, table, BATCH, 1e-9, tmp_path)
    assert not list(tmp_path.glob("*mixed*"))
    with pytest.raises(InputError, match="no picture"):
        quantize.sensitivity(model, table, BATCH[:0])
