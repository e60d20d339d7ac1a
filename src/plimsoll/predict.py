"""Answer pictures: one at a time, or as a stream of any length in which decoding and inference overlap."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll import machine
from plimsoll.errors import ImageError, PlimsollError
from plimsoll.image import Implementation, InputPlan
from plimsoll.opener import DEFAULT_TARGET, Opened, open_reference
from plimsoll.runner import Objective, Runner
from plimsoll.spec import Spec
from plimsoll.target import Target
from plimsoll.tasks import Answer, decoder

Picture = str | os.PathLike[str] | bytes
"""A picture file's path, or its bytes."""

_Arrivals = queue.SimpleQueue[tuple[str, Future[NDArray[Any]]] | BaseException | None]

_DEFAULT_BATCH = 8
_IDLE_S = 0.02
"""How long a batch waits for more pictures while nothing else arrives, before it goes as it is."""


@dataclass(frozen=True)
class Prediction:
    """One picture's row: its answer, or why there is none."""

    path: str
    answer: Answer | None
    error: str | None = None


class Predictor:
    """A model that answers pictures. `plimsoll.load` makes one; use it in a `with` block or close it.

    Sessions are opened on first use: one that gives a single answer soonest for `predict`, one that gives the most
    answers a second for `predict_many`.
    """

    def __init__(self, opened: Opened, *, options: Mapping[str, str] | None = None, cores: int | None = None) -> None:
        self._opened = opened
        self._options = options
        self._cores = cores or machine.cores()
        self._runners: dict[Objective, Runner] = {}
        self._lock = threading.Lock()
        self.spec: Spec = opened.model.contract()
        self.target = opened.target
        self.plan = InputPlan(self.spec.input, opened.implementation)
        self.task = decoder(self.spec)

    def runner(self, objective: Objective) -> Runner:
        """Return the runner for an objective, opened on its first use."""
        with self._lock:
            if objective not in self._runners:
                self._runners[objective] = Runner.open(self._opened.model, self.target, objective=objective, options=self._options, cores=self._cores)
            return self._runners[objective]

    def predict(self, picture: Picture, *, threshold: float | None = None) -> Answer:
        """Answer one picture; raises ImageError where it can't be read and RunFailed where the runtime fails."""
        tensor = self.plan(_source(picture))
        return self.task.decode(self.runner("latency").infer(tensor[np.newaxis]), threshold)[0]

    def predict_many(self, pictures: Iterable[Picture], *, threshold: float | None = None, batch: int | None = None) -> Iterator[Prediction]:
        """Answer pictures in their order, as soon as they are known; memory stays bounded however many there are.

        A picture that can't be read, or that the runtime fails on, is a Prediction with an error. `batch` is how many
        pictures go into one call (default: 1 where the runtime computes on several lanes, else 8).
        """
        return _Stream(self, self._cores, batch, threshold).run(pictures)

    def close(self) -> None:
        """Give sessions back and remove what was unpacked."""
        for runner in self._runners.values():
            runner.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def load(
    model: str | os.PathLike[str],
    *,
    spec: str | os.PathLike[str] | None = None,
    target: str | None = None,
    steps: Implementation | None = None,
    options: Mapping[str, str] | None = None,
) -> Predictor:
    """Open a zoo name, a bundle or a model file for answering pictures.

    `spec` is a Spec file for a bare model file; `target` and `steps` replace what a bundle says (default
    onnxruntime:cpu:float32 and the reference steps).

    >>> with load("open_nsfw") as model:  # doctest: +SKIP
    ...     model.predict("photo.jpg").score
    """
    opened = open_reference(os.fspath(model), Path(spec) if spec is not None else None)
    try:
        if target is not None:
            opened.target = Target.parse(target)
        if steps is not None:
            opened.implementation = steps
        return Predictor(opened, options=options)
    except PlimsollError:
        opened.close()
        raise


def _source(picture: Picture) -> bytes | Path:
    return picture if isinstance(picture, bytes) else Path(picture)


def _name(picture: Picture) -> str:
    return f"<{len(picture)} bytes>" if isinstance(picture, bytes) else os.fspath(picture)


@dataclass
class _Slot:
    """A picture's place in the order of the answers."""

    path: str
    error: str | None = None
    batch: Future[Sequence[Answer | str]] | None = None
    place: int = 0

    def done(self) -> bool:
        return self.error is not None or (self.batch is not None and self.batch.done())

    def prediction(self) -> Prediction:
        if self.error is None:
            assert self.batch is not None  # noqa: S101 - a slot is given one or the other
            answer = self.batch.result()[self.place]
            if not isinstance(answer, str):
                return Prediction(self.path, answer)
            self.error = answer
        return Prediction(self.path, None, self.error)


