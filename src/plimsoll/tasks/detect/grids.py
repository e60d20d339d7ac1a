"""Heads that predict a box in each cell of several grids, one a stride: NanoDet (generalized focal loss), YuNet.

Sources: Li et al. 2020, "Generalized Focal Loss" (arXiv 2006.04388), `distance2bbox` and `Integral` of NanoDet;
`FaceDetectorYNImpl::postProcess` of OpenCV.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec.spec import Detect
from plimsoll.tasks.base import Outputs, activate, require_finite
from plimsoll.tasks.detect.reading import Query, best_labels, named, require_probabilities
from plimsoll.tasks.detect.suppression import Candidates


def cells(
    strides: Sequence[int], size: tuple[int | None, int | None], counts: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Return the left upper corners of each grid's cells `[cells, 2]` (x, y) in pixels, row by row, for grids of so
    many cells. A size that isn't known is a square, as large as the cells say; a grid is rounded up where its stride
    doesn't divide the input. Raises ModelError for another number of cells."""
    height, width = size
    if height is None or width is None:
        height = width = round(math.sqrt(sum(counts) / sum(1 / stride**2 for stride in strides)))
    grids = []
    for stride, count in zip(strides, counts, strict=True):
        tall, wide = -(-height // stride), -(-width // stride)
        if tall * wide != count:
            raise ModelError(
                f"the network gives {count:,} boxes at stride {stride}; an input of {width} x {height} pixels has"
                f" {tall * wide:,} cells",
                "Correct `output.strides` or the order of `output.tensors` in the Spec.",
            )
        columns, lines = np.meshgrid(np.arange(wide, dtype=np.float64), np.arange(tall, dtype=np.float64))
        grids.append(np.stack([columns.ravel(), lines.ravel()], axis=1) * stride)
    return grids


def nanodet(query: Query, outputs: Outputs) -> list[Candidates]:
    """Read, for each stride, scores `[N, cells, labels]` and distances `[N, cells, 4 x bins]`: for left, top, right and
    bottom the distribution of the side's distance from the cell's centre, in strides; or one output with all grids'
    scores and distances side by side."""
    spec = query.spec
    grids = list(_scores_and_distances(query, outputs))
    corners = cells(spec.strides, query.size, [scores.shape[1] for scores, _ in grids])
    pictures = []
    for index in range(len(grids[0][0])):
        parts = []
        for (scores, distances), corner, stride in zip(grids, corners, spec.strides, strict=True):
            reaching = scores[index].max(axis=1) >= query.threshold
            bins = distances[index][reaching].reshape(-1, 4, distances.shape[2] // 4).astype(np.float32)
            sides = activate(bins, "softmax").astype(np.float64) @ np.arange(bins.shape[2]) * stride
            centres = corner[reaching] + spec.cell_offset * stride
            boxes = np.concatenate([centres - sides[:, :2], centres + sides[:, 2:]], axis=1)
            parts.append(best_labels(query, boxes, scores[index][reaching]))
        pictures.append(_joined(parts))
    return pictures


def _scores_and_distances(query: Query, outputs: Outputs) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
    spec, labels = query.spec, len(query.spec.labels)
    names = spec.tensors or tuple(outputs)
    if len(names) == 1:
        (table,) = named(spec, outputs, 1)
        counts = [tall * wide for tall, wide in _grid_sizes(spec, query.size)] if table.ndim == 3 else []
        if sum(counts) != table.shape[1]:
            raise _misfit(table, f"[N, {sum(counts):,}, {labels} + 4 x bins]")
        edges = np.cumsum([0, *counts])
        arrays = [
            part
            for start, end in pairwise(edges)
            for part in (table[:, start:end, :labels], table[:, start:end, labels:])
        ]
    else:
        arrays = named(spec, outputs, 2 * len(spec.strides))
    for scores, distances in zip(arrays[::2], arrays[1::2], strict=True):
        fits = scores.ndim == distances.ndim == 3 and scores.shape[:2] == distances.shape[:2]
        if not fits or scores.shape[2] != labels or distances.shape[2] % 4 or distances.shape[2] < 8:
            raise _misfit(scores, f"scores [N, cells, {labels}] and distances [N, cells, 4 x bins] for each stride")
        require_finite(scores, "scores")
        require_finite(distances, "distances")
        shares = activate(scores.astype(np.float32), spec.activation)
        require_probabilities(shares)
        yield shares, distances


def _grid_sizes(spec: Detect, size: tuple[int | None, int | None]) -> list[tuple[int, int]]:
    height, width = size
    if height is None or width is None:
        raise ModelError(
            "the size of the network's input is not known, so neither is which box belongs to which grid",
            "Give the input steps a fixed size.",
        )
    return [(-(-height // stride), -(-width // stride)) for stride in spec.strides]


def yunet(query: Query, outputs: Outputs) -> list[Candidates]:
    """Read classes, objectness, boxes and points, each for every stride: `[N, cells, labels]`, `[N, cells, 1]`,
    `[N, cells, 4]`, `[N, cells, 2 x points]`. A score is the geometric mean of class and objectness."""
    spec, count = query.spec, len(query.spec.strides)
    kinds = 4 if spec.points else 3
    arrays = named(spec, outputs, kinds * count)
    columns = (len(spec.labels), 1, 4, 2 * spec.points)[:kinds]
    for index, array in enumerate(arrays):
        if array.ndim != 3 or array.shape[2] != columns[index // count]:
            raise _misfit(array, f"[N, cells, {columns[index // count]}] as output {index + 1} of {len(arrays)}")
        require_finite(array, "boxes or scores")
    corners = cells(spec.strides, query.size, [array.shape[1] for array in arrays[:count]])
    pictures = []
    for index in range(len(arrays[0])):
        parts = []
        for grid, (corner, stride) in enumerate(zip(corners, spec.strides, strict=True)):
            classes, objectness, places, *points = (array[index].astype(np.float32) for array in arrays[grid::count])
            scores = np.sqrt(np.clip(classes, 0, 1) * np.clip(objectness, 0, 1))
            reaching = scores.max(axis=1) >= query.threshold
            origin, offsets = corner[reaching], places[reaching].astype(np.float64) * stride
            with np.errstate(over="ignore"):
                halves = np.exp(places[reaching, 2:].astype(np.float64)) * stride / 2
            require_finite(halves, "box sizes")
            centres = origin + offsets[:, :2]
            boxes = np.concatenate([centres - halves, centres + halves], axis=1)
            own = None
            if points:
                own = (
                    points[0][reaching].reshape(-1, spec.points, 2).astype(np.float64) * stride + origin[:, np.newaxis]
                )
            parts.append(best_labels(query, boxes, scores[reaching], own))
        pictures.append(_joined(parts))
    return pictures


def _joined(parts: Sequence[Candidates]) -> Candidates:
    points = [part.points for part in parts if part.points is not None]
    return Candidates(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(points) if points else None,
    )


def _misfit(output: NDArray[Any], expected: str) -> ModelError:
    return ModelError(
        f"the network's output is {list(output.shape)}; the head reads {expected}",
        "Correct `output.tensors`, `output.labels`, `output.strides` or `output.points` in the Spec.",
    )
