"""What all heads share: the question, the outputs that they read, and labels for boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec.spec import Detect
from plimsoll.tasks.base import Outputs, require_finite
from plimsoll.tasks.detect.suppression import Candidates

Floats = NDArray[np.float32]
HINT = "Correct `output.head`, `output.tensors` or `output.labels` in the Spec."
SLACK = 0.01
"""Quantized networks give scores a step above 1 or below 0."""


@dataclass(frozen=True)
class Query:
    """What a head is asked for."""

    spec: Detect
    threshold: float
    size: tuple[int | None, int | None]
    """Height and width of the network's input, where they are known."""


def labelled(
    spec: Detect,
    places: NDArray[np.float64],
    numbers: NDArray[Any],
    scores: Floats,
    masks: NDArray[Any] | None = None,
) -> Candidates:
    """Give each box the label of its number, and its mask of `[N, height, width]`, or of `[N, masks, height, width]`
    that of its number; what is the background's is dropped."""
    require_finite(numbers, "labels")
    count, shift = len(spec.labels), int(spec.background == "first")
    top = count - 1 + int(spec.background in ("first", "last"))
    if numbers.size and (numbers.min() < 0 or numbers.max() > top or (numbers != np.floor(numbers)).any()):
        raise ModelError(
            f"the network gives labels from {numbers.min():g} to {numbers.max():g}, the Spec has {count}"
            f" ({shift} to {count - 1 + shift})",
            HINT
            if shift or spec.head == "tflite_postprocess"
            else f"{HINT} Where it counts the background as 0, write background = 'first'.",
        )
    labels = numbers.astype(np.intp) - shift
    own = (labels >= 0) & (labels < count)
    if masks is not None and masks.ndim == 4:
        masks = masks[:, 0] if masks.shape[1] == 1 else masks[np.arange(len(masks)), _planes(spec, masks, labels)]
    return Candidates(
        places[own], scores[own], labels[own], masks=None if masks is None else masks[own].astype(np.float32)
    )


def _planes(spec: Detect, masks: NDArray[Any], labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return which of a box's masks is its label's: there is one a label, with or without the background."""
    more = masks.shape[1] - len(spec.labels)
    return np.clip(labels + (more if spec.background == "first" else 0), 0, masks.shape[1] - 1)


def masks_of_boxes(spec: Detect, outputs: Outputs, boxes: tuple[int, int]) -> NDArray[Any] | None:
    """Return the output with a mask for each of `(pictures, boxes)`, `[N, boxes, height, width]` or with an axis more
    after the boxes; None where the Spec names none. Raises ModelError for another shape."""
    if spec.masks is None:
        return None
    values = outputs.get(spec.masks)
    count = len(spec.labels)
    planes = {1, count, count + 1} if spec.background in ("first", "last") else {1, count}
    fits = values is not None and values.shape[:2] == boxes
    if values is None or not fits or values.ndim not in (4, 5) or (values.ndim == 5 and values.shape[2] not in planes):
        shape = "absent" if values is None else str(list(values.shape))
        raise ModelError(
            f"the output '{spec.masks}' is {shape}; expected [{boxes[0]}, {boxes[1]}, height, width], or 1 or"
            f" {max(planes)} masks a box",
            'Correct `output.masks` in the Spec; where outputs have no axis for pictures, write batch_axis = "none".',
        )
    return values


def best_labels(
    query: Query,
    places: NDArray[np.float64],
    scores: Floats,
    points: NDArray[np.float64] | None = None,
    coefficients: Floats | None = None,
    angles: NDArray[np.float64] | None = None,
) -> Candidates:
    """Give each box `[N, 4]` its best label, or with `several_labels` every label that reaches the threshold, and drop
    the boxes below it; of equal scores `[N, labels]` the first label wins."""
    if query.spec.several_labels:
        boxes, labels = np.nonzero(scores >= query.threshold)
        best = scores[boxes, labels]
    else:
        winners = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.intp)
        best = scores[np.arange(len(scores)), winners]
        boxes = np.flatnonzero(best >= query.threshold)
        labels, best = winners[boxes], best[boxes]
    return Candidates(
        places[boxes],
        best.astype(np.float32),
        labels.astype(np.intp),
        None if points is None else points[boxes],
        None if coefficients is None else coefficients[boxes],
        angles=None if angles is None else angles[boxes],
    )


def named(spec: Detect, outputs: Outputs, count: int) -> list[NDArray[Any]]:
    """Return the outputs that the head reads, in the Spec's order, or the network's own if the Spec names none."""
    names = spec.tensors or tuple(outputs)
    missing = [name for name in names if name not in outputs]
    if missing or len(names) != count:
        named = f"the Spec names {', '.join(spec.tensors)}" if spec.tensors else "the Spec names none"
        raise ModelError(
            f"head '{spec.head}' reads {count} output{'s' if count > 1 else ''}; the network has {', '.join(outputs)};"
            f" {named}",
            "Correct `output.tensors` in the Spec.",
        )
    return [outputs[name] for name in names]


def shapes(*arrays: NDArray[Any]) -> str:
    """Return the arrays' shapes in words."""
    return "; ".join(str(list(array.shape)) for array in arrays)


def misfit(output: NDArray[Any], expected: str, why: str, head: str) -> ModelError:
    """Return the error for an output of another shape than the head reads."""
    return ModelError(f"the network's output is {list(output.shape)}; head '{head}' reads {expected} ({why})", HINT)


_TOGETHER = 64


def column_ends(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the least and the largest value of each column along an axis, `[2, columns]`; NaN where it holds one.

    Of what may be millions of values, so rows are compared many at once: NumPy is slow at short ones.
    """
    count = values.shape[axis]
    if axis != values.ndim - 1:
        others = tuple(at for at in range(values.ndim) if at != axis)
        return np.stack([values.min(axis=others), values.max(axis=others)])
    rows = np.ascontiguousarray(values).reshape(-1, count)
    whole = len(rows) // _TOGETHER * _TOGETHER
    ends = []
    for end in (np.minimum, np.maximum):
        parts = [rows[whole:]]
        if whole:
            parts.append(end.reduce(rows[:whole].reshape(-1, _TOGETHER * count), axis=0).reshape(_TOGETHER, count))
        ends.append(end.reduce(np.concatenate(parts), axis=0))
    return np.stack(ends)


def require_probabilities(scores: NDArray[Any]) -> None:
    """Raise ModelError for scores that are not from 0 to 1."""
    if scores.size and (scores.min() < -SLACK or scores.max() > 1 + SLACK):
        raise ModelError(
            f"the network's scores go from {scores.min():.3g} to {scores.max():.3g}; expected probabilities, 0 to 1",
            "Is the order of `output.tensors` right? For head = 'ssd' and 'boxes', set `output.activation` to 'sigmoid'"
            " or 'softmax' where the scores are logits.",
        )
