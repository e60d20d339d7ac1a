"""Classification: one score per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec.spec import Classify
from plimsoll.tasks.base import Answer, Outputs, Task, activate, decimal, output, require_finite, require_scaled

if TYPE_CHECKING:
    from plimsoll.preprocessing import ImageGeometry


@dataclass(frozen=True)
class Classification(Answer):
    """The scores of one picture."""

    label: str | None
    """The decision; None if no score reaches the threshold."""
    score: float
    """The score of the Spec's positive label, or of the best one."""
    scores: Mapping[str, float]
    """Label → score, best first; as the shortest decimals that round to the same float32."""
    band: str | None = None
    """How people read the score, if the Spec says so."""

    def severity(self) -> float:
        return self.score

    def row(self, top: int | None = None) -> dict[str, Any]:
        return {"label": self.label, "score": self.score, "scores": dict(list(self.scores.items())[:top])}


class ClassifyTask(Task):
    """Decodes `[N, labels]`."""

    def __init__(self, spec: Classify) -> None:
        self.spec = spec
        self.threshold = spec.threshold

    def decode(
        self,
        outputs: Outputs,
        threshold: float | None = None,
        geometries: Sequence[ImageGeometry | None] | None = None,
    ) -> list[Classification]:
        del geometries
        raw = output(outputs, self.spec.tensor)
        require_scaled(raw, "scores")
        values = raw.reshape(raw.shape[0], -1).astype(np.float32)
        if values.shape[1] != len(self.spec.labels):
            raise ModelError(
                f"the network gives {values.shape[1]} scores a picture, the Spec has {len(self.spec.labels)} labels",
                "Correct `output.labels` (or `output.tensor`) in the Spec.",
            )
        require_finite(values, "scores")
        limit = threshold if threshold is not None else self.spec.threshold
        return [self._answer(row, limit) for row in activate(values, self.spec.activation)]

    def _answer(self, values: NDArray[np.float32], threshold: float | None) -> Classification:
        labels, positive = self.spec.labels, self.spec.positive
        order = np.argsort(-values, kind="stable")
        scores = {labels[index]: decimal(values[index]) for index in order}
        if positive is None:
            best = labels[order[0]]
            label = best if threshold is None or scores[best] >= threshold else None
            return Classification(label, scores[best], MappingProxyType(scores))
        score = scores[positive]
        others = [label for label in scores if label != positive]
        flagged = score >= (0.5 if threshold is None else threshold)
        label = positive if flagged or not others else others[0]
        return Classification(label if flagged or others else None, score, MappingProxyType(scores), self._band(score))

    def _band(self, score: float) -> str | None:
        for band in self.spec.bands:
            if band.below is None or score < band.below:
                return band.label
        return None

    def empty_row(self) -> dict[str, Any]:
        return {"label": None, "score": None, "scores": {}}


DECODER = ClassifyTask
