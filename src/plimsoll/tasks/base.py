"""The seam of the tasks: `Task` turns a batch of outputs into one `Answer` a picture; and what several tasks do with
numbers."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry

Outputs = Mapping[str, NDArray[Any]]


class Answer(ABC):
    """What the network says of one picture."""

    @abstractmethod
    def row(self, top: int | None = None) -> dict[str, Any]:
        """Return the answer as plain data for JSON; `top` keeps the best so many labels."""

    def brief(self) -> str:
        """Return the answer in a few words, for a person."""
        return json.dumps(self.row())

    def readings(self) -> Sequence[str]:
        """Return what is counted over many pictures."""
        return ("answered",)


class Task(ABC):
    """Decodes the outputs of one Spec."""

    threshold: float | None = None
    needs_views: ClassVar[bool] = False
    """Whether answers hold positions, so that `decode` should be told where each input lies in its picture."""

    @abstractmethod
    def decode(
        self, outputs: Outputs, threshold: float | None = None, views: Sequence[ImageGeometry | None] | None = None
    ) -> Sequence[Answer]:
        """Return one answer for each picture of a batch; `threshold` replaces the Spec's.

        `views` has one view for each picture. Without them, positions stay in the network's own coordinates. A task
        that doesn't need them ignores them. Raises ModelError where the outputs are not of the shape that the Spec
        says, or are no numbers.
        """

    @abstractmethod
    def empty_row(self) -> dict[str, Any]:
        """Return the keys of `Answer.row` for a picture without an answer."""


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


def require_finite(values: NDArray[Any], what: str) -> None:
    """Raise ModelError for NaN and infinity."""
    if not np.isfinite(values).all():
        found = values[~np.isfinite(values)][:3]
        raise ModelError(
            f"the network gave {what} that are no numbers: {', '.join(map(str, found))}",
            "Compare it with its reference: a precision too low overflows.",
        )


def view_of(views: Sequence[ImageGeometry | None] | None, place: int) -> ImageGeometry | None:
    """Return the view of one picture of a batch, where there is one."""
    return views[place] if views is not None else None


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