class _Stream:
    """Reads and decodes pictures in some threads, runs batches in others, and hands out answers in order.

    What is under way is bounded, so memory is the same for 250 pictures and for millions.
    """

    def __init__(self, predictor: Predictor, cores: int, batch: int | None, threshold: float | None) -> None:
        self._predictor = predictor
        self._cores = cores
        self._batch = batch
        self._threshold = threshold
        self._slots: deque[_Slot] = deque()
        self._gathering: list[tuple[_Slot, NDArray[Any]]] = []

    def run(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        room = threading.Semaphore(2 * self._cores * ((self._batch or _DEFAULT_BATCH) + 1))
        stop = threading.Event()
        arrivals: _Arrivals = queue.SimpleQueue()
        with ThreadPoolExecutor(self._cores, "plimsoll-read") as reading, ThreadPoolExecutor(self._cores, "plimsoll-infer") as inferring:

            def read(picture: Picture) -> Future[NDArray[Any]]:
                return reading.submit(self._predictor.plan, _source(picture))

            threading.Thread(target=_feed, args=(pictures, read, room, stop, arrivals), daemon=True).start()
            try:
                # The runtime is loaded while the first pictures are being read.
                self._runner = self._predictor.runner("throughput")
                self._size = self._batch or (1 if self._runner.lanes > 1 else _DEFAULT_BATCH)
                for prediction in self._answer(arrivals, inferring):
                    room.release()
                    yield prediction
            finally:
                stop.set()
                reading.shutdown(wait=False, cancel_futures=True)
                inferring.shutdown(wait=False, cancel_futures=True)

    def _answer(self, arrivals: _Arrivals, pool: ThreadPoolExecutor) -> Iterator[Prediction]:
        ended = False
        while not ended:
            try:
                arrival = arrivals.get(timeout=_IDLE_S)
            except queue.Empty:
                self._send(pool)
            else:
                if isinstance(arrival, BaseException):
                    raise arrival
                if arrival is None:
                    ended = True
                else:
                    self._arrange(*arrival, pool)
            while self._slots and self._slots[0].done():
                yield self._slots.popleft().prediction()
        self._send(pool)
        while self._slots:
            yield self._slots.popleft().prediction()

    def _arrange(self, path: str, read: Future[NDArray[Any]], pool: ThreadPoolExecutor) -> None:
        """Give a picture its place, wait until it is decoded, and send a batch that is full."""
        slot = _Slot(path)
        self._slots.append(slot)
        try:
            tensor = read.result()
        except ImageError as error:
            slot.error = error.message
            return
        if self._gathering and self._gathering[0][1].shape != tensor.shape:
            self._send(pool)
        self._gathering.append((slot, tensor))
        if len(self._gathering) >= self._size:
            self._send(pool)

    def _send(self, pool: ThreadPoolExecutor) -> None:
        """Start inference on what has been gathered."""
        if not self._gathering:
            return
        slots, tensors = zip(*self._gathering, strict=True)
        self._gathering = []
        batch = pool.submit(self._infer, tensors)
        for place, slot in enumerate(slots):
            slot.batch, slot.place = batch, place

    def _infer(self, tensors: Sequence[NDArray[Any]]) -> Sequence[Answer | str]:
        """Return an answer or an error text for each picture; where a batch fails, each picture is tried alone."""
        try:
            return self._predictor.task.decode(self._runner.infer(np.stack(tensors)), self._threshold)
        except PlimsollError as error:
            if len(tensors) == 1:
                return [error.message]
            return [answer for one in tensors for answer in self._infer([one])]


def _feed(
    pictures: Iterable[Picture],
    read: Callable[[Picture], Future[NDArray[Any]]],
    room: threading.Semaphore,
    stop: threading.Event,
    arrivals: _Arrivals,
) -> None:
    """Start reading pictures as there is room, in a thread of its own since the iterable may block (a list on stdin)."""
    try:
        for picture in pictures:
            while not room.acquire(timeout=0.2):
                if stop.is_set():
                    return
            if stop.is_set():
                return
            arrivals.put((_name(picture), read(picture)))
        arrivals.put(None)
    except BaseException as error:  # noqa: BLE001 - whatever the caller's iterable raises is raised again in the caller's thread
        arrivals.put(error)


__all__ = ["DEFAULT_TARGET", "Picture", "Prediction", "Predictor", "load"]
