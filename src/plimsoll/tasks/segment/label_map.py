"""`LabelMap`: a label for every pixel of a picture, kept as runs, since a photograph's worth of pixels would fill the
memory.

The runs go down the columns, one column after another, as COCO's masks do.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOTHING = 65_535
"""The value of pixels without a label: what was cropped away, and background that has no name."""
MAX_LABELS = 65_000
PNG_NOTHING = 255
"""The same in a PNG file; PASCAL VOC's value for what is not judged."""


@dataclass(frozen=True)
class LabelMap:
    """A label's place for every pixel, or NOTHING."""

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
        sums[NOTHING:] = 0
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
        """Return a PNG file of 8 bits a pixel with PASCAL VOC's colours: the pixel's value is the label's place, 255
        where it has none.

        Raises ValueError where a label's place is above 254.
        """
        from PIL import Image

        named = self.values[self.values != NOTHING]
        if named.size and int(named.max()) >= PNG_NOTHING:
            raise ValueError(
                f"label {int(named.max())} doesn't fit into a PNG file of 8 bits a pixel, which has room for"
                f" {PNG_NOTHING}"
            )
        small = np.where(self.values == NOTHING, PNG_NOTHING, self.values).astype(np.uint8)
        image = Image.fromarray(np.ascontiguousarray(np.repeat(small, self.lengths).reshape(self.width, self.height).T))
        image.putpalette(_palette())
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


def _palette() -> bytes:
    """Return 256 colours R, G, B: the bits of a label's place dealt out to the three, highest first (PASCAL VOC's
    development kit)."""
    places = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((places >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()
