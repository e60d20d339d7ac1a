"""Sensitivity: the ranking of operators finds a planted bad layer, and what is in float deviates less for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from helpers import networks_to_quantize as networks
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.quantize import StaticOptions

BATCH = networks.pictures(8, seed=4)


@pytest.fixture
def planted(tmp_path: Path) -> Model:
    """conv2 computes as before, but one channel of its input is a thousand times larger, and its weights that much
    smaller."""
    model = networks.residual(tmp_path / "net.onnx")
    proto = onnx.load(model.path)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name, index, factor in (("w1", np.s_[0], 1000), ("b1", np.s_[0], 1000), ("w2", np.s_[:, 0], 1 / 1000)):
        values = numpy_helper.to_array(stored[name]).copy()
        values[index] *= factor
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


def deviation(model: Model, quantized: Model) -> float:
    answers = networks.run(quantized, BATCH, "onnxruntime:cpu:int8")
    return float(np.abs(answers - networks.run(model, BATCH)).max())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_leaders_of_the_ranking_in_float_deviate_less_than_its_last_ones(
    planted: Model, tmp_path: Path, count: int
) -> None:
    table = quantize.calibrate(planted, [networks.pictures()], "minmax")
    names = [row.name for row in quantize.sensitivity(planted, table, BATCH)]
    whole = deviation(planted, quantize.static(planted, table, tmp_path))
    last = StaticOptions(keep_float=tuple(names[-count:]))
    leaders = StaticOptions(keep_float=tuple(names[:count]))
    with_last_in_float = deviation(planted, quantize.static(planted, table, tmp_path, last))
    with_leaders_in_float = deviation(planted, quantize.static(planted, table, tmp_path, leaders))
    assert with_leaders_in_float < with_last_in_float
    if count > 1:  # conv1 and conv2 share the tensor with the large channel.
        assert with_leaders_in_float < whole / 3


def test_a_sensitivity_without_pictures_is_refused(tmp_path: Path) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    table = quantize.calibrate(model, [networks.pictures()], "minmax")
    with pytest.raises(InputError, match="no picture"):
        quantize.sensitivity(model, table, BATCH[:0])
