"""A network with Q/DQ pairs is quantized for other runtimes with the ranges that it was trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.digits_model import Digits
from plimsoll import backends, quantize
from plimsoll.backends.base import CalibrationData
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
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
