"""Mean average precision as COCO defines it, with a weight for each picture: the bootstrap draws pictures.

Source of the formula: `COCOeval.accumulate` of pycocotools, which gives the same where all weights are 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

IOUS = np.linspace(0.5, 0.95, 10)
"""The overlaps at which COCO matches boxes."""
_RECALLS = np.linspace(0.0, 1.0, 101)
_TINY = float(np.spacing(1.0))


@dataclass(frozen=True)
class LabelMatches:
    """The boxes that a model gives one label, over all pictures, best score first."""

    pictures: NDArray[np.intp]
    """`[boxes]`: the index of each box's picture."""
    hits: NDArray[np.bool_]
    """`[overlaps, boxes]`: whether the box lies on a labelled box that no better one has taken."""
    misses: NDArray[np.bool_]
    """`[overlaps, boxes]`: whether it lies on none. A box on a crowd is neither."""
    truths: Floats
    """`[pictures]`: how many labelled boxes there are to find."""

    def average_precision(self, weights: Floats) -> Floats:
        """Return the mean precision over 101 recalls at each overlap; NaN where there is nothing to find. `weights`
        `[pictures]` says how often each picture counts."""
        truths = float(weights @ self.truths)
        if not truths:
            return np.full(len(self.hits), np.nan)
        own = weights[self.pictures]
        hits, misses = np.cumsum(self.hits * own, axis=1), np.cumsum(self.misses * own, axis=1)
        recall, precision = hits / truths, hits / (hits + misses + _TINY)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
        return np.array([padded[row, np.searchsorted(recall[row], _RECALLS)].mean() for row in range(len(recall))])

    def at(self, overlaps: slice) -> LabelMatches:
        """Return them for some of the overlaps alone."""
        return LabelMatches(self.pictures, self.hits[overlaps], self.misses[overlaps], self.truths)

    def until_last_hit(self) -> LabelMatches:
        """Return the boxes down to the last that lies on a labelled one: those behind it change no precision."""
        columns = np.flatnonzero(self.hits.any(axis=0))
        end = int(columns[-1]) + 1 if columns.size else 0
        return LabelMatches(self.pictures[:end], self.hits[:, :end], self.misses[:, :end], self.truths)


def mean_average_precision(labels: Sequence[LabelMatches], weights: Floats) -> float:
    """Return the mean over the labels that occur and the overlaps, from 0 to 1; NaN where no label occurs."""
    each = np.array([label.average_precision(weights) for label in labels])
    occurring = each[np.isfinite(each)]
    return float(occurring.mean()) if occurring.size else float("nan")
