"""Rows are followed as answers are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.answer_networks import spec_of
from plimsoll.errors import InputError
from plimsoll.inference.video.answers import Follower
from plimsoll.inference.video.rows import RowFollower
from plimsoll.spec import Spec
from plimsoll.tasks import decoder
from plimsoll.tasks.base import Answer
from plimsoll.tasks.detect import Box, BoxMask, Detection
from plimsoll.tasks.landmarks import Points


def both(spec: Spec, track: bool, smooth: bool) -> tuple[Follower, RowFollower]:
    described = SimpleNamespace(spec=spec, task=decoder(spec))
    followers = Follower(described, None, track=track, smooth=smooth)
    return followers, RowFollower(spec.model_dump(mode="json"), None, track=track, smooth=smooth)


def numbers(row: object) -> list[float]:
    if isinstance(row, dict):
        return [number for value in row.values() for number in numbers(value)]
    if isinstance(row, list):
        return [number for value in row for number in numbers(value)]
    return [float(row)] if isinstance(row, (int, float)) else []


def test_boxes_points_and_masks() -> None:
    chance = np.random.default_rng(1)
    answers, rows = both(spec_of("detect", points=2), track=True, smooth=True)
    seen = set()
    for frame in range(12):
        boxes = []
        for index, (x, y) in enumerate(((20, 20), (60, 24))):
            x0, y0 = x + 2 * frame + chance.normal(0, 0.4), y + chance.normal(0, 0.4)
            points = tuple((x0 + at, y0 + at + chance.normal(0, 0.5), 0.25) for at in (3, 9))
            score = 0.15 if (frame, index) == (6, 1) else 0.8  # weak for once: it stays on its track
            boxes.append(Box("red", score, (x0, y0, x0 + 14, y0 + 14), points, BoxMask(4, 4, (2, 3, 11))))
        before = Detection(tuple(boxes))
        expected, actual = answers.follow(before, frame / 25).row(), rows.update(before.row(), frame / 25)
        assert [list(box) for box in actual["boxes"]] == [list(box) for box in expected["boxes"]]
        assert numbers(actual) == pytest.approx(numbers(expected), abs=0.02)
        assert all(box["mask"] == boxes[0].mask.row() for box in actual["boxes"] if boxes[0].mask)
        seen |= {box["track"] for box in actual["boxes"]}
    assert seen == {1, 2}
    assert rows.threshold == pytest.approx(0.1)


def test_landmarks_keep_their_presence_and_visibility() -> None:
    answers, rows = both(spec_of("landmarks"), track=False, smooth=True)
    for frame, x in enumerate((10.0, 12.0, 11.0)):
        answer: Answer = Points(((x, 5.0), (x + 8, 9.0)), 0.9, (0.5, 0.75))
        expected = answers.follow(answer, frame / 25).row()
        assert rows.update(answer.row(), frame / 25) == expected
    assert expected["visibility"] == [0.5, 0.75]
    assert expected["points"][0][0] != 11.0


def test_many_boxes_are_shown_and_the_surest_followed() -> None:
    _, rows = both(spec_of("detect"), track=True, smooth=False)
    crowd = Detection(tuple(Box("red", 0.9 - at / 1000, (at, 0, at + 0.9, 1)) for at in range(300)))
    shown = [rows.update(crowd.row(), frame / 25)["boxes"] for frame in range(2)][1]
    assert len(shown) == 300
    assert sum(box["track"] is not None for box in shown) == 100


def test_what_has_no_boxes_or_points_is_refused() -> None:
    for task, wish in (("landmarks", {"track": True}), ("detect", {"smooth": True}), ("classify", {"track": True})):
        with pytest.raises(InputError, match="needs"):
            RowFollower(spec_of(task).model_dump(mode="json"), None, **wish)
