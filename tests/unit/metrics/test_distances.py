"""Points and texts compared by hand."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll.metrics.distances import edit_distance, extent, point_errors


def test_the_extent_of_points_is_that_of_a_square_around_them() -> None:
    assert extent(np.array([[0, 0], [10, 10], [3, 7]])) == pytest.approx(10)
    assert extent(np.array([[0, 5], [10, 5]])) == pytest.approx(10 / 2**0.5), "in a row"
    assert extent(np.array([[4, 4, 9]])) == 0


def test_errors_are_distances() -> None:
    assert point_errors(np.array([[0, 0], [1, 1]]), np.array([[3, 4], [1, 1]])).tolist() == [5, 0]


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("AB-123", "AB123", 1), ("ab", "ba", 2)],
)
def test_edits(first: str, second: str, distance: int) -> None:
    assert edit_distance(first, second) == edit_distance(second, first) == distance
