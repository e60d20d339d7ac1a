"""The answer to a file of several frames: that of its worst frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.preprocessing import ImageGeometry
from plimsoll.tasks import Answer, Task

Frame = tuple[int, NDArray[Any], ImageGeometry]
"""A frame's number in its file, its tensor without the batch axis, and where its pixels lie in the picture."""

_BATCH = 8
"""So many frames are held at once: a file of hundreds needs no more memory than one of ten."""


@dataclass(frozen=True)
class WorstFrame:
    """The answer to a file."""

    answer: Answer
    frame: int
    """The number of the frame that it is the answer to, from 0."""
    frames: int
    """How many frames were answered."""


def answer_worst(
    frames: Iterable[Frame],
    infer: Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]],
    task: Task,
    threshold: float | None,
    *,
    batches: bool = True,
) -> WorstFrame:
    """Answer frames as they come, and return the answer with the highest severity; of equal ones the first.

    `infer` takes a batch of tensors. Raises what reading the frames and `infer` raise, so that a file is answered whole
    or not at all.
    """
    worst: WorstFrame | None = None
    count = 0
    for group in _groups(frames, _BATCH if batches else 1):
        outputs = infer(np.stack([tensor for _, tensor, _ in group]))
        answers = task.decode(outputs, threshold, [geometry for _, _, geometry in group])
        for (number, _, _), answer in zip(group, answers, strict=True):
            count += 1
            if worst is None or answer.severity() > worst.answer.severity():
                worst = WorstFrame(answer, number, count)
    assert worst is not None  # noqa: S101 - every file has a first frame, or reading it has raised
    return WorstFrame(worst.answer, worst.frame, count)


def _groups(frames: Iterable[Frame], size: int) -> Iterator[Sequence[Frame]]:
    """Yield up to `size` frames of one shape at a time."""
    group: list[Frame] = []
    for frame in frames:
        if group and (len(group) == size or group[0][1].shape != frame[1].shape):
            yield group
            group = []
        group.append(frame)
    if group:
        yield group
