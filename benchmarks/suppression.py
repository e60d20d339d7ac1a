"""Decode and suppress a YOLOv5 head of 25,200 x 85 values, against OpenCV's NMSBoxes behind the usual NumPy.

    python benchmarks/suppression.py

A picture with so many objects, each found by several cells that overlap, at a confidence of 0.25; and all boxes as
candidates (0.001), as for a precision-recall curve.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from plimsoll.spec.files import validate
from plimsoll.tasks import decoder

BOXES, LABELS, SIDE = 25_200, 80, 640
ROUNDS = 30


def head(objects: int, copies: int = 8) -> NDArray[np.float32]:
    """Return `[1, 25200, 85]`."""
    random = np.random.default_rng(0)
    table = np.zeros((1, BOXES, 5 + LABELS), np.float32)
    table[0, :, :2] = random.uniform(0, SIDE, (BOXES, 2))
    table[0, :, 2:4] = random.uniform(8, 200, (BOXES, 2))
    table[0, :, 4] = random.uniform(0, 0.2, BOXES) ** 2
    table[0, :, 5:] = random.uniform(0, 0.3, (BOXES, LABELS))
    for index in range(objects):
        rows = random.choice(BOXES, copies, replace=False)
        table[0, rows, :4] = [*random.uniform(50, 590, 2), *random.uniform(40, 160, 2)]
        table[0, rows, :4] += random.normal(0, 3, (copies, 4))
        table[0, rows, 4] = random.uniform(0.5, 0.95, copies)
        table[0, rows, 5 + index % LABELS] = random.uniform(0.7, 0.99, copies)
    return table


def opencv(table: NDArray[np.float32], confidence: float, iou: float, most: int) -> int:
    """Return how many boxes stay, as programs around OpenCV compute it."""
    rows = table[0][table[0, :, 4] >= confidence]
    scores = rows[:, 5:] * rows[:, 4:5]
    labels = scores.argmax(axis=1)
    best = scores[np.arange(len(rows)), labels]
    rows, labels, best = rows[best >= confidence], labels[best >= confidence], best[best >= confidence]
    boxes = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]], axis=1)
    return len(cv2.dnn.NMSBoxesBatched(boxes.tolist(), best.tolist(), labels.tolist(), confidence, iou)[:most])


def measured(call: Callable[[], Any]) -> float:
    """Return the median milliseconds of a call."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return median(times[3:])


def main() -> None:
    """Print a line for each case."""
    for objects, confidence in ((10, 0.25), (100, 0.25), (100, 0.001)):
        output = {
            "task": "detect",
            "head": "yolov5",
            "labels": [f"label {index}" for index in range(LABELS)],
            "confidence": confidence,
        }
        steps = [{"step": "decode"}, {"step": "resize", "width": SIDE, "height": SIDE}]
        task = decoder(validate({"name": "it", "input": {"steps": steps}, "output": output}))
        table = head(objects)
        boxes = len(getattr(task.decode({"output": table}, None, [None])[0], "boxes", ()))
        ours = measured(lambda task=task, table=table: task.decode({"output": table}, None, [None]))  # type: ignore[misc]
        theirs = measured(lambda table=table, confidence=confidence: opencv(table, confidence, 0.45, 300))  # type: ignore[misc]
        case = f"{objects} objects, confidence {confidence:g}: {boxes} boxes"
        print(f"{case}; Plimsoll {ours:.1f} ms, OpenCV {theirs:.1f} ms")


if __name__ == "__main__":
    main()
