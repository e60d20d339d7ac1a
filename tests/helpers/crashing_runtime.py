"""A runtime that does what a picture's first pixel says: end the process, or hang; and such pictures. A network whose
file is called `crashes` ends the process while it is loaded, unless it was built again after the crash;
`crashes_while_built`, while it is built. `logs` logs, `chatters` prints.

`installed` installs this very file as an outsider's backend is installed: with an entry point.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, ThreadPlan
from plimsoll.backends.onnxruntime import BACKEND as HONEST
from plimsoll.core.model import Model, Tensors
from plimsoll.core.target import Target

KILLS, HANGS = 200, 150
"""Levels of a first pixel."""
CRASHES = "crashes"
CRASHES_BUILD = "crashes_while_built"
LOGS = "logs"
CHATTERS = "chatters"
_BLUE_MEAN = 104
"""What open_nsfw's input steps subtract from the first channel."""


class FragileSession:
    def __init__(self, inner: Any) -> None:
        self.inner, self.inputs, self.outputs, self.concurrent = inner, inner.inputs, inner.outputs, inner.concurrent

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        for level in (next(iter(feeds.values()))[:, 0, 0, 0] + _BLUE_MEAN).round().tolist():
            if level == KILLS:
                os.kill(os.getpid(), signal.SIGSEGV)
            if level == HANGS:
                time.sleep(3600)
        answers: Tensors = self.inner.run(feeds)
        return answers

    def close(self) -> None:
        self.inner.close()


class Fragile(Backend):
    name = "fragile"

    def targets(self) -> tuple[AvailableTarget, ...]:
        return (AvailableTarget(Target("fragile", "cpu", "float32")),)

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        del target, folder, calibration
        if model.path.stem == CRASHES_BUILD:
            os.kill(os.getpid(), signal.SIGSEGV)
        if model.path.stem == CHATTERS:
            os.write(1, b"native output\n")
            os.write(2, b"native error\n")
            warnings.warn("a warning of a library", FutureWarning, stacklevel=1)
            logging.getLogger("library").warning("a log record of a library")
        if model.path.stem == LOGS:
            logging.getLogger("plimsoll.fragile").info("the fragile runtime informs")
            logging.getLogger("plimsoll.fragile").warning("the fragile runtime warns")
        return model

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> Any:
        del target, options
        if model.path.stem == CRASHES:
            os.kill(os.getpid(), signal.SIGSEGV)
        return FragileSession(HONEST.load(model, Target("onnxruntime"), None, plan))

    def after_crash(self, built: Model, target: Target, folder: Path) -> Iterator[Model]:
        del target
        yield built  # crashes again
        yield Model(Path(shutil.copy(built.path, folder / "tamed.onnx")), "onnx", built.spec, parent=built)


BACKEND = Fragile()


def install(folder: Path) -> dict[str, str]:
    """Install this file into a folder as a package of its own; returns the environment in which it is found."""
    facts = folder / "crashing_runtime-1.0.dist-info"
    facts.mkdir(parents=True)
    shutil.copy(__file__, folder)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: crashing_runtime\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[plimsoll.backends]\nfragile = {Path(__file__).stem}:BACKEND\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def picture(level: int) -> bytes:
    """Return a picture of one grey: the JPEG step of open_nsfw leaves its level as it is."""
    out = io.BytesIO()
    Image.fromarray(np.full((256, 256, 3), level, np.uint8)).save(out, "PNG")
    return out.getvalue()
