"""A small real network behind a Spec, in predictors whose session takes a known time longer. For tests of what measures
time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from helpers import small_models
from helpers.contract_networks import network
from plimsoll.backends.base import Objective
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model, TensorInfo, Tensors
from plimsoll.errors import RunError
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.spec import files

_AGAIN = '[[input.steps]]\nstep = "resize"\nwidth = 6\nheight = 5\nfilter = "nearest"\n'
_SCALE = '[[input.steps]]\nstep = "scale"\n'
SPEC = small_models.SPEC.replace(_SCALE, _AGAIN + _SCALE)
"""With a second resize, so that two stages have one name."""


class SlowSession:
    """A session that takes `seconds` longer for each picture, and fails for the calls in `failing` (from 0)."""

    def __init__(self, inner: Runner, seconds: Mapping[int, float] | float, failing: frozenset[int]) -> None:
        self._inner, self._seconds, self._failing = inner, seconds, failing
        self._lock = threading.Lock()
        self.calls = 0
        self.concurrent = True

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._inner.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._inner.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        with self._lock:
            call = self.calls
            self.calls += 1
        each = self._seconds if isinstance(self._seconds, float) else self._seconds.get(call, 0.0)
        time.sleep(each * len(next(iter(feeds.values()))))
        if call in self._failing:
            raise RunError("a planted failure")
        return self._inner.run(feeds)

    def close(self) -> None:
        self._inner.close()


class SlowPredictor(Predictor):
    """A predictor whose one session is slow."""

    def __init__(self, model: Model, seconds: Mapping[int, float] | float, cores: int, failing: frozenset[int]) -> None:
        super().__init__(ResolvedModel(model), cores=cores)
        self.session = SlowSession(Runner.open(model, self.target, objective="throughput", cores=1), seconds, failing)
        self._slow = Runner(self.session, "slow", streams=cores)

    def runner(self, objective: Objective) -> Runner:
        del objective
        return self._slow


def slow(
    folder: Path, seconds: Mapping[int, float] | float = 0.0, *, cores: int = 2, failing: frozenset[int] = frozenset()
) -> SlowPredictor:
    """Make a small network in the folder, and a predictor that takes `seconds` longer (for all calls, or by their
    number)."""
    file = network(folder / "small.onnx").path
    return SlowPredictor(Model(file, "onnx", files.loads(SPEC, "the test")), seconds, cores, failing)


def pictures(folder: Path, count: int = 3) -> list[str]:
    """Write small PNG pictures."""
    rng = np.random.default_rng(3)
    paths = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8)).save(path)
        paths.append(str(path))
    return paths
