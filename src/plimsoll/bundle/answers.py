"""Golden answers, compared as `prove` compares answers: what outputs mean, and a head's outputs column by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.metrics.boxes import compare_boxes, lowered
from plimsoll.metrics.distances import edit_distance, extent, point_errors
from plimsoll.preprocessing import ImageGeometry
from plimsoll.spec import Spec
from plimsoll.tasks import Answer, Task, decoder
from plimsoll.tasks.detect import Detection, DetectTask
from plimsoll.tasks.landmarks import Points
from plimsoll.tasks.segment import Segmentation
from plimsoll.tasks.text import Line

Outputs = Mapping[str, NDArray[Any]]

DECODED = frozenset({"detect", "landmarks", "segment", "text"})
"""The tasks whose answers are more than their outputs."""

_WHOLE = 1.0


def has_columns(spec: Spec) -> bool:
    """Return whether the task's outputs hold several quantities that must be compared apart."""
    return spec.output.task in ("detect", "landmarks")


def columns(spec: Spec, outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Return the quantities in one picture's outputs, each with the batch axis first."""
    return decoder(spec).columns(outputs)


def row(spec: Spec, outputs: Outputs, geometry: ImageGeometry) -> dict[str, Any]:
    """Return the answer to one picture as plain data, with positions in its pixels; raises ModelError."""
    return decoder(spec).decode(outputs, geometries=[geometry])[0].row()


def difference(spec: Spec, stored: Outputs, outputs: Outputs) -> float:
    """Return how much of one picture's decoded answer changed, from 0 to 1; raises ModelError for outputs that can't be
    decoded.

    Boxes: the largest of the share that is lost or added (a score that moves across the threshold is neither), of
    1 - IoU, and of the scores' differences. Masks: the share of pixels that change. Points: the largest distance as a
    share of their extent. Text: the share of characters to edit.
    """
    task = decoder(spec)
    return answer_difference(_decoded(task, stored), _decoded(task, outputs), task.threshold or 0.0)


def answer_difference(first: Answer, second: Answer, threshold: float) -> float:
    """Return how much of a decoded answer changed, from 0 to 1; boxes count from `threshold` on."""
    if isinstance(first, Detection) and isinstance(second, Detection):
        changes = compare_boxes(first.boxes, second.boxes, (threshold, threshold))
        boxes = max(changes.reference, changes.other)
        moved = (changes.lost + changes.added) / boxes if boxes else 0.0
        return max(moved, changes.largest_error, changes.largest_score_difference)
    if isinstance(first, Segmentation) and isinstance(second, Segmentation):
        before, after = first.pixels(), second.pixels()
        return float((before != after).mean()) if before.shape == after.shape else _WHOLE
    if isinstance(first, Points) and isinstance(second, Points):
        points, others = (np.array(answer.points, np.float64) for answer in (first, second))
        return float(point_errors(points, others).max()) / (extent(points) or _WHOLE)
    if isinstance(first, Line) and isinstance(second, Line):
        return edit_distance(first.text, second.text) / max(len(first.text), len(second.text), 1)
    return 0.0


def _decoded(task: Task, outputs: Outputs) -> Answer:
    """Decode one picture in the network's own coordinates; boxes also from just below the threshold on."""
    threshold = lowered(task.threshold or 0.0) if isinstance(task, DetectTask) else None
    return task.decode(outputs, threshold)[0]
