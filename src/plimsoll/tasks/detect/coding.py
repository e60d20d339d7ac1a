"""What four numbers of a box mean: corners, centre and size, offsets from anchors, offsets from the cells of a grid.

Sources: TensorFlow's object detection API (`FasterRcnnBoxCoder`, used by its SSD networks; Caffe's and PyTorch's SSD
compute the same with variances), Megvii's `YOLOXHead.decode_outputs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError


def corners(numbers: NDArray[Any], order: str) -> NDArray[np.float64]:
    """Return boxes `[N, 4]` (x0, y0, x1, y1) of four numbers each, in the order of a `box_format`."""
    numbers = np.asarray(numbers, np.float64)
    if order in ("yxhw", "yxyx"):
        numbers = numbers[:, [1, 0, 3, 2]]
    if order in ("xyxy", "yxyx"):
        return numbers
    centre, half = numbers[:, :2], numbers[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def turned(boxes: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners `[N, 4, 2]` of boxes `[N, 4]` (x0, y0, x1, y1), turned clockwise by angles `[N]` in radians
    about their centres; in the order of Ultralytics' `xywhr2xyxyxyxy`."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    cosine, sine = np.cos(angles)[:, np.newaxis], np.sin(angles)[:, np.newaxis]
    along = half[:, :1] * np.concatenate([cosine, sine], axis=1)
    across = half[:, 1:] * np.concatenate([-sine, cosine], axis=1)
    corners = np.stack([along + across, along - across, -along - across, across - along], axis=1)
    return np.asarray(centre[:, np.newaxis] + corners)


def centred(numbers: NDArray[np.float64], order: str) -> NDArray[np.float64]:
    """Return boxes `[N, 4]` (centre y, centre x, height, width) of four numbers each, in the order of a
    `box_format`."""
    x0, y0, x1, y1 = corners(numbers, order).T
    return numbers if order == "yxhw" else np.stack([(y0 + y1) / 2, (x0 + x1) / 2, y1 - y0, x1 - x0], axis=1)


def coder_scales(variances: Sequence[float]) -> NDArray[np.float64]:
    """Return the numbers that divide the network's values: TensorFlow's scales as they are; of Caffe's variances,
    which are 1 at most, one over each."""
    numbers = np.asarray(variances, np.float64)
    return 1 / numbers if numbers.max() <= 1 else numbers


def decode_boxes(
    locations: NDArray[Any],
    anchors: NDArray[np.float64],
    scales: Sequence[float] | NDArray[np.float64],
    *,
    linear: bool = False,
) -> NDArray[np.float64]:
    """Return boxes `[N, 4]` (x0, y0, x1, y1) of locations `[N, 4]` (y, x, h, w) against anchors `[N, 4]` (centre y,
    centre x, height, width).

    TensorFlow's FasterRcnnBoxCoder: centre = t / scale x anchor size + anchor centre; size = exp(t / scale) x anchor
    size. A linear coder, as of MediaPipe's `TensorsToDetectionsCalculator` without `apply_exponential_on_box_size`:
    size = t / scale x anchor size.
    """
    with np.errstate(over="ignore"):
        y, x, height, width = (np.asarray(locations, np.float64) / scales).T
        anchor_y, anchor_x, anchor_height, anchor_width = anchors.T
        centre_y, centre_x = y * anchor_height + anchor_y, x * anchor_width + anchor_x
        if not linear:
            height, width = np.exp(height), np.exp(width)
        half_height, half_width = height * anchor_height / 2, width * anchor_width / 2
        return np.stack(
            [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height], axis=1
        )


def grid_anchors(grids: Sequence[tuple[int, int]], size: tuple[int | None, int | None]) -> NDArray[np.float64]:
    """Return anchors `[N, 4]` (centre y, centre x, height, width) as fractions of the input: as large as the input, and
    centred in the cells of grids, each with its stride in pixels and its number of anchors a cell.

    MediaPipe's `SsdAnchorsCalculator` with `fixed_anchor_size`: layers that follow one another with the same stride are
    one grid with all their anchors. Raises ModelError where the input's size is not known.
    """
    height, width = size
    if height is None or width is None:
        raise ModelError("anchor_grid needs an input of a known size", "Give the input steps a fixed size.")
    anchors = []
    for stride, count in grids:
        tall, wide = -(-height // stride), -(-width // stride)
        y, x = np.meshgrid((np.arange(tall) + 0.5) / tall, (np.arange(wide) + 0.5) / wide, indexing="ij")
        cells = np.stack([y.ravel(), x.ravel(), np.ones(y.size), np.ones(y.size)], axis=1)
        anchors.append(np.repeat(cells, count, axis=0))
    return np.concatenate(anchors)


def decode_cells(
    offsets: NDArray[np.float32], strides: Sequence[int], height: int | None, width: int | None
) -> NDArray[np.float32]:
    """Return boxes `[N, cells, 4]` (centre x, centre y, width, height) of YOLOX's offsets from the cells of its grids,
    one a stride, row by row: centre = (t + cell) x stride, size = exp(t) x stride.

    `height` and `width` are the network's input's; None: it is a square, as large as its number of cells says. Raises
    ModelError for another number of cells.
    """
    count = offsets.shape[1]
    if height is None or width is None:
        height = width = round(math.sqrt(count / sum(1 / stride**2 for stride in strides)))
    shapes = [(height // stride, width // stride, stride) for stride in strides]
    total = sum(tall * wide for tall, wide, _ in shapes)
    if total != count:
        raise ModelError(
            f"the network gives {count:,} boxes; an input of {width} x {height} pixels has {total:,} cells at strides"
            f" {', '.join(map(str, strides))}",
            "Correct `output.strides` in the Spec; where the boxes are decoded already, use head = 'yolov5'.",
        )
    cells = [np.stack(np.meshgrid(np.arange(wide), np.arange(tall)), axis=2).reshape(-1, 2) for tall, wide, _ in shapes]
    steps = np.concatenate([np.full((tall * wide, 1), stride, np.float32) for tall, wide, stride in shapes])
    with np.errstate(over="ignore"):
        centres = (offsets[:, :, :2] + np.concatenate(cells).astype(np.float32)) * steps
        return np.concatenate([centres, np.exp(offsets[:, :, 2:]) * steps], axis=2)
