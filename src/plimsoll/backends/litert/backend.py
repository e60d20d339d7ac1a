"""LiteRT (TensorFlow Lite) on the CPU."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, Options, ThreadPlan
from plimsoll.backends.litert import conversion, tflite_file
from plimsoll.backends.litert.session import LiteRtSession
from plimsoll.backends.litert.tflite_file import Tflite, TfliteFile
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, Reader
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, ModelError
from plimsoll.system import native_output

_PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")
_GREETING = "Created TensorFlow Lite XNNPACK delegate"
"""What LiteRT writes to standard error, at a level that its Python interface can't change."""


class LiteRtOptions(Options):
    """Options of LiteRT."""

    threads: int | None = Field(None, ge=1, le=1024)
    """Threads that compute one call, instead of what the objective gives."""
    xnnpack: bool = True
    """Compute with XNNPACK where it has the operators; without it, with LiteRT's own kernels, mostly far slower."""
    io: conversion.Io = "float32"
    """The type of the inputs and outputs of an int8 or int16x8 file that is built, for use elsewhere: a session takes
    and returns float32 in any case."""


class LiteRt(Backend):
    """LiteRT.

    A network that comes as ONNX is converted with a batch of one, as phones and MediaPipe Tasks expect it. `int16x8`
    keeps 16 bits of what flows through the network; no fast kernels exist for it, so that it takes some 30 times as
    long.
    """

    name = "litert"
    title = "LiteRT"
    module = "ai_edge_litert"
    install = tflite_file.INSTALL
    extra = "litert"
    symbol = "diamond"
    options = LiteRtOptions

    def __init__(self, io: conversion.Io = "float32") -> None:
        self._io = io

    @property
    def formats(self) -> tuple[Reader, ...]:
        return (Tflite(),)

    def targets(self) -> tuple[AvailableTarget, ...]:
        missing = self.not_installed()
        return tuple(
            AvailableTarget(Target("litert", "cpu", precision), missing, conversion.TOOLCHAIN)
            for precision in _PRECISIONS
        )

    def target_of(self, model: Model) -> Target:
        return Target(self.name, "cpu", conversion.precision_of(model))

    def takes_calibration(self, target: Target) -> bool:
        return target.precision in conversion.CALIBRATED

    def configured(self, options: Options) -> LiteRt:
        return LiteRt(options.io) if isinstance(options, LiteRtOptions) else self

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        self.check(target)
        return conversion.build(model, target, folder, calibration, self._io)

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> LiteRtSession:
        self.check(target)
        chosen = options or LiteRtOptions()
        litert = require("ai_edge_litert.interpreter", tflite_file.INSTALL)
        try:
            file = tflite_file.read_file(model.path)
            content = model.path.read_bytes()
        except (ModelError, OSError) as error:
            raise BuildError(
                f"LiteRT can't load {model.source.name}: {error}", "Check the file with `plimsoll inspect`."
            ) from error
        if file.unsteady:
            raise BuildError(
                f"{model.source.name} can answer the same picture differently each time: {', '.join(file.unsteady)}"
                " keep or draw values that LiteRT can't reset between pictures",
                "Export the network for inference: without random layers, and with its states as inputs and outputs.",
            )
        foreign = file.describe_custom()
        doing = f"LiteRT can't load {model.source.name}" + (f", which calls {foreign}" if foreign else "")
        with translate(BuildError, doing):
            return LiteRtSession(file, [_interpreter(litert, content, chosen, plan, file) for _ in range(plan.streams)])


def _interpreter(litert: ModuleType, content: bytes, chosen: LiteRtOptions, plan: ThreadPlan, file: TfliteFile) -> Any:
    """Return an interpreter that is ready to compute. All share the file's bytes; what XNNPACK packs of them, each has
    for itself."""
    kinds = litert.OpResolverType
    # XNNPACK may read a shared state before the operator that keeps it has run: an answer late by a picture.
    kind = kinds.AUTO if chosen.xnnpack and not file.shared_state else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with native_output.without(_GREETING):
        interpreter = litert.Interpreter(
            model_content=content, num_threads=chosen.threads or plan.threads, experimental_op_resolver_type=kind
        )
        interpreter.allocate_tensors()
    return interpreter


BACKEND = LiteRt()
