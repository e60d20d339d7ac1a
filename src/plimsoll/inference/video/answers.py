"""Answer the frames of clips, beside pictures, as a stream: decoding, inference and what is done with the answers go on
at once, and answers come in the order of the frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from plimsoll.errors import BackendMissingError, InputError, PlimsollError
from plimsoll.inference.stream import Prediction
from plimsoll.inference.video.clip import Clip, Limits, VideoFrame
from plimsoll.inference.video.sampling import Sampling
from plimsoll.inference.video.smoothing import PointSmoother
from plimsoll.inference.video.source import is_clip
from plimsoll.inference.video.tracking import LOW, Tracker
from plimsoll.inference.walk import UnreadablePath
from plimsoll.tasks.detect import Detection, DetectTask
from plimsoll.tasks.landmarks import LandmarksTask, Points

if TYPE_CHECKING:
    from plimsoll.inference.predictor import Predictor
    from plimsoll.preprocessing import PixelArray
    from plimsoll.spec import Spec
    from plimsoll.tasks import Answer, Task

_MEMORY = 384 << 20
"""Bytes of frames that are under way at once, at most."""
_LEAST_UNDER_WAY = 2


@dataclass(frozen=True)
class AnsweredFrame:
    """A frame and the answer to it; of a picture file the frame is None."""

    frame: VideoFrame | None
    prediction: Prediction


class ClipReader:
    """Turns paths into pictures for a stream: a clip into its frames, anything else into itself.

    A clip that can't be read, or not to its end, becomes an `UnreadablePath` after its frames. Of each, the first
    `most` frames are read at the most.
    """

    def __init__(
        self,
        sampling: Sampling | str = "all",
        *,
        limits: Limits | None = None,
        colour: Literal["RGB", "BGR"] = "RGB",
        most: int | None = None,
    ) -> None:
        self._most = most
        self._sampling = Sampling.parse(sampling) if isinstance(sampling, str) else sampling
        self._limits, self._colour = limits, colour
        self._skipped: set[str] = set()
        self.rates: dict[str, float] = {}
        """Frames a second of each clip that was opened."""
        self.durations: dict[str, float | None] = {}
        """Seconds of each clip that was opened, where it says them."""

    def skip(self, clip: str) -> None:
        """Read no more of a clip: what it is has been decided."""
        self._skipped.add(clip)

    def skips(self, clip: str) -> bool:
        """Tell whether the rest of a clip is left out."""
        return clip in self._skipped

    def rate_of(self, clip: str) -> float:
        """Return the frames a second that are answered of a clip, about; of a picture, that it shows for a second."""
        rate = self.rates.get(clip, 1.0)
        if self._sampling.kind == "every":
            return rate / self._sampling.step
        return 1 / self._sampling.step if self._sampling.kind == "seconds" else rate

    def items(self, paths: Iterable[str]) -> Iterator[VideoFrame | str]:
        """Yield frames and paths, in order."""
        for path in paths:
            if isinstance(path, UnreadablePath) or not is_clip(path):
                yield path
                continue
            try:
                with Clip(path, self._sampling, limits=self._limits, colour=self._colour) as clip:
                    self.rates[path], self.durations[path] = clip.rate, clip.duration
                    for frame in clip:
                        if path in self._skipped or (self._most is not None and frame.number >= self._most):
                            break
                        yield frame
            except BackendMissingError as error:
                yield UnreadablePath(path, f"{error.message}. {error.hint}")
            except PlimsollError as error:
                yield UnreadablePath(path, error.message)


def colour_for(predictor: Predictor) -> Literal["RGB", "BGR"]:
    """Return the order of channels in which a model's preprocessing takes frames without copying them."""
    return "BGR" if predictor.preprocessor.takes_bgr else "RGB"


def answer_items(
    predictor: Predictor,
    items: Iterable[VideoFrame | str],
    *,
    threshold: float | None = None,
    batch: int | None = None,
    live: bool = False,
) -> Iterator[AnsweredFrame]:
    """Yield the answer to each frame and picture, in order.

    Frames under way take 384 MB at most; with `live` as few are as keep all cores busy, so that answers are fresh.
    """
    under_way: deque[VideoFrame | str] = deque()
    room = _Room(predictor.cores + 1 if live else None)

    def pictures() -> Iterator[str | PixelArray]:
        for item in items:
            if isinstance(item, VideoFrame):
                room.enter(item.pixels.samples.nbytes)
            under_way.append(item)
            yield item.pixels if isinstance(item, VideoFrame) else item

    predictions: Any = predictor.predict_many(pictures(), threshold=threshold, batch=batch)
    try:
        for prediction in predictions:
            item = under_way.popleft()
            if isinstance(item, VideoFrame):
                yield AnsweredFrame(
                    item, replace(prediction, path=item.clip, frame=item.number, frames=1, time=item.time)
                )
                room.leave(item.pixels.samples.nbytes)
            else:
                yield AnsweredFrame(None, prediction)
    finally:
        room.open()
        predictions.close()


