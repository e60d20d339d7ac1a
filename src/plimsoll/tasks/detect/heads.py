"""Heads: how networks write boxes into their outputs. Each is a function from a batch of outputs to the candidates of
each picture.

A box has one label, its best; it is a candidate from the threshold on. Sources: Ultralytics' `non_max_suppression`
(YOLOv5, YOLOv8), TensorFlow's object detection API (`FasterRcnnBoxCoder`, used by its SSD networks), TensorFlow Lite's
`TFLite_Detection_PostProcess`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec.spec import Detect
from plimsoll.tasks.base import Outputs, activate, along, require_finite, scores_of

Floats = NDArray[np.float32]
_HINT = "Correct `output.head`, `output.tensors` or `output.labels` in the Spec."
_SLACK = 0.01
"""Quantized networks give scores a step above 1 or below 0."""


@dataclass(frozen=True)
class Candidates:
    """The boxes of one picture that reach the threshold, in the network's own coordinates."""

    boxes: NDArray[np.float64]
    """`[N, 4]`: x0, y0, x1, y1."""
    scores: Floats
    """`[N]`"""
    labels: NDArray[np.intp]
    """`[N]`, indices of the Spec's labels."""


def yolov5(spec: Detect, outputs: Outputs, threshold: float) -> list[Candidates]:
    """Read `[N, boxes, 5 + labels]`: centre x, centre y, width, height, objectness, scores; a box's score is objectness
    x its label's."""
    (raw,) = _named(spec, outputs, 1)
    columns = 5 + len(spec.labels)
    if raw.ndim != 3 or raw.shape[2] != columns:
        raise _misfit(raw, f"[N, boxes, {columns}]", f"5 + {len(spec.labels)} labels", "yolov5")
    require_finite(raw, "boxes or scores")
    _require_probabilities(raw[:, :, 4:])
    return [
        _by_centre(picture[:, :4], picture[:, 5:] * picture[:, 4:5], threshold)
        for picture in (_reaching(boxes, threshold) for boxes in raw)
    ]


def _reaching(picture: NDArray[Any], threshold: float) -> Floats:
    """Drop the boxes that can't reach the threshold: most of them."""
    return picture[picture[:, 4] >= threshold / (1 + _SLACK)].astype(np.float32)


def yolov8(spec: Detect, outputs: Outputs, threshold: float) -> list[Candidates]:
    """Read `[N, 4 + labels, boxes]`: centre x, centre y, width, height, scores."""
    (raw,) = _named(spec, outputs, 1)
    rows = 4 + len(spec.labels)
    if raw.ndim != 3 or raw.shape[1] != rows:
        raise _misfit(raw, f"[N, {rows}, boxes]", f"4 + {len(spec.labels)} labels", "yolov8")
    require_finite(raw, "boxes or scores")
    _require_probabilities(raw[:, 4:])
    candidates = []
    for picture in raw:
        reaching = picture[:, picture[4:].max(axis=0) >= threshold].T.astype(np.float32)
        candidates.append(_by_centre(reaching[:, :4], reaching[:, 4:], threshold))
    return candidates


def ssd(spec: Detect, outputs: Outputs, threshold: float) -> list[Candidates]:
    """Read locations `[N, anchors, 4]` (y, x, h, w against the anchors) and scores `[N, anchors, labels]`, or one more
    with the background first."""
    locations, scores = _locations_and_scores(spec, outputs)
    anchors = np.asarray(spec.anchors, np.float64)
    if locations.shape[1] != len(anchors):
        raise ModelError(
            f"the network gives {locations.shape[1]:,} locations, the Spec has {len(anchors):,} anchors",
            "Correct `output.anchors_file`.",
        )
    require_finite(locations, "locations")
    require_finite(scores, "scores")
    shares = activate(scores.astype(np.float32), spec.activation)
    _require_probabilities(shares)
    shares = shares[:, :, -len(spec.labels) :]
    candidates = []
    for index in range(len(locations)):
        best = shares[index].max(axis=1) >= threshold
        boxes = decode_boxes(locations[index][best], anchors[best], spec.variances)
        require_finite(boxes, "box sizes")
        candidates.append(_candidates(boxes, shares[index][best], threshold))
    return candidates


