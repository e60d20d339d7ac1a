"""Preprocessing, step by step: each step on pixels is compared alone, on the same pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from plimsoll.errors import ImageError
from plimsoll.preprocessing.decode import read
from plimsoll.preprocessing.preprocessor import ImageSource
from plimsoll.prove.compared_model import Array, ComparedModel, PixelStage
from plimsoll.spec.steps import Step

PICTURES = 8
"""How many are looked at; a step that differs shows on the first."""


@dataclass(frozen=True)
class StageDifference:
    """How a step on pixels differs when both models' steps get the same pixels: the reference's."""

    stage: str
    mean_levels: float
    """Mean absolute difference, in levels of 255; infinite where the sizes differ."""
    max_levels: float
    pictures: int
    note: str = ""
    """How the Specs differ there; empty where only the implementation differs, or nothing."""


@dataclass
class _RunningDifference:
    note: str
    pictures: int = 0
    total: float = 0.0
    largest: float = 0.0

    def add(self, first: Array, second: Array) -> None:
        self.pictures += 1
        if first.shape != second.shape:
            self.total = self.largest = float("inf")
            self.note = self.note or f"sizes differ: {_size(second)} where the reference has {_size(first)}"
            return
        difference = np.abs(first.astype(np.float32) - second.astype(np.float32))
        self.total += float(difference.mean(dtype=np.float64))
        self.largest = max(self.largest, float(difference.max(initial=0.0)))


def compare(
    reference: ComparedModel, other: ComparedModel, pictures: Iterable[ImageSource]
) -> tuple[StageDifference, ...]:
    """Run both models' steps on pixels side by side over a few pictures and return one row per step, in the reference's
    order.

    Each step gets the output of the reference's steps before it, so a difference is counted where it arises and nowhere
    else. A step that only one model has is a row as well. Pictures that can't be decoded are left out.
    """
    aligned = list(_aligned(reference.pixel_stages, other.pixel_stages))
    sums = [_RunningDifference(_note(first, second)) for first, second in aligned]
    for count, picture in enumerate(pictures):
        if count >= PICTURES:
            break
        try:
            _add(picture, aligned, sums)
        except ImageError:
            continue
    names = [stage.step.step for first, second in aligned if (stage := first or second) is not None]
    return tuple(
        StageDifference(name, running.total / max(running.pictures, 1), running.largest, running.pictures, running.note)
        for name, running in zip(names, sums, strict=True)
    )


_Pair = tuple[PixelStage | None, PixelStage | None]


def _aligned(reference: tuple[PixelStage, ...], other: tuple[PixelStage, ...]) -> Iterator[_Pair]:
    names, other_names = ([stage.step.step for stage in stages] for stages in (reference, other))
    matcher = SequenceMatcher(None, names, other_names, autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        if kind == "equal":
            yield from zip(reference[start:end], other[other_start:other_end], strict=True)
        else:
            yield from ((stage, None) for stage in reference[start:end])
            yield from ((None, stage) for stage in other[other_start:other_end])


def _add(picture: ImageSource, aligned: list[_Pair], sums: list[_RunningDifference]) -> None:
    current: bytes | Array = read(picture)
    for (first, second), running in zip(aligned, sums, strict=True):
        after = first(current) if first is not None else current
        other_after = second(current) if second is not None else current
        if not isinstance(after, bytes) and not isinstance(other_after, bytes):
            running.add(after, other_after)
        current = after


def _note(first: PixelStage | None, second: PixelStage | None) -> str:
    if second is None:
        return f"it has no '{first.step.step}' step here, the reference has one" if first is not None else ""
    if first is None:
        return f"it has a '{second.step.step}' step here, the reference has none"
    return "; ".join(_settings(first.step, second.step))


def _settings(first: Step, second: Step) -> Iterator[str]:
    for key in type(first).model_fields:
        value, other_value = getattr(first, key), getattr(second, key)
        if value != other_value and key not in {"formats", "max_megapixels"}:
            yield f"{key} = {_in_words(other_value)}, the reference has {_in_words(value)}"


def _in_words(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _size(pixels: Array) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
