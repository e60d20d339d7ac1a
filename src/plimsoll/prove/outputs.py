"""Two networks' raw outputs, compared: which belong together, and how far each quantity in them deviates.

A head's output is compared column by column (`Task.columns`): coordinates from 0 to 320 would drown scores from 0 to
1. Decoded answers say what a deviation means; the outputs show where it is, also in what no task reads.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.budget import BoundedFigure
from plimsoll.core.deviation import RunningDeviation, TensorDeviation
from plimsoll.metrics.decisions import CONFIDENCE, Floats, bounds
from plimsoll.prove.comparison import mean_figure
from plimsoll.spec import Spec
from plimsoll.tasks import Task

Array = NDArray[Any]
Outputs = Mapping[str, Array]
Power = dict[str, tuple[float, float]]
"""Column → the sums of squares of the reference and of the difference."""

SNR_MOST = 200.0
"""Stands for no noise at all: beyond float64's own, and a number that can be compared with a limit."""
_SCORE = ", score of "
"""In the names of a head's columns of scores. Their noise is held against the loudest of them: a label that no picture
shows has scores near 0, and no signal of its own."""


def matching(reference: Outputs, other: Outputs, specs: tuple[Spec, Spec]) -> dict[str, str]:
    """Return the reference's output name → the other's: by name; else those that the Specs read as the same; else by
    shape, in the outputs' order."""
    names = {name: name for name in reference if name in other}
    for first, second in zip(_read(specs[0]), _read(specs[1]), strict=False):
        if first in reference and second in other and first not in names and second not in names.values():
            names[first] = second
    for name, value in reference.items():
        if name not in names:
            free = [key for key in other if key not in names.values()]
            alike = [key for key in free if _squeezed(other[key].shape) == _squeezed(value.shape)]
            if alike or len(free) == 1:
                names[name] = (alike or free)[0]
    return {name: names[name] for name in reference if name in names}


def _read(spec: Spec) -> tuple[str, ...]:
    """Return the outputs that a Spec names, in the order of their meaning."""
    output = spec.output
    named = (getattr(output, "tensor", None), getattr(output, "presence", None))
    return (*getattr(output, "tensors", ()), *(name for name in named if name))


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def not_finite(reference: Outputs, other: Outputs, names: Mapping[str, str]) -> str:
    """Say which of the other's outputs has NaN or infinity where the reference has none; else nothing."""
    partners = {second: first for first, second in names.items()}
    for name, value in other.items():
        if value.dtype.kind != "f" or np.isfinite(value).all():
            continue
        bad = ~np.isfinite(value)
        partner = reference.get(partners.get(name, ""))
        if partner is not None and partner.size == value.size:
            bad &= np.isfinite(partner.reshape(value.shape).astype(np.float64))
        if bad.any():
            return f"the output '{name}' has NaN or infinity in {int(bad.sum()):,} of {value.size:,} values"
    return ""


@dataclass(frozen=True)
class OutputComparison:
    """How the other network's outputs differ from the reference's."""

    columns: dict[str, TensorDeviation]
    """By the reference's output names, a head's by its columns; over all pictures."""
    snr: BoundedFigure
    """Of the worst column, with its lower bound, in dB."""
    missing: tuple[str, ...] = ()
    """What can't be compared, in words: outputs that are not there, or of another shape."""
    constant: tuple[str, ...] = ()
    """What is the same for every picture, though the reference's is not."""
    score_deviation: BoundedFigure | None = None
    """The mean absolute difference of a label's raw scores over all of a detector's candidates, both in rising order
    since heads may list their boxes in any; of the worst label."""


