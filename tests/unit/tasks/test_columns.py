"""What an output holds is taken apart, so that pixels don't hide scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from plimsoll.spec.files import validate
from plimsoll.tasks import decoder

LABELS = ["cat", "dog", "bird"]
SCORES = ["score of 'cat'", "score of 'dog'", "score of 'bird'"]
random = np.random.default_rng(1)


def columns(outputs: dict[str, Any], **output: Any) -> dict[str, Any]:
    spec = {"name": "it", "input": {"steps": [{"step": "decode"}]}, "output": output}
    return decoder(validate(spec)).columns(outputs)


def test_heads_are_cut_into_coordinates_objectness_and_each_labels_scores() -> None:
    raw = random.normal(size=(2, 10, 8)).astype(np.float32)
    cut = columns({"out": raw}, task="detect", head="yolov5", labels=LABELS)
    assert list(cut) == [f"out, {name}" for name in ("x", "y", "w", "h", "objectness", *SCORES)]
    np.testing.assert_array_equal(cut["out, score of 'dog'"], raw[:, :, 6])
    raw = random.normal(size=(2, 7, 10)).astype(np.float32)
    cut = columns({"out": raw}, task="detect", head="yolov8", labels=LABELS)
    assert list(cut) == [f"out, {name}" for name in ("x", "y", "w", "h", *SCORES)]
    np.testing.assert_array_equal(cut["out, h"], raw[:, 3])


def test_an_ssds_locations_and_scores_are_cut_with_its_background() -> None:
    outputs = {"locations": random.normal(size=(2, 10, 1, 4)), "scores": random.normal(size=(2, 10, 4))}
    outputs["more"] = random.normal(size=(2, 5))
    ssd = {"task": "detect", "head": "ssd", "labels": LABELS, "anchors": [[0.5, 0.5, 1, 1]]}
    cut = columns(outputs, **ssd, tensors=["locations", "scores"])
    assert list(cut) == [
        *(f"locations, {name}" for name in ("y", "x", "h", "w")),
        *(f"scores, {name}" for name in ("score of the background", *SCORES)),
        "more",
    ]
    np.testing.assert_array_equal(cut["scores, score of 'cat'"], outputs["scores"][:, :, 1])


def test_points_and_planes_are_cut() -> None:
    outputs = {"points": random.normal(size=(2, 15)), "sure": random.normal(size=(2, 1))}
    cut = columns(outputs, task="landmarks", tensor="points", points=5, dimensions=3, presence="sure")
    assert list(cut) == ["points, x", "points, y", "points, z", "sure, presence"]
    np.testing.assert_array_equal(cut["points, y"], outputs["points"][:, 1::3])
    planes = random.normal(size=(2, 6, 7, 3))
    cut = columns({"out": planes}, task="segment", labels=LABELS, layout="NHWC")
    assert list(cut) == ["out, plane of 'cat'", "out, plane of 'dog'", "out, plane of 'bird'"]
    np.testing.assert_array_equal(cut["out, plane of 'bird'"], planes[..., 2])


def test_what_holds_one_quantity_or_another_shape_stays_whole() -> None:
    outputs = {"out": random.normal(size=(2, 3))}
    assert list(columns(outputs, task="classify", labels=LABELS)) == ["out"]
    assert list(columns(outputs, task="detect", head="yolov8", labels=LABELS)) == ["out"]
    assert list(columns(outputs, task="tensor")) == ["out"]
