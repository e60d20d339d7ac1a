"""Answer any number of pictures in several threads: decoding and inference overlap, answers come out in order."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.base import Objective
from plimsoll.backends.runner import Runner
from plimsoll.core.fit import only_input
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import PlimsollError
from plimsoll.inference.frames import Frame, WorstFrame, answer_worst
from plimsoll.inference.pictures import Entry, Picture, loaded_source, name_of
from plimsoll.inference.walk import UnreadablePath
from plimsoll.preprocessing import DecodedPicture, ImageGeometry, PictureSource
from plimsoll.spec import Spec
from plimsoll.tasks import Answer, Task

Observer = Callable[[str, float], None]
"""Called with a stage (`read`, `queue`, `prepare`, `inference`, `output`) and its seconds, from several threads at
once."""

_DEFAULT_BATCH = 8
_ALONE_FIRST = 256
"""So many pictures are answered one by one before a runtime with several streams is asked for a batch: it may compile
for half a second for each new size, and a batch saves a millisecond a picture."""
_WHILE_LOADING, _WHILE_LOADING_BYTES = 256, 64_000_000
"""So many more pictures, whose tensors take at most so many bytes, are prepared while the runtime is being loaded."""
_IDLE_S = 0.02
"""How long an incomplete batch waits for more pictures."""

_SLOW_READ_S = 0.002
_FIRST_FILES = 16
"""Storage is slow (a disk, a network) if the first files take longer than this on average."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one picture, or the error; neither for an `Entry` that needs no answer."""

    path: str
    answer: Answer | None
    error: str | None = None
    frame: int = 0
    """The frame of the file that the answer is to, from 0: the worst of those that the Spec selects."""
    frames: int = 1
    """How many frames of the file were answered."""
    time: float | None = None
    """Of a clip's frame: seconds since the clip began."""
    error_kind: str | None = None
    """The class of the error, such as `ImageError`; None also for a path that leads to no picture."""


class PictureModel(Protocol):
    """The part of `plimsoll.inference.predictor.Predictor` that a stream uses."""

    model: Model
    spec: Spec
    task: Task
    target: Target

    def prepare(self, source: PictureSource) -> tuple[NDArray[Any], ImageGeometry | None]:
        """Return a picture's tensor, and its geometry if the task needs it."""
        ...

    def frames(self, source: PictureSource) -> Iterator[Frame]:
        """Yield each frame that the Spec selects."""
        ...

    def runner(self, objective: Objective) -> Runner:
        """Return the runner for an objective, opened on its first use."""
        ...


@dataclass(frozen=True)
class _Prepared:
    """A picture whose tensor is ready, and its index in the order of the answers."""

    index: int
    name: str
    tensor: NDArray[Any]
    geometry: ImageGeometry | None
    since: float
    """When it was ready, on `time.perf_counter`."""


class _ReadTimes:
    """Mean time to read a file."""

    def __init__(self) -> None:
        self._count = 0
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """Add a file. Races between threads may lose a few; that is good enough."""
        self._count += 1
        self._seconds += seconds

    def slow(self) -> bool:
        """Tell whether reading is so slow that it leaves cores idle."""
        return self._count >= _FIRST_FILES and self._seconds > _SLOW_READ_S * self._count


_Taken = tuple[int, Picture]
_Answers = dict[int, Prediction]


