"""Compare what a golden picture became, and what the network answered, with what is computed here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.bundle.manifest import Tolerance
from plimsoll.core.check import Check
from plimsoll.core.target import Target
from plimsoll.errors import CheckError, ImageError, InputError, RunError
from plimsoll.metrics import TensorDeviation, deviation
from plimsoll.preprocessing import Preprocessor
from plimsoll.spec import Input
from plimsoll.spec.steps import Jpeg, Scale, Std

_INPUT = (2.0, 0.25)
_INPUT_THROUGH_JPEG = (32.0, 0.75)
"""Largest and mean difference of input tensors that pass, in levels of 255.

Reference preprocessing gives the same bytes wherever the same Pillow and libjpeg-turbo run; other decoders are known to
differ by one or two levels. A `jpeg` step enlarges that, since a level can tip a coefficient over to the next
quantization step: on 12 photos of 256 x 256 with 5 % of the samples off by one, quality 75 made it 9 to 30 levels at
worst and 0.24 to 0.60 on the mean. A wrong resize filter (bicubic for bilinear) made it 34 to 54 and 1.18 to 5.2: there
the mean tells them apart."""

_NETWORK = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}
_NETWORK_QUANTIZED = 2e-2
_END_TO_END = 1e-3
"""What outputs may differ by: float32 kernels of other instruction sets sum in another order, coarser precisions round
more.

Measured with open_nsfw on 58 photos, largest difference of a score. The same runtime with 1 and with 4 threads, each
precision: none. float32, ONNX Runtime against OpenVINO: 5e-7. float16 and bfloat16 differ from float32 by 2.4e-4 and
1.3e-3 in all, which is the most that other kernels of theirs can change; eight times as much, since other networks are
more sensitive. int8, one network in both runtimes: 0.005 to 0.013; on a processor without VNNI (OpenVINO held to AVX2)
sums that saturate made it 0.034 to 0.065, which has to be caught."""


@dataclass(frozen=True)
class Golden:
    """A picture's input tensor without the batch axis, and every output by name with it."""

    tensor: NDArray[Any]
    outputs: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Figure:
    """A measured difference and where it was; NaN where there could be none, and `where` says why."""

    value: float
    where: str


@dataclass(frozen=True)
class Row:
    """The differences of one golden picture."""

    input_max: Figure
    input_mean: Figure
    network: Figure
    end_to_end: Figure


def tolerance_for(spec: Input, target: Target) -> Tolerance:
    """Return the tolerances that a new bundle states."""
    input_max, input_mean = _INPUT_THROUGH_JPEG if any(isinstance(step, Jpeg) for step in spec.steps) else _INPUT
    network = _NETWORK.get(target.precision, _NETWORK_QUANTIZED)
    return Tolerance(input_max=input_max, input_mean=input_mean, network=network, end_to_end=max(network, _END_TO_END))


def level(spec: Input) -> float:
    """Return what one level of an 8-bit picture is in the tensor's unit; with a std a channel, where it is the most."""
    size = 1.0
    for step in spec.steps:
        if isinstance(step, Scale):
            size *= abs(step.factor) if step.factor is not None else 1 / abs(step.divisor or 1.0)
        elif isinstance(step, Std):
            size /= min(step.values)
    return size


def compare(golden: Golden, picture: Path, preprocessor: Preprocessor, runner: Runner) -> Row:
    """Compute a golden picture's tensor and outputs here and return how far they lie from the stored ones."""
    name = picture.name
    network = _outputs(golden, golden.tensor, runner, name)
    try:
        tensor = preprocessor(picture)
        found = deviation(golden.tensor, tensor)
    except (ImageError, CheckError) as error:
        none = Figure(math.nan, f"{name}: {error.message}")
        return Row(none, none, network, none)
    unit = level(preprocessor.spec)
    largest, mean = (
        Figure(_usable(found, golden.tensor, found.max_abs) / unit, name),
        Figure(_usable(found, golden.tensor, found.mean_abs) / unit, name),
    )
    return Row(largest, mean, network, _outputs(golden, tensor, runner, name))


def _outputs(golden: Golden, tensor: NDArray[Any], runner: Runner, name: str) -> Figure:
    """Run a tensor and return the largest difference of any output, as a share of its largest value where that is above
    1."""
    try:
        outputs = runner.infer(tensor[np.newaxis])
    except (InputError, RunError) as error:
        return Figure(math.nan, f"{name}: {error.message}")
    if outputs.keys() != golden.outputs.keys():
        return Figure(
            math.nan, f"{name}: the network has the outputs {sorted(outputs)}, stored are {sorted(golden.outputs)}"
        )
    figures = []
    for output, stored in golden.outputs.items():
        where = f"{name}, output '{output}'"
        try:
            found = deviation(stored, outputs[output])
        except CheckError as error:
            figures.append(Figure(math.nan, f"{where}: {error.message}"))
            continue
        scale = max(1.0, float(np.abs(stored.astype(np.float64)).max(initial=0.0)))
        figures.append(Figure(_usable(found, stored, found.max_abs) / scale, where))
    return worst(figures)


def _usable(found: TensorDeviation, stored: NDArray[Any], value: float) -> float:
    """Return NaN where the stored tensor is itself not finite: equal NaN prove nothing."""
    return value if found.finite and np.isfinite(stored.astype(np.float64)).all() else math.nan


def worst(figures: Iterable[Figure]) -> Figure:
    """Return the largest figure; the first that is NaN or infinite before all others, and NaN where there is none."""
    top = Figure(math.nan, "nothing was compared")
    for figure in figures:
        if not math.isfinite(figure.value):
            return figure
        if math.isnan(top.value) or figure.value > top.value:
            top = figure
    return top


def checks_of(rows: Sequence[Row], tolerance: Tolerance) -> tuple[Check, ...]:
    """Return one check for each of the four tolerances, with the worst picture's figure."""
    stages = (
        ("input steps, worst value", [row.input_max for row in rows], tolerance.input_max, "levels"),
        ("input steps, mean", [row.input_mean for row in rows], tolerance.input_mean, "levels"),
        ("network", [row.network for row in rows], tolerance.network, ""),
        ("end to end", [row.end_to_end for row in rows], tolerance.end_to_end, ""),
    )
    return tuple(
        Check(name=name, measured=top.value, limit=limit, unit=unit, detail=top.where)
        for name, figures, limit, unit in stages
        for top in [worst(figures)]
    )
