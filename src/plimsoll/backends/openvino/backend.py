"""OpenVINO on the CPU: ONNX files, and OpenVINO's own (IR)."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from plimsoll.backends.base import (
    AvailableTarget,
    Backend,
    CalibrationData,
    Options,
    QuantizationDefaults,
    ThreadPlan,
    TritonBackend,
)
from plimsoll.backends.openvino.ir import OpenVinoIr
from plimsoll.backends.openvino.session import Compiler, OpenVinoSession
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, Reader
from plimsoll.core.target import Target
from plimsoll.errors import BuildError
from plimsoll.onnx.form import OnnxForm, require_form
from plimsoll.system import host

_INSTALL = "pip install 'plimsoll-line[openvino]'"
_COMPUTES_IN = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
"""What each target's floating-point operators compute in. By default OpenVINO takes bfloat16 wherever the processor
has it."""


_TRITON_NOTES = """
## What differs from Plimsoll's own session

Triton's OpenVINO backend fixes the batch to the largest one, so requests are not batched here: several are computed at
once instead. It can't be told to stay in float32: on processors with bfloat16 it computes floats in that, and may
answer otherwise than it was proven. There, export it with `--set network=python`.
"""


class OpenVinoOptions(Options):
    """Options of OpenVINO."""

    hint: Literal["none", "throughput", "latency"] = "none"
    """Let OpenVINO choose streams and threads for this aim, on as many cores; `none`: as the objective says."""
    streams: int | None = Field(None, ge=1, le=1024)
    """Calls computed at once, instead of what objective or hint give."""
    threads: int | None = Field(None, ge=1, le=1024)
    """Threads of all streams together, instead of what the objective gives."""
    pinning: bool = False
    """Bind each thread to a core. Two processes that do so share the first cores while others idle."""
    fixed_sizes: int = Field(2, ge=0, le=64)
    """For how many batch sizes, the first to come, the network is compiled anew: faster than the one for any size; each
    keeps the weights once more."""


class OpenVino(Backend):
    """OpenVINO."""

    name = "openvino"
    title = "OpenVINO"
    module = "openvino"
    install = _INSTALL
    extra = "openvino"
    symbol = "square"
    options = OpenVinoOptions

    @property
    def formats(self) -> tuple[Reader, ...]:
        return (OpenVinoIr(),)

    def targets(self) -> tuple[AvailableTarget, ...]:
        absent = self.not_installed()
        return tuple(
            AvailableTarget(Target("openvino", "cpu", precision), absent or _lacking(precision))
            for precision in _COMPUTES_IN
        )

    def onnx_form(self, target: Target) -> OnnxForm:
        return "qdq" if target.precision == "int8" else "float32"

    def quantization(self, target: Target) -> QuantizationDefaults:
        # Its first convolution gains nothing from fewer, deeper pixels, and pays for moving them. It adds a float32
        # bias one more exactly, and rounds averages in float to the grid of what they average;
        # what a convolution's result goes through value by value, it computes with it.
        del target
        return QuantizationDefaults(bias="float32", space_to_depth=False, hold_averages=True, fuses_pointwise=True)

    def triton(self, model: Model, target: Target) -> TritonBackend | None:
        del target
        if model.format not in ("onnx", "openvino"):
            return None

        def parameters(instances: int, threads: int | None) -> dict[str, str]:
            all_threads = {} if threads is None else {"INFERENCE_NUM_THREADS": str(threads * instances)}
            return {"NUM_STREAMS": str(instances), **all_threads}

        own = model.format == "openvino"
        return TritonBackend(
            "openvino",
            "model.xml" if own else "model.onnx",
            same_stem=own,  # OpenVINO looks for the weights beside the .xml, under the same name.
            batches=False,  # Triton fixes the batch to the largest one and computes that for every call.
            instances=4,
            parameters=parameters,
            notes=_TRITON_NOTES,
        )

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        del folder, calibration
        self.check(target)
        if model.format == "openvino":
            _require_ir_form(model, target)
        else:
            require_form(model, target, self.onnx_form(target))
        return model

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> OpenVinoSession:
        self.check(target)
        chosen = options or OpenVinoOptions()
        openvino = _import()
        with translate(BuildError, f"OpenVINO can't load {model.source.name}"):
            core = openvino.Core()
            # Sizes that come later are compiled from what was read now, whatever has become of the file.
            core.set_property({"ENABLE_MMAP": False})
            network = core.read_model(str(model.path))
            return OpenVinoSession(
                Compiler(openvino, core, network, _settings(target, chosen, plan), plan.streams), chosen.fixed_sizes
            )


def _require_ir_form(model: Model, target: Target) -> None:
    """Raise BuildError where OpenVINO's own file is quantized and the target says otherwise, or the other way round."""
    with translate(BuildError, f"{model.source}: can't be read"):
        quantized = b'type="FakeQuantize"' in model.path.read_bytes()
    if quantized != (target.precision == "int8"):
        actual, other = ("quantized", "int8") if quantized else ("in floating point", "float32")
        raise BuildError(
            f"{model.source}: {target} needs another file: this one is {actual}", f"Run it as openvino:cpu:{other}."
        )