class Stream:
    """Answers pictures in several threads and yields the answers in the pictures' order.

    Each thread takes a picture from bytes to answer, so a tensor is used while it is in that core's cache, and only
    pictures and answers pass between threads. There is one thread per core, since more cost a tenth of the speed; and
    twice as many if they turn out to wait for files, for the runtime, or for another device. The number of pictures in
    flight is bounded, so memory is the same for 250 pictures and for millions.
    """

    def __init__(
        self, predictor: PictureModel, cores: int, batch: int | None, threshold: float | None, observe: Observer | None
    ) -> None:
        self._predictor = predictor
        self._cores = cores
        self._batch = batch
        self._threshold = threshold
        self._observe = observe
        self._runner = Future[Runner]()
        self._early = _while_loading(predictor.spec)
        """How many of the pictures under way are there because the runtime was being loaded."""
        self._room = threading.Semaphore(2 * cores * ((batch or _DEFAULT_BATCH) + 1) + self._early)
        self._todo = queue.SimpleQueue[_Taken | None]()
        self._done = queue.SimpleQueue[_Answers | BaseException | None]()
        self._ready: deque[_Prepared] = deque()
        self._lock = threading.Lock()
        self._first_batch: int | None = None
        """The index of the picture that leads the first batch; other threads go on one by one until it is answered."""
        self._in_batches = False
        self._threads: list[threading.Thread] = []
        self._read_times = _ReadTimes()
        self._stop = False
        self._broken: BaseException | None = None

    def run(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        """Answer pictures; call it once."""
        threading.Thread(target=self._feed, args=(pictures,), daemon=True).start()
        self._start_workers()
        try:
            # The runtime loads while the first pictures are being prepared.
            runner = self._predictor.runner("throughput")
            only_input(self._predictor.spec, runner.inputs, self._predictor.model.path.name)
            if runner.streams < self._cores or self._predictor.target.device != "cpu":
                self._start_workers()
            self._runner.set_result(runner)
            for prediction in self._in_order():
                if self._early:
                    self._early -= 1
                else:
                    self._room.release()
                yield prediction
        finally:
            self._stop = True
            self._runner.cancel()  # For threads waiting for a runtime that could not be loaded.
            self._todo.put(None)
            for thread in self._threads:
                thread.join()

    def _start_workers(self) -> None:
        """Start one more thread per core, up to two."""
        if len(self._threads) < 2 * self._cores:
            fresh = [threading.Thread(target=self._work, name="plimsoll", daemon=True) for _ in range(self._cores)]
            self._threads += fresh
            for thread in fresh:
                thread.start()

    def _in_order(self) -> Iterator[Prediction]:
        early: _Answers = {}
        index = ended = 0
        while ended < len(self._threads):
            arrived = self._done.get()
            if arrived is None:
                ended += 1
            elif isinstance(arrived, BaseException):
                raise arrived
            else:
                early.update(arrived)
                while index in early:
                    yield early.pop(index)
                    index += 1
                if not ended and self._read_times.slow():
                    self._start_workers()
        if self._broken is not None:
            raise self._broken

    def _feed(self, pictures: Iterable[Picture]) -> None:
        """Pass pictures to the threads while there is room; runs in its own thread, since the iterable may block
        (stdin)."""
        try:
            for index, picture in enumerate(pictures):
                while not self._room.acquire(timeout=0.2):
                    if self._stop:
                        return
                if self._stop:
                    return
                self._todo.put((index, picture))
        except BaseException as error:  # noqa: BLE001 - an error of the caller's iterable is raised again in the caller's thread
            self._broken = error
        self._todo.put(None)

    def _work(self) -> None:
        try:
            while self._step():
                pass
        except CancelledError:
            self._done.put(None)
        except BaseException as error:  # noqa: BLE001 - an unforeseen error is raised again in the caller's thread
            self._done.put(error)
        else:
            self._done.put(None)

    def _step(self) -> bool:
        """Answer a full batch, or else prepare a picture; return False at the end."""
        if full := self._pop():
            self._answer(full)
            return True
        try:
            taken = self._todo.get(timeout=_IDLE_S if self._ready else None)
        except queue.Empty:
            self._finish()
            return True
        if taken is not None and not self._stop:
            self._prepare(*taken)
            return True
        self._todo.put(None)  # For the other threads.
        self._finish()
        return False

    def _finish(self) -> None:
        """Answer all prepared pictures, even if they don't fill a batch."""
        self._runner.result()
        while not self._stop and (rest := self._pop(rest=True)):
            self._answer(rest)

    def _prepare(self, index: int, picture: Picture) -> None:
        """Read a picture and run its input steps; if that completes a batch, answer it."""
        name = name_of(picture)
        if isinstance(picture, UnreadablePath):
            self._done.put({index: Prediction(name, None, picture.reason)})
            return
        started = time.perf_counter()
        try:
            data = picture.load() if isinstance(picture, Entry) else loaded_source(picture)
            if data is None:
                self._done.put({index: Prediction(name, None)})
                return
            loaded = time.perf_counter()
            prepared = self._first_or_all(data)
        except PlimsollError as error:
            self._done.put({index: _prediction(name, error)})
            return
        if isinstance(prepared, WorstFrame):
            frame, frames = prepared.frame, prepared.frames
            self._done.put({index: Prediction(name, prepared.answer, frame=frame, frames=frames)})
            return
        tensor, geometry = prepared
        ready = time.perf_counter()
        self._read_times.add(loaded - started)
        self._report(read=loaded - started, prepare=ready - loaded)
        with self._lock:
            self._ready.append(_Prepared(index, name, tensor, geometry, ready))
        self._answer(self._pop())

    def _first_or_all(self, data: bytes | DecodedPicture) -> tuple[NDArray[Any], ImageGeometry | None] | WorstFrame:
        """Return what a picture became, for a batch with others; or the answer to a file of several frames."""
        if not self._predictor.task.answers_frames:
            return self._predictor.prepare(data)
        frames = self._predictor.frames(data)
        beginning = [*islice(frames, 2)]
        if len(beginning) == 1:
            return beginning[0][1:]
        runner = self._runner.result()
        return answer_worst(
            chain(beginning, frames), runner.infer, self._predictor.task, self._threshold, batches=runner.batches
        )

    def _pop(self, *, rest: bool = False) -> list[_Prepared]:
        """Take a full batch of one shape from the prepared pictures, or with `rest` a partial one; else nothing.

        While the runtime is being loaded no batch is full, so that pictures are prepared in the meantime.
        """
        if not self._runner.done():
            return []
        runner = self._runner.result()
        with self._lock:
            size = self._size(runner, len(self._ready), rest=rest)
            if len(self._ready) < (1 if rest else size):
                return []
            shape = self._ready[0].tensor.shape
            batch = [self._ready.popleft()]
            while self._ready and len(batch) < size and self._ready[0].tensor.shape == shape:
                batch.append(self._ready.popleft())
            if len(batch) > 1 and self._first_batch is None:
                self._first_batch = batch[0].index
            return batch

    def _size(self, runner: Runner, ready: int, *, rest: bool) -> int:
        """Return how many pictures the next call should hold."""
        if not runner.batches:
            return 1
        if self._batch or runner.streams == 1:
            return self._batch or _DEFAULT_BATCH
        size = runner.stream_batch
        waits_for_first = self._first_batch is not None and not self._in_batches
        if waits_for_first or runner.timing.items < _ALONE_FIRST or (rest and ready < size):
            return 1
        return size

    def _answer(self, batch: Sequence[_Prepared]) -> None:
        if batch:
            started = time.perf_counter()
            self._report(queue=sum(started - item.since for item in batch))
            answers = self._infer(batch)
            self._in_batches = self._in_batches or batch[0].index == self._first_batch
            self._done.put(
                {item.index: _prediction(item.name, answer) for item, answer in zip(batch, answers, strict=True)}
            )

    def _infer(self, batch: Sequence[_Prepared]) -> Sequence[Answer | PlimsollError]:
        """Return an answer or an error for each picture; if a batch fails, each picture is tried alone."""
        try:
            started = time.perf_counter()
            tensor = batch[0].tensor[np.newaxis] if len(batch) == 1 else np.stack([item.tensor for item in batch])
            outputs = self._runner.result().infer(tensor)
            computed = time.perf_counter()
            answers = self._predictor.task.decode(outputs, self._threshold, [item.geometry for item in batch])
            self._report(inference=computed - started, output=time.perf_counter() - computed)
        except PlimsollError as error:
            if len(batch) == 1:
                return [error]
            return [answer for item in batch for answer in self._infer([item])]
        return answers

    def _report(self, **stages: float) -> None:
        if self._observe is not None:
            for stage, seconds in stages.items():
                self._observe(stage, seconds)


def _while_loading(spec: Spec) -> int:
    shape = spec.input.shape
    if None in shape:
        return 0
    size = math.prod(side or 1 for side in shape) * np.dtype(spec.input.dtype).itemsize
    return min(_WHILE_LOADING, _WHILE_LOADING_BYTES // max(1, size))


def _prediction(name: str, answer: Answer | PlimsollError) -> Prediction:
    if isinstance(answer, PlimsollError):
        return Prediction(name, None, answer.message, error_kind=type(answer).__name__)
    return Prediction(name, answer)
