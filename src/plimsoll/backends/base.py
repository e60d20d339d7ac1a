"""The seam between Plimsoll and the runtimes: what a file in `plimsoll.backends` provides.

A new runtime is one new file there. It subclasses `Backend`, names its instance `BACKEND`, imports its runtime
inside its methods through `require`, and wraps calls into it in `translate`. Packages from elsewhere add theirs by
the entry point group `plimsoll.backends`, which leads to such an instance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from plimsoll.core.model import Model, Reader, TensorInfo, Tensors
from plimsoll.core.target import Target
from plimsoll.core.wording import explain
from plimsoll.errors import BackendMissingError, TargetError
from plimsoll.onnx.form import OnnxForm
from plimsoll.system import host

Objective = Literal["throughput", "latency"]


@dataclass(frozen=True)
class ThreadPlan:
    """How the cores are shared: `streams` calls at once, each computing with `threads` threads.

    Many streams of one thread give the most answers a second, since nobody waits for anybody; one stream of many threads
    gives each answer soonest.
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
    """What a build for integers may use: what the network read while it was calibrated, and the ranges that were found."""

    method: str
    """The calibrator: one of `Backend.calibrators`, or one of Plimsoll's own."""
    tensors: NDArray[Any]
    """`[N, …]`, what the network reads for N calibration pictures."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """For each tensor of the ONNX network, by its name, the range that Plimsoll's calibrator chose; empty where the
    runtime's own tool calibrates."""


class Session(Protocol):
    """A loaded network: dumb on purpose. `Runner` checks, batches, times and closes around it."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What it gives."""
        ...

    @property
    def concurrent(self) -> bool:
        """Whether several threads may call `run` at once."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Compute all outputs; raises RunError."""
        ...

    def close(self) -> None:
        """Give memory and devices back; calling it twice is harmless."""
        ...


class Options(BaseModel):
    """The options of a backend, set with `--set name=value`; each backend's own class says which there are."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class AvailableTarget:
    """A target that a backend knows, and whether this machine has it."""

    target: Target
    missing: str = ""
    """Empty where the target can be used; else what is missing and the command that adds it."""
    toolchain: str = ""
    """The toolchain that a build for it needs, which is made where it isn't there yet; `ship` then tries the target
    only when asked to."""


class Backend(ABC):
    """One runtime."""

    name: ClassVar[str]
    """The runtime's name in targets; the file has the same."""
    options: ClassVar[type[Options]] = Options
    deployable: ClassVar[bool] = True
    """Whether anybody would answer pictures with it; `ship` tries no other by itself."""

    @property
    def formats(self) -> tuple[Reader, ...]:
        """The model formats that only this runtime runs. Called for every path that may be one: importing them is
        light."""
        return ()

    @property
    def default_target(self) -> Target | None:
        """The target that runs a model of one of `formats` where the user names none; None: the user has to."""
        return Target(self.name)

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

    def check(self, target: Target) -> None:
        """Raise TargetError for a target that this runtime doesn't know, BackendMissingError for one that this machine
        lacks."""
        offers = {offer.target: offer for offer in self.targets()}
        offer = offers.get(target)
        if offer is None:
            known = ", ".join(str(one) for one in offers)
            raise TargetError(f"{self.name} has no target '{target}'", f"It has: {known}.")
        if offer.missing:
            raise BackendMissingError(f"{target} can't be used on this machine", offer.missing)

    def read_options(self, values: Mapping[str, str]) -> Options:
        """Check options given as text; raises TargetError that names the option, the value and what is allowed."""
        try:
            return self.options.model_validate(dict(values))
        except ValidationError as error:
            known = ", ".join(self.options.model_fields) or "none"
            raise TargetError(
                f"{self.name}: {explain(error, values=True)}", f"Options of {self.name}: {known}."
            ) from error
