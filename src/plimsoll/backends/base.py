"""The interface between Plimsoll and the runtimes: what a folder in `plimsoll.backends` provides.

A new runtime is one new folder there. It subclasses `Backend`, names its instance `BACKEND`, imports its runtime inside
its methods through `require`, and wraps calls into it in `translate`. Other packages add theirs with the entry point
group `plimsoll.backends`, which leads to such an instance. Whatever the rest of Plimsoll has to know about a runtime is
an attribute or a method here.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from plimsoll.core.model import Model, Reader, TensorInfo, Tensors
from plimsoll.core.target import Target
from plimsoll.core.wording import explain
from plimsoll.errors import BackendMissingError, BuildError, TargetError
from plimsoll.onnx.form import OnnxForm
from plimsoll.system import host

if TYPE_CHECKING:
    from plimsoll.backends.calibration_tables import CalibrationTable
    from plimsoll.spec import Spec

Objective = Literal["throughput", "latency"]


@dataclass(frozen=True)
class ThreadPlan:
    """How the cores are shared: `streams` calls at once, each computing with `threads` threads.

    Many streams of one thread give the most results a second, since none waits for another; one stream of many threads
    gives each result soonest.
    """

    streams: int
    threads: int

    @classmethod
    def of(cls, objective: Objective, cores: int | None = None) -> Self:
        """Plan for this machine's share of cores, or for `cores`."""
        count = cores or host.cores()
        return cls(count, 1) if objective == "throughput" else cls(1, count)


@dataclass(frozen=True)
class CalibrationData:
    """What a build for integers may use: what the network reads for the calibration pictures, and ranges found with
    them."""

    method: str
    """The calibrator: one of `Backend.calibrators`, or one of Plimsoll's own."""
    tensors: NDArray[Any]
    """`[N, …]`, what the network reads for N calibration pictures."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """For each tensor of the ONNX network, by its name, the range that Plimsoll's calibrator chose; empty where the
    runtime's own tool calibrates."""


def calibration_missing(model: Model, target: Target) -> BuildError:
    """Return the error of a build without the CalibrationData that it needs."""
    return BuildError(
        f"{model.source}: {target} needs calibration pictures",
        "Give some: `plimsoll convert` takes them with --images.",
    )


@dataclass(frozen=True)
class QuantizationDefaults:
    """What suits a Q/DQ network in a runtime; `plimsoll.quantize.StaticOptions` begins with it."""

    activations: Literal["uint8", "int8"] | None = None
    """None: as the processor prefers, uint8 on x86 and int8 elsewhere."""
    symmetry: Literal["auto", "always", "never"] | None = None
    """Grids around zero for activations that are negative too: `auto` decides by the range. None: as the calibration
    table says."""
    weight_bits: Literal[7, 8] | None = None
    """None: 7 where int8 products would saturate on this processor, else 8."""
    bias: Literal["int32", "float32"] = "int32"
    """How a bias is stored: some runtimes add a float32 one more exactly, others compute the same with both."""
    space_to_depth: bool = True
    """Let a first convolution with stride 2 read squares of 2 × 2 pixels as one: exact, and faster in some runtimes."""
    hold_averages: bool = False
    """Keep an average that is in float from being rounded to the 8-bit grid of what it averages, where a runtime does
    so to save a conversion."""
    fuses_pointwise: bool = False
    """Quantize a convolution's result behind the activations and stored numbers that follow it, where a runtime
    computes them together."""


@dataclass(frozen=True)
class TritonBackend:
    """How NVIDIA's Triton Inference Server runs a network with its own backend for a runtime."""

    name: str
    """Triton's name of the backend."""
    file: str
    """The main file's name in a version folder."""
    main_file_only: bool = False
    """Whether the model's other files are for Plimsoll alone."""
    same_stem: bool = False
    """Whether the model's other files have to take the main file's name, with their own suffixes."""
    batches: bool = True
    """Whether it computes several requests together without computing more than they hold."""
    instances: int = 1
    """Calls computed at once, unless the user says how many."""
    parameters: Callable[[int, int | None], Mapping[str, str]] = lambda _instances, _threads: {}
    """Its settings, for so many instances, and for so many threads of one call (None: the backend's default)."""
    accelerators: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Execution accelerators on a GPU, by name, with their parameters."""
    signature_target: Target | None = None
    """Another target of the runtime that sees the same inputs and outputs, where the GPU may be missing."""
    notes: str = ""
    """What the exported README says about it, in Markdown."""


@dataclass(frozen=True)
class CalibratorSettings:
    """A Spec's preprocessing as the settings file of a runtime's own calibration tool."""

    text: str
    warnings: Sequence[str] = ()
    """What the tool will do differently, one sentence each."""


class Session(Protocol):
    """A loaded network: simple on purpose. `Runner` checks, batches, times and closes around it."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The tensors that it takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The tensors that it returns."""
        ...

    @property
    def concurrent(self) -> bool:
        """Whether several threads may call `run` at once."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Compute all outputs; raises RunError."""
        ...

    def close(self) -> None:
        """Release memory and devices; calling it twice is harmless."""
        ...


