"""Shrink a picture as Pillow's and TensorFlow's anti-aliased bilinear do, nearly, with what OpenCV has.

Both weigh the source's pixels by a triangle as wide as the reduction: for the output pixel `o` and the ratio `r`, the
pixel at distance `d` from `(o + 1/2) r - 1/2` counts `1 - |d| / r`. OpenCV samples with the narrow triangle (r = 1)
only. But a triangle is nearly a short symmetric filter of the source followed by that sampling, and exactly so where
`r` is a whole number. So: means of 2 × 2 while the picture is much too large, a few taps in each direction, bilinear
sampling. The taps are those with the least squared error of the weights over all places where a sample can fall. Mean
differences on photographs are in `docs/fast-preprocessing.md`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from plimsoll.preprocessing.pixels import Array

_HALVED_FROM = 4.0
"""Where both axes shrink by so much, a mean of 2 × 2 comes first: exact enough, and the taps stay few."""
_MOST_TAPS = 15
_PLACES = 8
"""So many places between two pixels the weights are compared at."""
_RATIO_STEP = 1 / 64
_TAP_STEP = 1 / 256
"""OpenCV computes filters of bytes with 8 bits; taps of that precision keep their sum of 1."""


def shrink(cv2: ModuleType, pixels: Array, width: int, height: int) -> Array | None:
    """Return uint8 [H, W, C] at a size that is not larger in either direction; None where one direction shrinks so much
    more that it would take long."""
    source_height, source_width = pixels.shape[:2]
    ratios = source_width / width, source_height / height
    mean = 1
    while min(ratios) / mean >= _HALVED_FROM:
        mean *= 2
    if _radius(max(ratios), mean) > _MOST_TAPS // 2:
        return None
    across, down = (taps(_RATIO_STEP * round(ratio / _RATIO_STEP), mean) for ratio in ratios)
    for _ in range(mean.bit_length() - 1):
        rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = cv2.resize(pixels[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    smooth = cv2.sepFilter2D(pixels, -1, across, down, borderType=cv2.BORDER_REPLICATE)
    if (smooth.shape[1] * mean, smooth.shape[0] * mean) == (source_width, source_height):
        sampled: Array = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        # An odd row or column was left behind, so the edges of what is left are not the picture's.
        x, y = ratios[0] / mean, ratios[1] / mean
        places = np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5]])
        sampled = cv2.warpAffine(
            smooth,
            places,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return sampled.reshape(height, width, -1)


@lru_cache(4096)
def taps(ratio: float, mean: int) -> NDArray[np.float32]:
    """Return the filter for a ratio, over pixels that are means of `mean` of the source's; an odd number of taps,
    symmetric, none negative, their sum is 1."""
    if ratio <= 1:
        return np.ones(1, np.float32)
    radius = _radius(ratio, mean)
    source = np.arange(-int(ratio) - mean - 2, int(ratio) + 2 * mean + 3)
    part = ((np.arange(_PLACES) + 0.5) / _PLACES)[:, np.newaxis, np.newaxis]
    tap = np.arange(-radius, radius + 1)[:, np.newaxis]
    # What each tap alone gives each source pixel when a sample falls a part of the way from one pixel to the next:
    # [part, tap, source].
    alone = ((1 - part) * (source // mean == tap) + part * (source // mean == tap + 1)) / mean
    triangle = np.maximum(0.0, 1 - np.abs(source - (part[:, 0] + 0.5) * mean + 0.5) / ratio)
    centre = alone[:, radius]
    unknown = alone[:, radius + 1 :] + alone[:, :radius][:, ::-1] - 2 * centre[:, np.newaxis]
    wanted = triangle / triangle.sum(axis=1, keepdims=True) - centre
    side = np.linalg.lstsq(unknown.transpose(0, 2, 1).reshape(-1, radius), wanted.reshape(-1))[0]
    side = _TAP_STEP * np.rint(np.maximum(side, 0.0) / _TAP_STEP)
    return np.concatenate([side[::-1], [1 - 2 * side.sum()], side]).astype(np.float32)


def _radius(ratio: float, mean: int) -> int:
    """Return how far the triangle reaches beside the two pixels that are sampled."""
    return max(1, math.ceil(ratio / mean) - 1)
