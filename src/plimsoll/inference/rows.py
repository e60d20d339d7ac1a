"""Predictions as rows: their keys and values, and their types in Apache Arrow."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from plimsoll.inference.stream import Prediction
from plimsoll.tasks.base import Task
from plimsoll.tasks.detect import DetectTask


def row(prediction: Prediction, task: Task, top: int | None) -> dict[str, Any]:
    """Return `path`, the task's own keys, `frame` and `frames` where the Spec answers several, and `error`.

    Where clips are answered, `frame` and `time` follow the path; both are null for a picture.
    """
    answered = prediction.answer is not None
    answer = prediction.answer.row(top) if prediction.answer is not None else task.empty_row()
    moment: dict[str, Any] = {}
    if task.answers_clips:
        time = prediction.time
        moment = {"frame": None if time is None else prediction.frame, "time": None if time is None else round(time, 6)}
    frames: dict[str, Any] = {}
    if task.answers_frames:
        frames = {"frame": prediction.frame if answered else None, "frames": prediction.frames if answered else None}
    return {"path": prediction.path, **moment, **answer, **frames, "error": prediction.error}


def keys(task: Task) -> list[str]:
    """Return the keys of each row."""
    return list(row(Prediction("", None), task, None))


def escaped(text: str) -> str:
    """Return text that is valid UTF-8: of a path that is not, the odd bytes become backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def arrow_types(arrow: Any, task: Task) -> dict[str, Any]:
    """Return the Arrow types of the columns whose type is known; what a task has besides becomes JSON, as text.

    `arrow` is the module `pyarrow`.
    """
    text, number, whole = arrow.string(), arrow.float64(), arrow.int64()
    box = [("label", text), ("score", number), ("box", arrow.list_(number, 4))]
    if isinstance(task, DetectTask):
        if task.spec.points:
            box.append(("points", arrow.list_(arrow.list_(number))))
        if task.spec.oriented:
            box.append(("corners", arrow.list_(arrow.list_(number))))
        if task.spec.has_masks:
            box.append(("mask", arrow.struct([("size", arrow.list_(whole, 2)), ("counts", arrow.list_(whole))])))
        if task.answers_clips:
            box.append(("track", whole))
    shares = arrow.list_(arrow.struct([("label", text), ("share", number)]))
    masks = arrow.map_(text, arrow.list_(whole))
    return {
        "label": text,
        "score": number,
        "text": text,
        "scores": arrow.map_(text, number),
        "boxes": arrow.list_(arrow.struct(box)),
        "points": arrow.list_(arrow.list_(number)),
        "presence": number,
        "frame": whole,
        "time": number,
        "duration": number,
        "frames": whole,
        "mask": arrow.struct([("size", arrow.list_(whole, 2)), ("labels", shares), ("rle", masks)]),
    }


def arrow_values(values: dict[str, Any], nested: Collection[str]) -> dict[str, Any]:
    """Return a row's values as Arrow takes them: maps as lists of pairs, and the keys in `nested` as JSON."""
    values = dict(values)
    if values.get("scores") is not None:
        values["scores"] = list(values["scores"].items())
    if values.get("mask") is not None and "rle" in values["mask"]:
        values["mask"] = {**values["mask"], "rle": list(values["mask"]["rle"].items())}
    return {key: json.dumps(value) if key in nested and value is not None else value for key, value in values.items()}
