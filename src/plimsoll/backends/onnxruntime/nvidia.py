"""ONNX Runtime's providers for NVIDIA GPUs: whether they are here, how they are set, and the proof that they did the
work.

ONNX Runtime computes on the CPU, without a word, whatever its providers lack, and everything where one doesn't start.
Here neither passes.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.util
import io
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from plimsoll.core.foreign import require
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import load
from plimsoll.system import gpu
from plimsoll.system.cache import cache_folder

Provider = Literal["auto", "cuda", "tensorrt"]

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
INSTALL = "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
"""Both packages are the module `onnxruntime`: the one for GPUs, which computes on CPUs too, has to take the other one's
place."""

_TENSORRT_INSTALL = "pip install 'tensorrt-cu13<11'"
_NVINFER = "libnvinfer.so.10" if sys.platform != "win32" else "nvinfer_10.dll"
"""What onnxruntime-gpu up to 1.31 links with: TensorRT 10, whatever newer one there may be."""

_LIBRARIES = {CUDA: "providers_cuda", TENSORRT: "providers_tensorrt"}
_ABOUT_SIZES = {"Shape", "Size"}
_INTEGERS = {6, 7, 9}
"""INT32, INT64 and BOOL of ONNX's TensorProto.DataType."""
_log = logging.getLogger("plimsoll")


def missing(precision: str) -> str:
    """Return what this machine lacks for a precision on a GPU, and the command that adds it; empty where nothing. Loads
    nothing."""
    if not _has(CUDA):
        return (
            f"The ONNX Runtime that is installed computes on the CPU only. Put the one for GPUs in its place: {INSTALL}"
        )
    if precision == "int8" and not (_has(TENSORRT) and _tensorrt_is_here()):
        return (
            f"ONNX Runtime computes int8 on GPUs by TensorRT, which is not installed. Install it: {_TENSORRT_INSTALL}"
        )
    return gpu.missing()


def _has(provider: str) -> bool:
    return any(
        any((Path(folder) / "capi").glob(f"*onnxruntime_{_LIBRARIES[provider]}.*"))
        for folder in _folders("onnxruntime")
    )


def _folders(module: str) -> list[str]:
    """Return where a package lies, without importing it; nowhere where it isn't."""
    spec = importlib.util.find_spec(module)
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _tensorrt_is_here() -> bool:
    return (
        any((Path(folder) / _NVINFER).is_file() for folder in _folders("tensorrt_libs"))
        or ctypes.util.find_library("nvinfer") == _NVINFER
    )


def chosen(provider: Provider, precision: str) -> str:
    """Return the provider that does the work; raises BuildError for int8 by CUDA's."""
    if provider == "cuda" and precision == "int8":
        raise BuildError(
            "ONNX Runtime's CUDA provider computes int8 networks in float32, dequantized",
            "Leave out --set provider=cuda: TensorRT's computes them.",
        )
    if provider == "auto":
        return TENSORRT if precision == "int8" else CUDA
    return TENSORRT if provider == "tensorrt" else CUDA


def settings_of(provider: str, precision: str, device: int, *, tf32: bool) -> list[tuple[str, dict[str, str]]]:
    """Return the providers in order of preference with their options, as InferenceSession takes them."""
    cuda = (CUDA, {"device_id": str(device), "use_tf32": str(int(tf32))})
    if provider == CUDA:
        return [cuda]
    engines = cache_folder() / "onnxruntime-tensorrt"
    engines.mkdir(parents=True, exist_ok=True)
    options = {
        "device_id": str(device),
        "trt_fp16_enable": str(int(precision in ("float16", "int8"))),
        "trt_int8_enable": str(int(precision == "int8")),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
    }
    return [(TENSORRT, options), cuda]


def preload(runtime: ModuleType, provider: str) -> str:
    """Load the libraries from NVIDIA's Python packages, where they are, and return what ONNX Runtime printed about
    those that it didn't find."""
    messages = io.StringIO()
    with contextlib.redirect_stdout(messages):
        runtime.preload_dlls()
    if provider == TENSORRT and _folders("tensorrt_libs"):
        require("tensorrt_libs", _TENSORRT_INSTALL)  # its import loads them
    return " ".join(messages.getvalue().split())


def require_gpu(session: Any, provider: str, model: Model, messages: str) -> None:
    """Raise BuildError where the provider didn't start, or where operators of the network fell back to the CPU: it
    names the first of them.

    What computes with sizes alone may stay there, as ONNX Runtime itself decides: those numbers are needed on the CPU.
    """
    if provider not in session.get_providers():
        hint = f"It needs CUDA and cuDNN: {INSTALL}" + (
            f"; and TensorRT 10: {_TENSORRT_INSTALL}" if provider == TENSORRT else ""
        )
        raise BuildError(
            f"ONNX Runtime's {provider} did not start, and the CPU would have done the"
            f" work{f': {messages[:200]}' if messages else ''}",
            hint,
        )
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise BuildError(
            "this ONNX Runtime can't tell which operators its GPU provider computes: it is older than 1.24",
            f"Update it: {INSTALL}",
        )
    assigned = [
        (part.ep_name, node) for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()
    ]
    fallen = [node for name, node in assigned if name == CPU and not _is_about_sizes(node, model)]
    if fallen:
        shown = ", ".join(f"{node.op_type} '{node.name}'" if node.name else node.op_type for node in fallen[:3]) + (
            " …" if len(fallen) > 3 else ""
        )
        raise BuildError(
            f"{model.source.name}: {len(fallen)} of its {len(assigned)} operators would be computed on the CPU:"
            f" {shown}",
            f"{provider} has no kernel for them as they are. Export the network with other operators or types.",
        )
    beside = sum(name != provider for name, _ in assigned)
    if beside == len(assigned):
        raise BuildError(
            f"{model.source.name}: {provider} took none of {len(assigned)} operators",
            "Use --set provider=cuda.",
        )
    _log.debug("%s computes %d of %d operators of %s", provider, len(assigned) - beside, len(assigned), model.path.name)


def _is_about_sizes(node: Any, model: Model) -> bool:
    """Tell whether an operator makes whole numbers or truth values only, by the types that ONNX infers."""
    if node.op_type in _ABOUT_SIZES:
        return True
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(load.read(model.path).proto).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    outputs = [name for producer in graph.node if node.name and producer.name == node.name for name in producer.output]
    return bool(outputs) and all(kinds.get(name) in _INTEGERS for name in outputs)