def _lacking(precision: str) -> str:
    """Return what this processor lacks for a precision, or nothing. OpenVINO itself would emulate or ignore
    it."""
    processor = host.capabilities()
    if precision == "bfloat16" and not processor.bfloat16:
        return (
            "This processor is not known to compute in bfloat16 (AVX512-BF16, AMX-BF16 or Arm's BF16): OpenVINO would"
            " emulate it. Use float32."
        )
    if precision == "float16" and not processor.float16:
        return (
            "This processor is not known to compute in float16 (AVX512-FP16 or Arm's FP16): OpenVINO would compute in"
            " another precision. Use float32."
        )
    return ""


_importing = threading.Lock()
_NOT_IMPORTED = ("openvino_telemetry", "openvino.tools.ovc")


def _import() -> ModuleType:
    """Import OpenVINO without its telemetry and without its converter.

    Where the package openvino-telemetry is there, as pip installs it, `import openvino` reports the import to Google
    Analytics and writes files below the home folder, unless the user opted out. Where it isn't, OpenVINO uses a stub
    that does nothing: so it isn't there while OpenVINO is being imported. The converter takes half of the import's
    time; `openvino.convert_model` still finds it.
    """
    with _importing:
        if "openvino" in sys.modules:
            return require("openvino", _INSTALL)
        loaded = {name: sys.modules.get(name) for name in _NOT_IMPORTED}
        for name in _NOT_IMPORTED:
            sys.modules[name] = None  # type: ignore[assignment]  # that is how Python marks a module that can't be imported
        try:
            openvino = require("openvino", _INSTALL)
        finally:
            for name, module in loaded.items():
                del sys.modules[name]
                if module is not None:
                    sys.modules[name] = module
        openvino.__getattr__ = _converter  # type: ignore[method-assign]
        return openvino


def _converter(name: str) -> Any:
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    return importlib.import_module("openvino.tools.ovc").convert_model


def _settings(target: Target, chosen: OpenVinoOptions, plan: ThreadPlan) -> dict[str, Any]:
    """Return OpenVINO's properties. Threads count over all streams."""
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _COMPUTES_IN[target.precision],
        "INFERENCE_NUM_THREADS": chosen.threads or plan.streams * plan.threads,
        "ENABLE_CPU_PINNING": chosen.pinning,
    }
    if chosen.hint == "none":
        # Its own rules would leave the second thread of each core idle, which `machine.cores` counts.
        settings |= {"NUM_STREAMS": plan.streams, "ENABLE_HYPER_THREADING": True}
    else:
        settings["PERFORMANCE_HINT"] = chosen.hint.upper()
    if chosen.streams is not None:
        settings["NUM_STREAMS"] = chosen.streams
    return settings


BACKEND = OpenVino()
