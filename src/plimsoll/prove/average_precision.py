"""COCO's mean average precision of two detectors on labelled pictures, and the bound of its change.

pycocotools (extra `coco`) matches boxes, or masks, with the labelled ones; how sure the change is comes from the
bootstrap over pictures, which weighs these matches anew.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import require, translate
from plimsoll.errors import RunError
from plimsoll.metrics.average_precision import IOUS, LabelMatches, mean_average_precision
from plimsoll.metrics.decisions import upper_bound
from plimsoll.metrics.labelled import MetricChange, metric_change
from plimsoll.prove.annotations import TrueBox
from plimsoll.prove.labels import Truth
from plimsoll.tasks.detect import Box, BoxMask

MOST_BOXES = 100
"""Of each picture COCO counts the best so many."""
LEAST_SCORE = 0.001
"""From this score on boxes count: precision at every recall needs those below any threshold, too."""
_INSTALL = "pip install 'plimsoll-line[coco]'"


@dataclass(frozen=True)
class ScoredBoxes:
    """What a model finds in one picture, as far as the mean average precision needs it."""

    table: NDArray[np.float64]
    """`[boxes, 6]`: x0, y0, x1, y1, score, index of the label."""
    masks: tuple[BoxMask | tuple[float, ...] | None, ...]
    """Run lengths, or of turned boxes the corners x, y, x, y …"""
    points: NDArray[np.float64] | None = None
    """`[boxes, points, 2]`, x and y, of networks that give points."""

    @classmethod
    def of(cls, boxes: Sequence[Box], labels: dict[str, int], *, masks: bool) -> ScoredBoxes:
        """Return the best of a picture's boxes, which come best first."""
        best = boxes[:MOST_BOXES]
        rows = [(*box.box, box.score, labels[box.label]) for box in best]
        inside = [box.mask or tuple(value for corner in box.corners for value in corner) or None for box in best]
        points = [[point[:2] for point in box.points] for box in best]
        return cls(
            np.array(rows, np.float64).reshape(-1, 6),
            tuple(inside) if masks else (),
            np.array(points, np.float64) if any(points) else None,
        )


def changes_against(
    truths: Sequence[Truth | None],
    scored: Sequence[tuple[ScoredBoxes, ScoredBoxes] | None],
    labels: Sequence[str],
    points: int = 0,
    *,
    masks: bool,
) -> tuple[tuple[MetricChange, ...], int]:
    """Return mAP (IoU 0.5 to 0.95), mAP at 0.5, with `masks` where all objects have outlines the masks' mAP, and with
    `points` where some are marked that of the object key point similarity, of the reference and the other, and on how
    many labelled pictures; nothing where no object is labelled.

    Both sequences have an item a picture. Raises BackendMissingError without pycocotools.
    """
    known = [
        (truth, pair)
        for truth, pair in zip(truths, scored, strict=False)
        if isinstance(truth, tuple) and pair is not None
    ]
    boxes = [truth for truth, _ in known]
    counted = [box for truth in boxes for box in truth if not box.crowd]
    if not counted:
        return (), len(known)
    answers = [[pair[side] for _, pair in known] for side in (0, 1)]
    sides = [_matches(boxes, answer, labels, "bbox") for answer in answers]
    changes = [
        _change("map", sides, slice(None), len(known), len(counted)),
        _change("map50", sides, slice(1), len(known), len(counted)),
    ]
    if masks and all(box.outline for box in counted):
        sides = [_matches(boxes, answer, labels, "segm") for answer in answers]
        changes.append(_change("mask_map", sides, slice(None), len(known), len(counted)))
    if points and (marked := sum(any(seen for *_, seen in box.points) for box in counted)):
        sides = [_matches(boxes, answer, labels, "keypoints", points) for answer in answers]
        changes.append(_change("point_map", sides, slice(None), len(known), marked))
    return tuple(changes), len(known)


def _change(
    name: str, sides: Sequence[Sequence[LabelMatches]], overlaps: slice, pictures: int, objects: int
) -> MetricChange:
    """Bound a change by the bootstrap over pictures, and by what none lost of so many objects leaves possible: a sample
    doesn't show what is rarer than that."""
    first, second = (partial(mean_average_precision, [label.at(overlaps) for label in side]) for side in sides)
    change = metric_change(name, first, second, pictures, objects)
    if change.lower is None:
        return change
    return replace(change, lower=min(change.lower, -upper_bound(0, objects)))


