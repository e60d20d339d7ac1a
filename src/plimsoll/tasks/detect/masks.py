"""Masks of single objects: prototype planes, weighted by a box's coefficients, and cut to the box (YOLACT and YOLO-seg;
Bolya et al. 2019, arXiv 1904.02689); or a plane for each box (Mask R-CNN; He et al. 2017, arXiv 1703.06870).

A mask is stored as COCO's run lengths, down the columns, since a picture's worth of pixels for each box would fill the
memory. Values are interpolated to the picture's pixels before they are cut at 0, as for `segment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.tasks.base import require_finite
from plimsoll.tasks.detect.reading import require_probabilities

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry

Size = tuple[float, float]


@dataclass(frozen=True)
class BoxMask:
    """The pixels of one object."""

    height: int
    width: int
    """The picture's."""
    counts: tuple[int, ...]
    """COCO's uncompressed run lengths: pixels without it, with it, without it … down the columns."""

    @classmethod
    def of(cls, pixels: NDArray[np.bool_], left: int, top: int, size: tuple[int, int]) -> BoxMask:
        """Make one of the pixels `[rows, columns]` whose upper left corner is at (left, top) in a picture of this size
        (height, width)."""
        height, width = size
        flat = np.zeros((pixels.shape[1], pixels.shape[0] + 2), np.int8)
        flat[:, 1:-1] = pixels.T
        changes = np.diff(flat, axis=1)
        columns, rows = np.nonzero(changes == 1)
        starts = (left + columns) * height + top + rows
        columns, rows = np.nonzero(changes == -1)
        ends = (left + columns) * height + top + rows
        if len(starts) > 1:  # A run that reaches the bottom goes on at the top of the next column.
            apart = starts[1:] != ends[:-1]
            starts, ends = np.append(starts[:1], starts[1:][apart]), np.append(ends[:-1][apart], ends[-1:])
        edges = np.stack([starts, ends], axis=1).ravel()
        runs = np.diff(edges, prepend=0, append=height * width)
        return cls(height, width, tuple(int(run) for run in (runs if runs[-1] else runs[:-1])))

    def row(self) -> dict[str, Any]:
        """Return it as plain data, as `pycocotools.mask.frPyObjects` takes it."""
        return {"size": [self.height, self.width], "counts": list(self.counts)}

    def pixels(self) -> NDArray[np.bool_]:
        """Return `[height, width]`."""
        flags = np.arange(len(self.counts)) % 2 == 1
        flat = np.repeat(flags, self.counts)
        flat = np.concatenate([flat, np.zeros(self.height * self.width - len(flat), bool)])
        return flat.reshape(self.width, self.height).T

    @property
    def area(self) -> int:
        """How many pixels it has."""
        return sum(self.counts[1::2])

    def iou(self, other: BoxMask) -> float:
        """Return intersection / union with another mask of the same picture; 0 where both are empty."""
        edges = [np.cumsum(mask.counts) for mask in (self, other)]
        positions = np.union1d(*edges)
        starts, lengths = positions[:-1], np.diff(positions)
        inside = [np.searchsorted(own, starts, side="right") % 2 == 1 for own in edges]
        shared = int(lengths[inside[0] & inside[1]].sum())
        union = self.area + other.area - shared
        return shared / union if union else 0.0


def prototypes_of(values: NDArray[Any], pictures: int, coefficients: int) -> NDArray[np.float32]:
    """Return the planes `[N, coefficients, height, width]`; raises ModelError for another shape."""
    if values.ndim != 4 or values.shape[:2] != (pictures, coefficients):
        raise ModelError(
            f"the prototypes are {list(values.shape)}; expected [{pictures}, {coefficients}, height, width]",
            "Correct `output.prototypes` or `output.coefficients` in the Spec.",
        )
    require_finite(values, "prototypes")
    return values.astype(np.float32)


@dataclass(frozen=True)
class Plane:
    """What says where an object's mask is: above 0 inside of it."""

    values: NDArray[np.float32]
    """`[rows, columns]`"""
    frame: tuple[float, float, float, float]
    """x0, y0, x1, y1 in the network's input: what the plane covers."""
    cut: tuple[float, float, float, float]
    """… and where the mask may be."""