def predict_clip(
    predictor: Predictor,
    clip: str,
    *,
    sample: Sampling | str = "all",
    threshold: float | None = None,
    limits: Limits | None = None,
) -> Iterator[AnsweredFrame]:
    """Yield the frames of a clip (a path, `camera:0`, or the address of a stream) with their answers.

    Raises ImageError for a clip that can't be read, after the frames that could be.

    >>> with load("nanodet_g") as model:  # doctest: +SKIP
    ...     for answered in predict_clip(model, "street.mp4", sample="every=5"):
    ...         print(answered.frame.time, answered.prediction.answer.boxes)
    """
    if not is_clip(clip):
        raise InputError(
            f"'{clip}' is not named as a clip is", "Give a file such as clip.mp4, camera:0, or an address."
        )
    with Clip(clip, sample, limits=limits, colour=colour_for(predictor)) as opened:
        yield from answer_items(predictor, opened, threshold=threshold, live=opened.live)


class _Described(Protocol):
    @property
    def spec(self) -> Spec: ...

    @property
    def task(self) -> Task: ...


class Follower:
    """Makes of the answers to single frames those to a clip: objects have numbers, points don't tremble.

    Each clip is followed by itself; the answers to pictures stay as they are.
    """

    def __init__(
        self, predictor: _Described, threshold: float | None, *, track: bool = False, smooth: bool = False
    ) -> None:
        """Take what answers; raises InputError where its task has no boxes to track, or no points to smooth."""
        task = predictor.task
        if track and not isinstance(task, DetectTask):
            raise InputError(f"tracking needs boxes; the task of {predictor.spec.name} is {predictor.spec.output.task}")
        if smooth and not (isinstance(task, LandmarksTask) or (isinstance(task, DetectTask) and task.spec.points)):
            raise InputError(
                f"smoothing needs points; the task of {predictor.spec.name} is {predictor.spec.output.task}"
            )
        self._confidence = (task.threshold or 0.0) if threshold is None else threshold
        # Points in boxes are followed object by object.
        self._track, self._smooth = track or (smooth and isinstance(task, DetectTask)), smooth
        self.threshold = self._confidence * LOW if self._track else threshold
        """What the detector is asked for: weak boxes continue tracks."""
        self._clip: str | None = None
        self._by_label = task.labels_stay
        self._begin()

    def _begin(self) -> None:
        self._tracker, self._smoother = Tracker(self._confidence, by_label=self._by_label), PointSmoother()

    def update(self, answered: AnsweredFrame) -> AnsweredFrame:
        """Return a frame's answer as a part of its clip's."""
        answer, frame = answered.prediction.answer, answered.frame
        if frame is not None and frame.clip != self._clip:
            self._clip = frame.clip
            self._begin()
        if answer is not None and frame is not None:
            answer = self.follow(answer, frame.time)
        elif self._track and isinstance(answer, Detection):
            answer = Detection(tuple(box for box in answer.boxes if box.score >= self._confidence))
        return replace(answered, prediction=replace(answered.prediction, answer=answer))

    def follow(self, answer: Answer, time: float) -> Answer:
        """Return the answer to the next frame of a clip; `time` is in seconds and grows."""
        if self._track and isinstance(answer, Detection):
            answer = self._tracker.update(answer, time)
            return self._smoother.update_boxes(answer, time) if self._smooth else answer
        return self._smoother.update(answer, time) if self._smooth and isinstance(answer, Points) else answer


class _Room:
    """Bounds the frames under way, by their memory or by their number."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._count = self._bytes = 0
        self._changed = threading.Condition()
        self._opened = False

    def enter(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._fits(size))
            self._count, self._bytes = self._count + 1, self._bytes + size

    def _fits(self, size: int) -> bool:
        if self._most is not None:
            return self._count < self._most
        return self._count < _LEAST_UNDER_WAY or self._bytes + size <= _MEMORY

    def leave(self, size: int) -> None:
        with self._changed:
            self._count, self._bytes = self._count - 1, self._bytes - size
            self._changed.notify()

    def open(self) -> None:
        """Let everybody in: the stream ends."""
        with self._changed:
            self._opened = True
            self._changed.notify_all()
