"""What stands in which column of a head's outputs."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from plimsoll.spec.spec import Detect
from plimsoll.tasks.base import Outputs, along, scores_of

Names = tuple[str, ...]
_FORMATS = {"ssd": "yxhw", "boxes": "xyxy", "tflite_postprocess": "yxyx"}
_DEFAULT_FORMATS = {**_FORMATS, "selected": "yxyx"}
POINT_COLUMNS = 3
"""A point in a YOLO head: x, y, and how sure the network is of it."""


def box_format(spec: Detect) -> str:
    """Return the order of a box's four numbers: the Spec's, or its head's own."""
    return spec.box_format or _DEFAULT_FORMATS.get(spec.head, "xywh")


def box_columns(order: str) -> Names:
    """Return the names of a box's four numbers: x, y, w, h; or x0, y0, x1, y1 of two corners."""
    return (
        (f"{order[0]}0", f"{order[1]}0", f"{order[2]}1", f"{order[3]}1") if order in ("xyxy", "yxyx") else tuple(order)
    )


def row_columns(spec: Detect, count: int | None = None) -> tuple[Names, slice]:
    """Return the columns of a row before and after its scores by name, and those of the scores, for rows of `count`
    columns. Names after the scores are at their own positions, with empty names for the scores between."""
    if spec.head == "rows":
        names: Names = spec.columns
    else:
        objectness = () if spec.head == "yolov8" else ("objectness",)
        points = (f"{letter} of point {at}" for at in range(spec.points) for letter in ("x", "y", "visibility"))
        masks = (f"coefficient {at}" for at in range(spec.coefficients if spec.prototypes else 0))
        angle = ("angle",) if spec.oriented else ()
        names = (*box_columns(box_format(spec)), *objectness, "scores", *points, *masks, *angle)
    if "scores" not in names:
        return names, slice(0, 0)
    start, fixed = names.index("scores"), len(names) - 1
    wide = 0 if count is None else count - fixed
    return (*names[:start], *("",) * wide, *names[start + 1 :]), slice(start, start + wide)


def columns(spec: Detect, outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Return the quantities that a head's outputs hold: each coordinate, the objectness, each label's scores, under
    names such as `output0, x`."""
    read = spec.tensors or tuple(outputs)
    if spec.head in ("ssd", "boxes") and not spec.tensors:
        with_four = [name for name, values in outputs.items() if values.shape[-1:] == (4,)]
        read = tuple(sorted(outputs, key=with_four[:1].count, reverse=True)) if len(with_four) == 1 else ()
    listed: dict[str, NDArray[Any]] = {}
    for name, values in outputs.items():
        forms = _forms(spec, read.index(name), values) if name in read else []
        fitting = [form for form in forms if values.ndim >= 3 and values.shape[form[1]] == len(form[0])]
        listed |= along(values, fitting[0][1], name, fitting[0][0]) if fitting else {name: values}
    return listed


def _forms(spec: Detect, position: int, values: NDArray[Any]) -> list[tuple[Names, int]]:
    """Return what the output at a position in the head's order may hold, and along which axis."""
    labels = scores_of(spec.labels)
    with_background = (*labels, _BACKGROUND) if spec.background == "last" else (_BACKGROUND, *labels)
    if spec.head in _FORMATS:
        locations = (box_columns(box_format(spec)), -1)
        shares: list[tuple[Names, int]] = [
            (labels, -1),
            (with_background, -1),
            *([(labels, 1), (with_background, 1)] if values.ndim == 3 else []),
        ]
        if spec.label_axis is not None:
            shares = [(names, axis) for names, axis in shares if axis == (1 if spec.label_axis == 1 else -1)]
        shares = [] if spec.head == "tflite_postprocess" else shares[:2] if spec.head == "ssd" else shares
        return [locations] if position == 0 else shares
    axis = 1 if spec.head == "yolov8" else -1
    names, scores = row_columns(spec, values.shape[axis] if values.ndim >= 3 else None)
    wide = scores.stop - scores.start
    if wide not in (0, len(labels), len(labels) + 1):
        return []
    own = labels if wide == len(labels) else with_background
    named = [own[at - scores.start] if scores.start <= at < scores.stop else name for at, name in enumerate(names)]
    return [(tuple(f"column {at}" if name == "-" else name for at, name in enumerate(named)), axis)]


_BACKGROUND = "score of the background"
