"""`sensitivity`: which operators deviate most when they are quantized, and so gain most in float."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import InputError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.graph import Graph
from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.placement import Placement, node_key
from plimsoll.quantize.prepare import prepare, write
from plimsoll.quantize.static import StaticOptions, checked_placement, insert_qdq, resolve_options

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[Any]
Outputs = list[NDArray[np.float64]]
"""For each picture its output values, one output after another."""


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
    chosen = resolve_options(options, calibration)
    pictures = _split(tensors)
    with TemporaryDirectory(prefix="plimsoll-sensitivity-") as temporary:
        folder = Path(temporary)
        prepared = prepare(model, folder)
        proto = onnx_graph.load(prepared)
        graph = Graph(proto)
        placement = checked_placement(model, graph, chosen)
        calibration.check_fit(model, placement.calibrated_tensors())
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
    tensors = placement.tensors[name]
    insert_qdq(
        graph,
        Placement(
            {tensor: placement.roots[tensor] for tensor in tensors if tensor in placement.roots},
            [name],
            {name: tensors},
        ),
        calibration.ranges,
        options,
    )
    return graph.proto


def _split(tensors: Array) -> list[Array]:
    if len(tensors) == 0:
        raise InputError("no picture was given to measure the deviation with", "Sixteen are plenty.")
    return [tensors[index : index + 1] for index in range(len(tensors))]


def _answers(model: Model, pictures: Sequence[Array], target: Target) -> Outputs:
    with (
        Runner.open(model, target, objective="throughput") as runner,
        ThreadPoolExecutor(runner.streams, "plimsoll-sensitivity") as pool,
    ):
        outputs = pool.map(runner.infer, pictures)
        return [np.concatenate([value.ravel().astype(np.float64) for value in answer.values()]) for answer in outputs]


def _difference(reference: Outputs, other: Outputs) -> tuple[float, float]:
    """Return mean and largest absolute difference; infinite where one isn't finite."""
    joined = np.concatenate([np.abs(first - second) for first, second in zip(reference, other, strict=True)])
    return (float(joined.mean()), float(joined.max())) if np.isfinite(joined).all() else (np.inf, np.inf)
