"""One answer to a whole clip: its score by a rule, the segments that reach the threshold, and what decided."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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


@dataclass
class _State:
    """What is known of the clip so far."""

    path: str
    last: VideoFrame | None = None
    last_score: float = 0.0
    step: float = 0.0
    frames: int = 0
    flagged_s: float = 0.0
    duration: float = 0.0
    worst: list[tuple[float, int, float, Any]] = field(default_factory=list)
    """The worst frames, a heap: score, number (negative, so that of equal ones the first counts), time, thumbnail."""
    segments: list[Segment] = field(default_factory=list)
    stopped: bool = False


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
        self._count = int(rule.value) if rule.kind == "nth" else 1
        self._names = FrameNames()

    def run(self, answered: Iterable[AnsweredFrame], reader: ClipReader) -> Iterator[Prediction]:
        """Yield a prediction for each clip and picture once its frames are through."""
        state: _State | None = None
        for item in answered:
            prediction, frame = item.prediction, item.frame
            if state is not None and (
                prediction.path != state.path or (frame is not None and not self._goes_on(state, frame))
            ):
                yield self._finished(state)
                state = None
            if frame is None:
                yield self._of_picture(prediction, state)
                state = None
                continue
            state = state or _State(frame.clip)
            if not state.stopped:
                self._add(state, item, frame, reader.durations.get(frame.clip))
                if state.stopped:
                    reader.skip(frame.clip)
        if state is not None:
            yield self._finished(state)

    def _goes_on(self, state: _State, frame: VideoFrame) -> bool:
        """Tell whether a frame belongs to the clip before it, not to the same clip read once more."""
        return state.last is None or frame.number > state.last.number

    def _add(self, state: _State, item: AnsweredFrame, frame: VideoFrame, length: float | None) -> None:
        if item.prediction.answer is None:
            logging.getLogger("plimsoll").warning("%s: frame %s: %s", frame.clip, frame.number, item.prediction.error)
            return
        score = item.prediction.answer.severity()
        if state.last is not None:
            state.step = frame.time - state.last.time
            self._account(state, state.step)
        state.last, state.last_score, state.frames = frame, score, state.frames + 1
        entry = score, -frame.number, frame.time
        if len(state.worst) < self._count:
            heapq.heappush(state.worst, (*entry, self._thumbnail(frame)))
        elif entry > state.worst[0][:3]:
            heapq.heapreplace(state.worst, (*entry, self._thumbnail(frame)))
        state.stopped = self._early and self._is_flagged(state, length)

    def _account(self, state: _State, seconds: float) -> None:
        """Let the last frame stand for so many seconds."""
        assert state.last is not None  # noqa: S101 - called behind a frame
        start, end = state.last.time, state.last.time + seconds
        state.duration += seconds
        if state.last_score < self._threshold:
            return
        state.flagged_s += seconds
        if state.segments and start - state.segments[-1].end <= _GAP_S:
            before = state.segments[-1]
            state.segments[-1] = Segment(before.start, end, max(before.score, state.last_score))
        else:
            state.segments.append(Segment(start, end, state.last_score))

    def _is_flagged(self, state: _State, length: float | None) -> bool:
        if self._rule.kind == "share":
            return bool(length) and state.flagged_s >= self._rule.value * (length or 0.0)
        return len(state.worst) == self._count and state.worst[0][0] >= self._threshold

    def _finished(self, state: _State, error: str | None = None) -> Prediction:
        if state.last is not None:
            self._account(state, state.step)  # The last frame is shown as long as the one before it.
        worst = sorted(state.worst, key=lambda entry: entry[:3], reverse=True)
        nth = worst[-1] if len(worst) == self._count else None
        decided = nth or (worst[-1] if worst else None)
        share = state.flagged_s / state.duration if state.duration else float(state.last_score >= self._threshold)
        score = share if self._rule.kind == "share" else (nth[0] if nth else 0.0)
        limit = self._rule.value if self._rule.kind == "share" else self._threshold
        answer = ClipScore(
            score,
            state.stopped or (state.frames > 0 and score >= limit),
            self._rule,
            None if decided is None else -decided[1],
            None if decided is None else decided[2],
            state.frames,
            state.duration,
            state.stopped,
            tuple(state.segments),
            tuple(self._write(state.path, at, image) for _, _, at, image in worst if image is not None),
        )
        return Prediction(state.path, answer, error)

    def _of_picture(self, prediction: Prediction, state: _State | None) -> Prediction:
        """Return a picture as a clip of one frame, or what could be read of a clip with the error at its end."""
        if prediction.error is not None:
            return self._finished(state, prediction.error) if state is not None else prediction
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