def decode_boxes(locations: NDArray[Any], anchors: NDArray[np.float64], scales: Sequence[float]) -> NDArray[np.float64]:
    """Return boxes `[N, 4]` (x0, y0, x1, y1) of locations `[N, 4]` (y, x, h, w) against anchors `[N, 4]` (centre y,
    centre x, height, width).

    TensorFlow's FasterRcnnBoxCoder: centre = t / scale x anchor size + anchor centre; size = exp(t / scale) x anchor
    size.
    """
    with np.errstate(over="ignore"):
        y, x, height, width = (np.asarray(locations, np.float64) / scales).T
        anchor_y, anchor_x, anchor_height, anchor_width = anchors.T
        centre_y, centre_x = y * anchor_height + anchor_y, x * anchor_width + anchor_x
        half_height, half_width = np.exp(height) * anchor_height / 2, np.exp(width) * anchor_width / 2
        return np.stack(
            [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height], axis=1
        )


def tflite_postprocess(spec: Detect, outputs: Outputs, threshold: float) -> list[Candidates]:
    """Read boxes `[N, most, 4]` (y0, x0, y1, x1 as fractions), labels `[N, most]`, scores `[N, most]` and counts `[N]`,
    in that order."""
    boxes, labels, scores, counts = _named(spec, outputs, 4)
    number, most = boxes.shape[:2] if boxes.ndim == 3 else (0, 0)
    fits = (
        boxes.ndim == 3
        and boxes.shape[2] == 4
        and labels.shape == scores.shape == (number, most)
        and counts.size == number
    )
    if not fits:
        shapes = "; ".join(str(list(array.shape)) for array in (boxes, labels, scores, counts))
        raise ModelError(
            f"the network's outputs are {shapes}; head 'tflite_postprocess' reads boxes [N, most, 4], labels [N, most],"
            " scores [N, most], counts [N]",
            "Name the four in this order in `output.tensors` of the Spec.",
        )
    return [
        _postprocessed(spec, *picture, threshold)
        for picture in zip(boxes, labels, scores, counts.reshape(-1), strict=True)
    ]


def _postprocessed(
    spec: Detect, boxes: NDArray[Any], labels: NDArray[Any], scores: NDArray[Any], count: Any, threshold: float
) -> Candidates:
    require_finite(np.asarray(count), "counts")
    if not 0 <= count <= len(boxes) or count != int(count):
        raise ModelError(
            f"the network counts {count:g} boxes, but its outputs hold {len(boxes)}",
            "Name boxes, labels, scores and counts in this order in `output.tensors`.",
        )
    used = slice(0, int(count))
    boxes, labels, scores = boxes[used].astype(np.float64), labels[used], scores[used].astype(np.float32)
    for values, what in ((boxes, "boxes"), (labels, "labels"), (scores, "scores")):
        require_finite(values, what)
    _require_probabilities(scores)
    best = scores >= threshold
    chosen = labels[best]
    if chosen.size and (chosen.min() < 0 or chosen.max() >= len(spec.labels) or (chosen != np.floor(chosen)).any()):
        raise ModelError(
            f"the network gives labels from {chosen.min():g} to {chosen.max():g}, the Spec has {len(spec.labels)}"
            f" (0 to {len(spec.labels) - 1})",
            _HINT,
        )
    return Candidates(boxes[best][:, [1, 0, 3, 2]], scores[best], chosen.astype(np.intp))


def _by_centre(boxes: Floats, scores: Floats, threshold: float) -> Candidates:
    centre, half = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64) / 2
    return _candidates(np.concatenate([centre - half, centre + half], axis=1), scores, threshold)


