"""Objects keep their numbers across crossings, gaps and weak boxes; the assignment is the best there is; smoothing
takes the tremble and leaves the motion."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from helpers.crossings import CONFIDENCE, RATE, crossing, detections
from helpers.identities import Boxes, idf1, switches
from plimsoll.inference.video.assignment import overlaps, pairs
from plimsoll.inference.video.smoothing import OneEuro, PointSmoother
from plimsoll.inference.video.tracking import TrackedBox, Tracker
from plimsoll.tasks.detect import Box, Detection
from plimsoll.tasks.landmarks import Points


def tracked(frames: list[Detection], rate: float = RATE) -> list[Boxes]:
    tracker = Tracker(CONFIDENCE)
    answers = [tracker.update(frame, index / rate) for index, frame in enumerate(frames)]
    return [{box.track: box.box for box in answer.boxes if box.track is not None} for answer in answers]  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(5))
def test_numbers_stay_across_crossings(seed: int) -> None:
    truth = crossing()
    tracks = tracked(detections(truth, seed))
    assert idf1(truth, tracks) > 0.95
    assert switches(truth, tracks) == 0


def test_the_measure_sees_exchanged_numbers() -> None:
    """What the tracker is judged by falls where two tracks are exchanged half way."""
    truth = crossing(100, 2)
    exchanged = [
        boxes if index < 50 else {0: boxes[1], 1: boxes[0]} for index, boxes in enumerate(map(dict.copy, truth))
    ]
    assert idf1(truth, truth) == 1
    assert idf1(truth, exchanged) == pytest.approx(0.5, abs=0.05)
    assert switches(truth, exchanged) == 2


def test_a_sampled_clip_is_tracked_by_its_times() -> None:
    """Every third frame: speeds are in pixels a second, not a frame."""
    truth = crossing()[::3]
    assert idf1(truth, tracked(detections(truth), RATE / 3)) > 0.9


def test_weak_boxes_continue_a_track_and_begin_none() -> None:
    strong, weak = (Detection((Box("cat", score, (10.0, 10.0, 60.0, 60.0)),)) for score in (0.9, 0.2))
    tracker = Tracker(CONFIDENCE)
    assert tracker.update(weak, 0.0).boxes == ()
    first = tracker.update(strong, 0.1).boxes
    assert [box.track for box in first if isinstance(box, TrackedBox)] == [None], "seen once"
    assert tracker.update(strong, 0.2).boxes[0].row()["track"] == 1
    assert tracker.update(weak, 0.3).boxes[0].row() == {
        "label": "cat",
        "score": 0.2,
        "box": [10.0, 10.0, 60.0, 60.0],
        "track": 1,
    }


def test_a_track_survives_a_short_gap_and_not_a_long_one() -> None:
    def at(time: float) -> Detection:
        left = 100 * time
        return Detection((Box("cat", 0.9, (left, 0.0, left + 50, 50.0)),))

    for gap, expected in ((0.8, 1), (3.0, 2)):
        tracker = Tracker(CONFIDENCE)
        for index in range(10):
            tracker.update(at(index / 10), index / 10)
        tracker.update(Detection(()), 1.0)
        tracker.update(at(1.0 + gap), 1.0 + gap)
        assert tracker.update(at(1.1 + gap), 1.1 + gap).boxes[0].row()["track"] == expected


def test_labels_do_not_share_a_track() -> None:
    tracker = Tracker(CONFIDENCE)
    numbers = []
    for index, label in enumerate(["cat", "cat", "dog", "dog"]):
        box = Box(label, 0.9, (0.0, 0.0, 50.0, 50.0))
        numbers.append(tracker.update(Detection((box,)), index / RATE).boxes[0].row()["track"])
    assert numbers == [1, 1, None, 2]


def test_the_assignment_has_the_largest_sum() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        rows, columns = random.integers(1, 6, 2)
        gains = np.round(random.uniform(0, 1, (rows, columns)), 2) * (random.uniform(0, 1, (rows, columns)) < 0.7)
        matched, left, fresh = pairs(gains, 0.2)
        usable = np.where(gains >= 0.2, gains, 0)
        wide = usable if rows <= columns else usable.T
        best = max(
            sum(wide[row, column] for row, column in enumerate(choice))
            for choice in itertools.permutations(range(wide.shape[1]), wide.shape[0])
        )
        assert sum(gains[pair] for pair in matched) == pytest.approx(best)
        assert all(gains[pair] >= 0.2 for pair in matched)
        assert sorted([row for row, _ in matched] + left) == [*range(rows)]
        assert sorted([column for _, column in matched] + fresh) == [*range(columns)]


def test_overlaps() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 20]])
    assert overlaps(boxes, boxes)[:2, :2] == pytest.approx(np.array([[1, 1 / 3], [1 / 3, 1]]))
    assert not overlaps(boxes, boxes)[2].any()


def test_smoothing_takes_the_tremble_and_leaves_the_motion() -> None:
    random = np.random.default_rng(1)
    still = OneEuro()
    noisy = 100 + random.normal(0, 1, (200, 2))
    smooth = np.array([still(values, index / RATE, 100) for index, values in enumerate(noisy)])
    assert smooth[25:].std() < 0.5 * noisy[25:].std()
    moving = OneEuro()
    path = np.array([[4.0 * index, 0.0] for index in range(100)])  # a size of the object a second
    followed = np.array([moving(values, index / RATE, 100) for index, values in enumerate(path)])
    assert np.abs(followed[50:] - path[50:]).max() < 8, "less than two frames behind"


def test_points_begin_anew_after_a_gap() -> None:
    smoother = PointSmoother()
    square = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0))
    far = tuple((x + 500, y) for x, y in square)
    assert smoother.update(Points(square, 0.9), 0.0).points == square
    assert smoother.update(Points((), 0.1), 0.04).points == ()
    assert smoother.update(Points(far, 0.9), 2.0).points == far


def test_points_in_boxes_are_smoothed_object_by_object() -> None:
    """Two hands: what is steadied is each one's own; a point's visibility stays."""
    random = np.random.default_rng(2)
    tracker, smoother = Tracker(CONFIDENCE), PointSmoother()
    raw, smooth = [], []
    for index in range(60):
        boxes = []
        for left in (0.0, 300.0):
            x, y = random.normal((left + 40, 40), 1.0)
            boxes.append(Box("hand", 0.9, (left, 0.0, left + 80, 80.0), ((x, y, 0.5), (left + 80, 80.0, 0.5))))
        answer = smoother.update_boxes(tracker.update(Detection(tuple(boxes)), index / RATE), index / RATE)
        raw.append([box.points[0][0] for box in boxes])
        smooth.append([box.points[0][0] for box in sorted(answer.boxes, key=lambda box: box.box)])
        assert all(point[2] == 0.5 for box in answer.boxes for point in box.points)
    assert (np.std(smooth[20:], axis=0) < 0.6 * np.std(raw[20:], axis=0)).all()
    assert np.mean(smooth[20:], axis=0) == pytest.approx([40, 340], abs=1)
