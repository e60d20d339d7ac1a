"""Heads: how networks write boxes into their outputs, and how a batch of outputs becomes each picture's candidates.

All come down to three questions: in which columns the four numbers of a box stand, what they mean (its corners, its
centre and size, offsets from anchors or from the cells of a grid), and whether its label is the best of some scores or
a number of its own. A box has one label, its best, unless the Spec says `several_labels`; it is a candidate from the
threshold on. Some heads give points or mask coefficients beside each box.

Sources: Ultralytics' `non_max_suppression` (YOLOv5, YOLOv8), TensorFlow Lite's `TFLite_Detection_PostProcess`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.spec.spec import Detect
from plimsoll.tasks.base import Outputs, activate, require_finite
from plimsoll.tasks.detect.coding import centred, coder_scales, corners, decode_boxes, decode_cells, grid_anchors
from plimsoll.tasks.detect.columns import POINT_COLUMNS, box_format, row_columns
from plimsoll.tasks.detect.grids import nanodet, yunet
from plimsoll.tasks.detect.reading import (
    HINT,
    SLACK,
    Query,
    best_labels,
    column_ends,
    labelled,
    masks_of_boxes,
    misfit,
    named,
    require_probabilities,
    shapes,
)
from plimsoll.tasks.detect.suppression import Candidates


def rows(query: Query, outputs: Outputs) -> list[Candidates]:
    """Read one output whose rows are boxes, as `row_columns` says: `[N, boxes, columns]`, for yolov8
    `[N, columns, boxes]`."""
    spec = query.spec
    (raw,) = named(spec, {name: value for name, value in outputs.items() if name != spec.prototypes}, 1)
    table = _as_rows(spec, raw)
    names, scores = row_columns(spec, table.shape[2])
    at = {name: index for index, name in enumerate(names)}
    if table.size:
        ends = column_ends(raw, 1 if spec.head == "yolov8" else raw.ndim - 1)
        if not np.isfinite(ends).all():
            require_finite(table, "boxes or scores")
        for columns in (scores, *(slice(at[name], at[name] + 1) for name in ("objectness",) if name in at)):
            require_probabilities(ends[:, columns])
    if spec.head == "yolox":
        table = table.astype(np.float32)
        table[:, :, :4] = decode_cells(table[:, :, :4], spec.strides, *query.size)
        require_finite(table[:, :, :4], "box sizes")
    return [_from_rows(query, picture, index, at, scores) for index, picture in enumerate(table)]


def _as_rows(spec: Detect, raw: NDArray[Any]) -> NDArray[Any]:
    """Return `[N, boxes, columns]`; raises ModelError for another shape."""
    fixed, labels = len(row_columns(spec)[0]), len(spec.labels)
    if spec.head == "yolov8":
        if raw.ndim != 3 or raw.shape[1] != fixed + labels:
            raise misfit(raw, f"[N, {fixed + labels}, boxes]", f"{fixed} + {labels} labels", spec.head)
        return np.moveaxis(raw, 1, 2)
    if spec.head != "rows":
        if raw.ndim != 3 or raw.shape[2] != fixed + labels:
            raise misfit(raw, f"[N, boxes, {fixed + labels}]", f"{fixed} + {labels} labels", spec.head)
        return raw
    counts = [fixed]
    if "scores" in spec.columns:
        counts = [fixed + labels + more for more in {None: (0, 1), "none": (0,)}.get(spec.background, (1,))]
    if raw.ndim < 3 or raw.shape[-1] not in counts:
        expected = " or ".join(map(str, counts))
        raise ModelError(
            f"the network's output is {list(raw.shape)}; head 'rows' reads [N, boxes, {expected}]"
            f" ({', '.join(spec.columns)})",
            "Correct `output.columns` or `output.labels` in the Spec; where the output has no axis for pictures, write"
            ' batch_axis = "none".',
        )
    return raw.reshape(len(raw), math.prod(raw.shape[1:-1]), raw.shape[-1])


def _from_rows(query: Query, picture: NDArray[Any], index: int, at: Mapping[str, int], scores: slice) -> Candidates:
    spec, threshold = query.spec, query.threshold
    if "objectness" in at:  # Drop the boxes that can't reach the threshold: most of them.
        reaching = picture[:, at["objectness"]] >= threshold / (1 + SLACK)
    elif "score" in at:
        reaching = picture[:, at["score"]] >= threshold
        for name in ("picture", "label"):  # Rows that fill up an output have -1 in one of these.
            reaching &= picture[:, at[name]] >= 0 if name in at else True
    else:
        reaching = picture[:, _foreground(spec, scores)].max(axis=1, initial=0) >= threshold
    chosen = picture[reaching].astype(np.float32)
    order = ("x0", "y0", "x1", "y1") if "x0" in at else ("x", "y", "w", "h")
    boxes = corners(chosen[:, [at[name] for name in order]], "xyxy" if "x0" in at else "xywh")
    if "picture" in at and not np.isin(chosen[:, at["picture"]], (0, index)).all():
        raise ModelError(
            f"a row of picture {index} says that it belongs to picture {chosen[:, at['picture']].max():g}",
            'Write batch_axis = "none" in the Spec: one picture a call.',
        )
    if "score" in at:
        require_probabilities(chosen[:, at["score"]])
        numbers = chosen[:, at["label"]] if "label" in at else np.zeros(len(chosen))
        return labelled(spec, boxes, numbers, chosen[:, at["score"]])
    shares = chosen[:, _foreground(spec, scores)]
    if "objectness" in at:
        shares = shares * chosen[:, at["objectness"], np.newaxis]
    points = coefficients = angles = None
    if spec.oriented:
        angles = chosen[:, -1].astype(np.float64)
        require_finite(angles, "angles")
    if spec.points:
        points = chosen[:, scores.stop : scores.stop + POINT_COLUMNS * spec.points].astype(np.float64)
        points = points.reshape(-1, spec.points, POINT_COLUMNS)
    if spec.prototypes is not None:
        coefficients = chosen[:, -spec.coefficients :]
    return best_labels(query, boxes, shares, points, coefficients, angles)


def ssd(query: Query, outputs: Outputs) -> list[Candidates]:
    """Read locations `[N, anchors, 4 + 2 x points]` (offsets from the anchors, in the order of `box_format`; then each
    point's x and y) and scores `[N, anchors, labels]`, or one more with the background."""
    spec = query.spec
    locations, scores = _locations_and_scores(spec, outputs)
    if spec.anchor_grid:
        anchors = grid_anchors(spec.anchor_grid, query.size)
    else:
        anchors = centred(np.asarray(spec.anchors, np.float64), spec.anchor_format or box_format(spec))
    if locations.shape[1] != len(anchors):
        raise ModelError(
            f"the network gives {locations.shape[1]:,} locations, the Spec has {len(anchors):,} anchors",
            "Correct `output.anchor_grid`." if spec.anchor_grid else "Correct `output.anchors_file`.",
        )
    order = [box_format(spec).index(letter) for letter in "yxhw"]
    scales = coder_scales(spec.variances)[order]

    def decoded(picture: NDArray[Any], chosen: NDArray[np.bool_]) -> Decoded:
        own, values = anchors[chosen], picture[chosen]
        boxes = decode_boxes(values[:, order], own, scales, linear=spec.box_coder == "linear")
        require_finite(boxes, "box sizes")
        if not spec.points:
            return boxes, None
        offsets = values[:, 4:].reshape(-1, spec.points, 2).astype(np.float64) / scales[[1, 0]]
        return boxes, offsets * own[:, np.newaxis, [3, 2]] + own[:, np.newaxis, [1, 0]]

    return _scored(query, locations, scores, decoded)


def boxes(query: Query, outputs: Outputs) -> list[Candidates]:
    """Read decoded boxes `[N, boxes, 4]`, in the order of `box_format`, and scores `[N, boxes, labels]`, or one more
    with the background; or, with a third output, the score and the label of each box, `[N, boxes]`."""
    spec = query.spec
    if spec.masks is not None or (len(spec.tensors) or len(outputs)) == 3:
        return _boxes_with_labels(query, outputs)
    locations, scores = _locations_and_scores(spec, outputs)
    order = box_format(spec)
    return _scored(query, locations, scores, lambda picture, chosen: (corners(picture[chosen], order), None))


def _boxes_with_labels(query: Query, outputs: Outputs) -> list[Candidates]:
    spec, threshold = query.spec, query.threshold
    if not spec.tensors:
        raise ModelError(
            f"which of the outputs {', '.join(outputs)} has the boxes, which the scores and which the labels?",
            "Name boxes, scores and labels in this order in `output.tensors`.",
        )
    places, scores, labels = named(spec, outputs, 3)
    number, most = places.shape[:2] if places.ndim == 3 else (0, 0)
    scores, labels = (
        array.reshape(number, most) if array.size == number * most else array for array in (scores, labels)
    )
    if places.ndim != 3 or places.shape[2] != 4 or not scores.shape == labels.shape == (number, most):
        raise ModelError(
            f"the network's outputs are {shapes(places, scores, labels)}; head 'boxes' reads boxes [N, boxes, 4],"
            " scores [N, boxes] and labels [N, boxes]",
            "Name the three in this order in `output.tensors`; where they have no axis for pictures, write"
            ' batch_axis = "none".',
        )
    require_finite(places, "boxes")
    require_finite(scores, "scores")
    shares = activate(scores.astype(np.float32), spec.activation)
    require_probabilities(shares)
    masks = masks_of_boxes(spec, outputs, (number, most))
    candidates = []
    for index in range(number):
        chosen = (shares[index] >= threshold) & (labels[index] >= 0)
        own = corners(places[index][chosen], box_format(spec))
        inside = None if masks is None else masks[index][chosen]
        candidates.append(labelled(spec, own, labels[index][chosen], shares[index][chosen], inside))
    return candidates


Decoded = tuple[NDArray[np.float64], NDArray[np.float64] | None]
"""Boxes `[N, 4]`, and the points in them."""


def _scored(
    query: Query,
    locations: NDArray[Any],
    scores: NDArray[Any],
    decoded: Callable[[NDArray[Any], NDArray[np.bool_]], Decoded],
) -> list[Candidates]:
    spec, threshold = query.spec, query.threshold
    require_finite(locations, "locations")
    require_finite(scores, "scores")
    shares = activate(scores.astype(np.float32), spec.activation)
    require_probabilities(shares)
    shares = shares[:, :, _foreground(spec, slice(0, shares.shape[2]))]
    candidates = []
    for index in range(len(locations)):
        best = shares[index].max(axis=1) >= threshold
        places, points = decoded(locations[index], best)
        candidates.append(best_labels(query, places, shares[index][best], points))
    return candidates


def selected(query: Query, outputs: Outputs) -> list[Candidates]:
    """Read what ONNX's NonMaxSuppression chose: boxes `[N, boxes, 4]`, scores `[N, labels, boxes]`, and the chosen
    `[n, 3]` as (picture, label, box)."""
    spec = query.spec
    places, scores, indices = named(spec, outputs, 3)
    indices = indices.reshape(-1, indices.shape[-1])  # With the picture's axis in front, where a runner put it there.
    if places.ndim != 3 or scores.ndim != 3 or places.shape[2] != 4 or indices.shape[1] != 3:
        raise ModelError(
            f"the network's outputs are {shapes(places, scores, indices)}; head 'selected' reads boxes [N, boxes, 4],"
            " scores [N, labels, boxes] and what was chosen, [n, 3]",
            "Name the three in this order in `output.tensors`.",
        )
    for values, what in ((places, "boxes"), (scores, "scores")):
        require_finite(values, what)
    indices = indices[(indices >= 0).all(axis=1)]  # Fixed sizes are filled up with -1.
    limits = (len(places), scores.shape[1], places.shape[1])
    if indices.size and (indices.max(axis=0) >= limits).any():
        raise ModelError(
            f"the network chose {[int(most) for most in indices.max(axis=0)]} (picture, label, box); there are"
            f" {list(limits)}",
            HINT,
        )
    candidates = []
    for index in range(len(places)):
        _, labels, boxes = indices[indices[:, 0] == index].T
        shares = activate(scores[index][labels, boxes].astype(np.float32), spec.activation)
        require_probabilities(shares)
        reaching = shares >= query.threshold
        own = corners(places[index][boxes[reaching]], box_format(spec))
        candidates.append(labelled(spec, own, labels[reaching], shares[reaching]))
    return candidates


def _foreground(spec: Detect, scores: slice) -> slice:
    """Return the columns of the labels' scores, without the background's."""
    if scores.stop - scores.start == len(spec.labels):
        return scores
    return slice(scores.start, scores.stop - 1) if spec.background == "last" else slice(scores.start + 1, scores.stop)


def tflite_postprocess(query: Query, outputs: Outputs) -> list[Candidates]:
    """Read boxes `[N, most, 4]` (y0, x0, y1, x1 as fractions), labels `[N, most]`, scores `[N, most]` and counts `[N]`,
    in that order."""
    spec, threshold = query.spec, query.threshold
    places, labels, scores, counts = named(spec, outputs, 4)
    number, most = places.shape[:2] if places.ndim == 3 else (0, 0)
    fits = (
        places.ndim == 3
        and places.shape[2] == 4
        and labels.shape == scores.shape == (number, most)
        and counts.size == number
    )
    if not fits:
        raise ModelError(
            f"the network's outputs are {shapes(places, labels, scores, counts)}; head 'tflite_postprocess' reads"
            " boxes [N, most, 4], labels [N, most], scores [N, most], counts [N]",
            "Name the four in this order in `output.tensors` of the Spec.",
        )
    masks = masks_of_boxes(spec, outputs, (number, most))
    return [
        _postprocessed(spec, picture, threshold, None if masks is None else masks[index])
        for index, picture in enumerate(zip(places, labels, scores, counts.reshape(-1), strict=True))
    ]


def _postprocessed(spec: Detect, picture: tuple[Any, ...], threshold: float, masks: NDArray[Any] | None) -> Candidates:
    places, labels, scores, count = picture
    require_finite(np.asarray(count), "counts")
    if not 0 <= count <= len(places) or count != int(count):
        raise ModelError(
            f"the network counts {count:g} boxes, but its outputs hold {len(places)}",
            "Name boxes, labels, scores and counts in this order in `output.tensors`.",
        )
    used = slice(0, int(count))
    places, labels, scores = places[used].astype(np.float64), labels[used], scores[used].astype(np.float32)
    for values, what in ((places, "boxes"), (labels, "labels"), (scores, "scores")):
        require_finite(values, what)
    require_probabilities(scores)
    best = scores >= threshold
    own = None if masks is None else masks[used][best]
    return labelled(spec, corners(places[best], "yxyx"), labels[best], scores[best], own)


def _locations_and_scores(spec: Detect, outputs: Outputs) -> tuple[NDArray[Any], NDArray[Any]]:
    first, second = named(spec, outputs, 2)
    width = 4 + 2 * spec.points
    if not spec.tensors and second.shape[-1:] == (width,):
        if first.shape[-1:] == (width,):
            raise ModelError(
                f"both outputs have {width} columns: which one has the locations?",
                "Name locations and scores in this order in `output.tensors`.",
            )
        first, second = second, first
    locations = (
        first[:, :, 0] if first.ndim == 4 and first.shape[2] == 1 else first
    )  # TensorFlow's box encodings: [N, anchors, 1, 4].
    what, order = ("anchors", box_format(spec)) if spec.head == "ssd" else ("boxes", box_format(spec))
    if locations.ndim != 3 or locations.shape[2] != width:
        points = f", then {spec.points} points" if spec.points else ""
        raise misfit(first, f"[N, {what}, {width}]", f"{', '.join(order)}{points}", spec.head)
    columns, count = len(spec.labels), locations.shape[1]
    widths = {None: (columns, columns + 1), "none": (columns,)}.get(spec.background, (columns + 1,))
    if second.ndim == 2 and 1 in widths:
        second = second[:, :, np.newaxis]
    if second.ndim == 3 and _label_axis(spec, second.shape, widths) == 1 and second.shape[2] == count:
        second = np.moveaxis(second, 1, 2)  # [N, labels, boxes], as ONNX's NonMaxSuppression takes them.
    if second.ndim != 3 or second.shape[:2] != locations.shape[:2] or second.shape[2] not in widths:
        where = {"last": "after", "first": "before"}.get(spec.background or "", "before")
        raise misfit(
            second,
            f"[N, {count:,}, {' or '.join(map(str, widths))}]",
            f"{columns} labels" + (f", or the background {where} them" if columns + 1 in widths else ""),
            spec.head,
        )
    return locations, second


def _label_axis(spec: Detect, shape: tuple[int, ...], widths: tuple[int, ...]) -> int:
    """Return which axis of the scores counts labels; raises ModelError where both could."""
    if spec.label_axis is None and shape[1] == shape[2] and shape[1] in widths:
        raise ModelError(
            f"the network's scores are {list(shape)}, as many boxes as labels: which axis counts the labels?",
            "Write `output.label_axis = 2` in the Spec for [N, boxes, labels], or 1 for [N, labels, boxes].",
        )
    return spec.label_axis or (1 if shape[2] not in widths and shape[1] in widths else 2)


HEADS: Mapping[str, Callable[[Query, Outputs], list[Candidates]]] = MappingProxyType(
    {
        "yolov5": rows,
        "yolov8": rows,
        "yolox": rows,
        "rows": rows,
        "ssd": ssd,
        "boxes": boxes,
        "selected": selected,
        "nanodet": nanodet,
        "yunet": yunet,
        "tflite_postprocess": tflite_postprocess,
    }
)