def _matches(
    truths: Sequence[Sequence[TrueBox]],
    answers: Sequence[ScoredBoxes],
    labels: Sequence[str],
    kind: Literal["bbox", "segm", "keypoints"],
    points: int = 0,
) -> list[LabelMatches]:
    """Match one model's boxes, masks or points with the labelled ones, label by label."""
    cocoeval = require("pycocotools.cocoeval", _INSTALL)
    numbers = {label: at for at, label in enumerate(labels)}
    sizes = [_size(boxes, answer) for boxes, answer in zip(truths, answers, strict=True)]
    true_rows = [
        _row(at, numbers[box.label], box.box)
        | {"iscrowd": int(box.crowd), "segmentation": _clipped(box.outline, sizes[at])}
        | (_marked_points(box, points) if kind == "keypoints" else {})
        for at, boxes in enumerate(truths)
        for box in boxes
    ]
    rows = [row for at, boxes in enumerate(answers) for row in _scored_rows(at, boxes, sizes[at])]
    with translate(RunError, "matching boxes with the labels"), contextlib.redirect_stdout(io.StringIO()):
        evaluation = cocoeval.COCOeval(_dataset(true_rows, sizes, labels), _dataset(rows, sizes, labels), kind)
        parameters = evaluation.params
        parameters.areaRng, parameters.areaRngLbl, parameters.maxDets = [[0, 1e10]], ["all"], [MOST_BOXES]
        parameters.iouThrs = IOUS
        if kind == "keypoints" and points != len(parameters.kpt_oks_sigmas):
            parameters.kpt_oks_sigmas = np.full(points, 1 / points)
        evaluation.evaluate()
    count = len(truths)
    return [_of_label(evaluation.evalImgs[at * count : (at + 1) * count]) for at in range(len(labels))]


def _dataset(rows: list[dict[str, Any]], sizes: Sequence[tuple[int, int]], labels: Sequence[str]) -> Any:
    """Return annotations as pycocotools' `COCO`; their ids begin with 1, since 0 means "not matched" there."""
    data = require("pycocotools.coco", _INSTALL).COCO()
    data.dataset = {
        "images": [{"id": at, "height": height, "width": width} for at, (height, width) in enumerate(sizes)],
        "categories": [{"id": at, "name": label} for at, label in enumerate(labels)],
        "annotations": [{**row, "id": number} for number, row in enumerate(rows, 1)],
    }
    data.createIndex()
    return data


def _row(picture: int, label: int, corners: Sequence[float]) -> dict[str, Any]:
    x0, y0, x1, y1 = map(float, corners)
    return {
        "image_id": picture,
        "category_id": label,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }


def _marked_points(box: TrueBox, count: int) -> dict[str, Any]:
    """Return an object's key points; one without any is neither right nor wrong."""
    points = box.points or ((0.0, 0.0, 0),) * count
    area = {"area": box.area} if box.area > 0 else {}
    seen = sum(mark > 0 for *_, mark in points)
    return {"keypoints": [value for point in points for value in point], "num_keypoints": seen} | area


def _scored_rows(picture: int, boxes: ScoredBoxes, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    masks = boxes.masks or [None] * len(boxes.table)
    for at, ((*corners, score, label), mask) in enumerate(zip(boxes.table, masks, strict=True)):
        row = _row(picture, int(label), corners) | {"score": float(score)}
        if boxes.points is not None:
            row["keypoints"] = np.insert(boxes.points[at], 2, 1, axis=1).ravel().tolist()
        if mask is None:
            yield row
        else:
            yield row | {"segmentation": mask.row() if isinstance(mask, BoxMask) else _clipped([mask], size)}


def _size(truths: Sequence[TrueBox], boxes: ScoredBoxes) -> tuple[int, int]:
    """Return a picture's height and width as its masks have it; without any, as large as what lies in it."""
    for mask in boxes.masks:
        if isinstance(mask, BoxMask):
            return mask.height, mask.width
    places = [*(box.box for box in truths), *boxes.table[:, :4].tolist()]
    width, height = (max((math.ceil(box[side]) for box in places), default=1) for side in (2, 3))
    return max(height, 1), max(width, 1)


def _clipped(outline: Sequence[Sequence[float]], size: tuple[int, int]) -> list[list[float]]:
    """Return an object's outline inside the picture: pycocotools draws whatever it is given."""
    limits = np.array(size[::-1], np.float64)
    return [np.clip(np.reshape(polygon, (-1, 2)), 0, limits).ravel().tolist() for polygon in outline]


def _of_label(pictures: Sequence[dict[str, Any] | None]) -> LabelMatches:
    """Join what pycocotools says of a label's boxes in each picture."""
    present = [(at, match) for at, match in enumerate(pictures) if match is not None]
    truths = np.zeros(len(pictures), np.float64)
    for at, match in present:
        truths[at] = np.count_nonzero(np.asarray(match["gtIgnore"]) == 0)
    empty = np.zeros((len(IOUS), 0))
    scores = np.concatenate([np.zeros(0), *(match["dtScores"] for _, match in present)])
    matched = np.concatenate([empty, *(match["dtMatches"] for _, match in present)], axis=1) > 0
    ignored = np.concatenate([empty, *(match["dtIgnore"] for _, match in present)], axis=1) > 0
    indices = np.concatenate([np.zeros(0, np.intp), *(np.full(len(match["dtScores"]), at) for at, match in present)])
    order = np.argsort(-scores, kind="mergesort")
    hits, misses = matched & ~ignored, ~matched & ~ignored
    return LabelMatches(indices[order], hits[:, order], misses[:, order], truths).until_last_hit()