def weighted_planes(
    coefficients: NDArray[np.float32], prototypes: NDArray[np.float32], boxes: NDArray[np.float64], size: Size
) -> list[Plane]:
    """Return the plane of each box `[N, 4]` in an input of this size (width, height): the prototypes
    `[coefficients, height, width]`, weighted and added."""
    whole = (0.0, 0.0, *size)
    return [
        Plane(np.tensordot(own, prototypes, 1), whole, _sides(box))
        for own, box in zip(coefficients, boxes, strict=True)
    ]


def planes_of_boxes(probabilities: NDArray[np.float32], boxes: NDArray[np.float64], size: Size) -> list[Plane]:
    """Return the plane of each box `[N, 4]` in an input of this size (width, height), of probabilities
    `[N, height, width]`: over its box, with nothing around it, as torchvision's `paste_masks_in_image` and Detectron2's
    have it; or over the input where they are as large as that."""
    require_finite(probabilities, "masks")
    require_probabilities(probabilities)
    height, width = probabilities.shape[1:]
    values = probabilities - np.float32(0.5)
    if (width, height) == tuple(map(round, size)):
        return [Plane(own, (0.0, 0.0, *size), _extent(own)) for own in values]
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), constant_values=-0.5)
    cell = (boxes[:, 2:] - boxes[:, :2]) / (width, height)
    frames = np.concatenate([boxes[:, :2] - cell, boxes[:, 2:] + cell], axis=1)
    return [Plane(own, _sides(frame), _sides(box)) for own, frame, box in zip(padded, frames, boxes, strict=True)]


def _sides(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, box)
    return x0, y0, x1, y1


def _extent(values: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Return the sides of what is above 0, with a cell around it: values between two cells are interpolated."""
    down, across = (np.flatnonzero((values > 0).any(axis=axis)) for axis in (1, 0))
    if not len(down):
        return 0.0, 0.0, 0.0, 0.0
    return float(across[0] - 1), float(down[0] - 1), float(across[-1] + 2), float(down[-1] + 2)


def masks_of(planes: Sequence[Plane], size: Size, geometry: ImageGeometry | None) -> list[BoxMask]:
    """Return each mask in the picture's pixels; without a geometry in those of the network's input, whose size is
    (width, height)."""
    width, height = size
    if geometry is None:
        x, y = np.arange(round(width)) + 0.5, np.arange(round(height)) + 0.5
    else:
        x, y = geometry.pixel_centres()
    shape = (len(y), len(x)) if geometry is None else (geometry.height, geometry.width)
    masks = []
    for plane in planes:
        (left_edge, top_edge, right_edge, bottom_edge), (x0, y0, x1, y1) = plane.frame, plane.cut
        rows, columns = plane.values.shape
        across, down = np.flatnonzero((x >= x0) & (x < x1)), np.flatnonzero((y >= y0) & (y < y1))
        if not len(across) or not len(down):
            masks.append(BoxMask(*shape, (shape[0] * shape[1],)))
            continue
        inside = _along(plane.values, (y[down] - top_edge) * (rows / (bottom_edge - top_edge)))
        pixels = _along(inside.T, (x[across] - left_edge) * (columns / (right_edge - left_edge))).T > 0
        left, top = int(across[0]), int(down[0])
        if geometry is not None and geometry.orientation != 1:
            whole = np.zeros((len(y), len(x)), bool)
            whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
            left, top, pixels = 0, 0, np.asarray(geometry.as_sent(whole), bool)
        masks.append(BoxMask.of(pixels, left, top, shape))
    return masks


def _along(values: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Interpolate linearly between rows, at positions in rows from the outer edge; the border repeats."""
    centred = np.clip(positions - 0.5, 0.0, len(values) - 1.0)
    first = np.floor(centred).astype(np.intp)
    share = np.asarray(centred - first, np.float32)[:, np.newaxis]
    before, after = values[first], values[np.minimum(first + 1, len(values) - 1)]
    return np.asarray(before + (after - before) * share, np.float32)
