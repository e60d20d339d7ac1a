"""PyTorch, on NVIDIA GPUs and on the CPU: networks are translated to its operators and compiled ahead of time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, Options, ThreadPlan
from plimsoll.backends.torch import compilation
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError
from plimsoll.onnx.form import require_form
from plimsoll.system import gpu, host

_ON_CPUS = ("float32", "bfloat16")
_ON_GPUS = {"float32": (7, 0), "float16": (7, 0), "bfloat16": (8, 0)}
"""The oldest compute capability that each precision needs."""


class TorchOptions(Options):
    """Options of PyTorch."""

    compiler: Literal["inductor", "none"] = "inductor"
    """`inductor`: compile the network ahead of time (AOTInductor), which takes a minute once and needs a C++ compiler,
    on a GPU Triton too. `none`: call PyTorch's own kernels one after another."""
    tuned: bool = False
    """Let the compiler time kernels against one another (Inductor's max_autotune): minutes more, mostly faster on a
    GPU."""
    max_batch: int = Field(64, ge=2, le=4096)
    """The largest batch that a network with a free batch is compiled for; larger ones are cut."""
    graphs: int = Field(4, ge=0, le=64)
    """On a GPU, for how many batch sizes, the first to come, a CUDA graph is recorded: all kernels of a call start at
    once. Each takes memory."""
    tf32: bool = False
    """On a GPU, let float32 convolutions and products round what they read to 10 bits: faster, and not float32 any
    more."""
    device: int = Field(0, ge=0)
    """Which of the GPUs that CUDA sees."""
    compile_minutes: float = Field(20.0, gt=0)
    """How long compiling may take."""


class Torch(Backend):
    """PyTorch.

    A network stays ONNX, so a bundle carries no machine code: it is compiled when it is first loaded on a machine, and
    taken from the user's cache after that. Exported programs (`.pt2`) become ONNX first, as all sources do.
    """

    name = "torch"
    title = "PyTorch"
    module = "torch"
    install = compilation.INSTALL
    extra = "torch"
    options = TorchOptions

    def targets(self) -> tuple[AvailableTarget, ...]:
        spec = importlib.util.find_spec("torch")
        absent = self.not_installed()
        here = [
            AvailableTarget(Target("torch", "cpu", precision), absent or _lacking(precision)) for precision in _ON_CPUS
        ]
        cuda = absent or (
            ""
            if _has_cuda(spec)
            else f"The PyTorch that is installed computes on the CPU only. Install another: {compilation.INSTALL}"
        )
        return (
            *here,
            *(
                AvailableTarget(Target("torch", "gpu", name), cuda or gpu.missing(least, f"PyTorch in {name}"))
                for name, least in _ON_GPUS.items()
            ),
        )

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        del folder, calibration
        self.check(target)
        require_form(model, target, self.onnx_form(target))
        return model

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> Any:
        self.check(target)
        chosen = options or TorchOptions()
        torch = require("torch", compilation.INSTALL)
        from plimsoll.backends.torch import session

        torch.set_num_threads(plan.threads)
        request = compilation.CompileRequest(
            model, target, chosen.max_batch, tuned=chosen.tuned, device=chosen.device, minutes=chosen.compile_minutes
        )
        with translate(BuildError, f"PyTorch can't load {model.source.name}"):
            if target.device == "gpu":
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = chosen.tf32
            program = (
                compilation.compiled(request, plan.streams)
                if chosen.compiler == "inductor"
                else compilation.plain(request)
            )
            return session.GpuSession(program, chosen.graphs) if target.device == "gpu" else session.CpuSession(program)


def _has_cuda(spec: Any) -> bool:
    """Tell whether the installed PyTorch was built for CUDA, without importing it."""
    return any(any((Path(folder) / "lib").glob("*torch_cuda.*")) for folder in spec.submodule_search_locations or ())


def _lacking(precision: str) -> str:
    if precision == "bfloat16" and not host.capabilities().bfloat16:
        return "This processor is not known to compute in bfloat16 (AVX512-BF16, AMX-BF16 or Arm's BF16). Use float32."
    return ""


BACKEND = Torch()
