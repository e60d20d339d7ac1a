"""Which operators deviate most when they are quantized; and mixed precision, which puts these back into float."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import CheckError, InputError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.graph import Graph
from plimsoll.quantize import qdq
from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.options import StaticOptions
from plimsoll.quantize.placement import Placement, node_key
from plimsoll.quantize.prepare import prepare, write
from plimsoll.quantize.static import placed, settled, static

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[Any]
Outputs = list[NDArray[np.float64]]
"""For each picture its output values, one output after another."""

_STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""How many of the worst operators `mixed` tries to keep in float, one try after another: never more than twice as many
as needed."""


@dataclass(frozen=True)
class OperatorDeviation:
    """What quantizing one operator alone does to the network's outputs."""

    name: str
    """As `StaticOptions.keep_float` takes it."""
    operator: str
    """Conv, Gemm, Add …"""
    mean_abs: float
    """Mean absolute difference of all output values on all pictures, in the outputs' unit; infinite where a value isn't
    finite."""
    max_abs: float


def sensitivity(
    model: Model, calibration: Calibration, tensors: Array, options: StaticOptions | None = None
) -> tuple[OperatorDeviation, ...]:
    """Rank the operators by the deviation that each causes when it alone is quantized, the worst first.

    "It alone" means its weights and the tensors that it reads and makes. (The other way round, all but one, measures
    small differences between large deviations, and needs many more pictures for a stable order.) One calibration serves
    all. The cost is that of loading the float network once for each operator and running `tensors` `[N, …]` through it;
    16 pictures are plenty. It is measured on `options.target`. Raises InputError without pictures, and what `static`
    and `Runner` raise.
    """
    chosen = settled(options, calibration)
    pictures = _single(tensors)
    with TemporaryDirectory(prefix="plimsoll-sensitivity-") as temporary:
        folder = Path(temporary)
        prepared = prepare(model, folder)
        proto = onnx_graph.load(prepared)
        graph = Graph(proto)
        placement = placed(model, graph, chosen)
        calibration.check_fit(model, placement.grids())
        kinds = {node_key(node): graph.kind(node) for node in graph.nodes}
        reference = _answers(prepared, pictures, REFERENCE_TARGET)
        rows = []
        for name in placement.nodes:
            alone = _alone(proto, placement, name, calibration, chosen)
            path = folder / "alone.onnx"
            write(alone, path)
            mean, largest = _difference(reference, _answers(Model(path, "onnx", model.spec), pictures, chosen.target))
            rows.append(OperatorDeviation(name, kinds[name], mean, largest))
    return tuple(sorted(rows, key=lambda row: -row.mean_abs))


def _alone(
    proto: ModelProto, placement: Placement, name: str, calibration: Calibration, options: StaticOptions
) -> ModelProto:
    """Return the network with one operator quantized."""
    graph = Graph(type(proto).FromString(proto.SerializeToString()))
    touched = placement.touched[name]
    qdq.insert(
        graph,
        Placement({one: placement.roots[one] for one in touched if one in placement.roots}, [name], {name: touched}),
        calibration.ranges,
        options,
    )
    return graph.proto


@dataclass(frozen=True)
class Mixed:
    """A network in mixed precision."""

    model: Model
    kept: tuple[str, ...]
    """The operators in float, the worst first; those that the options keep anyway come before them."""
    deviation: float
    """The largest absolute difference of any output from the float network's, measured on the target."""


def mixed(
    model: Model,
    calibration: Calibration,
    tensors: Array,
    limit: float,
    folder: Path,
    options: StaticOptions | None = None,
) -> Mixed:
    """Put the operators that deviate most back into float, until no output of any picture deviates by more than
    `limit`.

    Groups grow (1, 2, 3, 4, 6, 8, 12 … operators in float); each network is built and measured on `options.target`.
    `tensors`: inputs `[N, …]`, better not those of the calibration. The network is written into `folder`. Raises
    CheckError where no mixture keeps the limit, and what `static`, `sensitivity` and `Runner` raise.
    """
    chosen = settled(options, calibration)
    pictures = _single(tensors)
    truth = _answers(model, pictures, REFERENCE_TARGET)
    order: Sequence[str] = ()
    count, deviation = 0, np.inf
    for count in _STEPS:
        if count == 1:
            # Ranked only where it is needed, and on few pictures: it is the order that counts.
            order = [row.name for row in sensitivity(model, calibration, tensors[:_RANKING], chosen)]
        if count and count >= len(order):
            break
        kept = (*chosen.keep_float, *order[:count])
        with TemporaryDirectory(prefix="plimsoll-mixed-") as temporary:
            built = static(model, calibration, Path(temporary), replace(chosen, keep_float=kept))
            deviation = _difference(truth, _answers(built, pictures, chosen.target))[1]
            if deviation <= limit:
                path = folder / f"{model.path.stem}.mixed.onnx"
                path.write_bytes(built.path.read_bytes())
                return Mixed(Model(path, "onnx", model.spec, parent=model), kept, deviation)
    raise CheckError(
        f"{model.name}: however many of its {len(order)} operators stay in float, an output deviates by more than"
        f" {limit:g} (at last by {deviation:.4g})",
        "Allow more, or stay in float.",
    )


_RANKING = 16


def _single(tensors: Array) -> list[Array]:
    if len(tensors) == 0:
        raise InputError("no picture was given to measure the deviation on", "Sixteen are plenty.")
    return [tensors[place : place + 1] for place in range(len(tensors))]


def _answers(model: Model, pictures: Sequence[Array], target: Target) -> Outputs:
    with (
        Runner.open(model, target, objective="throughput") as runner,
        ThreadPoolExecutor(runner.streams, "plimsoll-mixed") as pool,
    ):
        outputs = pool.map(runner.infer, pictures)
        return [np.concatenate([value.ravel().astype(np.float64) for value in one.values()]) for one in outputs]


def _difference(reference: Outputs, other: Outputs) -> tuple[float, float]:
    """Return mean and largest absolute difference; infinite where one isn't finite."""
    joined = np.concatenate([np.abs(one - two) for one, two in zip(reference, other, strict=True)])
    return (float(joined.mean()), float(joined.max())) if np.isfinite(joined).all() else (np.inf, np.inf)