@dataclass
class OutputSums:
    """The differences of all pictures so far; holds sums, no tensors."""

    columns: dict[str, RunningDeviation] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    _scores: dict[str, list[float]] = field(default_factory=dict)
    _hashes: dict[str, tuple[set[int], set[int]]] = field(default_factory=dict)

    def add(self, task: Task, reference: Outputs, other: Outputs, names: Mapping[str, str]) -> Power:
        """Add a picture's outputs and return its power."""
        for name in reference.keys() - names.keys():
            self.missing.setdefault(name, f"the output '{name}' is missing; it has {', '.join(other) or 'none'}")
        power: Power = {}
        for name, other_name in names.items():
            first, second = reference[name], other[other_name]
            if _squeezed(first.shape) != _squeezed(second.shape):
                text = f"the output '{other_name}' is {list(second.shape)}, the reference's {list(first.shape)}"
                if sorted(_squeezed(first.shape)) == sorted(_squeezed(second.shape)):
                    text += ": transposed"
                self.missing.setdefault(name, text)
                continue
            for side, value in enumerate((first, second)):
                self._hashes.setdefault(name, (set(), set()))[side].add(zlib.crc32(np.ascontiguousarray(value).data))
        present = [name for name in names if name not in self.missing]
        aligned = {name: other[names[name]].reshape(reference[name].shape) for name in present}
        seconds = task.columns({**reference, **aligned})
        for column, first in task.columns(reference).items():
            if not any(column == name or column.startswith(f"{name}, ") for name in present):
                continue
            second = seconds[column]
            self.columns.setdefault(column, RunningDeviation()).add(first, second)
            power[column] = power_of(first, second)
            if _SCORE in column:
                ordered = (np.sort(values.astype(np.float64), axis=None) for values in (first, second))
                self._scores.setdefault(column, []).append(float(np.abs(np.subtract(*ordered)).mean()))
        return power

    def comparison(self, powers: Sequence[Power], scores_are_shares: bool) -> OutputComparison:
        """Compare all pictures; `powers` are what `add` returned for each."""
        constant = [
            f"the output '{name}' is the same for every picture"
            for name, (first, second) in self._hashes.items()
            if len(second) == 1 and len(first) > 1
        ]
        return OutputComparison(
            {column: running.deviation for column, running in self.columns.items()},
            signal_to_noise(list(self.columns), powers),
            tuple(self.missing.values()),
            tuple(constant),
            self._score_deviation() if scores_are_shares and self._scores else None,
        )

    def _score_deviation(self) -> BoundedFigure:
        worst = max(self._scores, key=lambda column: sum(self._scores[column]))
        means = self._scores[worst]
        return mean_figure("mean deviation of raw scores", means, [1.0] * len(means), f"worst at '{worst}'")


def power_of(reference: Array, other: Array) -> tuple[float, float]:
    """Return the sums of squares of the reference and of the difference; infinite noise where only one side is a
    number."""
    first, second = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    usable = np.isfinite(first) & np.isfinite(second)
    if not np.array_equal(first[~usable], second[~usable], equal_nan=True):
        return float(np.square(first[usable]).sum()), math.inf
    return float(np.square(first[usable]).sum()), float(np.square(second[usable] - first[usable]).sum())


def signal_to_noise(columns: Sequence[str], powers: Sequence[Power]) -> BoundedFigure:
    """Return the signal to noise of the worst column with its lower bound by the bootstrap over pictures, in dB."""
    name = "signal to noise of the outputs"
    sums = {
        column: np.array([power[column] for power in powers if column in power], np.float64).reshape(-1, 2).T
        for column in columns
    }
    scores = [column for column in columns if _SCORE in column]
    loudest = {
        output: max(
            (sums[column][0] for column in scores if column.startswith(output + _SCORE)),
            key=lambda signal: signal.sum(),
        )
        for output in {column.partition(_SCORE)[0] for column in scores}
    }
    sums |= {column: np.stack([loudest[column.partition(_SCORE)[0]], sums[column][1]]) for column in scores}
    values = {
        column: decibels(float(signal.sum()), float(noise.sum()))
        for column, (signal, noise) in sums.items()
        if len(signal)
    }
    if not values:
        return BoundedFigure(name, math.nan, math.nan, "no output was compared")
    worst = min(values, key=lambda column: values[column])
    signal, noise = sums[worst]

    def drawn(weights: Floats) -> float:
        return decibels(float(weights @ signal), float(weights @ noise))

    lower, *_ = bounds(drawn, len(signal), CONFIDENCE) if math.isfinite(values[worst]) else (values[worst],)
    return BoundedFigure(name, values[worst], lower, f"worst at '{worst}', {len(signal):,} pictures")


def decibels(signal: float, noise: float) -> float:
    """Return a ratio of powers in dB, within ±SNR_MOST; minus infinity where one isn't a number."""
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return -math.inf
    if noise == 0.0:
        return SNR_MOST
    return min(SNR_MOST, 10 * math.log10(signal / noise)) if signal else -SNR_MOST
