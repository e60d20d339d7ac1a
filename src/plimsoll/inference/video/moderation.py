"""One answer to a whole clip: its score by a rule, the segments that reach the threshold, and what decided."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from plimsoll.core.wording import unknown
from plimsoll.errors import InputError
from plimsoll.inference.stream import Prediction
from plimsoll.inference.video.writer import FrameNames
from plimsoll.tasks.base import Answer, Outputs, Task, position

if TYPE_CHECKING:
    from plimsoll.inference.video.answers import AnsweredFrame, ClipReader
    from plimsoll.inference.video.clip import VideoFrame
    from plimsoll.preprocessing import ImageGeometry

USUAL_THRESHOLD = 0.5
"""From which score on a frame counts where neither the user nor the Spec says."""
_GAP_S = 1.0
"""Segments so close to each other are one."""
_FORMS = ("worst", "nth=N", "share=PERCENT")
_MOST_THUMBNAILS = 20
_THUMBNAIL = 320
"""Pixels of the longer side."""


@dataclass(frozen=True)
class Rule:
    """How the scores of frames make a clip's score, and when it is flagged."""

    kind: Literal["worst", "nth", "share"] = "worst"
    value: float = 1.0
    """Which of the worst frames counts (`nth`), or the share of time from which on a clip is flagged (`share`)."""

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `worst`, `nth=3` or `share=5%`; raises InputError."""
        name, equals, value = text.partition("=")
        if text == "worst":
            return cls()
        if name not in ("nth", "share") or not equals:
            raise InputError(unknown("rule", text, _FORMS))
        try:
            number = int(value) if name == "nth" else float(value.removesuffix("%")) / (100 if "%" in value else 1)
        except ValueError:
            number = 0
        if not 0 < number <= (_MOST_THUMBNAILS if name == "nth" else 1):
            expected = f"a whole number from 1 to {_MOST_THUMBNAILS}" if name == "nth" else "a share such as 5% or 0.05"
            raise InputError(f"'{text}': expected {expected}")
        return cls("nth" if name == "nth" else "share", number)

    def __str__(self) -> str:
        return self.kind if self.kind == "worst" else f"{self.kind}={self.value:g}"


@dataclass(frozen=True)
class Segment:
    """A part of a clip whose frames reach the threshold."""

    start: float
    end: float
    """Seconds."""
    score: float
    """Of its worst frame."""


@dataclass(frozen=True)
class ClipScore(Answer):
    """The answer to a clip."""

    score: float
    """By the rule: the n-th worst frame's, or the share of time that reaches the threshold."""
    flagged: bool
    rule: Rule
    frame: int | None
    time: float | None
    """The frame that decided, and when it comes: the n-th worst; of a share the worst one."""
    frames: int
    """How many were answered."""
    duration: float
    """Seconds that they stand for."""
    stopped: bool
    """Whether the rest was left out, since the clip was flagged already; the score is what it was then."""
    segments: tuple[Segment, ...]
    thumbnails: tuple[str, ...] = ()
    """Paths of what decided."""

    def row(self, top: int | None = None) -> dict[str, Any]:
        """Return it as plain data; positions in seconds."""
        del top
        segments = [
            {"start": round(part.start, 3), "end": round(part.end, 3), "score": part.score} for part in self.segments
        ]
        return {
            **{"score": round(self.score, 9), "flagged": self.flagged, "rule": str(self.rule), "frame": self.frame},
            **{"time": None if self.time is None else round(self.time, 6), "frames": self.frames},
            **{"duration": round(self.duration, 3), "stopped": self.stopped, "segments": segments},
            "thumbnails": list(self.thumbnails),
        }

    def brief(self) -> str:
        """Return the decision in words."""
        parts = ", ".join(f"{part.start:.1f}-{part.end:.1f} s" for part in self.segments[:3])
        more = " …" if len(self.segments) > 3 else ""
        where = f" in {parts}{more}" if parts else ""
        return f"{'flagged' if self.flagged else 'passed'}, {self.rule} {position(self.score):g}{where}"

    def severity(self) -> float:
        """Return the score."""
        return self.score

    def readings(self) -> Sequence[str]:
        """Return whether it is flagged."""
        return ("flagged" if self.flagged else "passed",)


