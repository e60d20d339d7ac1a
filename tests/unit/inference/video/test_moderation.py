"""A clip's score by each rule, its segments, when the rest is left out, and what is shown of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plimsoll.errors import InputError
from plimsoll.inference.stream import Prediction
from plimsoll.inference.video.answers import AnsweredFrame, ClipReader
from plimsoll.inference.video.clip import VideoFrame
from plimsoll.inference.video.moderation import ClipScore, Moderation, Rule
from plimsoll.preprocessing import PixelArray
from plimsoll.tasks.classify import Classification

LIMIT = 0.5
SCORES = [0.1] * 10 + [0.6, 0.9, 0.7, 0.8] + [0.2] * 3 + [0.55] + [0.0] * 32
"""50 frames, a fifth of a second each: one part of 0.8 s, and 0.6 s later one of 0.2 s."""


def answered(clip: str, scores: Sequence[float], step: float = 0.2) -> Iterator[AnsweredFrame]:
    for number, score in enumerate(scores):
        level = round(255 * score)
        pixels = PixelArray(np.full((480, 640, 3), (level, 0, 0), np.uint8), "RGB")
        answer = Classification("x", score, {"x": score})
        frame = VideoFrame(clip, number, number * step, pixels)
        yield AnsweredFrame(frame, Prediction(clip, answer, None, number, 1, frame.time))


def scored(rule: str, scores: Sequence[float] = SCORES, **settings: bool | Path) -> ClipScore:
    moderation = Moderation(Rule.parse(rule), LIMIT, **settings)  # type: ignore[arg-type]
    reader = ClipReader()
    reader.durations["a.mp4"] = 10.0
    (prediction,) = moderation.run(answered("a.mp4", scores), reader)
    assert isinstance(prediction.answer, ClipScore)
    return prediction.answer


@pytest.mark.parametrize(
    ("rule", "score", "frame", "flagged"),
    [
        ("worst", 0.9, 11, True),
        ("nth=3", 0.7, 12, True),
        ("nth=6", 0.2, 14, False),
        ("share=5%", 5 / 50, 11, True),
        ("share=0.11", 5 / 50, 11, False),
    ],
)
def test_rules(rule: str, score: float, frame: int, flagged: bool) -> None:
    answer = scored(rule)
    assert answer.score == pytest.approx(score)
    assert (answer.frame, answer.flagged, answer.stopped, answer.frames) == (frame, flagged, False, 50)
    assert answer.time == pytest.approx(frame * 0.2)
    assert answer.duration == pytest.approx(10.0)


def test_segments_that_are_close_are_one() -> None:
    (segment,) = scored("worst").segments
    assert [segment.start, segment.end, segment.score] == pytest.approx([2.0, 3.6, 0.9])
    apart = scored("worst", [0.9] * 2 + [0.1] * 8 + [0.8] * 3).segments
    assert [(part.start, part.score) for part in apart] == [(0.0, 0.9), (pytest.approx(2.0), 0.8)]
    assert apart[1].end == pytest.approx(2.6), "the last frame is shown as long as the others"


def test_frames_count_by_their_time() -> None:
    """Two frames of a clip without a constant rate: the bad one is shown for nine of ten seconds."""
    times = [0.0, 1.0, 10.0]
    frames = [*answered("a.mp4", [0.1, 0.9, 0.1])]
    for item, at in zip(frames, times, strict=True):
        assert item.frame is not None
        object.__setattr__(item.frame, "time", at)
    (prediction,) = Moderation(Rule.parse("share=50%"), LIMIT).run(frames, ClipReader())
    assert prediction.answer is not None
    assert prediction.answer.severity() == pytest.approx(9 / 19)


@pytest.mark.parametrize(("rule", "frames"), [("worst", 11), ("nth=4", 14), ("share=5%", 14), ("nth=19", 50)])
def test_early_exit(rule: str, frames: int) -> None:
    """No frame is looked at after the one that decides, and the reader is told."""
    reader = ClipReader()
    reader.durations["a.mp4"] = 10.0
    moderation = Moderation(Rule.parse(rule), LIMIT, early_exit=True)
    (prediction,) = moderation.run(answered("a.mp4", SCORES), reader)
    assert isinstance(prediction.answer, ClipScore)
    assert prediction.answer.frames == frames
    assert prediction.answer.stopped == prediction.answer.flagged == (frames < 50)
    assert reader.skips("a.mp4") == (frames < 50)


def test_several_clips_pictures_and_errors() -> None:
    picture = AnsweredFrame(None, Prediction("p.jpg", Classification("x", 0.7, {}), None))
    cut = AnsweredFrame(None, Prediction("b.mp4", None, "the clip ends early"))
    missing = AnsweredFrame(None, Prediction("c.mp4", None, "no such file"))
    items = [
        *answered("a.mp4", [0.1, 0.2]),
        *answered("a.mp4", [0.3, 0.4]),
        picture,
        *answered("b.mp4", [0.8]),
        cut,
        missing,
    ]
    predictions = [*Moderation(Rule(), LIMIT).run(items, ClipReader())]
    assert [prediction.path for prediction in predictions] == ["a.mp4", "a.mp4", "p.jpg", "b.mp4", "c.mp4"]
    scores = [None if each.answer is None else each.answer.severity() for each in predictions]
    assert scores == [0.2, 0.4, 0.7, 0.8, None]
    assert [prediction.error for prediction in predictions[2:]] == [None, "the clip ends early", "no such file"]


def test_thumbnails_show_what_decided(tmp_path: Path) -> None:
    answer = scored("nth=2", thumbnails=tmp_path)
    assert [Path(path).name for path in answer.thumbnails] == ["a-000002.200.jpg", "a-000002.600.jpg"]
    with Image.open(answer.thumbnails[0]) as image:
        assert image.size == (320, 240)
        assert np.asarray(image)[120, 160, 0] == pytest.approx(round(255 * 0.9), abs=3)


@pytest.mark.parametrize(
    "text", ["best", "nth", "nth=0", "nth=1.5", "nth=99", "share=0", "share=101%", "share=x", "worst=1"]
)
def test_rules_that_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        Rule.parse(text)
