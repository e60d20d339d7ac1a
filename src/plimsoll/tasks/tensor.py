"""The raw output tensors of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from plimsoll.spec.spec import Tensors
from plimsoll.tasks.base import Answer, Outputs, Task, output

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry


@dataclass(frozen=True)
class RawTensors(Answer):
    """One picture's slice of each output, without the batch axis."""

    tensors: Mapping[str, NDArray[Any]]

    def row(self, top: int | None = None) -> dict[str, Any]:
        del top
        return {"outputs": {name: value.tolist() for name, value in self.tensors.items()}}


class TensorTask(Task):
    """Cuts outputs `[N, …]` into pictures."""

    def __init__(self, spec: Tensors) -> None:
        self.spec = spec

    def decode(
        self,
        outputs: Outputs,
        threshold: float | None = None,
        geometries: Sequence[ImageGeometry | None] | None = None,
    ) -> list[RawTensors]:
        del threshold, geometries
        chosen = {name: output(outputs, name) for name in self.spec.tensors or outputs}
        count = len(next(iter(chosen.values())))
        return [RawTensors({name: value[index] for name, value in chosen.items()}) for index in range(count)]

    def empty_row(self) -> dict[str, Any]:
        return {"outputs": None}


DECODER = TensorTask
