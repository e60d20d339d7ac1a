"""OpenVINO on the CPU: ONNX files, and OpenVINO's own (IR)."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plimsoll.backends.base import AvailableTarget, Backend, Calibrated, Options, ThreadPlan
from plimsoll.backends.openvino.ir import OpenVinoIr
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, Reader, TensorInfo, Tensors
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, RunError
from plimsoll.onnx.form import OnnxForm, require_form
from plimsoll.system import host

_INSTALL = "pip install 'plimsoll-line[openvino]'"
_COMPUTES_IN = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
"""What each target's floating-point operators compute in. Unless told, OpenVINO takes bfloat16 wherever the processor
has it."""

Shapes = tuple[tuple[int, ...], ...]


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
    options = OpenVinoOptions

    @property
    def formats(self) -> tuple[Reader, ...]:
        return (OpenVinoIr(),)

    def offers(self) -> tuple[AvailableTarget, ...]:
        absent = "" if importlib.util.find_spec("openvino") else f"OpenVINO is not installed. Install it: {_INSTALL}"
        return tuple(
            AvailableTarget(Target("openvino", "cpu", precision), absent or _lacking(precision))
            for precision in _COMPUTES_IN
        )

    def needs(self, target: Target) -> OnnxForm:
        return "qdq" if target.precision == "int8" else "float32"

    def build(self, model: Model, target: Target, folder: Path, calibrated: Calibrated | None = None) -> Model:
        del folder, calibrated
        self.check(target)
        if model.format == "openvino":
            _require_ir_form(model, target)
        else:
            require_form(model, target, self.needs(target))
        return model

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> _Session:
        self.check(target)
        chosen = options or OpenVinoOptions()
        openvino = _import()
        with translate(BuildError, f"OpenVINO can't load {model.path.name}"):
            core = openvino.Core()
            # Sizes that come later are compiled from what was read now, whatever has become of the file.
            core.set_property({"ENABLE_MMAP": False})
            network = core.read_model(str(model.path))
            return _Session(
                _Compiler(openvino, core, network, _settings(target, chosen, plan), plan.streams), chosen.fixed_sizes
            )


def _require_ir_form(model: Model, target: Target) -> None:
    """Raise BuildError where OpenVINO's own file is quantized and the target says otherwise, or the other way round."""
    with translate(BuildError, f"{model.path}: can't be read"):
        quantized = b'type="FakeQuantize"' in model.path.read_bytes()
    if quantized != (target.precision == "int8"):
        found, other = ("quantized", "int8") if quantized else ("in floating point", "float32")
        raise BuildError(
            f"{model.path}: {target} needs another file: this one is {found}", f"Run it as openvino:cpu:{other}."
        )


def _lacking(precision: str) -> str:
    """Return what this processor lacks for a precision, or nothing. OpenVINO itself would emulate it, or ignore the
    wish."""
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


def _import() -> ModuleType:
    """Import OpenVINO without its telemetry.

    Where the package openvino-telemetry is there, as pip installs it, `import openvino` reports the import to Google
    Analytics and writes files below the home folder, unless the user opted out. Where it isn't, OpenVINO uses a stub
    that does nothing: so it isn't there while OpenVINO is being imported.
    """
    telemetry = "openvino_telemetry"
    with _importing:
        if "openvino" in sys.modules:
            return require("openvino", _INSTALL)
        loaded = sys.modules.get(telemetry)
        sys.modules[telemetry] = None  # type: ignore[assignment]  # that is how Python marks a module that can't be imported
        try:
            return require("openvino", _INSTALL)
        finally:
            del sys.modules[telemetry]
            if loaded is not None:
                sys.modules[telemetry] = loaded


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


