"""A few pictures asked again, in another order, and all together: a model that keeps state answers otherwise then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.deviation import deviation
from plimsoll.errors import PlimsollError
from plimsoll.prove.paired_answers import ComparedModel

Array = NDArray[Any]

PICTURES = 4
_AGAIN = (40.0, 1e-3)
"""Two answers to one picture are one from this signal to noise on, in dB, or below this difference as a share of a
column's largest value (or of 1 in a head's scores). Kernels that sum in another order leave 60 dB and more."""
_TOGETHER = (15.0, 0.05)
"""An answer in a batch and alone: dynamic quantization takes one range for all pictures of a batch."""


@dataclass(frozen=True)
class Repeats:
    """What was otherwise when pictures were asked again."""

    pictures: int = 0
    reference: str = ""
    """How the reference contradicts itself; empty where it doesn't."""
    other: str = ""


def ask_again(reference: ComparedModel, other: ComparedModel, pictures: Sequence[str]) -> Repeats:
    """Ask both models a few pictures in order, in reverse order, and in one batch."""
    chosen = pictures[:PICTURES]
    (again, together), (other_again, other_together) = (_contradictions(model, chosen) for model in (reference, other))
    return Repeats(len(chosen), again, other_again or ("" if together else other_together))


def _contradictions(model: ComparedModel, pictures: Sequence[str]) -> tuple[str, str]:
    """Return how a model contradicts itself when asked again, and when asked all at once; empty where it doesn't."""
    tensors = [model.tensor(model.prepared(Path(picture))[0]) for picture in pictures]
    if not tensors:
        return "", ""
    try:
        first = [model.infer(tensor) for tensor in tensors]
        again = [model.infer(tensor) for tensor in reversed(tensors)][::-1]
    except PlimsollError as error:
        return f"asked again, it fails: {error.message}", ""
    for picture, before, after in zip(pictures, first, again, strict=True):
        if differing := _differing(model, before, after, _AGAIN):
            again_text = (
                f"the same picture gets another answer when it is asked again in another order ({Path(picture).name},"
                f" '{differing}'): the network keeps state between pictures, or draws at random"
            )
            return again_text, ""
    return "", _contradiction_together(model, pictures, tensors, first)


def _contradiction_together(
    model: ComparedModel, pictures: Sequence[str], tensors: Sequence[Array], first: Sequence[Mapping[str, Array]]
) -> str:
    if len(tensors) < 2 or len({tensor.shape for tensor in tensors}) > 1:
        return ""
    try:
        together = model.runner.infer(np.stack(tensors))
    except PlimsollError as error:
        return f"{len(tensors)} pictures at once fail: {error.message}"
    for index, (picture, alone) in enumerate(zip(pictures, first, strict=True)):
        part = {name: value[index : index + 1] for name, value in together.items()}
        if differing := _differing(model, alone, part, _TOGETHER):
            return (
                f"a picture gets another answer together with others than alone ({Path(picture).name}, '{differing}'):"
                " the network mixes the pictures of a batch"
            )
    return ""


def _differing(
    model: ComparedModel, first: Mapping[str, Array], second: Mapping[str, Array], limits: tuple[float, float]
) -> str:
    """Return the first column that differs by more than rounding; else nothing."""
    columns, others = model.task.columns(first), model.task.columns(second)
    for name, before in columns.items():
        after = others.get(name)
        if after is None or after.shape != before.shape or after.dtype != before.dtype:
            return name
        measured = deviation(before, after)
        # A head's columns that hold nothing but small scores differ by rounding alone.
        largest = max(float(np.abs(before).max(initial=0.0)), 1.0 if len(columns) > len(first) else 0.0)
        if measured.snr_db < limits[0] and measured.max_abs > limits[1] * largest:
            return name
    return ""
