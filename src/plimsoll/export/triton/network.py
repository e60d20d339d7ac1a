"""Which of Triton's backends runs a network, and what that backend must be told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plimsoll.backends.base import ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.fit import only_input
from plimsoll.core.model import Model, TensorInfo
from plimsoll.core.target import Target
from plimsoll.errors import ModelError
from plimsoll.export.triton.options import TritonOptions

IMAGE = "image"
"""The input that takes picture files."""
PYTHON = "python"
_FILES = {
    ("onnxruntime", "onnx"): "model.onnx",
    ("openvino", "onnx"): "model.onnx",
    ("openvino", "openvino"): "model.xml",
    ("tensorrt", "tensorrt"): "model.plan",
}
"""What the main file is called, by backend and format: a pair that isn't here has no backend in Triton."""


@dataclass(frozen=True)
class Network:
    """A network as Triton sees it."""

    backend: str
    """onnxruntime, openvino, tensorrt or python."""
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
    def batches(self) -> bool:
        """Whether Triton may compute several requests together.

        The first axis of every tensor has to be free. Triton's OpenVINO backend fixes the batch to the largest one and
        computes that for every call, or refuses smaller ones: there each request is a call of its own.
        """
        return self.backend != "openvino" and self.free

    @property
    def free(self) -> bool:
        """Whether one call takes any number of pictures. Plimsoll's own runner cuts and fills batches for networks that
        don't."""
        return self.backend == PYTHON or all(
            one.shape and one.shape[0] is None for one in (*self.inputs, *self.outputs)
        )


def describe(model: Model, target: Target, options: TritonOptions) -> Network:
    """Choose the backend and find out what the network takes and gives, for which it is opened here once.

    Raises ModelError for a network that can't be served so, BuildError where its form isn't the target's, and what else
    `Runner.open` raises.
    """
    spec = model.contract()
    file = _FILES.get((target.runtime, model.format))
    if options.network == PYTHON or file is None:
        _refuse_foreign(model, target, options)
        backend, file, files = (
            PYTHON,
            f"model/{model.path.name}",
            {f"model/{name}": path for name, path in _named(model, model.path.name).items()},
        )
    else:
        backend, files = target.runtime, _named(model, file)
    inputs, outputs = _signature(model, target)
    network = Network(backend, file, files, inputs, outputs, target, only_input(spec, inputs, model.name).name)
    _check(model, network)
    return network


def _refuse_foreign(model: Model, target: Target, options: TritonOptions) -> None:
    if target.runtime == "web":
        raise ModelError(f"{target} runs in browsers", "Give another target with --target.")
    if options.network != PYTHON and target.runtime == "tensorrt":
        raise ModelError(
            f"{model.path}: Triton's TensorRT backend loads engines, this is {model.format}",
            f"Build one first, on the GPU that will run it: plimsoll convert MODEL --target {target} --out BUNDLE.",
        )


def _named(model: Model, main: str) -> dict[str, Path]:
    """Return the model's files by their names in the version folder; those beside the main one keep theirs, since it
    names them."""
    folder = model.path.parent
    if model.format == "tensorrt":  # What lies beside an engine is for Plimsoll alone.
        return {main: model.path}
    try:
        beside = {file.relative_to(folder).as_posix(): file for file in model.files}
    except ValueError as error:
        raise ModelError(
            f"{model.path}: one of its files is not in its folder or below: {error}", "Move them together."
        ) from error
    if main == "model.xml":  # OpenVINO looks for the weights beside it, under the same name.
        beside = {f"model{Path(name).suffix}": file for name, file in beside.items()}
    if main in beside:
        raise ModelError(
            f"{model.path}: one of its further files is called {main}",
            "Save the network again with another name for its weights.",
        )
    return {main: model.path, **beside}


def _signature(model: Model, target: Target) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return inputs and outputs as the runtime itself sees them: Triton's backends compare every size with that.

    ONNX Runtime sees the same on a CPU, where the GPU that a network is for may be missing.
    """
    seen = Target("onnxruntime", "cpu", target.precision) if target.runtime == "onnxruntime" else target
    with Runner.open(model, seen, plan=ThreadPlan(1, 1)) as runner:
        return runner.inputs, runner.outputs


def _check(model: Model, network: Network) -> None:
    """Raise ModelError for what a configuration can't say, or what would fail at the first request."""
    unknown = [one.name for one in (*network.inputs, *network.outputs) if not one.shape]
    if unknown:
        raise ModelError(
            f"{model.name}: the network doesn't say which shape {', '.join(unknown)} has, and Triton has to be told"
        )
    batch = network.inputs[0].shape[0]
    if not network.free and batch not in (None, 1):
        raise ModelError(
            f"{model.name}: the network takes {batch} pictures at a time, no more and no fewer",
            "Export it with a free batch, or let Plimsoll cut and fill batches: --set network=python.",
        )
    if any(one.name == IMAGE for one in network.outputs):
        raise ModelError(
            f"{model.name}: an output is called '{IMAGE}', as the pictures are", "Export it with another name."
        )
