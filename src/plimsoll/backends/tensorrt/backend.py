"""TensorRT 10 and 11 on NVIDIA GPUs.

Not run on hardware yet: see docs/gpu.md for what was checked, and how.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, Options, ThreadPlan, TritonBackend
from plimsoll.backends.calibration_tables import CalibrationTable
from plimsoll.backends.tensorrt import construction, runtime
from plimsoll.backends.tensorrt.calibration_cache import TensorRtTable
from plimsoll.backends.tensorrt.engine import FORMAT, EngineFacts, TensorRtEngine
from plimsoll.backends.tensorrt.options import TensorRtOptions
from plimsoll.backends.tensorrt.session import TensorRtSession
from plimsoll.core.foreign import translate
from plimsoll.core.model import Model, Reader
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx.form import OnnxForm
from plimsoll.system import gpu

_TURING, _AMPERE, _ADA = (7, 5), (8, 0), (8, 9)
_CAPABILITIES = {"float32": _TURING, "float16": _TURING, "bfloat16": _AMPERE, "int8": _TURING, "fp8": _ADA}
"""The oldest compute capability that each precision needs (TensorRT's support matrix)."""


_TRITON_NOTES = """
## Where it runs

An engine runs on the kind of GPU and the version of TensorRT that it was built with: choose the container of that
version.
"""


class TensorRt(Backend):
    """TensorRT.

    `build` makes an engine for this machine's GPU, which takes minutes; the same network with the same options on the
    same GPU is taken from the user's cache after that. The two generations want different networks:

    - TensorRT 11 computes in the types that the network has: float16 ones are converted, int8 and fp8 ones carry Q/DQ.
    - TensorRT 10 takes the float32 network and picks the fastest kernels among the types that it is allowed; int8 and
      fp8 as above, and int8 also by TensorRT's own calibrators: give `build` a float32 network and `CalibrationData`
      with the method `entropy` or `minmax`, or with ranges, which become a calibration cache.
    """

    name = "tensorrt"
    title = "TensorRT"
    module = "tensorrt"
    install = runtime.INSTALL
    symbol = "triangle"
    options = TensorRtOptions

    def __init__(self, options: TensorRtOptions | None = None) -> None:
        self._options = options or TensorRtOptions()

    @property
    def formats(self) -> tuple[Reader, ...]:
        return (TensorRtEngine(),)

    @property
    def default_target(self) -> Target | None:
        return None

    def targets(self) -> tuple[AvailableTarget, ...]:
        absent = self.not_installed()
        return tuple(
            AvailableTarget(
                Target("tensorrt", "gpu", precision), absent or gpu.missing(capability, f"TensorRT in {precision}")
            )
            for precision, capability in _CAPABILITIES.items()
        )

    def onnx_form(self, target: Target) -> OnnxForm:
        if target.precision == "int8":
            return "qdq"
        return (
            "float16" if target.precision == "float16" and runtime.generation() >= runtime.STRONGLY_TYPED else "float32"
        )

    def takes_calibration(self, target: Target) -> bool:
        return target.precision == "fp8"

    @property
    def calibration_tables(self) -> tuple[CalibrationTable, ...]:
        return (TensorRtTable(),)

    def triton(self, model: Model, target: Target) -> TritonBackend | None:
        if model.format != FORMAT:
            raise ModelError(
                f"{model.source}: Triton's TensorRT backend loads engines, this is {model.format}",
                f"Build one first, on the GPU that will run it: plimsoll convert MODEL --target {target} --out BUNDLE.",
            )
        return TritonBackend("tensorrt", "model.plan", main_file_only=True, notes=_TRITON_NOTES)

    def configured(self, options: Options) -> TensorRt:
        return TensorRt(options) if isinstance(options, TensorRtOptions) else self

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        self.check(target)
        if model.format == FORMAT:
            return model
        return construction.build(
            model, target, folder, construction.BuildRequest(self._options, self.onnx_form(target), calibration)
        )

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> TensorRtSession:
        self.check(target)
        chosen = options or self._options
        if model.format != FORMAT:
            raise BuildError(
                f"{model.source}: TensorRT loads engines, this is {model.format}",
                f"Convert it on that GPU: `plimsoll convert MODEL --target {target} --out BUNDLE`.",
            )
        with translate(BuildError, f"{model.source.name}: can't be read"):
            content = model.path.read_bytes()
        facts = EngineFacts.beside(model.path)
        if facts is not None and facts.precision != target.precision:
            raise BuildError(
                f"{model.source.name} computes in {facts.precision}, the target is {target}",
                f"Use tensorrt:gpu:{facts.precision}.",
            )
        if facts is not None:
            facts.require(model.path, content, gpu.at(chosen.device), runtime.version(), chosen.library_digests())
        return TensorRtSession.open(model.path.name, content, chosen, chosen.contexts or min(plan.streams, 2))


BACKEND = TensorRt()
