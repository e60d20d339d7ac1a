"""Boxes in the picture: what a head reads, after suppression and in the picture's pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import SpecError
from plimsoll.spec.spec import Detect
from plimsoll.tasks.base import Answer, Outputs, Task, decimal, geometry_at, position
from plimsoll.tasks.detect.columns import columns
from plimsoll.tasks.detect.heads import HEADS, Candidates, Query

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry


MAX_CANDIDATES = 30_000
"""Suppression considers at most this many of the best boxes, as Ultralytics does; there are more only if the threshold
is near 0."""


@dataclass(frozen=True)
class Box:
    """One object."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in the picture's pixels, counted from its outer left and top edge, so that x1 - x0 is the width.
    """

    def row(self) -> dict[str, Any]:
        """Return it as plain data; positions to a hundredth of a pixel."""
        return {"label": self.label, "score": self.score, "box": [position(value) for value in self.box]}


@dataclass(frozen=True)
class Detection(Answer):
    """The objects in one picture."""

    boxes: tuple[Box, ...]
    """Best first."""

    def severity(self) -> float:
        return self.boxes[0].score if self.boxes else 0.0

    def row(self, top: int | None = None) -> dict[str, Any]:
        return {"boxes": [box.row() for box in self.boxes[:top]]}

    def brief(self) -> str:
        if not self.boxes:
            return "no boxes"
        return f"{len(self.boxes)} box{'es' if len(self.boxes) > 1 else ''}: " + ", ".join(
            f"{label} {most:.2f}" if count == 1 else f"{count} {label} {most:.2f}"
            for label, count, most in self._by_label()
        )

    def _by_label(self) -> list[tuple[str, int, float]]:
        """Return each label with the number of its boxes and the best score, best first."""
        counts = Counter(box.label for box in self.boxes)
        best = {box.label: box.score for box in reversed(self.boxes)}
        return [(label, count, best[label]) for label, count in counts.items()]

    def readings(self) -> Sequence[str]:
        return [box.label for box in self.boxes] or ("without boxes",)


class DetectTask(Task):
    """Decodes boxes by the Spec's head, suppresses those that lie on better ones, and brings the rest into the
    picture's pixels."""

    needs_geometry: ClassVar[bool] = True

    def __init__(self, spec: Detect) -> None:
        if spec.head == "ssd" and not spec.anchors:
            why = (
                f"'{spec.anchors_file}' was not read: a Spec's anchors are read together with its file"
                if spec.anchors_file
                else "the Spec has none"
            )
            raise SpecError(
                f"output.head = 'ssd' needs anchors; {why}",
                "Name the file beside the Spec that has them in `output.anchors_file`.",
            )
        self.spec = spec
        self.threshold = spec.confidence
        self._fractions = (
            spec.normalized or spec.head == "tflite_postprocess"
        )  # TensorFlow Lite's operator knows no pixels.
        self._suppressed = (
            spec.head == "tflite_postprocess"
            or (spec.head == "rows" and "scores" not in spec.columns)
            or (spec.head == "boxes" and len(spec.tensors) == 3)
        )
        """Whether the network has suppressed already: it gives labels, not the scores of all."""

    def decode(
        self,
        outputs: Outputs,
        threshold: float | None = None,
        geometries: Sequence[ImageGeometry | None] | None = None,
    ) -> list[Detection]:
        size, geometry = self.input_size, geometry_at(geometries, 0)
        if geometry is not None:
            size = (geometry.input_height, geometry.input_width)
        query = Query(self.spec, self.spec.confidence if threshold is None else threshold, size)
        pictures = HEADS[self.spec.head](query, outputs)
        return [
            self._answer(self._suppress(candidates), geometry_at(geometries, index))
            for index, candidates in enumerate(pictures)
        ]

    def _suppress(self, candidates: Candidates) -> Candidates:
        """Return what suppression leaves, best first: within each label, then across labels if the Spec says so."""
        spec, most = self.spec, self.spec.max_boxes
        if self._suppressed:
            order = np.argsort(-candidates.scores, kind="stable")
        else:
            order = suppress(
                candidates.boxes,
                candidates.scores,
                candidates.labels,
                spec.iou,
                most if spec.class_agnostic_iou is None else None,
            )
        if spec.class_agnostic_iou is not None:
            order = order[
                suppress(candidates.boxes[order], candidates.scores[order], None, spec.class_agnostic_iou, most)
            ]
        order = order[:most]
        return Candidates(candidates.boxes[order], candidates.scores[order], candidates.labels[order])

    def _answer(self, candidates: Candidates, geometry: ImageGeometry | None) -> Detection:
        """Bring boxes into the picture; what lies outside of it, in the padding, is dropped."""
        boxes = candidates.boxes
        if geometry is not None:
            size = (geometry.input_width, geometry.input_height) if self._fractions else (1.0, 1.0)
            boxes = geometry.boxes(boxes * np.tile(size, 2))
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        labels = [self.spec.labels[index] for index in candidates.labels[inside]]
        scores = [decimal(score) for score in candidates.scores[inside]]
        corners = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in boxes[inside]]
        return Detection(tuple(Box(*box) for box in zip(labels, scores, corners, strict=True)))

    def columns(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        return columns(self.spec, outputs)

    def empty_row(self) -> dict[str, Any]:
        return {"boxes": None}


def suppress(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float32],
    labels: NDArray[np.intp] | None,
    iou: float,
    most: int | None = None,
) -> NDArray[np.intp]:
    """Non-maximum suppression: return the indices of the boxes that stay, best first. Greedily, each box removes those
    after it that overlap it by more than `iou`.

    `boxes` `[N, 4]` holds x0, y0, x1, y1; the overlap is intersection / union. With `labels` `[N]`, only boxes of one
    label remove each other. Of equal scores the earlier box goes first, so the result is always the same. A box without
    an area overlaps nothing. `most` stops early.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    x0, y0, x1, y1 = boxes[order].T
    areas = np.maximum(x1 - x0, 0.0) * np.maximum(y1 - y0, 0.0)
    own = np.zeros(len(order), np.intp) if labels is None else labels[order]
    remaining = np.arange(len(order))
    chosen: list[int] = []
    while remaining.size and (most is None or len(chosen) < most):
        best, remaining = remaining[0], remaining[1:]
        chosen.append(int(best))
        width = np.minimum(x1[best], x1[remaining]) - np.maximum(x0[best], x0[remaining])
        height = np.minimum(y1[best], y1[remaining]) - np.maximum(y0[best], y0[remaining])
        shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        # A product instead of a quotient: two boxes without an area would be 0 / 0.
        covered = shared > iou * (areas[best] + areas[remaining] - shared)
        remaining = remaining[~(covered & (own[remaining] == own[best]))]
    return order[chosen]


DECODER = DetectTask