class ClipTask(Task):
    """What writers of rows know of answers to clips."""

    def decode(
        self,
        outputs: Outputs,
        threshold: float | None = None,
        geometries: Sequence[ImageGeometry | None] | None = None,
    ) -> Sequence[Answer]:
        """Clips are answered frame by frame, by another task."""
        raise NotImplementedError

    def empty_row(self) -> dict[str, Any]:
        """Return the keys of a clip's row."""
        return dict.fromkeys(ClipScore(0.0, False, Rule(), None, None, 0, 0.0, False, ()).row())


class ClipScorer:
    """Gathers the scores of one clip's frames, and gives the clip's."""

    def __init__(self, rule: Rule, threshold: float, *, early_exit: bool = False, length: float | None = None) -> None:
        """`length` is the clip's in seconds, where it is known: by it a share is sure before the end."""
        self._rule, self._threshold, self._early, self._length = rule, threshold, early_exit, length
        self._count = int(rule.value) if rule.kind == "nth" else 1
        self.stopped = False
        """Whether it is flagged already, and the rest may be left out."""
        self.last: int | None = None
        """The number of the last frame."""
        self._last_time = self._last_score = self._step = self._flagged_s = self._duration = 0.0
        self._frames = 0
        # The worst frames, a heap: score, number (negative, so that of equal ones the first counts), time, thumbnail.
        self._worst: list[tuple[float, int, float, Any]] = []
        self._segments: list[Segment] = []

    def add(self, score: float, number: int, time: float, thumbnail: Callable[[], Any] = lambda: None) -> None:
        """Take the next frame's score; `thumbnail` is called where it is among the worst so far."""
        if self.last is not None:
            self._step = time - self._last_time
            self._account(self._step)
        self.last, self._last_time, self._last_score, self._frames = number, time, score, self._frames + 1
        entry = score, -number, time
        if len(self._worst) < self._count:
            heapq.heappush(self._worst, (*entry, thumbnail()))
        elif entry > self._worst[0][:3]:
            heapq.heapreplace(self._worst, (*entry, thumbnail()))
        self.stopped = self._early and self._is_flagged()

    def _account(self, seconds: float) -> None:
        """Let the last frame stand for so many seconds."""
        start, end = self._last_time, self._last_time + seconds
        self._duration += seconds
        if self._last_score < self._threshold:
            return
        self._flagged_s += seconds
        if self._segments and start - self._segments[-1].end <= _GAP_S:
            before = self._segments[-1]
            self._segments[-1] = Segment(before.start, end, max(before.score, self._last_score))
        else:
            self._segments.append(Segment(start, end, self._last_score))

    def _is_flagged(self) -> bool:
        if self._rule.kind == "share":
            return bool(self._length) and self._flagged_s >= self._rule.value * (self._length or 0.0)
        return len(self._worst) == self._count and self._worst[0][0] >= self._threshold

    def finished(self) -> tuple[ClipScore, list[tuple[float, Any]]]:
        """Return the clip's answer, and of the worst frames, worst first, the times and thumbnails; to be called
        once."""
        if self.last is not None:
            self._account(self._step)  # The last frame is shown as long as the one before it.
        worst = sorted(self._worst, key=lambda entry: entry[:3], reverse=True)
        nth = worst[-1] if len(worst) == self._count else None
        decided = nth or (worst[-1] if worst else None)
        share = self._flagged_s / self._duration if self._duration else float(self._last_score >= self._threshold)
        score = share if self._rule.kind == "share" else (nth[0] if nth else 0.0)
        limit = self._rule.value if self._rule.kind == "share" else self._threshold
        answer = ClipScore(
            score,
            self.stopped or (self._frames > 0 and score >= limit),
            self._rule,
            None if decided is None else -decided[1],
            None if decided is None else decided[2],
            self._frames,
            self._duration,
            self.stopped,
            tuple(self._segments),
        )
        return answer, [(time, image) for _, _, time, image in worst]


