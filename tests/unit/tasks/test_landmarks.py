"""Points: how they are read, placed, and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.preprocessing import ImageGeometry
from plimsoll.spec.files import validate
from plimsoll.tasks import decoder
from plimsoll.tasks.landmarks import LandmarksTask

GEOMETRY = ImageGeometry(1280, 720, 640, 640, (2.0, 1.5), (0.0, -280.0), (0.0, 0.0, 1280.0, 720.0))


def task(**output: Any) -> LandmarksTask:
    landmarks = decoder(
        validate(
            {
                "name": "it",
                "input": {"steps": [{"step": "decode"}]},
                "output": {"task": "landmarks", "points": 2, **output},
            }
        )
    )
    assert isinstance(landmarks, LandmarksTask)
    return landmarks


@pytest.mark.parametrize("shape", [(1, 4), (1, 2, 2), (1, 1, 1, 4)])
@pytest.mark.parametrize("normalized", [False, True])
def test_points_in_the_picture(shape: tuple[int, ...], normalized: bool) -> None:
    raw = np.array([320, 320, -10, 700], np.float32).reshape(shape) / (640 if normalized else 1)
    answer = task(normalized=normalized).decode({"x": raw}, geometries=[GEOMETRY])[0]
    assert answer.row() == {"points": [[640.0, 200.0], [-20.0, 770.0]], "presence": None}, (
        "a point may lie outside of the picture"
    )
    assert answer.brief() == "2 points"


@pytest.mark.parametrize("normalized", [False, True])
def test_depth_is_on_the_scale_of_x(normalized: bool) -> None:
    raw = np.array([[[320, 320, 10], [0, 0, -5]]], np.float32) / (640 if normalized else 1)
    answer = task(normalized=normalized, dimensions=3).decode({"x": raw}, geometries=[GEOMETRY])[0]
    assert answer.row()["points"] == [[640.0, 200.0, 20.0], [0.0, -280.0, -10.0]]
    assert task(dimensions=3).decode({"x": raw * 640 if normalized else raw})[0].points[0] == pytest.approx(
        (320, 320, 10), abs=1e-3
    )


def test_presence() -> None:
    outputs = {"points": np.zeros((2, 4), np.float32), "there": np.array([[0.1], [0.9]], np.float32)}
    landmarks = task(tensor="points", presence="there")
    both = landmarks.decode(outputs)
    assert [answer.presence for answer in both] == [0.1, 0.9]
    assert [len(answer.points) for answer in both] == [2, 2], "the Spec has no threshold; the caller may give one"
    assert [answer.row()["points"] for answer in landmarks.decode(outputs, 0.5)] == [[], [[0.0, 0.0], [0.0, 0.0]]]
    assert both[1].brief() == "2 points, presence 0.9000"
    assert landmarks.empty_row() == {"points": None, "presence": None}


GOOD = np.zeros((1, 4), np.float32)
BAD: list[tuple[dict[str, Any], dict[str, NDArray[Any]], str]] = [
    ({}, {"x": np.zeros((1, 6), np.float32)}, r"output is \[1, 6\], the Spec has 2 points of 2 values"),
    ({"dimensions": 3}, {"x": GOOD}, r"\[1, 4\], the Spec has 2 points of 3 values"),
    ({}, {"x": np.zeros(4, np.float32)}, r"output is \[4\]"),
    ({}, {"x": np.array([[0, 1, np.nan, 2]], np.float32)}, "non-finite points in the network's output: nan"),
    ({}, {"x": np.array([[0, 1, -np.inf, 2]], np.float32)}, "non-finite points in the network's output: -inf"),
    ({}, {"x": GOOD, "y": GOOD}, "the network has the outputs x, y"),
    ({"tensor": "z"}, {"x": GOOD}, "the Spec names z"),
    ({"tensor": "x", "presence": "y"}, {"x": GOOD}, "the output 'y' is absent"),
    (
        {"tensor": "x", "presence": "y"},
        {"x": GOOD, "y": np.zeros((1, 2), np.float32)},
        r"the output 'y' is \[1, 2\]; expected one value",
    ),
    (
        {"tensor": "x", "presence": "y"},
        {"x": GOOD, "y": np.array([np.nan], np.float32)},
        "non-finite presences",
    ),
]


@pytest.mark.parametrize(("output", "outputs", "words"), BAD)
def test_outputs_that_do_not_fit_are_refused_in_words(
    output: dict[str, Any], outputs: dict[str, NDArray[Any]], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        task(**output).decode(outputs)
    assert caught.value.hint
