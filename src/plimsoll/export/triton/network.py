"""The choices of an export, and a network as Triton sees it: which backend runs it, and with which files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll import backends
from plimsoll.backends.base import ThreadPlan, TritonBackend
from plimsoll.backends.runner import Runner
from plimsoll.core.fit import only_input
from plimsoll.core.model import Model, TensorInfo
from plimsoll.core.target import Target
from plimsoll.core.wording import explain
from plimsoll.errors import InputError, ModelError

IMAGE = "image"
"""The input that takes picture files."""
PYTHON = "python"


class TritonOptions(BaseModel):
    """How Triton is to run a model. On the command line: `--set name=value`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(1, ge=1)
    """The number of the version folders. Beside what another export left, a new number is added where the
    configurations are the same."""
    max_batch: int = Field(32, ge=1, le=4096)
    """The most pictures in one request, and in one call of the network. An engine's own largest batch must not be
    smaller."""
    delay_us: int = Field(1000, ge=0, le=1_000_000)
    """Microseconds that a request waits for others to be computed together with."""
    queue: int = Field(256, ge=1)
    """Requests that wait for the network; further ones are refused at once."""
    instances: int | None = Field(None, ge=1, le=256)
    """Calls of the network computed at once, on each device; by default 1, and more where Triton doesn't let the
    runtime batch."""
    threads: int | None = Field(None, ge=1, le=1024)
    """Threads that compute one call on the CPU; by default all cores share in each."""
    decoders: int = Field(4, ge=1, le=256)
    """Processes that turn pictures into tensors; as many as cores keep up with a fast network."""
    network: Literal["native", "python"] = "native"
    """Who runs the network: Triton's own backend for its runtime, where there is one, or Plimsoll inside Triton's
    Python backend, with the very settings it was proven with."""

    @classmethod
    def read(cls, values: Mapping[str, str]) -> Self:
        """Check options given as text; raises InputError that names the option, the value and what is allowed."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError(
                f"triton: {explain(error, values=True)}", f"Options of triton: {', '.join(cls.model_fields)}."
            ) from error


@dataclass(frozen=True)
class TritonNetwork:
    """A network as Triton sees it."""

    native: TritonBackend | None
    """Triton's own backend for it; None: Plimsoll runs it in Triton's Python backend."""
    file: str
    """The main file's name in the version folder."""
    files: Mapping[str, Path]
    """All its files by their names there."""
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    target: Target
    picture_input: str
    """The input that takes the pictures' tensor."""

    @property
    def backend(self) -> str:
        """Triton's name of the backend."""
        return PYTHON if self.native is None else self.native.name

    @property
    def instances(self) -> int:
        """How many calls are computed at once, unless the user says."""
        return 1 if self.native is None else self.native.instances

    @property
    def accelerators(self) -> Mapping[str, Mapping[str, str]]:
        """What computes on a GPU, by name, with parameters."""
        return {} if self.native is None else self.native.accelerators

    @property
    def batches(self) -> bool:
        """Whether Triton may compute several requests together: the first axis of every tensor has to be free."""
        return self.free and (self.native is None or self.native.batches)

    @property
    def free(self) -> bool:
        """Whether one call takes any number of pictures. Plimsoll's own runner cuts and fills batches for networks that
        don't."""
        return self.native is None or all(
            info.shape and info.shape[0] is None for info in (*self.inputs, *self.outputs)
        )


def describe(model: Model, target: Target, options: TritonOptions) -> TritonNetwork:
    """Choose the backend and find the network's inputs and outputs, for which it is opened once.

    Raises ModelError for a network that can't be served so, BuildError where its form isn't the target's, and what else
    `Runner.open` raises.
    """
    spec = model.require_spec()
    runtime = backends.get(target.runtime)
    if runtime.in_browser:
        raise ModelError(f"{target} runs in browsers", "Give another target with --target.")
    native = runtime.triton(model, target) if options.network == "native" else None
    if native is None:
        file = f"model/{model.source.name}"
        files = {f"model/{name}": path for name, path in _named(model, model.path.name).items()}
    else:
        file = native.file
        files = {file: model.path} if native.main_file_only else _named(model, file, same_stem=native.same_stem)
    seen = native.signature_target if native is not None else None
    with Runner.open(model, seen or target, plan=ThreadPlan(1, 1)) as runner:
        # As the runtime itself sees them: Triton's backends compare every size with that.
        inputs, outputs, plain = runner.inputs, runner.outputs, runner.is_plain
    if native is not None and not plain:
        raise ModelError(
            f"{model.name}: Triton's own {native.name} backend can't feed the Spec's further inputs, nor move the axis"
            " of the pictures to the front",
            "Let Plimsoll do it: --set network=python.",
        )
    network = TritonNetwork(native, file, files, inputs, outputs, target, only_input(spec, inputs, model.name).name)
    _check(model, network)
    return network


def _named(model: Model, main: str, *, same_stem: bool = False) -> dict[str, Path]:
    """Return the model's files by their names in the version folder.

    Those beside the main one keep their names, since it names them, or take the main file's with `same_stem`.
    """
    folder = model.path.parent
    try:
        beside = {file.relative_to(folder).as_posix(): file for file in model.files}
    except ValueError as error:
        raise ModelError(
            f"{model.source}: one of its files is not in its folder or below: {error}", "Move them together."
        ) from error
    if same_stem:
        beside = {f"{Path(main).stem}{file.suffix}": file for file in beside.values()}
    if main in beside:
        raise ModelError(
            f"{model.source}: one of its further files is called {main}",
            "Save the network again with another name for its weights.",
        )
    return {main: model.path, **beside}


def _check(model: Model, network: TritonNetwork) -> None:
    """Raise ModelError for what a configuration can't say, or what would fail at the first request."""
    unknown = [info.name for info in (*network.inputs, *network.outputs) if not info.shape]
    if unknown:
        raise ModelError(
            f"{model.name}: the network leaves the shape of {', '.join(unknown)} open, and Triton needs it"
        )
    batch = network.inputs[0].shape[0]
    if not network.free and batch not in (None, 1):
        raise ModelError(
            f"{model.name}: the network takes {batch} pictures at a time, no more and no fewer",
            "Export it with a free batch, or let Plimsoll cut and fill batches: --set network=python.",
        )
    if any(info.name == IMAGE for info in network.outputs):
        raise ModelError(
            f"{model.name}: an output is called '{IMAGE}', as the pictures are", "Export it with another name."
        )