class Options(BaseModel):
    """The options of a backend, set with `--set name=value`; each backend's own class says which there are."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class AvailableTarget:
    """A target of a runtime, and whether this machine has it."""

    target: Target
    missing: str = ""
    """Empty where the target can be used; else what is missing and the command that adds it."""
    toolchain: str = ""
    """The toolchain that a build for it needs, created where it is missing; `ship` then tries the target only when told
    to."""


class Backend(ABC):
    """One runtime."""

    name: ClassVar[str]
    """The runtime's name in targets; its folder has the same."""
    title: ClassVar[str] = ""
    """What its makers call it."""
    module: ClassVar[str] = ""
    """The Python module whose presence means that it is installed."""
    install: ClassVar[str] = ""
    """The command that installs it."""
    extra: ClassVar[str] = ""
    """The extra of Plimsoll's own package that installs it."""
    options: ClassVar[type[Options]] = Options
    deployable: ClassVar[bool] = True
    """Whether it is meant for answering pictures; `ship` tries no other by itself."""
    in_browser: ClassVar[bool] = False
    """Whether it runs in browsers: a network for it becomes a web package (`plimsoll.export.web`), not a bundle."""
    symbol: ClassVar[str] = ""
    """Its shape in plots: circle, square, diamond, triangle, pentagon, hexagon or delta; empty: one that is free."""
    exports_settings: ClassVar[bool] = False
    """Whether `calibrator_settings` is there."""

    @property
    def formats(self) -> tuple[Reader, ...]:
        """The model formats that only this runtime runs. They are asked about any path that may be one, so they load
        no runtime."""
        return ()

    @property
    def default_target(self) -> Target | None:
        """The target that runs a model of one of `formats` where the user names none; None: the user has to."""
        return Target(self.name)

    def target_of(self, model: Model) -> Target | None:
        """Return the target that runs a model of one of `formats` as it is, where the user names none; raises
        BuildError for a damaged file."""
        del model
        return self.default_target

    @property
    def calibration_tables(self) -> tuple[CalibrationTable, ...]:
        """The formats in which its tools keep calibrated ranges."""
        return ()

    @abstractmethod
    def targets(self) -> tuple[AvailableTarget, ...]:
        """Return the targets that this runtime has, without importing it where that can be avoided."""

    def onnx_form(self, target: Target) -> OnnxForm:
        """Return the form that an ONNX file must have for this target before `build` and `load` take it."""
        del target
        return "float32"

    def takes_calibration(self, target: Target) -> bool:
        """Whether `build` takes `CalibrationData` for this target. (A Q/DQ network carries its ranges itself and needs
        none.)"""
        del target
        return False

    def calibrators(self, target: Target) -> tuple[str, ...]:
        """Return the calibrators of the runtime's own tool, the most promising first. Where there are some, `build`
        takes Plimsoll's ranges as well."""
        del target
        return ()

    def quantization(self, target: Target) -> QuantizationDefaults:
        """Return how a Q/DQ network is best quantized for this target."""
        if target.device == "gpu":
            # NVIDIA's int8 kernels know no zero point; what is left in float there wants its bias in float.
            return QuantizationDefaults("int8", "always", weight_bits=8, bias="float32", space_to_depth=False)
        return QuantizationDefaults()

    def stream_batch(self, target: Target) -> int:
        """Return how many pictures one call of one of several streams should hold: 8-bit networks take a tenth less
        time a picture with 4, others no less."""
        return 4 if target.precision == "int8" else 1

    def triton(self, model: Model, target: Target) -> TritonBackend | None:
        """Return how Triton's own backend runs a built model; None where Triton has none for it. Raises ModelError for
        a model that has to be built first."""
        del model, target
        return None

    def calibrator_settings(self, spec: Spec, images: str) -> CalibratorSettings:
        """Return a Spec's preprocessing for the runtime's own calibration tool, which reads the pictures in the folder
        `images`; raises SpecError for what it can't express."""
        raise NotImplementedError(f"{self.name} has no settings file, as exports_settings says")

    def configured(self, options: Options) -> Backend:
        """Return the backend that builds with these options; itself where they matter only when it loads."""
        del options
        return self

    @abstractmethod
    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        """Return the model in the form that the runtime loads for this target, writing new files into `folder` only.

        Its inputs and outputs keep their names, shapes and layouts. Returns `model` itself where nothing has to be
        built; else its parent is `model`. Raises BuildError, also where `calibration` is missing.
        """

    @abstractmethod
    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> Session:
        """Load a built model for `plan.streams` calls at once that compute with `plan.threads` threads each; raises
        BuildError."""

    def computes_in(self, target: Target, options: Options) -> str:
        """Return the precision by whose limits a built network's answers are judged: the target's, unless an option
        lets the runtime round more (TensorFlow-32 keeps as many bits as float16)."""
        return "float16" if target.precision == "float32" and getattr(options, "tf32", False) else target.precision

    def after_crash(self, built: Model, target: Target, folder: Path) -> Iterator[Model]:
        """Yield what may be loaded in place of a built network that crashed the runtime, written into `folder`, the
        fastest first."""
        del built, target, folder
        return iter(())

    def not_installed(self) -> str:
        """Return what is missing and the command that adds it; empty where `module` is installed. Imports nothing."""
        if importlib.util.find_spec(self.module) is not None:
            return ""
        return f"{self.title} is not installed. Install it: {self.install}"

    def check(self, target: Target) -> None:
        """Raise TargetError for a target that this runtime doesn't know, BackendMissingError for one that this machine
        lacks."""
        known = {available.target: available for available in self.targets()}
        available = known.get(target)
        if available is None:
            raise TargetError(f"{self.name} has no target '{target}'", f"It has: {', '.join(map(str, known))}.")
        if available.missing:
            raise BackendMissingError(f"{target} can't be used on this machine", available.missing)

    def read_options(self, values: Mapping[str, str]) -> Options:
        """Check options given as text; raises TargetError that names the option, the value and what is allowed."""
        try:
            return self.options.model_validate(dict(values))
        except ValidationError as error:
            known = ", ".join(self.options.model_fields) or "none"
            raise TargetError(
                f"{self.name}: {explain(error, 'the options', values=True)}", f"Options of {self.name}: {known}."
            ) from error
