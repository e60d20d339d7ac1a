"""Random pictures for the contract suite, and its networks as the runtimes load them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll import backends, quantize
from plimsoll.backends.base import CalibrationData
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.onnx import load

Build = Callable[[Model, Target], Model]


@pytest.fixture
def pictures() -> Callable[[int], NDArray[np.float32]]:
    """Make so many pictures [N, 5, 6, 3] with values in (0, 1], each of another colour, so that no two get nearly the
    same scores."""

    def make(count: int) -> NDArray[np.float32]:
        random = np.random.default_rng(count)
        return 1 - random.random((count, 1, 1, 3), np.float32) * random.random((count, 5, 6, 3), np.float32)

    return make


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build a network for a target, with a calibration where that needs one; each network once, since a conversion
    takes seconds."""
    stored: dict[tuple[str, Target], Model] = {}

    def build_cached(model: Model, target: Target) -> Model:
        backend = backends.get(target.runtime)
        key = (model.sha256, target)
        if key not in stored:
            folder = tmp_path_factory.mktemp(target.runtime)
            calibrated = _calibrated(model, folder) if backend.takes_calibration(target) else None
            built = backend.build(model, target, folder, calibrated)
            if built is model:
                return model
            stored[key] = built
        return stored[key]

    return build_cached


def _calibrated(model: Model, folder: Path) -> CalibrationData:
    """Calibrate a network that takes pictures `[N, 5, 6, 3]`."""
    if [tensor.name for tensor in load.inputs(load.read(model.path).proto.graph)] != ["picture"]:
        pytest.skip("networks of one input are calibrated")
    random = np.random.default_rng(11)
    tensors = 1 - random.random((200, 1, 1, 3), np.float32) * random.random((200, 5, 6, 3), np.float32)
    statistics = quantize.observe(quantize.prepare(model, folder), np.split(tensors, 20), cores=1)
    return CalibrationData("minmax", tensors, statistics.calibration("minmax").ranges)
