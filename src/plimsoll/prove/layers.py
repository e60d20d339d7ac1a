"""Layer by layer: where in the network the deviation enters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.deviation import RunningDeviation
from plimsoll.core.fit import picture_input
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import ModelError
from plimsoll.onnx import form, graph, load

InputPair = tuple[NDArray[Any], NDArray[Any]]


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


def compare_layers(reference: Model, other: Model, inputs: Iterable[InputPair]) -> tuple[Layer, ...]:
    """Compare every float value that both graphs have by name, in the reference's topological order; both computed by
    ONNX Runtime.

    `inputs` holds pairs of network inputs `[N, …]`, the reference's and the other's, for the same pictures; one pair is
    in memory at a time. Where the other graph quantizes a value, what is compared is the dequantized one. Raises
    ModelError for models that are not ONNX files or share no value.
    """
    protos = [graph.load(model) for model in (reference, other)]
    values, other_values = (dict(graph.computed_values(proto)) for proto in protos)
    shared = [name for name in values if name in other_values]
    if not shared:
        hint = "Layers are compared by name: use a model that was made from the reference."
        raise ModelError(f"{other.path}: shares no named value with {reference.path}", hint)
    operators = {output: node.op_type for node in protos[0].graph.node for output in node.output}
    sums = {name: _RunningLayer() for name in shared}
    with TemporaryDirectory(prefix="plimsoll-layers-") as folder, ExitStack() as stack:
        runners = []
        for index, (model, names) in enumerate(((reference, values), (other, other_values))):
            file = Path(folder) / f"{index}.onnx"
            runners.append(stack.enter_context(open_with_outputs(model, [names[name] for name in shared], file)))
        input_names = [
            picture_input(model.require_spec(), load.inputs_and_outputs(proto)[0], model.path.name).name
            for model, proto in zip((reference, other), protos, strict=True)
        ]
        for pair in inputs:
            first, second = (
                runner.run({name: tensor}) for runner, name, tensor in zip(runners, input_names, pair, strict=True)
            )
            for name in shared:
                sums[name].add(first[values[name]], second[other_values[name]])
    return tuple(running.layer(name, operators[name]) for name, running in sums.items() if running.usable)


def open_with_outputs(model: Model, names: Sequence[str], path: Path) -> Runner:
    """Open an ONNX model in ONNX Runtime with the values `names` as further outputs; `path` takes the changed file.

    It computes in one thread: threads that spin between calls would hold up the NumPy that works on the values.
    """
    exposed = graph.expose(model, names, path)
    precision = form.precision_of(path)
    return Runner.open(exposed, replace(REFERENCE_TARGET, precision=precision), objective="throughput")


class _RunningLayer:
    def __init__(self) -> None:
        self._running = RunningDeviation()
        self._low, self._high = float("inf"), float("-inf")
        self.usable = True

    def add(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        # A value of another size under the same name, or one that is not float, is another value.
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
