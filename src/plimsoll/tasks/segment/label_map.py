"""`LabelMap`: a label for every pixel of a picture; and `labels_at`, from a network's grid of values to such labels.

A map is kept as runs, since a photograph's worth of pixels would fill the memory. The runs go down the columns, one
column after another, as COCO's masks do.

Sampling: values are interpolated bilinearly to the pixel's centre (half-pixel centres, replicated border), and then the
label is decided. That is what training frameworks do that enlarge the logits before the argmax, and it gives smooth
edges where the nearest cell's label gives stairs. It costs next to nothing: where the four cells around a pixel have
one label, that label is the pixel's, since what is largest at all four is largest in every mean of them (and what
reaches a threshold at all four reaches it in between). Values are interpolated along the edges alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_LABEL = 65_535
"""The value of pixels without a label: what was cropped away, and background that has no name."""
MAX_LABELS = 65_000
PNG_NO_LABEL = 255
"""The same in a PNG file; PASCAL VOC's value for what is not judged."""

Decide = Callable[[NDArray[np.float32]], NDArray[np.uint16]]
"""From values `[…, planes]` to labels `[…]`."""

_MIXED = NO_LABEL - 1
_AT_ONCE = 1 << 16
"""Pixels whose values are interpolated together: 64 MB for 256 planes."""


@dataclass(frozen=True)
class LabelMap:
    """The index of a label for every pixel, or NO_LABEL."""

    height: int
    width: int
    values: NDArray[np.uint16]
    """`[runs]`"""
    lengths: NDArray[np.int64]
    """`[runs]`, in pixels; their sum is height x width."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint16]) -> LabelMap:
        """Make one of `[height, width]`."""
        flat = pixels.T.ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        return cls(len(pixels), pixels.shape[1], flat[starts], np.diff(starts, append=flat.size))

    def pixels(self) -> NDArray[np.uint16]:
        """Return `[height, width]`."""
        return np.repeat(self.values, self.lengths).reshape(self.width, self.height).T

    def areas(self) -> dict[int, int]:
        """Return the labels that occur, with how many pixels each has, most first."""
        sums = np.bincount(self.values, weights=self.lengths)
        sums[NO_LABEL:] = 0
        order = np.argsort(-sums, kind="stable")[: np.count_nonzero(sums)]
        return {int(label): int(sums[label]) for label in order}

    def counts(self, label: int) -> list[int]:
        """Return one label's mask as COCO's uncompressed run lengths: pixels without it, with it, without it … down the
        columns."""
        ends = np.cumsum(self.lengths)
        own = self.values == label
        edges = np.stack([ends[own] - self.lengths[own], ends[own]], axis=1).ravel()
        runs = np.diff(edges, prepend=0, append=self.height * self.width)
        return [int(run) for run in (runs if runs[-1] else runs[:-1])]

    def png(self) -> bytes:
        """Return a PNG file of 8 bits a pixel with PASCAL VOC's colours: the pixel's value is the label's index, 255
        where it has none.

        Raises ValueError where a label's index is above 254.
        """
        from PIL import Image

        named = self.values[self.values != NO_LABEL]
        if named.size and int(named.max()) >= PNG_NO_LABEL:
            raise ValueError(
                f"label {int(named.max())} doesn't fit into a PNG file of 8 bits a pixel, which has room for"
                f" {PNG_NO_LABEL}"
            )
        small = np.where(self.values == NO_LABEL, PNG_NO_LABEL, self.values).astype(np.uint8)
        image = Image.fromarray(np.ascontiguousarray(np.repeat(small, self.lengths).reshape(self.width, self.height).T))
        image.putpalette(_palette())
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


def _palette() -> bytes:
    """Return 256 colours R, G, B: the bits of a label's index dealt out to the three, highest first (PASCAL VOC's
    development kit)."""
    indices = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((indices >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()


@dataclass(frozen=True)
class _Axis:
    """For each pixel along one axis: the cells before and after it, and how far it lies from the one to the other."""

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
    """Return `[len(y), len(x)]`: the label at each position, NO_LABEL where a position is NaN.

    `values` is `[height, width, planes]`; x and y are in its cells, counted from its outer left and top edge.
    """
    height, width, _ = values.shape
    columns, rows = _Axis.of(x, width), _Axis.of(y, height)
    sampled = _gaps(decide(values)).take(rows.between, axis=0).take(columns.between, axis=1)
    row, column = np.divmod(np.flatnonzero(sampled == _MIXED), len(x))
    for start in range(0, len(row), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        sampled[row[part], column[part]] = decide(_interpolated(values, rows, columns, row[part], column[part]))
    sampled[np.isnan(y)] = NO_LABEL
    sampled[:, np.isnan(x)] = NO_LABEL
    return sampled


def nearest_labels(labels: NDArray[np.uint16], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return the label of the cell that each position lies in: for a network that gives labels in place of values."""
    height, width = labels.shape
    column, row = (
        np.clip(np.floor(np.nan_to_num(at)), 0, size - 1).astype(np.intp) for at, size in ((x, width), (y, height))
    )
    sampled = labels.take(row, axis=0).take(column, axis=1)
    sampled[np.isnan(y)] = NO_LABEL
    sampled[:, np.isnan(x)] = NO_LABEL
    return sampled


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
