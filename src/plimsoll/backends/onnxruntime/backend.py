"""ONNX Runtime, on the CPU and on NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, Options, ThreadPlan, TritonBackend
from plimsoll.backends.calibration_tables import CalibrationTable
from plimsoll.backends.onnxruntime import nvidia
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, TensorInfo, Tensors
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import BuildError, RunError
from plimsoll.onnx import graph
from plimsoll.onnx.form import OnnxForm, form_of, metadata, require_form
from plimsoll.system import host

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


_INSTALL = "pip install onnxruntime"
_FORMS: dict[str, OnnxForm] = {"float32": "float32", "float16": "float16", "int8": "qdq", "dynamic": "dynamic"}
_INT8 = replace(REFERENCE_TARGET, precision="int8")
_LEVEL_NOTE = "plimsoll.graph_optimization"
_SAFER = ("extended", "basic", "off")
"""What is tried where ONNX Runtime crashes on a network with all of its optimizations, and noted in the file."""
_ON_GPUS = ("float32", "float16", "int8")


_TRITON_NOTES = """
## What differs from Plimsoll's own session

Triton's ONNX Runtime backend can't be told to keep sums of int8 products from saturating: on x86 processors without
VNNI an int8 network may answer otherwise than it was proven. There, export it with `--set network=python`.
"""


class OnnxRuntimeOptions(Options):
    """Options of ONNX Runtime."""

    graph_optimization: Literal["off", "basic", "extended", "all"] = "all"
    """How far the graph is rewritten when it is loaded."""
    threads: int | None = Field(None, ge=1, le=1024)
    """Threads that compute one call, instead of what the objective gives."""
    arena: bool = True
    """Keep freed memory for the next call instead of giving it back."""
    spinning: bool | None = None
    """Whether waiting threads spin: faster alone, slower beside other work. By default only where a call has several
    threads."""
    exact_int8: bool | None = None
    """Keep sums of int8 products from saturating, at several times the cost. By default only on x86 processors without
    VNNI, which need it."""
    provider: nvidia.Provider = "auto"
    """On a GPU, who computes: CUDA's kernels, or TensorRT, which builds an engine first; by default CUDA's for floats
    and TensorRT for int8."""
    device: int = Field(0, ge=0)
    """Which of the GPUs that CUDA sees."""
    tf32: bool = False
    """On a GPU, let float32 convolutions and products round what they read to 10 bits: faster, and not float32 any
    more."""


class OnnxRuntime(Backend):
    """ONNX Runtime.

    In float32 it takes networks with Q/DQ pairs too, and computes the pairs as they are written.

    On x86 it has hardly any float16 kernels: `float16` halves the file, and computes mostly in float32. On a GPU it
    computes every operator there or not at all: what would fall back to the CPU is a BuildError that names it.
    """

    name = "onnxruntime"
    title = "ONNX Runtime"
    module = "onnxruntime"
    install = _INSTALL
    symbol = "circle"
    options = OnnxRuntimeOptions

    def targets(self) -> tuple[AvailableTarget, ...]:
        absent = self.not_installed()
        on_cpu = [AvailableTarget(Target("onnxruntime", "cpu", precision), absent) for precision in _FORMS]
        on_gpu = [AvailableTarget(Target("onnxruntime", "gpu", name), nvidia.missing(name)) for name in _ON_GPUS]
        return (*on_cpu, *on_gpu)

    @property
    def calibration_tables(self) -> tuple[CalibrationTable, ...]:
        from plimsoll.backends.onnxruntime import calibration_table  # most starts need no FlatBuffers

        return calibration_table.TABLES

    def triton(self, model: Model, target: Target) -> TritonBackend | None:
        if model.format != "onnx":
            return None
        accelerators = {}
        if target.device == "gpu":  # As here: int8 by TensorRT, floats by CUDA without rounding to TensorFloat-32.
            trt = {"tensorrt": {"precision_mode": "INT8"}} if target.precision == "int8" else {}
            accelerators = {**trt, "cuda": {"use_tf32": "0"}}
        saturating = target.device == "cpu" and target.precision in ("int8", "dynamic")
        return TritonBackend(
            "onnxruntime",
            "model.onnx",
            parameters=lambda _, threads: {} if threads is None else {"intra_op_thread_count": str(threads)},
            accelerators=accelerators,
            signature_target=Target("onnxruntime", "cpu", target.precision),
            notes=_TRITON_NOTES if saturating else "",
        )

    def onnx_form(self, target: Target) -> OnnxForm:
        return _FORMS[target.precision]

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        del folder, calibration
        self.check(target)
        form = form_of(model.path) if model.format == "onnx" else None
        if (target, form) not in ((REFERENCE_TARGET, "qdq"), (_INT8, "integer")):
            require_form(model, target, self.onnx_form(target))
        return model

    def after_crash(self, built: Model, target: Target, folder: Path) -> Iterator[Model]:
        """Yield the network with a note that has it optimized less when it is loaded."""
        del target
        for level in _SAFER:
            proto = graph.load(built)
            proto.metadata_props.add(key=_LEVEL_NOTE, value=level)
            path = folder / f"{built.path.stem}.{level}.onnx"
            graph.save(proto, path)
            yield Model(path, "onnx", built.spec, parent=built)

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> OnnxRuntimeSession:
        self.check(target)
        runtime = _runtime()
        chosen = options or OnnxRuntimeOptions()
        if chosen.graph_optimization == "all" and (noted := metadata(model.path).get(_LEVEL_NOTE)) in _SAFER:
            chosen = chosen.model_copy(update={"graph_optimization": noted})
        settings = _settings(runtime, chosen, plan)
        with translate(BuildError, f"ONNX Runtime can't load {model.source.name}"):
            if target.device == "gpu":
                return OnnxRuntimeSession(_on_gpu(runtime, model, target, chosen, settings))
            if target == REFERENCE_TARGET:
                # Q/DQ pairs as they are written, in float32: the reference of a network that was trained with them.
                settings.add_session_config_entry("session.disable_quant_qdq", "1")
            return OnnxRuntimeSession(runtime.InferenceSession(str(model.path), settings, providers=[nvidia.CPU]))


def _on_gpu(runtime: ModuleType, model: Model, target: Target, chosen: OnnxRuntimeOptions, settings: Any) -> Any:
    """Return a session of which a GPU computes every operator; raises BuildError."""
    provider = nvidia.chosen(chosen.provider, target.precision)
    messages = nvidia.preload(runtime, provider)
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = nvidia.settings_of(provider, target.precision, chosen.device, tf32=chosen.tf32)
    session = runtime.InferenceSession(str(model.path), settings, providers=[*providers, nvidia.CPU])
    nvidia.require_gpu(session, provider, model, messages)
    session.disable_fallback()  # Else ONNX Runtime opens the session anew on the CPU when a call fails.
    return session


def _settings(runtime: ModuleType, chosen: OnnxRuntimeOptions, plan: ThreadPlan) -> Any:
    """Return ONNX Runtime's SessionOptions. All streams share one session, and with it the weights as its kernels pack
    them."""
    levels = runtime.GraphOptimizationLevel
    threads = chosen.threads or plan.threads
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # Its errors reach the user as exceptions, once.
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = chosen.arena
    settings.graph_optimization_level = {
        "off": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[chosen.graph_optimization]
    spinning = chosen.spinning if chosen.spinning is not None else threads > 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    # ONNX Runtime obeys this on processors with VNNI too: open_nsfw in int8 then took 2.6 times as long, for nothing.
    exact = chosen.exact_int8 if chosen.exact_int8 is not None else host.capabilities().int8_saturates
    settings.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
    return settings


@cache
def _runtime() -> ModuleType:
    runtime = require("onnxruntime", _INSTALL)
    runtime.set_default_logger_severity(4)
    return runtime


class OnnxRuntimeSession:
    """ONNX Runtime computes calls of several threads at once in one session."""

    concurrent = True

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(_info(argument) for argument in session.get_inputs())
        self.outputs = tuple(_info(argument) for argument in session.get_outputs())
        self._names = [argument.name for argument in self.outputs]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        with translate(RunError, "ONNX Runtime failed"):
            return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))

    def close(self) -> None:
        self._session = None


def _info(argument: Any) -> TensorInfo:
    kind = str(argument.type)
    dtype = _DTYPES.get(kind, kind.removeprefix("tensor(").removesuffix(")"))
    return TensorInfo(
        argument.name, tuple(size if isinstance(size, int) else None for size in argument.shape), str(np.dtype(dtype))
    )


BACKEND = OnnxRuntime()
