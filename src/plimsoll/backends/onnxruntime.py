"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.backend import Backend, Offer, Options, TensorInfo, Tensors, require, translate
from plimsoll.errors import BuildFailed, RunFailed
from plimsoll.model import Model
from plimsoll.target import Target

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


class OnnxRuntimeOptions(Options):
    """Options of ONNX Runtime."""

    graph_optimization: Literal["off", "basic", "extended", "all"] = "all"
    """How far the graph is rewritten when it is loaded."""
    arena: bool = True
    """Keep freed memory for the next call instead of giving it back."""
    spinning: bool | None = None
    """Whether waiting threads spin: faster alone, slower beside other work. By default only with one session thread group."""


class OnnxRuntime(Backend):
    """ONNX Runtime."""

    name = "onnxruntime"
    options = OnnxRuntimeOptions

    def offers(self) -> tuple[Offer, ...]:
        return (Offer(Target("onnxruntime", "cpu", "float32")),)

    def build(self, model: Model, target: Target, folder: Path) -> Model:
        del target, folder
        if model.format != "onnx":
            raise BuildFailed(f"{model.path}: ONNX Runtime loads ONNX files, this one is {model.format}", "Convert it first.")
        return model

    def load(self, model: Model, target: Target, options: Any, threads: int) -> _Session:
        self.check(target)
        runtime = _runtime()
        chosen = options or OnnxRuntimeOptions()
        levels = runtime.GraphOptimizationLevel
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
        with translate(BuildFailed, f"ONNX Runtime can't load {model.path.name}"):
            return _Session(runtime.InferenceSession(str(model.path), settings, providers=["CPUExecutionProvider"]))


@cache
def _runtime() -> ModuleType:
    runtime = require("onnxruntime", "pip install onnxruntime")
    runtime.set_default_logger_severity(4)
    return runtime


class _Session:
    concurrent = True

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(_info(one) for one in session.get_inputs())
        self.outputs = tuple(_info(one) for one in session.get_outputs())
        self._names = [one.name for one in self.outputs]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        with translate(RunFailed, "ONNX Runtime failed"):
            return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))

    def close(self) -> None:
        self._session = None


def _info(argument: Any) -> TensorInfo:
    kind = str(argument.type)
    dtype = _DTYPES.get(kind, kind.removeprefix("tensor(").removesuffix(")"))
    return TensorInfo(argument.name, tuple(size if isinstance(size, int) else None for size in argument.shape), str(np.dtype(dtype)))


BACKEND = OnnxRuntime()
