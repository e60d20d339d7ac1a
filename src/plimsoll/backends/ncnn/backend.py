"""ncnn on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, Options, ThreadPlan
from plimsoll.backends.calibration_tables import CalibrationTable
from plimsoll.backends.ncnn import conversion
from plimsoll.backends.ncnn.conversion import INSTALL, TOOLCHAIN, NcnnTable
from plimsoll.backends.ncnn.network import NcnnFiles
from plimsoll.backends.ncnn.session import NcnnSession
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, Reader
from plimsoll.core.target import Target
from plimsoll.errors import BuildError
from plimsoll.onnx.signature import signature_of
from plimsoll.system import host

_PRECISIONS = ("float32", "float16", "int8")


class NcnnOptions(Options):
    """Options of ncnn."""

    threads: int | None = Field(None, ge=1, le=1024)
    """Threads that compute one call, instead of what the objective gives."""


class Ncnn(Backend):
    """ncnn.

    `float16` halves the weights' file; the arithmetic is float16 on Arm processors that have it, float32 elsewhere.
    `int8` has the weights and what convolutions and inner products read in int8; all between them, and the last of
    them, in float32.
    """

    name = "ncnn"
    title = "ncnn"
    module = "ncnn"
    install = INSTALL
    extra = "ncnn"
    symbol = "hexagon"
    options = NcnnOptions

    @property
    def formats(self) -> tuple[Reader, ...]:
        return (NcnnFiles(),)

    @property
    def calibration_tables(self) -> tuple[CalibrationTable, ...]:
        return (NcnnTable(),)

    def targets(self) -> tuple[AvailableTarget, ...]:
        missing = self.not_installed()
        return tuple(AvailableTarget(Target("ncnn", "cpu", precision), missing, TOOLCHAIN) for precision in _PRECISIONS)

    def takes_calibration(self, target: Target) -> bool:
        return target.precision == "int8"

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        self.check(target)
        return conversion.build(model, target, folder, calibration)

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> NcnnSession:
        self.check(target)
        chosen = options or NcnnOptions()
        if model.format != "ncnn":
            raise BuildError(
                f"{model.source}: ncnn loads files of its own, this one is {model.format}",
                f"Convert it first: `plimsoll convert MODEL --target {target} --out BUNDLE`.",
            )
        signature = signature_of(model)
        ncnn = require("ncnn", INSTALL)
        with translate(BuildError, f"ncnn can't load {model.source.name}"):
            processor = host.capabilities()
            half = target.precision == "float16" and processor.float16 and not processor.x86
            network = conversion.loaded(
                ncnn, (model.path, conversion.weights_of(model)), threads=chosen.threads or plan.threads, half=half
            )
            return NcnnSession(network, signature, plan.streams)


BACKEND = Ncnn()
