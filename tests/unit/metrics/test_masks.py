"""Masks compared by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from plimsoll.metrics.masks import compare_masks, overlap

NONE = 65_535


def square(left: int, size: int = 40, side: int = 100, label: int = 1) -> Any:
    pixels = np.zeros((side, side), np.uint16)
    pixels[30 : 30 + size, left : left + size] = label
    return pixels


def test_the_confusion_counts_pixels() -> None:
    changes = compare_masks(square(20), square(30), 2)
    assert changes.confusion.tolist() == [[8000, 400, 0], [400, 1200, 0], [0, 0, 0]]
    assert (changes.pixels, changes.changed) == (10_000, 800)
    shared, union = overlap(changes.confusion)
    assert (shared / union).tolist() == pytest.approx([8000 / 8800, 1200 / 2000])


def test_pixels_without_a_label_are_no_label() -> None:
    changes = compare_masks(np.full((4, 4), NONE, np.uint16), np.full((4, 4), 1, np.uint16), 2)
    assert changes.confusion[2].tolist() == [0, 16, 0]
    assert changes.changed == 16
    assert overlap(changes.confusion)[1].tolist() == [0, 16]


def test_a_boundary_shows_what_a_large_mask_hides() -> None:
    same, shifted = (compare_masks(square(20, 60), square(left, 60), 2) for left in (20, 22))
    assert same.boundary[1, 0] == same.boundary[1, 1] == 60**2 - (60 - 2 * 3) ** 2, "a band of 2 % of 141 pixels"
    shared, union = overlap(shifted.confusion)
    assert shared[1] / union[1] > 0.93
    assert shifted.boundary[1, 0] / shifted.boundary[1, 1] < 0.75


def test_the_edge_of_the_picture_is_a_contour() -> None:
    changes = compare_masks(np.ones((10, 10), np.uint16), np.ones((10, 10), np.uint16), 2)
    assert changes.boundary[1].tolist() == [36, 36]
    assert changes.boundary[0].tolist() == [0, 0]
