"""Two label maps of one picture: their confusion, and how well their boundaries agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]

BAND = 0.02
"""How wide the boundary is, as a share of the picture's diagonal: Cheng et al., Boundary IoU (arXiv 2103.16562)."""


@dataclass(frozen=True)
class MaskChanges:
    """One picture's label maps, in pixels."""

    confusion: Counts
    """`[labels + 1, labels + 1]`: the reference's label x the other's; the last is for pixels without a label."""
    boundary: Counts
    """`[labels, 2]`: of each label's boundaries, the intersection and the union."""

    @property
    def pixels(self) -> int:
        """How many were compared."""
        return int(self.confusion.sum())

    @property
    def changed(self) -> int:
        """The pixels whose label changed."""
        return self.pixels - int(np.trace(self.confusion))


def compare_masks(reference: Labels, other: Labels, labels: int) -> MaskChanges:
    """Compare two label maps `[height, width]`; a pixel's value is its label's index, any from `labels` on means
    none."""
    first, second = (np.minimum(pixels, labels).astype(np.int64) for pixels in (reference, other))
    size = labels + 1
    confusion = np.bincount((first * size + second).ravel(), minlength=size * size).reshape(size, size)
    distance = max(1, round(BAND * float(np.hypot(*first.shape))))
    boundary = np.zeros((labels, 2), np.int64)
    for label in np.flatnonzero(confusion.sum(axis=0)[:labels] + confusion.sum(axis=1)[:labels]):
        bands = [_band(pixels == label, distance) for pixels in (first, second)]
        boundary[label] = (bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()
    return MaskChanges(confusion, boundary)


def _band(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Return the part of a mask that lies within `distance` pixels of its contour; the picture's edge is one, too."""
    eroded = np.pad(mask, distance)
    for axis in (0, 1):
        sums = np.cumsum(eroded, axis=axis, dtype=np.int32)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
        window, length = 2 * distance + 1, sums.shape[axis]
        eroded = sums.take(range(window, length), axis) - sums.take(range(length - window), axis) == window
    return mask & ~eroded


def overlap(confusion: Counts) -> tuple[Counts, Counts]:
    """Return each label's intersection and union `[..., labels]` of confusions `[..., labels + 1, labels + 1]`."""
    shared = np.diagonal(confusion, axis1=-2, axis2=-1)[..., :-1]
    union = confusion.sum(axis=-1)[..., :-1] + confusion.sum(axis=-2)[..., :-1] - shared
    return shared, union
