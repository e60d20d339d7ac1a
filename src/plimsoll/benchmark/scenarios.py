"""How pictures come: one at a time, all at once, or as strangers send them. The scenarios of MLPerf LoadGen.

Each runs end to end, from a picture's path or bytes to its answer, through the same `Predictor` that serves.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import InputError, PlimsollError
from plimsoll.inference.predictor import Picture, Predictor


@dataclass(frozen=True)
class Round:
    """What one candidate did with one chunk of pictures."""

    seconds: float
    """Wall time from the first picture to the last answer."""
    answered: int
    failed: int = 0
    """Pictures that got no answer; they don't count as speed."""
    latencies: tuple[float, ...] = ()
    """Seconds to each answer, in the order in which the pictures came; empty where only the whole counts."""
    first_error: str = ""


class Scenario(Protocol):
    """One way in which pictures come."""

    @property
    def name(self) -> str:
        """The name in reports and on the command line."""
        ...

    @property
    def min_count(self) -> int:
        """How many answers a result needs where the caller doesn't say."""
        ...

    def size(self, rate: float, cores: int, seconds: float) -> int:
        """Return how many pictures make a round of about `seconds` for a candidate that answers `rate` a second."""
        ...

    def warm_up(self) -> Scenario:
        """Return the scenario that warms up for this one, as fast as it can."""
        ...

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> Round:
        """Answer the pictures; `number` is the round's, from 0."""
        ...

    def speed(self, done: Round) -> float:
        """Return the figure by which candidates are compared; higher is faster, 0 where nothing was answered."""
        ...


@dataclass(frozen=True)
class Offline:
    """All pictures are there: how many a second?"""

    batch: int | None = None
    name = "offline"
    min_count = 64

    def size(self, rate: float, cores: int, seconds: float) -> int:
        """Return what fills every core at least twice."""
        return max(2 * cores * (self.batch or 1), round(rate * seconds))

    def warm_up(self) -> Scenario:
        """Return itself."""
        return self

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> Round:
        """Answer all pictures as one stream."""
        del number
        started = time.perf_counter()
        errors = [one.error for one in predictor.predict_many(pictures, batch=self.batch) if one.error is not None]
        seconds = time.perf_counter() - started
        return Round(seconds, len(pictures) - len(errors), len(errors), first_error=errors[0] if errors else "")

    def speed(self, done: Round) -> float:
        """Return answers a second."""
        return done.answered / done.seconds


@dataclass(frozen=True)
class SingleStream:
    """One picture at a time, the next when the last is answered: how long does an answer take?"""

    name = "single_stream"
    min_count = 64

    def size(self, rate: float, cores: int, seconds: float) -> int:
        """Return at least one picture."""
        del cores
        return max(1, round(rate * seconds))

    def warm_up(self) -> Scenario:
        """Return itself."""
        return self

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> Round:
        """Answer the pictures one after another."""
        del number
        latencies, errors = [], []
        first = time.perf_counter()
        for picture in pictures:
            started = time.perf_counter()
            try:
                predictor.predict(picture)
            except PlimsollError as error:
                errors.append(error.message)
            else:
                latencies.append(time.perf_counter() - started)
        return Round(
            time.perf_counter() - first, len(latencies), len(errors), tuple(latencies), errors[0] if errors else ""
        )

    def speed(self, done: Round) -> float:
        """Return one over the median latency, in seconds."""
        return _typical(done)


@dataclass(frozen=True)
class Server:
    """Pictures come at random moments, `rate` a second on average: does each get its answer soon enough?

    A latency runs from the moment at which the picture was due, not from when somebody had time for it. So one slow
    answer shows in all that had to wait behind it ("coordinated omission").
    """

    rate: float
    latency_bound: float = 0.1
    """Seconds."""
    rank: float = 99.0
    """The percentile of the latencies that must keep the bound."""
    seed: int = 0
    name = "server"
    min_count = 662

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.latency_bound > 0):
            raise InputError(
                f"rate {self.rate:g} a second, latency bound {self.latency_bound:g} s: both must be greater than 0"
            )

    def size(self, rate: float, cores: int, seconds: float) -> int:
        """Return what comes in half a second, or ten times the bound, or more: a queue that grows by a tenth then
        breaks the bound."""
        del rate, cores
        return max(2, round(self.rate * max(0.5, 10 * self.latency_bound, seconds)))

    def warm_up(self) -> Scenario:
        """Return the offline scenario: it uses the same sessions."""
        return Offline()

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> Round:
        """Answer each picture when it is due, with a thread for each core, in the order in which they are due."""
        return serve(predictor, pictures, arrivals(self.rate, len(pictures), (self.seed, number)))

    def speed(self, done: Round) -> float:
        """Return one over the median latency, in seconds."""
        return _typical(done)


def arrivals(rate: float, count: int, seed: int | tuple[int, ...] = 0) -> NDArray[np.float64]:
    """Return `count` moments of a Poisson process of `rate` a second, in seconds from the start, ascending; the same
    for the same seed."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def _typical(done: Round) -> float:
    return 1 / statistics.median(done.latencies) if done.latencies else 0.0


@dataclass(frozen=True)
class Hope:
    """When a run is given up: as soon as more than `late` answers took longer than `bound` seconds, or failed."""

    bound: float
    late: int


def serve(
    predictor: Predictor, pictures: Sequence[Picture], due: NDArray[np.float64], hope: Hope | None = None
) -> Round:
    """Answer each picture at its moment `due` (seconds from now) or as soon after as a thread is free; a thread a core.

    Each latency runs from the moment that was due. A run that is given up returns what it has until then.
    """
    predictor.runner("throughput")  # A server loads its network before it opens its doors.
    hall = _Hall(predictor, pictures, due, hope)
    threads = [
        threading.Thread(target=hall.work, name=f"plimsoll-serve-{number}", daemon=True)
        for number in range(predictor.cores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if hall.broken:
        raise hall.broken[0]
    known = tuple(one for one in hall.latencies if one is not None)
    return Round(
        time.perf_counter() - hall.start, len(known), len(hall.errors), known, hall.errors[0] if hall.errors else ""
    )


class _Hall:
    """What the threads of `serve` share."""

    def __init__(
        self, predictor: Predictor, pictures: Sequence[Picture], due: NDArray[np.float64], hope: Hope | None
    ) -> None:
        self.predictor, self.pictures, self.due, self.hope = predictor, pictures, due, hope
        self.latencies: list[float | None] = [None] * len(pictures)
        self.errors: list[str] = []
        self.broken: list[BaseException] = []
        self._turn, self._places = threading.Lock(), iter(range(len(pictures)))
        self._late = 0
        self.start = time.perf_counter()

    def work(self) -> None:
        """Take the next picture, wait until it is due, answer it; until none is left."""
        while (place := self._next()) is not None:
            due = self.start + float(self.due[place])
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                self.predictor.predict(self.pictures[place], objective="throughput")
            except PlimsollError as error:
                self.errors.append(error.message)
                self._note(math.inf)
            except BaseException as error:  # noqa: BLE001 - what nobody foresaw is raised again in the caller's thread
                self.broken.append(error)
            else:
                self.latencies[place] = took = time.perf_counter() - due
                self._note(took)

    def _next(self) -> int | None:
        with self._turn:
            hopeless = self.hope is not None and self._late > self.hope.late
            return None if self.broken or hopeless else next(self._places, None)

    def _note(self, latency: float) -> None:
        if self.hope is not None and latency > self.hope.bound:
            with self._turn:
                self._late += 1
