"""Make a program of a network: compiled ahead of time by AOTInductor in a process of its own, or PyTorch's own kernels
as they are.

Compiled programs are machine code. They are never part of a bundle and only ever loaded out of the user's own cache.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, TensorInfo
from plimsoll.core.target import Target
from plimsoll.core.version import __version__
from plimsoll.errors import BuildError
from plimsoll.onnx import load as onnx_load
from plimsoll.system import cache, gpu, host, subprocesses

INSTALL = "pip install 'plimsoll-line[torch]'"
PROGRAM = "program.pt2"
_EXAMPLE_BATCH = 2
"""PyTorch takes a size of 1 that it sees for one that is always 1."""
_BY_HAND = "Without a compiler: --set compiler=none."


@dataclass(frozen=True)
class CompileRequest:
    """What is to be made."""

    model: Model
    target: Target
    max_batch: int
    tuned: bool
    device: int
    minutes: float

    @property
    def where(self) -> str:
        """PyTorch's name of the device."""
        return f"cuda:{self.device}" if self.target.device == "gpu" else "cpu"


@dataclass(frozen=True)
class Program:
    """A network that computes."""

    run: Callable[..., Sequence[Any]]
    """Takes the inputs as tensors on the device, in order, and returns the outputs."""
    where: str
    """The device, as PyTorch names it."""
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    most: int | None = None
    """The largest batch; None for any."""


def plain(request: CompileRequest) -> Program:
    """Return the network as PyTorch's own kernels; raises BuildError."""
    torch = require("torch", INSTALL)
    graph = importlib.import_module("plimsoll.backends.torch.graph")
    module = graph.translated(request.model, getattr(torch, request.target.precision)).to(request.where)
    return Program(module, request.where, *interface(request.model))


def compiled(request: CompileRequest, streams: int) -> Program:
    """Return the network compiled for this machine, from the cache where it was before; raises BuildError."""
    torch = require("torch", INSTALL)
    on_gpu = request.target.device == "gpu"
    parts = {
        "plimsoll": __version__,
        "network": request.model.sha256,
        "precision": request.target.precision,
        "max_batch": request.max_batch,
        "tuned": request.tuned,
        "sizes": sizes_of(request.model),
        "torch": str(torch.__version__),
        "machine": str(gpu.at(request.device)) if on_gpu else f"{host.processor()} {host.instruction_sets()}",
    }
    cached = cache.build_folder("torch", parts)
    with cache.locked(cached):
        if not cached.is_dir():
            _compile(request, cached)
        cache.mark_used(cached)
        # A CUDA graph is recorded from one stream, which a program that shares itself out among threads doesn't keep
        # to.
        load = require("torch._inductor.package", INSTALL).load_package
        run = load(
            str(cached / PROGRAM),
            run_single_threaded=on_gpu,
            num_runners=1 if on_gpu else streams,
            device_index=request.device if on_gpu else -1,
        )
    inputs, outputs = interface(request.model)
    free = any(info.shape[:1] == (None,) for info in inputs)
    return Program(run, request.where, inputs, outputs, request.max_batch if free else None)


def _compile(request: CompileRequest, cached: Path) -> None:
    with cache.building(cached) as (part, work):
        payload = {
            "network": str(request.model.path.absolute()),
            "files": [str(file.absolute()) for file in request.model.files],
            "precision": request.target.precision,
            "where": request.where,
            "max_batch": request.max_batch,
            "tuned": request.tuned,
            "sizes": sizes_of(request.model),
            "out": str(part / PROGRAM),
            "scratch": str(work / "inductor"),
        }
        try:
            subprocesses.run_job(__name__, payload, work, subprocesses.ProcessLimits(seconds=60 * request.minutes))
        except subprocesses.JobError as error:
            raise BuildError(
                f"{request.model.path.name}: PyTorch can't compile it for {request.target}: {error.message}",
                f"{error.hint} {_BY_HAND}",
            ) from error


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Write the compiled program to `payload["out"]`, in a process of its own; raises BuildError."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = payload["scratch"]
    os.environ["TRITON_CACHE_DIR"] = str(Path(payload["scratch"]) / "triton")
    torch = require("torch", INSTALL)
    inductor = require("torch._inductor", INSTALL)
    from plimsoll.backends.torch import graph

    logging.getLogger("torch").setLevel(logging.ERROR)
    model = Model(Path(payload["network"]), "onnx", files=tuple(map(Path, payload["files"])))
    inputs, _ = interface(model)
    with translate(BuildError, "PyTorch"):
        module = graph.translated(model, getattr(torch, payload["precision"])).to(payload["where"])
        examples = tuple(_example(torch, info, payload) for info in inputs)
        batch = torch.export.Dim("batch", min=1, max=payload["max_batch"])
        free = tuple({0: batch} if info.shape[:1] == (None,) else None for info in inputs)
        with torch.no_grad():
            program = torch.export.export(module, examples, dynamic_shapes=(free,))
            settings = {"max_autotune": payload["tuned"], "cpp.dynamic_threads": True, "freezing": True}
            inductor.aoti_compile_and_package(program, package_path=payload["out"], inductor_configs=settings)
    return {}


def _example(torch: Any, info: TensorInfo, payload: dict[str, Any]) -> Any:
    """Return an input to export with; raises BuildError for a size that nothing fixes."""
    sizes = payload["sizes"] if len(payload["sizes"]) == len(info.shape) - 1 else [None] * (len(info.shape) - 1)
    inner = [given if size is None else size for size, given in zip(info.shape[1:], sizes, strict=True)]
    if None in inner:
        raise BuildError(
            f"the input '{info.name}' has free sizes besides the batch",
            "Fix them in the network, or with a resize step in the Spec.",
        )
    batch = [info.shape[0] or _EXAMPLE_BATCH] if info.shape else []
    return torch.zeros(*batch, *inner, dtype=getattr(torch, info.dtype), device=payload["where"])


def interface(model: Model) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the inputs and outputs of an ONNX network; raises ModelError."""
    graph = onnx_load.read(model.path).proto.graph
    sides = (onnx_load.inputs(graph), list(graph.output))
    inputs, outputs = (tuple(_info(value) for value in side) for side in sides)
    return inputs, outputs


def _info(value: Any) -> TensorInfo:
    shape = onnx_load.shape_of(value) or ()
    return TensorInfo(
        value.name, tuple(size if isinstance(size, int) else None for size in shape), onnx_load.dtype_of(value)
    )


def sizes_of(model: Model) -> list[int | None]:
    """Return the picture's sizes by the Spec, without the batch; empty without a Spec."""
    return list(model.spec.input.shape) if model.spec is not None else []
