"""Boxes in the picture: what a head reads, after suppression and in the picture's pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError, SpecError
from plimsoll.spec.spec import Detect
from plimsoll.tasks.base import Answer, Outputs, Task, decimal, geometry_at, position, require_scaled
from plimsoll.tasks.detect.coding import turned
from plimsoll.tasks.detect.columns import columns
from plimsoll.tasks.detect.heads import HEADS
from plimsoll.tasks.detect.masks import BoxMask, masks_of, planes_of_boxes, prototypes_of, weighted_planes
from plimsoll.tasks.detect.reading import Query
from plimsoll.tasks.detect.suppression import Candidates, blend, suppress, suppress_oriented

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
    points: tuple[tuple[float, ...], ...] = ()
    """(x, y), or (x, y, visibility), in the picture's pixels; they may lie outside of it. Empty but for networks that
    give points."""
    mask: BoxMask | None = None
    """The object's pixels; None but for networks that give masks."""
    corners: tuple[tuple[float, float], ...] = ()
    """Of a turned box, its four corners in order, in the picture's pixels; they may lie outside of it. `box` is the
    upright box around them, cut to the picture. Empty but for networks that give angles."""

    def row(self) -> dict[str, Any]:
        """Return it as plain data; positions to a hundredth of a pixel."""
        row: dict[str, Any] = {"label": self.label, "score": self.score, "box": [position(value) for value in self.box]}
        if self.points:
            row["points"] = [
                [position(x), position(y), *(round(float(value), 4) for value in rest)] for x, y, *rest in self.points
            ]
        if self.mask is not None:
            row["mask"] = self.mask.row()
        if self.corners:
            row["corners"] = [[position(x), position(y)] for x, y in self.corners]
        return row


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
        if spec.head == "ssd" and not spec.anchors and not spec.anchor_grid:
            why = (
                f"'{spec.anchors_file}' was not read: a Spec's anchors are read together with its file"
                if spec.anchors_file
                else "the Spec has none"
            )
            raise SpecError(
                f"output.head = 'ssd' needs anchors; {why}",
                "Name the file beside the Spec that has them in `output.anchors_file`, or give `output.anchor_grid`.",
            )
        self.spec = spec
        self.threshold = spec.confidence
        # TensorFlow Lite's operator knows no pixels. Boxes are turned in pixels, whatever the network gives.
        self.fractions = (spec.normalized and not spec.oriented) or spec.head == "tflite_postprocess"
        """Whether the network gives positions as shares of its input, not in pixels."""
        self._suppressed = (
            spec.head in ("tflite_postprocess", "selected")
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
        for name, values in outputs.items():
            if name != self.spec.masks:
                require_scaled(values, "boxes or scores")
        pictures = HEADS[self.spec.head](query, outputs)
        if self.spec.oriented and self.spec.normalized:
            scale = np.tile(self._input_size(geometry), 2)
            pictures = [replace(candidates, boxes=candidates.boxes * scale) for candidates in pictures]
        planes = self._prototypes(outputs, len(pictures))
        return [
            self._answer(self._suppress(candidates), geometry_at(geometries, index), planes[index] if planes else None)
            for index, candidates in enumerate(pictures)
        ]

    def _prototypes(self, outputs: Outputs, pictures: int) -> list[NDArray[np.float32]] | None:
        name = self.spec.prototypes
        if name is None:
            return None
        if name not in outputs:
            raise ModelError(
                f"the network has the outputs {', '.join(outputs)}; the Spec's prototypes are '{name}'",
                "Correct `output.prototypes` in the Spec.",
            )
        return list(prototypes_of(outputs[name], pictures, self.spec.coefficients))

    def _suppress(self, candidates: Candidates) -> Candidates:
        """Return what suppression leaves, best first: within each label, then across labels if the Spec says so."""
        spec, most = self.spec, self.spec.max_boxes
        if spec.oriented:
            staying = candidates.take(suppress_oriented(candidates, spec.iou))
            if spec.class_agnostic_iou is not None:
                staying = staying.take(suppress_oriented(staying, spec.class_agnostic_iou, across_labels=True))
            return staying.take(np.arange(min(most, len(staying.scores))))
        if spec.suppression == "blend" and not self._suppressed:
            return blend(candidates, spec.iou, most)
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
        return candidates.take(order[:most])

    def _answer(
        self, candidates: Candidates, geometry: ImageGeometry | None, planes: NDArray[np.float32] | None
    ) -> Detection:
        """Bring boxes into the picture; what lies outside of it, in the padding, is dropped."""
        in_input = candidates.boxes
        size = (1.0, 1.0)
        if geometry is not None and self.fractions:
            size = (float(geometry.input_width), float(geometry.input_height))
        corners = None
        if candidates.angles is not None:
            corners = turned(in_input, candidates.angles)
            in_input = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
            corners = corners if geometry is None else geometry.points(corners)
        boxes = in_input * np.tile(size, 2)
        if geometry is not None:
            boxes = geometry.boxes(boxes)
        inside = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        chosen = candidates.take(inside)
        points = _points(chosen.points, size, geometry)
        masks = self._masks(chosen, geometry, planes)
        return Detection(
            tuple(
                Box(
                    self.spec.labels[chosen.labels[at]],
                    decimal(chosen.scores[at]),
                    (float(x0), float(y0), float(x1), float(y1)),
                    points[at] if points else (),
                    masks[at] if masks else None,
                    tuple((float(x), float(y)) for x, y in corners[inside[at]]) if corners is not None else (),
                )
                for at, (x0, y0, x1, y1) in enumerate(boxes[inside])
            )
        )

    def _masks(
        self, chosen: Candidates, geometry: ImageGeometry | None, prototypes: NDArray[np.float32] | None
    ) -> list[BoxMask]:
        """Return the boxes' masks; none where the network gives none."""
        if chosen.masks is None and prototypes is None:
            return []
        size = self._input_size(geometry)
        own = chosen.boxes * np.tile(size if self.fractions else (1.0, 1.0), 2)
        if chosen.masks is not None:
            return masks_of(planes_of_boxes(chosen.masks, own, size), size, geometry)
        assert chosen.coefficients is not None and prototypes is not None  # noqa: S101, PT018 - YOLO heads give both
        return masks_of(weighted_planes(chosen.coefficients, prototypes, own, size), size, geometry)

    def _input_size(self, geometry: ImageGeometry | None) -> tuple[float, float]:
        """Return (width, height) of the network's input."""
        if geometry is not None:
            return float(geometry.input_width), float(geometry.input_height)
        height, width = self.input_size
        if height is None or width is None:
            raise ModelError(
                "masks and turned boxes need an input of a known size", "Give the input steps a fixed size."
            )
        return float(width), float(height)

    def columns(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        return columns(self.spec, outputs)

    def empty_row(self) -> dict[str, Any]:
        return {"boxes": None}


def _points(
    points: NDArray[np.float64] | None, size: tuple[float, float], geometry: ImageGeometry | None
) -> list[tuple[tuple[float, ...], ...]]:
    """Bring the points `[N, points, 2 or 3]` of boxes into the picture; what follows x and y stays as it is."""
    if points is None:
        return []
    places = points[..., :2] * size
    if geometry is not None:
        places = geometry.points(places)
    joined = np.concatenate([places, points[..., 2:]], axis=2)
    return [tuple(tuple(map(float, point)) for point in own) for own in joined]


DECODER = DetectTask
