"""Which detection belongs to which track: the assignment with the largest sum of overlaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def overlaps(first: Floats, second: Floats) -> Floats:
    """Return intersection over union `[M, N]` of boxes `[M, 4]` and `[N, 4]` (x0, y0, x1, y1)."""
    corners = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(corners[1] - corners[0], 0.0).prod(axis=2)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0).prod(axis=1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12))


def pairs(gains: Floats, least: float) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Match rows with columns so that the sum of gains is largest, and drop pairs whose gain is below `least`.

    Returns the pairs, and the rows and columns without a partner.
    """
    rows, columns = gains.shape
    usable = np.where(gains >= least, gains, 0.0)
    matched: list[tuple[int, int]] = []
    best = usable.argmax(axis=1)
    own = np.flatnonzero(usable[np.arange(rows), best])
    if len({*best[own].tolist()}) == len(own):  # Nobody wants another's: there is no larger sum.
        matched = list(zip(own.tolist(), best[own].tolist(), strict=True))
    else:
        # Rows and columns that touch nothing would only make the matrix larger.
        some_rows, some_columns = np.flatnonzero(usable.any(axis=1)), np.flatnonzero(usable.any(axis=0))
        cost = -usable[np.ix_(some_rows, some_columns)]
        partners = _assign(cost) if len(cost) <= cost.shape[1] else _inverted(_assign(cost.T), len(cost))
        matched = [
            (int(some_rows[row]), int(some_columns[column]))
            for row, column in enumerate(partners)
            if column >= 0 and cost[row, column] < 0
        ]
    taken_rows, taken_columns = {row for row, _ in matched}, {column for _, column in matched}
    return (
        matched,
        [row for row in range(rows) if row not in taken_rows],
        [column for column in range(columns) if column not in taken_columns],
    )


def _inverted(partners: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    inverted = np.full(count, -1, np.intp)
    inverted[partners] = np.arange(len(partners))
    return inverted


def _assign(cost: Floats) -> NDArray[np.intp]:
    """Return the column of each row with the least sum of costs; there are at least as many columns as rows.

    The Hungarian method by shortest augmenting paths, O(rows² x columns): one row after another finds its way to a free
    column, along which the rows before it change theirs.
    """
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1, np.intp)
    for row in range(rows):
        distance, came_from = np.full(columns, np.inf), np.full(columns, -1, np.intp)
        done = np.zeros(columns, bool)
        current, column, length = row, -1, 0.0
        while True:
            reached = length + cost[current] - row_price[current] - column_price
            closer = ~done & (reached < distance)
            distance[closer], came_from[closer] = reached[closer], column
            column = int(np.where(done, np.inf, distance).argmin())
            length, done[column] = float(distance[column]), True
            if owner[column] < 0:
                break
            current = int(owner[column])
        settled = np.flatnonzero(done)
        settled = settled[settled != column]
        row_price[row] += length
        row_price[owner[settled]] += length - distance[settled]
        column_price[settled] -= length - distance[settled]
        while column >= 0:
            before = int(came_from[column])
            owner[column] = owner[before] if before >= 0 else row
            column = before
    assigned = np.full(rows, -1, np.intp)
    owned = np.flatnonzero(owner >= 0)
    assigned[owner[owned]] = owned
    return assigned
