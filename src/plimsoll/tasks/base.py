"""The interface of tasks: a `Task` decodes a batch of outputs into one `Answer` per picture. Every other module of
this package decodes one task, found by its name; its `DECODER` is a `Task`.

Numerics shared by several tasks are here too.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError, SpecError
from plimsoll.spec import Spec

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry

Outputs = Mapping[str, NDArray[Any]]
"""A network's outputs by name, each with the batch axis first."""


class Answer(ABC):
    """The decoded outputs for one picture."""

    @abstractmethod
    def row(self, top: int | None = None) -> dict[str, Any]:
        """Return the answer as plain data for JSON; `top` limits it to the best labels."""

    def brief(self) -> str:
        """Return the answer in a few words, for display."""
        return json.dumps(self.row())

    def severity(self) -> float:
        """Return how bad the picture is by this answer: of a file's frames, the one with the highest counts."""
        return 0.0

    def readings(self) -> Sequence[str]:
        """Return the categories that this answer is counted under in a summary."""
        return ("answered",)


class Task(ABC):
    """Decodes the outputs of one Spec."""

    threshold: float | None = None
    input_size: tuple[int | None, int | None] = (None, None)
    """Height and width of the network's input, where the Spec fixes them."""
    answers_frames: bool = False
    """Whether the Spec answers several frames of a file, by the worst of them."""
    answers_clips: bool = False
    """Whether clips are answered: then rows say a frame's number and its time."""
    labels_stay: bool = True
    """Whether an object has the same label in each frame; a gesture changes."""
    needs_geometry: ClassVar[bool] = False
    """Whether answers hold positions, so that `decode` needs each picture's geometry."""

    @abstractmethod
    def decode(
        self,
        outputs: Outputs,
        threshold: float | None = None,
        geometries: Sequence[ImageGeometry | None] | None = None,
    ) -> Sequence[Answer]:
        """Return one answer for each picture of a batch; `threshold` replaces the Spec's.

        `geometries` has one for each picture. Without them, positions stay in the network's own coordinates. A task
        that doesn't need them ignores them. Raises ModelError for outputs of another shape than the Spec's, and for NaN
        or infinity in them.
        """

    def columns(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """Return the quantities in a batch of outputs that must be compared apart, each with the batch axis first.

        An output that holds one quantity is returned as it is, under its name. Where a head holds several (coordinates
        in pixels beside scores from 0 to 1), each comes under a name that says what it is: `output0, x`,
        `output0, score of 'cat'`. An output of another shape than the Spec's is returned whole: `decode` refuses it.
        """
        return dict(outputs)

    @abstractmethod
    def empty_row(self) -> dict[str, Any]:
        """Return the keys of `Answer.row` for a picture without an answer."""


@cache
def names() -> tuple[str, ...]:
    """Return the tasks that this version decodes, sorted."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(sorted(module.name for module in modules if module.name != "base"))


def decoder(spec: Spec) -> Task:
    """Return the decoder for a Spec's output; raises SpecError for a task that this version doesn't decode."""
    task = spec.output.task
    if task not in names():
        raise SpecError(
            f"{spec.name}: unknown task '{task}'; choose from {', '.join(names())}",
            "With task = 'tensor' you get the raw outputs.",
        )
    instance = importlib.import_module(f"plimsoll.tasks.{task}").DECODER(spec.output)
    assert isinstance(instance, Task)  # noqa: S101 - every module of this package does so
    image = spec.input.tensor_spec
    instance.input_size = (image.height, image.width)
    instance.answers_frames = spec.input.decode.frames != "first"
    return instance


def output(outputs: Outputs, name: str | None) -> NDArray[Any]:
    """Return the named output, or the only one; raises ModelError."""
    if name is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if name is None or name not in outputs:
        raise ModelError(
            f"the network has the outputs {', '.join(outputs)}; the Spec names {name or 'none'}",
            "Correct `output.tensor` in the Spec.",
        )
    return outputs[name]


def along(values: NDArray[Any], axis: int, name: str, quantities: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Cut an axis into its quantities: `{"name, quantity": values without that axis}`."""
    return {f"{name}, {what}": values.take(index, axis=axis) for index, what in enumerate(quantities)}


def scores_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return how the columns of labels' scores are called."""
    return tuple(f"score of {label!r}" for label in labels)


def require_finite(values: NDArray[Any], what: str) -> None:
    """Raise ModelError for NaN and infinity."""
    if not np.isfinite(values).all():
        examples = values[~np.isfinite(values)][:3]
        raise ModelError(
            f"non-finite {what} in the network's output: {', '.join(map(str, examples))}",
            "Compare it with its reference: too low a precision overflows.",
        )


def require_scaled(values: NDArray[Any], what: str) -> None:
    """Raise ModelError for 8-bit integers: what they stand for, only their scale and zero point tell."""
    if values.dtype in (np.int8, np.uint8):
        raise ModelError(
            f"the network's {what} are {values.dtype}, without a scale and zero point",
            "End the network with DequantizeLinear, so that its outputs are float32.",
        )


def geometry_at(geometries: Sequence[ImageGeometry | None] | None, index: int) -> ImageGeometry | None:
    """Return the geometry of one picture of a batch, if there is one."""
    return geometries[index] if geometries is not None else None


def activate(values: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    """Apply softmax over the last axis or the logistic function, in float32 and without overflow."""
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    if activation == "sigmoid":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), np.float32)
    return values


def decimal(value: np.float32) -> float:
    """Return the shortest decimal that float32 reads back as the same value, so that JSON shows 0.1 and not
    0.10000000149."""
    return float(str(value))


def position(value: float) -> float:
    """Return a position in pixels as rows show it: to a hundredth of a pixel."""
    return round(float(value), 2)
