"""Pillow's and TensorFlow's anti-aliased bilinear with OpenCV, for pictures that become smaller.

Both weigh the source's pixels by a triangle as wide as the reduction: for the output pixel `o` and the ratio `r`, the
pixel at distance `d` from `(o + 1/2) r - 1/2` counts `1 - |d| / r`. OpenCV samples with the narrow triangle (r = 1)
only. But a triangle is nearly a short symmetric filter of the source followed by that sampling, and exactly so where
`r` is a whole number. So pictures that are much too large are reduced to means of a few pixels in a square first; a few
taps in each direction and bilinear sampling follow. The taps are those with the least squared error of the weights over
all positions where a sample can fall, and they take the means into account.

A decoder can give such means directly: libjpeg-turbo's reduced inverse transforms of 4 × 4, 2 × 2 and 1 × 1 values
(`jidctred.c`) are the 8 × 8 transform followed by the means of 2 × 2, 4 × 4 and 8 × 8 pixels, without the rounding
between the two. `shrink` takes up the work there.

Nothing here rounds to one side: OpenCV's mean of 2 × 2 bytes rounds halves up, by an eighth of a level on average, so
every second mean is taken of the inverted picture, and the filter takes away what an odd number of means leaves.
OpenCV's `resize` cuts off (a tenth of a level), its `warpAffine` doesn't.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from plimsoll.preprocessing.decode import Array, Reduced

_HALVED_FROM = 4.0
"""Where both axes shrink by so much, a mean of 2 × 2 comes first: exact enough, and the taps stay few."""
_MOST_TAPS = 15
_PHASES = 8
"""The weights are compared at so many positions between two pixels."""
_RATIO_STEP = 1 / 64
_TAP_STEP = 1 / 256
"""OpenCV computes filters of bytes with 8 bits; taps of that precision keep their sum of 1."""
_ROUNDED_UP = 0.125
"""By how many levels OpenCV's mean of 2 × 2 bytes is too high on average: remainders of 0, 1, 2 and 3 quarters become
0, -1, +2 and +1."""


def mean_before(ratio: float) -> int:
    """Return of how many pixels in each direction means are taken before the filter: a power of 2."""
    mean = 1
    while ratio / mean >= _HALVED_FROM:
        mean *= 2
    return mean


def can_shrink(size: tuple[int, int], width: int, height: int) -> bool:
    """Whether `shrink` serves: no direction grows, and none shrinks so much more than the other that it would take
    long."""
    ratios = size[0] / width, size[1] / height
    return min(ratios) >= 1 and _radius(max(ratios), mean_before(min(ratios))) <= _MOST_TAPS // 2


def shrink(cv2: ModuleType, pixels: Array, source: Reduced, width: int, height: int) -> Array:
    """Return uint8 [H, W, C] from `pixels`: the means that `source` describes, in any order of channels."""
    ratios = source.size[0] / width, source.size[1] / height
    mean = source.mean
    last_mean = max(mean, mean_before(min(ratios)))
    across, down = (triangle_taps(_RATIO_STEP * round(ratio / _RATIO_STEP), last_mean) for ratio in ratios)
    rounded_up = 0.0
    while mean < last_mean:
        rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = pixels[: 2 * rows, : 2 * columns]
        if rounded_up:
            pixels = cv2.bitwise_not(pixels)
        pixels = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)
        if rounded_up:
            pixels = cv2.bitwise_not(pixels)
        rounded_up = _ROUNDED_UP - rounded_up
        mean *= 2
    x, y = ratios[0] / mean, ratios[1] / mean
    x_origin, y_origin = source.origin
    smooth = cv2.sepFilter2D(pixels, -1, across, down, delta=-rounded_up, borderType=cv2.BORDER_REPLICATE)
    sampled: Array = cv2.warpAffine(
        smooth,
        np.array([[x, 0, x / 2 - 0.5 - x_origin / mean], [0, y, y / 2 - 0.5 - y_origin / mean]]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return sampled.reshape(height, width, -1)


@lru_cache(4096)
def triangle_taps(ratio: float, mean: int) -> NDArray[np.float32]:
    """Return the filter for a ratio, over pixels that are means of `mean` of the source's; an odd number of taps,
    symmetric, none negative, their sum is 1."""
    if ratio <= 1:
        return np.ones(1, np.float32)
    radius = _radius(ratio, mean)
    source = np.arange(-int(ratio) - mean - 2, int(ratio) + 2 * mean + 3)
    phase = ((np.arange(_PHASES) + 0.5) / _PHASES)[:, np.newaxis, np.newaxis]
    tap = np.arange(-radius, radius + 1)[:, np.newaxis]
    # What each tap alone gives each source pixel when a sample falls a part of the way from one pixel to the next:
    # [phase, tap, source].
    alone = ((1 - phase) * (source // mean == tap) + phase * (source // mean == tap + 1)) / mean
    triangle = np.maximum(0.0, 1 - np.abs(source - (phase[:, 0] + 0.5) * mean + 0.5) / ratio)
    centre = alone[:, radius]
    unknown = alone[:, radius + 1 :] + alone[:, :radius][:, ::-1] - 2 * centre[:, np.newaxis]
    expected = triangle / triangle.sum(axis=1, keepdims=True) - centre
    side = np.linalg.lstsq(unknown.transpose(0, 2, 1).reshape(-1, radius), expected.reshape(-1), rcond=None)[0]
    side = _TAP_STEP * np.rint(np.maximum(side, 0.0) / _TAP_STEP)
    return np.concatenate([side[::-1], [1 - 2 * side.sum()], side]).astype(np.float32)


def _radius(ratio: float, mean: int) -> int:
    """Return how far the triangle reaches beside the two pixels that are sampled."""
    return max(1, math.ceil(ratio / mean) - 1)
