"""Two models' points in one picture, and two models' texts: how far one lies from the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def extent(points: NDArray[Any]) -> float:
    """Return the size that errors of points `[N, 2]` are divided by: the root of (width² + height²) / 2 of the box
    around them.

    For a square box that is Bulat and Tzimiropoulos' normalization by √(width x height) (arXiv 1703.07332); unlike
    theirs it is not 0 for points in a row. 0 where all points are one.
    """
    width, height = np.ptp(points[:, :2].astype(np.float64), axis=0)
    return float(np.sqrt((width**2 + height**2) / 2))


def point_errors(reference: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distance of each point `[N, dimensions]` from the reference's, in the points' unit."""
    return np.asarray(np.linalg.norm(other.astype(np.float64) - reference.astype(np.float64), axis=1))


def edit_distance(first: str, second: str) -> int:
    """Return the least number of characters to insert, delete or replace (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for i, character in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, expected in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (character != expected))
    return row[-1]