class _Compiler:
    """A network that was read, ready to be compiled for one size of its inputs or for any."""

    def __init__(
        self, openvino: ModuleType, core: Any, network: Any, settings: Mapping[str, Any], streams: int
    ) -> None:
        self._core = core
        self._settings = settings
        self._lanes = streams
        self.network = network
        self.tensor = openvino.Tensor

    def compile(self, shapes: Shapes | None = None) -> _Compiled:
        """Return it compiled for these shapes of its inputs, or for any; raises what OpenVINO raises, or BuildError."""
        network = self.network
        if shapes is not None:
            network = network.clone()
            network.reshape(dict(enumerate(map(list, shapes))))
        compiled = self._core.compile_model(network, "CPU", dict(self._settings))
        wanted, found = (
            self._settings["INFERENCE_PRECISION_HINT"],
            compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
        )
        if found != wanted:
            raise BuildError(
                f"OpenVINO was told to compute in {wanted}, but computes in {found} on this processor",
                "Use the target of that precision.",
            )
        return _Compiled(compiled, max(self._lanes, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))


class _Compiled:
    """A compiled network, and a request for each call that may be under way."""

    def __init__(self, compiled: Any, requests: int) -> None:
        self._free = [compiled.create_infer_request() for _ in range(requests)]
        self._turn = threading.Semaphore(requests)

    def run(self, tensors: list[Any]) -> list[NDArray[Any]]:
        """Compute the outputs, as copies: the request's own memory is written again by its next call."""
        with self._turn:
            request = self._free.pop()
            try:
                for place, tensor in enumerate(tensors):
                    request.set_input_tensor(place, tensor)
                # The stream's threads compute, and Python's lock is free while this one waits.
                request.start_async()
                request.wait()
                return [np.array(tensor.data) for tensor in request.output_tensors]
            finally:
                self._free.append(request)


class _Session:
    """Compiled for the first sizes that come, each by itself, and for any size once there are more."""

    concurrent = True

    def __init__(self, compiler: _Compiler, fixed_sizes: int) -> None:
        self._compiler: _Compiler | None = compiler
        # Compiling renames outputs that are copies of one another.
        self.inputs = tuple(_info(one) for one in compiler.network.inputs)
        self.outputs = tuple(_info(one) for one in compiler.network.outputs)
        self._most = fixed_sizes
        self._fixed: dict[Shapes, _Compiled] = {}
        self._any: _Compiled | None = None
        self._lock = threading.Lock()
        self._compiled_for(
            tuple(
                tuple(1 if size is None and axis == 0 else size or 0 for axis, size in enumerate(one.shape))
                for one in self.inputs
            )
        )

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        with translate(RunError, "OpenVINO failed"):
            if self._compiler is None:
                raise RunError("OpenVINO failed: the session is closed")
            arrays = [_shareable(feeds[one.name]) for one in self.inputs]
            compiled = self._compiled_for(tuple(one.shape for one in arrays))
            tensor = self._compiler.tensor
            values = compiled.run([tensor(one, shared_memory=True) for one in arrays])
        return dict(zip((one.name for one in self.outputs), values, strict=True))

    def _compiled_for(self, shapes: Shapes) -> _Compiled:
        """Return the network for these shapes, compiled if need be; a size of 0 stands for one that isn't known yet."""
        if (ready := self._fixed.get(shapes)) is not None:
            return ready
        if self._any is not None and len(self._fixed) >= self._most:
            return self._any
        with self._lock:
            return self._compile(shapes)

    def _compile(self, shapes: Shapes) -> _Compiled:
        if self._compiler is None:
            raise RunError("OpenVINO failed: the session is closed")
        if shapes in self._fixed:
            return self._fixed[shapes]
        if len(self._fixed) < self._most and all(all(shape) for shape in shapes):
            self._fixed[shapes] = self._compiler.compile(shapes)
            return self._fixed[shapes]
        self._any = self._any or self._compiler.compile()
        return self._any

    def close(self) -> None:
        with self._lock:
            self._compiler = self._any = None
            self._fixed.clear()


def _info(port: Any) -> TensorInfo:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorInfo(port.get_any_name(), shape, str(port.element_type.to_dtype()))


def _shareable(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, or a copy where OpenVINO can't read it in place."""
    return array if array.flags.c_contiguous and array.flags.writeable else array.copy()


BACKEND = OpenVino()
