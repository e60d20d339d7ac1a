"""Resampling in NumPy, as OpenCV and TensorFlow define it: the reference for both conventions.

A resize is separable. For each axis it is a table of taps: output pixel i is `sum(weight[i, k] * input[index[i, k]])`.
Only the tables differ between the conventions, and they are built here from the published definitions:

- OpenCV `modules/imgproc/src/resize.cpp` (half-pixel centres, replicated border, cubic A = -0.75, Lanczos over 8 taps,
  `INTER_AREA` as box coverage when shrinking and as a sharpened bilinear when enlarging)
- TensorFlow
  `core/kernels/image/{resize_bilinear,resize_bicubic,resize_nearest_neighbor,resize_area,scale_and_translate}_op.cc`
  (half_pixel, legacy `align_corners`, legacy asymmetric; cubic A = -0.5 with the border's weights renormalized for
  half_pixel, A = -0.75 with replicated border otherwise; anti-aliasing and Lanczos by scale_and_translate)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from plimsoll.preprocessing.decode import Array
from plimsoll.spec.steps import Resize

Floats = NDArray[np.float64]
Kernel = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Taps:
    """One axis of a resize: `index` and `weight` are both [output pixels, taps]."""

    index: NDArray[np.intp]
    weight: NDArray[np.float32]


def resample(pixels: Array, width: int, height: int, step: Resize) -> Array:
    """Resize height x width x channels to float32 values in the same range, unrounded; `nearest` keeps the dtype."""
    both_shrink = width <= pixels.shape[1] and height <= pixels.shape[0]
    columns = _axis(pixels.shape[1], width, step, both_shrink)
    rows = _axis(pixels.shape[0], height, step, both_shrink)
    if step.filter == "nearest":
        return pixels.take(rows.index[:, 0], axis=0).take(columns.index[:, 0], axis=1)
    if rows.index.shape[1] == columns.index.shape[1] == 2:
        return _interpolate(pixels, rows, columns)
    if height <= pixels.shape[0]:
        return _apply(_apply(pixels, rows), columns, axis=1)
    return _apply(_apply(pixels, columns, axis=1), rows)


def _apply(pixels: Array, taps: Taps, axis: int = 0) -> Array:
    """Sum the weighted taps along one axis, tap by tap, so that memory stays at two pictures."""
    shape = [1] * pixels.ndim
    shape[axis] = -1
    out = np.zeros((), np.float32)
    for index, weight in zip(taps.index.T, taps.weight.T, strict=True):
        if weight.any():
            out = out + np.take(pixels, index, axis=axis) * weight.reshape(shape)
    return out


def _interpolate(pixels: Array, rows: Taps, columns: Taps) -> Array:
    """Bilinear interpolation as `a + (b - a) * t`, along x, then along y: TensorFlow's order, equal to the last bit."""
    x, y = columns.weight[:, 1:], rows.weight[:, 1:, np.newaxis]

    def along_x(index: NDArray[np.intp]) -> Array:
        picked = pixels[index].astype(np.float32, copy=False)
        left = picked[:, columns.index[:, 0]]
        return left + (picked[:, columns.index[:, 1]] - left) * x

    top = along_x(rows.index[:, 0])
    return top + (along_x(rows.index[:, 1]) - top) * y


def _axis(size: int, out: int, step: Resize, both_shrink: bool) -> Taps:
    if step.filter == "nearest":
        return _nearest(size, out, step)
    if step.convention == "opencv":
        if step.filter == "area":
            return _area(size, size / out, out) if both_shrink else _area_enlarging(size, out)
        position = ((np.arange(out) + 0.5) * (size / out) - 0.5).astype(np.float64)
        return _replicated(position, size, *_OPENCV[step.filter])
    if step.filter == "area":
        return _area(size, float(_scale(size, out, step.coordinates)), out)
    if step.antialiased or step.filter == "lanczos":
        return _renormalized(size, out, *_TENSORFLOW_EXACT[step.filter], antialias=step.antialiased)
    position = _position(size, out, step.coordinates)
    if step.filter == "bicubic":
        # TensorFlow looks its cubic weights up in a table of 1,024 fractions.
        position = np.floor(position) + np.rint((position - np.floor(position)) * 1024) / 1024
        if step.coordinates == "half_pixel":
            return _replicated(position, size, partial(_cubic, a=-0.5), 2, border_counts=False)
        return _replicated(position, size, partial(_cubic, a=-0.75), 2)
    return _replicated(position, size, _triangle, 1)


