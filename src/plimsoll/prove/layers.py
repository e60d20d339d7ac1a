"""Layer by layer: where in the network the deviation enters."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from plimsoll.core.fit import picture_input
from plimsoll.core.model import Model
from plimsoll.errors import ModelError
from plimsoll.metrics import Running
from plimsoll.onnx import graph, load
from plimsoll.prove.inside import open_inside

Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Layer:
    """A value that both graphs compute."""

    name: str
    operator: str
    """What computes it in the reference."""
    snr_db: float
    """Signal to noise over all pictures, in decibels."""
    max_abs: float
    low: float
    high: float
    """The reference's smallest and largest value."""


def layers(reference: Model, other: Model, inputs: Iterable[Pair]) -> tuple[Layer, ...]:
    """Compare every float value that both graphs have by name, in the reference's topological order; both computed by
    ONNX Runtime.

    `inputs` holds pairs of network inputs `[N, …]`, the reference's and the other's, for the same pictures; one pair is
    in memory at a time. Where the other graph quantizes a value, what is compared is the dequantized one. Raises
    ModelError for models that are no ONNX files or share no value.
    """
    protos = [graph.load(model) for model in (reference, other)]
    ours, theirs = (dict(graph.values(proto)) for proto in protos)
    shared = [name for name in ours if name in theirs]
    if not shared:
        hint = "Layers are compared by name: use a model that was made from the reference."
        raise ModelError(f"{other.path}: it shares no named value with {reference.path}", hint)
    operators = {output: node.op_type for node in protos[0].graph.node for output in node.output}
    sums = {name: _Sum() for name in shared}
    with TemporaryDirectory(prefix="plimsoll-layers-") as folder, ExitStack() as stack:
        runners = []
        for count, (model, names) in enumerate(((reference, ours), (other, theirs))):
            runners.append(
                stack.enter_context(
                    open_inside(model, [names[name] for name in shared], Path(folder) / f"{count}.onnx")
                )
            )
        fed = [
            picture_input(model.contract(), load.inputs_and_outputs(proto)[0], model.path.name).name
            for model, proto in zip((reference, other), protos, strict=True)
        ]
        for pair in inputs:
            first, second = (
                runner.run({name: tensor}) for runner, name, tensor in zip(runners, fed, pair, strict=True)
            )
            for name in shared:
                sums[name].add(first[ours[name]], second[theirs[name]])
    return tuple(one.layer(name, operators[name]) for name, one in sums.items() if one.usable)


class _Sum:
    def __init__(self) -> None:
        self._running = Running()
        self._low, self._high = float("inf"), float("-inf")
        self.usable = True

    def add(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        # A value of another size under the same name, or one that is no float, is another value.
        if (
            not self.usable
            or first.shape != second.shape
            or first.dtype.kind != "f"
            or second.dtype.kind != "f"
            or not first.size
        ):
            self.usable = False
            return
        self._running.add(first, second)
        self._low, self._high = min(self._low, float(first.min())), max(self._high, float(first.max()))

    def layer(self, name: str, operator: str) -> Layer:
        deviation = self._running.deviation
        return Layer(name, operator, deviation.snr_db, deviation.max_abs, self._low, self._high)
