"""The seam of the tasks: `Task` turns a batch of outputs into one `Answer` a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray


class Answer(ABC):
    """What the network says of one picture."""

    @abstractmethod
    def row(self, top: int | None = None) -> dict[str, Any]:
        """Return the answer as plain data for JSON; `top` keeps the best so many labels."""


class Task(ABC):
    """Decodes the outputs of one Spec."""

    threshold: float | None = None

    @abstractmethod
    def decode(self, outputs: Mapping[str, NDArray[Any]], threshold: float | None = None) -> Sequence[Answer]:
        """Return one answer for each picture of a batch; `threshold` replaces the Spec's.

        Raises ModelError where the outputs are not of the shape that the Spec says.
        """

    @abstractmethod
    def empty_row(self) -> dict[str, Any]:
        """Return the keys of `Answer.row` for a picture without an answer."""


def output(outputs: Mapping[str, NDArray[Any]], name: str | None) -> NDArray[Any]:
    """Return the named output, or the only one; raises ModelError."""
    from plimsoll.errors import ModelError

    if name is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if name is None or name not in outputs:
        raise ModelError(f"the network has the outputs {', '.join(outputs)}; the Spec names {name or 'none'}", "Correct `output.tensor` in the Spec.")
    return outputs[name]