class Moderation:
    """Gathers the answers to frames, and gives one to each clip and picture.

    With `early_exit` a clip is flagged as soon as that is sure, and its rest is left out. `thumbnails` is a folder for
    pictures of the frames that decided.
    """

    def __init__(
        self, rule: Rule, threshold: float, *, thumbnails: Path | None = None, early_exit: bool = False
    ) -> None:
        self._rule, self._threshold, self._early = rule, threshold, early_exit
        self._folder = thumbnails
        self._names = FrameNames()

    def run(self, answered: Iterable[AnsweredFrame], reader: ClipReader) -> Iterator[Prediction]:
        """Yield a prediction for each clip and picture once its frames are through."""
        path, scorer = "", None
        for item in answered:
            prediction, frame = item.prediction, item.frame
            # The same clip may be read once more.
            goes_on = frame is None or scorer is None or scorer.last is None or frame.number > scorer.last
            if scorer is not None and (prediction.path != path or not goes_on):
                yield self._finished(path, scorer)
                scorer = None
            if frame is None:
                yield self._of_picture(prediction, scorer)
                scorer = None
                continue
            if scorer is None:
                path, length = frame.clip, reader.durations.get(frame.clip)
                scorer = ClipScorer(self._rule, self._threshold, early_exit=self._early, length=length)
            if not scorer.stopped:
                self._add(scorer, item, frame)
                if scorer.stopped:
                    reader.skip(frame.clip)
        if scorer is not None:
            yield self._finished(path, scorer)

    def _add(self, scorer: ClipScorer, item: AnsweredFrame, frame: VideoFrame) -> None:
        if item.prediction.answer is None:
            logging.getLogger("plimsoll").warning("%s: frame %s: %s", frame.clip, frame.number, item.prediction.error)
            return
        score = item.prediction.answer.severity()
        scorer.add(score, frame.number, frame.time, lambda: self._thumbnail(frame))

    def _finished(self, path: str, scorer: ClipScorer, error: str | None = None) -> Prediction:
        answer, worst = scorer.finished()
        written = tuple(self._write(path, time, image) for time, image in worst if image is not None)
        return Prediction(path, replace(answer, thumbnails=written), error)

    def _of_picture(self, prediction: Prediction, scorer: ClipScorer | None) -> Prediction:
        """Return a picture as a clip of one frame, or what could be read of a clip with the error at its end."""
        if prediction.error is not None:
            return self._finished(prediction.path, scorer, prediction.error) if scorer is not None else prediction
        assert prediction.answer is not None  # noqa: S101 - it has no error
        score = prediction.answer.severity()
        flagged = score >= self._threshold
        share = float(flagged) if self._rule.kind == "share" else score
        return replace(prediction, answer=ClipScore(share, flagged, self._rule, None, None, 1, 0.0, False, ()))

    def _thumbnail(self, frame: VideoFrame) -> Image.Image | None:
        if self._folder is None:
            return None
        samples = frame.pixels.samples
        shown = samples[:, :, ::-1] if frame.pixels.colour == "BGR" else samples
        step = max(max(shown.shape[:2]) // (2 * _THUMBNAIL), 1)
        image = Image.fromarray(np.ascontiguousarray(shown[::step, ::step]))
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        return image

    def _write(self, clip: str, time: float, image: Image.Image) -> str:
        assert self._folder is not None  # noqa: S101 - else there are no thumbnails
        path = self._folder / self._names.of(clip, time)
        try:
            image.save(path, "JPEG", quality=85)
        except OSError as error:
            raise InputError(f"can't write {path}: {error.strerror or error}") from error
        return str(path)
