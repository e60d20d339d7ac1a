"""Build an engine: bring the network into the form that this generation of TensorRT takes, then build, or take what was
built before.

Building runs in a process of its own (`job`): it takes minutes and much memory, and TensorRT's builder can crash.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.backends.base import CalibrationData
from plimsoll.backends.tensorrt import bfloat16, engine, fp8, runtime
from plimsoll.backends.tensorrt.options import TensorRtOptions
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.core.version import __version__
from plimsoll.errors import BuildError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.form import OnnxForm, form_of, require_form
from plimsoll.system import cache, gpu, subprocesses

if TYPE_CHECKING:
    from onnx import NodeProto

_INT8, _INT32 = np.dtype(np.int8), np.dtype(np.int32)
CALIBRATORS = ("entropy", "minmax")
"""TensorRT 10's own: IInt8EntropyCalibrator2 and IInt8MinMaxCalibrator."""


@dataclass(frozen=True)
class BuildRequest:
    """How an engine is to be built."""

    options: TensorRtOptions
    form: OnnxForm
    """The form of network that the target needs."""
    calibration: CalibrationData | None


def build(model: Model, target: Target, folder: Path, request: BuildRequest) -> Model:
    """Return the engine, its facts beside it, in `folder`; raises BuildError."""
    calibration = _implicit(model, target, request)
    if calibration is None:
        require_form(model, target, request.form)
    options = request.options
    parts = {
        "plimsoll": __version__,
        "network": model.sha256,
        "precision": target.precision,
        "options": options.of_engine(),
        "sizes": _sizes(model),
        "gpu": str(gpu.at(options.device)),
        "tensorrt": runtime.version(),
        "plugins": options.library_digests(),
        "calibration": _digest(request.calibration),
    }
    cached = cache.build_folder(engine.FORMAT, parts)
    with cache.locked(cached):
        if not cached.is_dir():
            with tempfile.TemporaryDirectory(prefix="plimsoll-tensorrt-") as temporary:
                _make(model, target, request, cached, _prepared(model, target, request, Path(temporary)))
        files = engine.take(cached, folder, f"{model.path.stem}.{target.precision}")
    return Model(files[0], engine.FORMAT, model.spec, parent=model, files=tuple(files[1:]))


def _implicit(model: Model, target: Target, request: BuildRequest) -> CalibrationData | None:
    """Return what TensorRT 10 is to calibrate an int8 engine with, where it was given and the network isn't quantized
    yet; raises BuildError."""
    calibration = request.calibration
    if target.precision != "int8" or calibration is None or form_of(model.path) != "float32":
        return None
    if runtime.generation() >= runtime.STRONGLY_TYPED:
        raise BuildError(
            f"{model.source}: TensorRT {runtime.version()} has no calibrators: its int8 networks carry Q/DQ",
            "Quantize it first with plimsoll.quantize.static.",
        )
    if not calibration.ranges and calibration.method not in CALIBRATORS:
        raise BuildError(
            f"TensorRT has no calibrator '{calibration.method}'", f"It has {', '.join(CALIBRATORS)}; or give ranges."
        )
    return calibration


def _prepared(model: Model, target: Target, request: BuildRequest, folder: Path) -> Path:
    """Return the network as TensorRT's parser takes it; raises BuildError."""
    if target.precision == "fp8":
        if request.calibration is None or not request.calibration.ranges:
            raise BuildError(
                f"{model.source}: an fp8 engine needs the ranges of a calibration",
                "`plimsoll convert … --images DIR` finds them.",
            )
        return fp8.quantized(model, request.calibration.ranges, folder)
    if target.precision == "bfloat16" and runtime.generation() >= runtime.STRONGLY_TYPED:
        return bfloat16.converted(model, folder)
    if target.precision == "int8" and _implicit(model, target, request) is None:
        _require_symmetric(model)
    return model.path.absolute()


def _make(model: Model, target: Target, request: BuildRequest, cached: Path, network: Path) -> None:
    """Let a process of its own build into the folder where the engine is kept; raises BuildError in words."""
    with cache.building(cached) as (part, work):
        payload: dict[str, Any] = {
            "network": str(network),
            "out": str(part),
            "precision": target.precision,
            "options": request.options.model_dump(),
            "sizes": _sizes(model),
            "sha256": model.sha256,
            "calibration": _calibration(_implicit(model, target, request), work),
        }
        try:
            subprocesses.run_job(
                "plimsoll.backends.tensorrt.job",
                payload,
                work,
                subprocesses.ProcessLimits(seconds=60 * request.options.build_minutes),
            )
        except subprocesses.JobError as error:
            raise BuildError(
                f"{model.source.name}: TensorRT built no engine for {target}: {error.message}", error.hint
            ) from error


def _calibration(calibration: CalibrationData | None, work: Path) -> dict[str, Any] | None:
    if calibration is None:
        return None
    if calibration.ranges:
        return {"ranges": dict(calibration.ranges)}
    np.save(work / "tensors.npy", calibration.tensors)
    return {"method": calibration.method, "tensors": str(work / "tensors.npy")}


def _digest(calibration: CalibrationData | None) -> str:
    if calibration is None:
        return ""
    digest = hashlib.sha256(f"{calibration.method} {sorted(calibration.ranges.items())}".encode())
    if not calibration.ranges:
        digest.update(np.ascontiguousarray(calibration.tensors).data)
    return digest.hexdigest()


def _sizes(model: Model) -> list[int | None]:
    """Return the picture's sizes by the Spec, without the batch: what a network that leaves them free is built for;
    empty without a Spec."""
    return list(model.spec.input.shape) if model.spec is not None else []


def _require_symmetric(model: Model) -> None:
    """Raise BuildError where a network's Q/DQ has another type than int8 (int32 for biases), or a zero point that isn't
    0."""
    graph = onnx_graph.Graph(onnx_graph.load(model))
    foreign = [node.input[0] for node in graph.nodes if not _fits(graph, node)]
    if foreign:
        shown = ", ".join(f"'{name}'" for name in foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise BuildError(
            f"{model.source}: TensorRT takes int8 around zero; {len(foreign)} of its tensors are quantized otherwise"
            f" (uint8, or a zero point): {shown}",
            "Quantize the float32 network for this target: plimsoll.quantize.StaticOptions.for_target(target).",
        )


def _fits(graph: onnx_graph.Graph, node: NodeProto) -> bool:
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return True
    if len(node.input) > 2 and node.input[2]:
        zero = graph.value(node.input[2])
        return zero is not None and zero.dtype in (_INT8, _INT32) and not np.any(zero)
    if node.op_type == "QuantizeLinear":
        return False  # without a zero point it makes uint8
    stored = graph.value(node.input[0])
    return stored is None or stored.dtype in (_INT8, _INT32)
