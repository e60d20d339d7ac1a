"""From a network's grid of values to a label for every pixel of the picture.

The rule: the values are interpolated bilinearly to the pixel's centre (half-pixel centres, replicated border), and then
the label is decided. That is what training frameworks do who enlarge the logits before the argmax, and it gives smooth
edges where the nearest cell's label gives stairs.

It costs next to nothing: where the four cells around a pixel have one label, that label is the pixel's, since what is
largest at all four is largest in every mean of them (and what reaches a threshold at all four reaches it in between).
Values are interpolated along the edges alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plimsoll.tasks.segment.label_map import NOTHING

Decide = Callable[[NDArray[np.float32]], NDArray[np.uint16]]
"""From values `[…, planes]` to labels `[…]`."""

_MIXED = NOTHING - 1
_AT_ONCE = 1 << 16
"""Pixels whose values are interpolated together: 64 MB for 256 planes."""


@dataclass(frozen=True)
class _Axis:
    """For each pixel along one axis: its cells before and after, and how far it lies from the first towards the second."""

    between: NDArray[np.intp]
    """0 … cells: the gap it lies in; gap k is between the cells k - 1 and k, and the border repeats."""
    before: NDArray[np.intp]
    after: NDArray[np.intp]
    share: NDArray[np.float32]

    @classmethod
    def of(cls, positions: NDArray[np.float64], cells: int) -> _Axis:
        """Take positions in cells, counted from the outer edge; NaN lies anywhere."""
        centred = np.clip(np.nan_to_num(positions) - 0.5, -1.0, float(cells))
        first = np.minimum(np.floor(centred).astype(np.intp), cells - 1)
        share = np.asarray(centred - first, np.float32)
        return cls(first + 1, np.maximum(first, 0), np.minimum(first + 1, cells - 1), share)


def labels_at(
    values: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64], decide: Decide
) -> NDArray[np.uint16]:
    """Return `[len(y), len(x)]`: the label at each position, NOTHING where a position is NaN.

    `values` is `[height, width, planes]`; x and y are in its cells, counted from its outer left and top edge.
    """
    height, width, _ = values.shape
    columns, rows = _Axis.of(x, width), _Axis.of(y, height)
    found = _gaps(decide(values)).take(rows.between, axis=0).take(columns.between, axis=1)
    row, column = np.divmod(np.flatnonzero(found == _MIXED), len(x))
    for start in range(0, len(row), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found[row[part], column[part]] = decide(_interpolated(values, rows, columns, row[part], column[part]))
    found[np.isnan(y)] = NOTHING
    found[:, np.isnan(x)] = NOTHING
    return found


def nearest(labels: NDArray[np.uint16], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return the label of the cell that each position lies in: for a network that gives labels in place of values."""
    height, width = labels.shape
    column, row = (
        np.clip(np.floor(np.nan_to_num(at)), 0, size - 1).astype(np.intp) for at, size in ((x, width), (y, height))
    )
    found = labels.take(row, axis=0).take(column, axis=1)
    found[np.isnan(y)] = NOTHING
    found[:, np.isnan(x)] = NOTHING
    return found


def _gaps(labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return, for each gap between four cells `[height + 1, width + 1]`, the label that all four have, or _MIXED."""
    padded = np.pad(labels, 1, mode="edge")
    first, others = padded[:-1, :-1], (padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:])
    return np.where(np.logical_and.reduce([first == other for other in others]), first, np.uint16(_MIXED))


def _interpolated(
    values: NDArray[np.float32], rows: _Axis, columns: _Axis, row: NDArray[np.intp], column: NDArray[np.intp]
) -> NDArray[np.float32]:
    x, y = columns.share[column, np.newaxis], rows.share[row, np.newaxis]
    left, right = columns.before[column], columns.after[column]

    def along_x(line: NDArray[np.intp]) -> NDArray[np.float32]:
        first = values[line, left]
        return np.asarray(first + (values[line, right] - first) * x)

    top = along_x(rows.before[row])
    return np.asarray(top + (along_x(rows.after[row]) - top) * y)