def _candidates(boxes: NDArray[np.float64], scores: Floats, threshold: float) -> Candidates:
    """Give each box its best label, and drop the boxes below the threshold; of equal scores the first label
    wins."""
    labels = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.intp)
    best = scores[np.arange(len(scores)), labels]
    reaching = best >= threshold
    return Candidates(boxes[reaching], best[reaching], labels[reaching])


def _locations_and_scores(spec: Detect, outputs: Outputs) -> tuple[NDArray[Any], NDArray[Any]]:
    first, second = _named(spec, outputs, 2)
    if not spec.tensors and second.shape[-1:] == (4,):
        if first.shape[-1:] == (4,):
            raise ModelError(
                "both outputs have 4 columns: which one has the locations?",
                "Name locations and scores in this order in `output.tensors`.",
            )
        first, second = second, first
    locations = (
        first[:, :, 0] if first.ndim == 4 and first.shape[2] == 1 else first
    )  # TensorFlow's box encodings: [N, anchors, 1, 4].
    columns = len(spec.labels)
    if locations.ndim != 3 or locations.shape[2] != 4:
        raise _misfit(first, "[N, anchors, 4]", "y, x, h, w", "ssd")
    if second.ndim != 3 or second.shape[:2] != locations.shape[:2] or second.shape[2] not in (columns, columns + 1):
        raise _misfit(
            second,
            f"[N, {locations.shape[1]:,}, {columns} or {columns + 1}]",
            f"{columns} labels, or the background before them",
            "ssd",
        )
    return locations, second


def _named(spec: Detect, outputs: Outputs, count: int) -> list[NDArray[Any]]:
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


def _misfit(output: NDArray[Any], expected: str, why: str, head: str) -> ModelError:
    return ModelError(f"the network's output is {list(output.shape)}; head '{head}' reads {expected} ({why})", _HINT)


def _require_probabilities(scores: NDArray[Any]) -> None:
    if scores.size and (scores.min() < -_SLACK or scores.max() > 1 + _SLACK):
        raise ModelError(
            f"the network's scores go from {scores.min():.3g} to {scores.max():.3g}; expected probabilities, 0 to 1",
            "Is the order of `output.tensors` right? For head = 'ssd', set `output.activation` to 'sigmoid' or"
            " 'softmax' where the scores are logits.",
        )


HEADS: Mapping[str, Callable[[Detect, Outputs, float], list[Candidates]]] = MappingProxyType(
    {"yolov5": yolov5, "yolov8": yolov8, "ssd": ssd, "tflite_postprocess": tflite_postprocess}
)


def columns(spec: Detect, outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Return the quantities that a head's outputs hold: each coordinate, the objectness, each label's scores, under
    names such as `output0, x`."""
    read = spec.tensors or tuple(outputs)
    listed: dict[str, NDArray[Any]] = {}
    for name, values in outputs.items():
        forms = _forms(spec, read.index(name)) if name in read else ()
        fitting = [form for form in forms if values.ndim >= 3 and values.shape[form[1]] == len(form[0])]
        listed |= along(values, fitting[0][1], name, fitting[0][0]) if len(fitting) == 1 else {name: values}
    return listed


def _forms(spec: Detect, position: int) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Return what the output at a position in the head's order may hold along which axis."""
    scores = scores_of(spec.labels)
    if spec.head == "yolov5":
        return ((("x", "y", "w", "h", "objectness", *scores), -1),)
    if spec.head == "yolov8":
        return ((("x", "y", "w", "h", *scores), 1),)
    if spec.head == "tflite_postprocess":
        return ((("y0", "x0", "y1", "x1"), -1),) if position == 0 else ()
    locations = ((("y", "x", "h", "w"), -1),)
    shares = ((scores, -1), (("score of the background", *scores), -1))
    if spec.tensors:
        return shares if position else locations
    return (*locations, *shares)
