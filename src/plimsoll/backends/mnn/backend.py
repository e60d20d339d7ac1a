"""MNN on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, CalibratorSettings, Options, ThreadPlan
from plimsoll.backends.mnn import conversion, quantizer_config
from plimsoll.backends.mnn.conversion import INSTALL
from plimsoll.backends.mnn.graph import MnnFile
from plimsoll.backends.mnn.session import MnnInterpreter, MnnSession, muted
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, Reader
from plimsoll.core.target import Target
from plimsoll.errors import BuildError
from plimsoll.onnx.signature import signature_of
from plimsoll.spec import Spec
from plimsoll.system import host

_PRECISIONS = ("float32", "float16", "int8_weights", "int8")


class MnnOptions(Options):
    """Options of MNN."""

    threads: int | None = Field(None, ge=1, le=1024)
    """Threads that compute one call, instead of what the objective gives."""


class Mnn(Backend):
    """MNN.

    `float16` halves the file; the arithmetic is float16 on Arm processors that have it, float32 elsewhere.
    `int8_weights` stores weights in int8 and computes in float32. `int8` is made for phones: on x86 it takes about
    twice as long as float32.
    """

    name = "mnn"
    title = "MNN"
    module = "MNN"
    install = INSTALL
    extra = "mnn"
    symbol = "pentagon"
    exports_settings = True
    options = MnnOptions

    @property
    def formats(self) -> tuple[Reader, ...]:
        return (MnnFile(),)

    def targets(self) -> tuple[AvailableTarget, ...]:
        missing = self.not_installed()
        return tuple(AvailableTarget(Target("mnn", "cpu", precision), missing) for precision in _PRECISIONS)

    def takes_calibration(self, target: Target) -> bool:
        return target.precision == "int8"

    def calibrators(self, target: Target) -> tuple[str, ...]:
        return tuple(conversion.CALIBRATORS) if target.precision == "int8" else ()

    def calibrator_settings(self, spec: Spec, images: str) -> CalibratorSettings:
        settings, warnings = quantizer_config.export(spec, images)
        return CalibratorSettings(settings.dumps(), warnings)

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        self.check(target)
        return conversion.build(model, target, folder, calibration)

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> MnnSession:
        self.check(target)
        chosen = options or MnnOptions()
        if model.format != "mnn":
            raise BuildError(
                f"{model.source}: MNN loads files of its own, this one is {model.format}",
                f"Convert it first: `plimsoll convert MODEL --target {target} --out BUNDLE`.",
            )
        signature = signature_of(model)
        config = {
            "backend": "CPU",
            "numThread": chosen.threads or plan.threads,
            "precision": _arithmetic(target.precision),
        }
        with muted(), translate(BuildError, f"MNN can't load {model.source.name}"):
            mnn = require("MNN", INSTALL)
            return MnnSession(
                signature, [MnnInterpreter(mnn, str(model.path), signature, config) for _ in range(plan.streams)]
            )


def _arithmetic(precision: str) -> str:
    """Return MNN's name of what it computes in: `low` is float16 where the processor has it, and bfloat16 on some that
    hasn't."""
    processor = host.capabilities()
    return "low" if precision == "float16" and processor.float16 and not processor.x86 else "high"


BACKEND = Mnn()
