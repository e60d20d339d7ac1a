"""A network with Q/DQ pairs is quantized for other runtimes with the ranges that it was trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from helpers import networks_to_quantize as networks
from helpers.digits_model import Digits
from plimsoll import backends, quantize
from plimsoll.backends.base import CalibrationData
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import BuildError
from plimsoll.importers import read
from plimsoll.preprocessing import Preprocessor
from plimsoll.quantize.calibration import Statistics
from plimsoll.spec import files as spec_files

INT8 = replace(REFERENCE_TARGET, precision="int8")
Array = NDArray[Any]


@pytest.fixture(scope="module")
def tensors(digits: Digits) -> Array:
    preprocessor = Preprocessor(spec_files.read(digits.spec).input)
    return np.stack([preprocessor(path) for path in sorted(digits.images.rglob("*.png"))[::3]])


@pytest.fixture(scope="module")
def trained(digits: Digits, tensors: Array, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Any]:
    """The network in int8 as its makers deliver it, and the ranges that they found on many pictures."""
    model = read(digits.model, spec_files.read(digits.spec))
    table = quantize.observe(model, [tensors]).calibration("minmax")
    folder = tmp_path_factory.mktemp("trained")
    options = replace(quantize.StaticOptions.for_target(INT8), float_heads=False)
    return quantize.static(model, table, folder, options), table.ranges


@pytest.fixture(scope="module")
def observed(trained: tuple[Model, Any], tensors: Array) -> Statistics:
    """What four dim pictures show."""
    dim = tensors[np.argsort(tensors.sum(axis=(1, 2, 3)))[:4]]
    return quantize.observe(trained[0], [dim])


def answers(model: Model, target: Target, tensors: Array) -> Array:
    with Runner.open(model, target) as runner:
        return next(iter(runner.infer(tensors).values()))


def test_the_ranges_are_those_of_the_file(trained: tuple[Model, Any], observed: Statistics) -> None:
    assert observed.own_ranges.keys() >= observed.tensors.keys()
    given = [max(-min(0.0, low), high) for low, high in trained[1].values()]
    ranges = observed.calibration("percentile").ranges
    own = [max(-min(0.0, low), high) for low, high in (ranges[name] for name in observed.tensors)]
    assert np.allclose(sorted(own), sorted(given), rtol=0.01)


def test_they_are_better_than_what_few_pictures_show(
    trained: tuple[Model, Any], observed: Statistics, tensors: Array, tmp_path: Path
) -> None:
    model, _ = trained
    expected = answers(model, INT8, tensors)
    deviations = []
    for number, statistics in enumerate((observed, replace(observed, own_ranges={}))):
        folder = tmp_path / str(number)
        folder.mkdir()
        plain = quantize.float32(model, folder)
        built = quantize.static(plain, statistics.calibration("minmax"), folder)
        deviations.append(np.abs(answers(built, INT8, tensors) - expected).mean())
    own, recalibrated = deviations
    assert own < recalibrated / 3
    assert (
        np.abs(answers(quantize.float32(model, tmp_path), REFERENCE_TARGET, tensors) - expected).mean() < recalibrated
    )


def test_runtimes_that_quantize_for_themselves_get_them(
    trained: tuple[Model, Any], observed: Statistics, tensors: Array, tmp_path: Path
) -> None:
    backend, target = backends.get("mnn"), Target("mnn", "cpu", "int8")
    if any(available.missing for available in backend.targets() if available.target == target):
        pytest.skip("MNN is not installed")
    model, _ = trained
    expected = answers(model, INT8, tensors)
    plain = quantize.float32(model, tmp_path)
    ranges = observed.calibration("minmax").ranges
    built = backend.build(plain, target, tmp_path, CalibrationData("minmax", tensors[:4], ranges))
    assert np.abs(answers(built, target, tensors) - expected).mean() < 0.01 * np.abs(expected).mean()


def test_a_float_network_has_none(digits: Digits, tensors: Array) -> None:
    model = read(digits.model, spec_files.read(digits.spec))
    assert quantize.observe(model, [tensors[:2]]).own_ranges == {}


def test_pixels_may_be_rearranged_between_a_pair(tmp_path: Path) -> None:
    """As Plimsoll's own networks rearrange them before a first convolution with stride 2."""
    source = networks.residual(tmp_path / "net.onnx")
    pictures = networks.pictures(8)
    table = quantize.calibrate(source, [pictures], "minmax")
    quantized = quantize.static(source, table, tmp_path, quantize.StaticOptions())
    assert "Split" in networks.operators(quantized)
    (tmp_path / "float").mkdir()
    lifted = quantize.float32(quantized, tmp_path / "float")
    truth = networks.run(source, pictures)
    assert np.abs(networks.run(lifted, pictures) - truth).max() < 0.05 * np.abs(truth).max()


def test_values_of_two_grids_that_are_joined_between_pairs_are_refused(tmp_path: Path) -> None:
    source = networks.residual(tmp_path / "net.onnx")
    table = quantize.calibrate(source, [networks.pictures(2)], "minmax")
    quantized = quantize.static(source, table, tmp_path, quantize.StaticOptions())
    proto = onnx.load(quantized.path)
    other = next(node for node in proto.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x")
    scale = numpy_helper.from_array(np.array(7, np.float32), "another_scale")
    proto.graph.initializer.append(scale)
    proto.graph.node.insert(1, helper.make_node("QuantizeLinear", ["x", scale.name, other.input[2]], ["x/other"]))
    proto.graph.node.insert(2, helper.make_node("Reshape", ["x/other", next(
        node for node in proto.graph.node if node.op_type == "Reshape").input[1]], ["x/rows"]))  # fmt: skip
    first = next(node for node in proto.graph.node if node.op_type == "Split")
    second = helper.make_node("Split", ["x/rows", *first.input[1:]], ["x/a", "x/b"])
    second.attribute.extend(first.attribute)
    proto.graph.node.insert(3, second)
    reshape = next(node for node in proto.graph.node if node.input[0] == first.output[1])
    reshape.input[0] = "x/b"
    onnx.save(proto, tmp_path / "two.onnx")
    with pytest.raises(BuildError, match="no counterpart"):
        quantize.float32(Model(tmp_path / "two.onnx", "onnx"), tmp_path)
