"""Detection: boxes with a label and a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from plimsoll.errors import SpecError
from plimsoll.spec.output import Detect
from plimsoll.tasks.base import Answer, Outputs, Task, decimal, position, view_of
from plimsoll.tasks.detect.heads import HEADS, Candidates
from plimsoll.tasks.detect.suppression import suppress

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry


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

    needs_views: ClassVar[bool] = True

    def __init__(self, spec: Detect) -> None:
        if spec.head == "ssd" and not spec.anchors:
            why = (
                f"'{spec.anchors_file}' was not read: a Spec's anchors are read together with its file"
                if spec.anchors_file
                else "the Spec has none"
            )
            raise SpecError(
                f"output.head = 'ssd' needs anchors; {why}",
                "Say in `output.anchors_file` which file beside the Spec has them.",
            )
        self.spec = spec
        self.threshold = spec.confidence
        self._fractions = (
            spec.normalized or spec.head == "tflite_postprocess"
        )  # TensorFlow Lite's operator knows no pixels.

    def decode(
        self, outputs: Outputs, threshold: float | None = None, views: Sequence[ImageGeometry | None] | None = None
    ) -> list[Detection]:
        found = HEADS[self.spec.head](self.spec, outputs, self.spec.confidence if threshold is None else threshold)
        return [self._answer(self._best(one), view_of(views, place)) for place, one in enumerate(found)]

    def _best(self, found: Candidates) -> Candidates:
        """Keep what the suppressions leave, best first: within each label, then across labels where the Spec says so."""
        spec, most = self.spec, self.spec.max_boxes
        if spec.head == "tflite_postprocess":
            kept = np.argsort(-found.scores, kind="stable")  # Its operator has suppressed already.
        else:
            kept = suppress(
                found.boxes, found.scores, found.labels, spec.iou, most if spec.class_agnostic_iou is None else None
            )
        if spec.class_agnostic_iou is not None:
            kept = kept[suppress(found.boxes[kept], found.scores[kept], None, spec.class_agnostic_iou, most)]
        kept = kept[:most]
        return Candidates(found.boxes[kept], found.scores[kept], found.labels[kept])

    def _answer(self, found: Candidates, view: ImageGeometry | None) -> Detection:
        """Bring boxes into the picture; what lies outside of it, in the padding, is dropped."""
        boxes = found.boxes
        if view is not None:
            size = (view.input_width, view.input_height) if self._fractions else (1.0, 1.0)
            boxes = view.boxes(boxes * np.tile(size, 2))
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        labels = [self.spec.labels[place] for place in found.labels[inside]]
        scores = [decimal(score) for score in found.scores[inside]]
        corners = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in boxes[inside]]
        return Detection(tuple(Box(*one) for one in zip(labels, scores, corners, strict=True)))

    def empty_row(self) -> dict[str, Any]:
        return {"boxes": None}


DECODER = DetectTask