def _scale(size: int, out: int, coordinates: str) -> np.float32:
    """Return TensorFlow's input pixels for each output pixel, in its float32 arithmetic."""
    if coordinates == "align_corners" and size > 1 and out > 1:
        return np.float32(size - 1) / np.float32(out - 1)
    return np.float32(size) / np.float32(out)


def _position(size: int, out: int, coordinates: str) -> Floats:
    """Return the source coordinate of each output pixel's centre, in TensorFlow's float32 arithmetic."""
    at = np.arange(out, dtype=np.float32)
    scale = _scale(size, out, coordinates)
    half = np.float32(0.5)
    return ((at + half) * scale - half if coordinates == "half_pixel" else at * scale).astype(np.float64)


def _nearest(size: int, out: int, step: Resize) -> Taps:
    if step.convention == "opencv":
        position = np.floor(np.arange(out) * (1 / (out / size)))  # OpenCV's own roundabout way, for the same last bit
    elif step.coordinates == "half_pixel":
        position = np.floor(_position(size, out, "half_pixel") + 0.5)
    elif step.coordinates == "align_corners":
        position = np.floor(_position(size, out, "align_corners") + 0.5)  # roundf: halves away from zero
    else:
        position = np.floor(_position(size, out, "asymmetric"))
    index = np.clip(position, 0, size - 1).astype(np.intp)
    return Taps(index[:, np.newaxis], np.ones((out, 1), np.float32))


def _replicated(position: Floats, size: int, kernel: Kernel, radius: int, *, border_counts: bool = True) -> Taps:
    """Weights of a kernel of fixed width around each position; pixels beyond the border repeat it, or don't count."""
    first = np.floor(position).astype(np.intp) - radius + 1
    index = first[:, np.newaxis] + np.arange(2 * radius)
    weight = kernel(np.abs(position[:, np.newaxis] - index))
    if not border_counts:
        weight[(index < 0) | (index >= size)] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, size - 1), weight.astype(np.float32))


def _renormalized(size: int, out: int, kernel: Kernel, radius: int, *, antialias: bool) -> Taps:
    """TensorFlow's ScaleAndTranslate: the kernel may widen with the reduction; beyond the border nothing counts."""
    scale = max(size / out, 1.0) if antialias else 1.0
    position = (np.arange(out) + 0.5) * (size / out) - 0.5
    reach = radius * scale
    first = np.ceil(position - reach - 1e-9).astype(np.intp)
    index = first[:, np.newaxis] + np.arange(int(np.ceil(2 * reach)) + 1)
    weight = kernel(np.abs(position[:, np.newaxis] - index) / scale)
    weight[(index < 0) | (index >= size)] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, size - 1), weight.astype(np.float32))


def _area(size: int, scale: float, out: int) -> Taps:
    """Each output pixel is the mean of the interval of input that it covers."""
    start = np.arange(out) * scale
    first = np.floor(start + 1e-9).astype(np.intp)
    index = first[:, np.newaxis] + np.arange(int(np.ceil(scale)) + 1)
    covered = np.minimum(index + 1, (start + scale)[:, np.newaxis]) - np.maximum(index, start[:, np.newaxis])
    weight = np.clip(covered, 0.0, None)
    weight /= weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, size - 1), weight.astype(np.float32))


def _area_enlarging(size: int, out: int) -> Taps:
    """OpenCV's INTER_AREA where an axis grows: bilinear between pixels, flat inside them."""
    inverse = out / size
    first = np.floor(np.arange(out) * (1 / inverse))
    fraction = ((np.arange(out) + 1) - (first + 1) * inverse).astype(np.float32)
    fraction = np.where(fraction <= 0, 0.0, fraction - np.floor(fraction))
    index = first.astype(np.intp)[:, np.newaxis] + np.arange(2)
    weight = np.stack([1 - fraction, fraction], axis=1)
    return Taps(np.clip(index, 0, size - 1), weight.astype(np.float32))


def _triangle(distance: Floats) -> Floats:
    return np.clip(1.0 - distance, 0.0, None)


def _cubic(distance: Floats, a: float) -> Floats:
    """Keys' cubic convolution (IEEE Trans. ASSP 29, 1981) with free parameter `a`."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _lanczos(distance: Floats, radius: int) -> Floats:
    return np.where(distance < radius, np.sinc(distance) * np.sinc(distance / radius), 0.0)


_OPENCV: dict[str, tuple[Kernel, int]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (partial(_cubic, a=-0.75), 2),
    "lanczos": (partial(_lanczos, radius=4), 4),
}
_TENSORFLOW_EXACT: dict[str, tuple[Kernel, int]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (partial(_cubic, a=-0.5), 2),
    "lanczos": (partial(_lanczos, radius=3), 3),
}
