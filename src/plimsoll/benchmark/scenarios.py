"""How pictures come: one at a time, all at once, or at random moments (the scenarios of MLPerf LoadGen); and the
highest arrival rate at which a server keeps its latency bound.

Each runs end to end, from a picture's path or bytes to its answer, through the same `Predictor` that serves.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from plimsoll.benchmark.statistics import percentile
from plimsoll.errors import InputError, PlimsollError
from plimsoll.inference.predictor import Picture, Predictor
from plimsoll.metrics.decisions import MINIMUM_COUNTS


@dataclass(frozen=True)
class RoundResult:
    """What one system did with one chunk of pictures."""

    seconds: float
    """Wall time from the first picture to the last answer."""
    answered: int
    failed: int = 0
    """Pictures that got no answer; they don't count towards the speed."""
    latencies: tuple[float, ...] = ()
    """Seconds to each answer, in the order in which the pictures came; empty where only the whole counts."""
    first_error: str = ""


class Scenario(Protocol):
    """One way in which pictures arrive."""

    @property
    def name(self) -> str:
        """The name in reports and on the command line."""
        ...

    @property
    def min_count(self) -> int:
        """How many answers a result needs where the caller doesn't say."""
        ...

    def size(self, rate: float, cores: int, seconds: float) -> int:
        """Return how many pictures make a round of about `seconds` for a system that answers `rate` a second."""
        ...

    def warm_up(self) -> Scenario:
        """Return the scenario that warms up for this one, as fast as it can."""
        ...

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> RoundResult:
        """Answer the pictures; `number` is the round's, from 0."""
        ...

    def speed(self, result: RoundResult) -> float:
        """Return the figure by which systems are compared; higher is faster, 0 where nothing was answered."""
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

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> RoundResult:
        """Answer all pictures as one stream."""
        del number
        started = time.perf_counter()
        errors = [row.error for row in predictor.predict_many(pictures, batch=self.batch) if row.error is not None]
        seconds = time.perf_counter() - started
        return RoundResult(seconds, len(pictures) - len(errors), len(errors), first_error=errors[0] if errors else "")

    def speed(self, result: RoundResult) -> float:
        """Return answers a second."""
        return result.answered / result.seconds


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

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> RoundResult:
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
        return RoundResult(
            time.perf_counter() - first, len(latencies), len(errors), tuple(latencies), errors[0] if errors else ""
        )

    def speed(self, result: RoundResult) -> float:
        """Return one over the median latency, in seconds."""
        return _median_speed(result)


@dataclass(frozen=True)
class Server:
    """Pictures arrive at random moments, `rate` a second on average: does each get its answer soon enough?

    A latency counts from the moment at which the picture was due, not from when a thread was free for it. So one slow
    answer shows in all that had to wait behind it (no "coordinated omission").
    """

    rate: float
    latency_bound: float = 0.1
    """Seconds."""
    rank: float = 99.0
    """The percentile of the latencies that must stay within the bound."""
    seed: int = 0
    name = "server"
    min_count = 662

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.latency_bound > 0):
            raise InputError(
                f"rate {self.rate:g} a second, latency bound {self.latency_bound:g} s: both must be greater than 0"
            )

    def size(self, rate: float, cores: int, seconds: float) -> int:
        """Return what arrives in half a second, or ten times the bound, or more: a queue that grows by a tenth then
        breaks the bound."""
        del rate, cores
        return max(2, round(self.rate * max(0.5, 10 * self.latency_bound, seconds)))

    def warm_up(self) -> Scenario:
        """Return the offline scenario: it uses the same sessions."""
        return Offline()

    def run(self, predictor: Predictor, pictures: Sequence[Picture], number: int) -> RoundResult:
        """Answer each picture when it is due, with a thread for each core, in the order in which they are due."""
        return answer_arrivals(predictor, pictures, arrivals(self.rate, len(pictures), (self.seed, number)))

    def speed(self, result: RoundResult) -> float:
        """Return one over the median latency, in seconds."""
        return _median_speed(result)


def arrivals(rate: float, count: int, seed: int | tuple[int, ...] = 0) -> NDArray[np.float64]:
    """Return `count` moments of a Poisson process of `rate` a second, in seconds from the start, ascending; the same
    for the same seed."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def _median_speed(result: RoundResult) -> float:
    return 1 / statistics.median(result.latencies) if result.latencies else 0.0


@dataclass(frozen=True)
class LateLimit:
    """A run is stopped as soon as more than `count` answers took longer than `latency_bound` seconds, or failed."""

    latency_bound: float
    count: int


def answer_arrivals(
    predictor: Predictor, pictures: Sequence[Picture], due: NDArray[np.float64], limit: LateLimit | None = None
) -> RoundResult:
    """Answer each picture at its moment `due` (seconds from now), or as soon after as one of the threads, one per core,
    is free.

    Each latency counts from the moment that was due. A run that is stopped returns what it has measured until then.
    """
    predictor.runner("throughput")  # A server loads its network before it accepts requests.
    run = _OpenLoopRun(predictor, pictures, due, limit)
    threads = [
        threading.Thread(target=run.work, name=f"plimsoll-bench-{number}", daemon=True)
        for number in range(predictor.cores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if run.crashes:
        raise run.crashes[0]
    latencies = tuple(latency for latency in run.latencies if latency is not None)
    seconds, first_error = time.perf_counter() - run.start, run.errors[0] if run.errors else ""
    return RoundResult(seconds, len(latencies), len(run.errors), latencies, first_error)


class _OpenLoopRun:
    """What the threads of `answer_arrivals` share."""

    def __init__(
        self, predictor: Predictor, pictures: Sequence[Picture], due: NDArray[np.float64], limit: LateLimit | None
    ) -> None:
        self.predictor, self.pictures, self.due, self.limit = predictor, pictures, due, limit
        self.latencies: list[float | None] = [None] * len(pictures)
        self.errors: list[str] = []
        self.crashes: list[BaseException] = []
        self._lock, self._indices = threading.Lock(), iter(range(len(pictures)))
        self._late = 0
        self.start = time.perf_counter()

    def work(self) -> None:
        """Take the next picture, wait until it is due, answer it; until all are answered."""
        while (index := self._next()) is not None:
            due = self.start + float(self.due[index])
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                self.predictor.predict(self.pictures[index], objective="throughput")
            except PlimsollError as error:
                self.errors.append(error.message)
                self._count_late(math.inf)
            except BaseException as error:  # noqa: BLE001 - an unforeseen error is raised again in the caller's thread
                self.crashes.append(error)
            else:
                self.latencies[index] = latency = time.perf_counter() - due
                self._count_late(latency)

    def _next(self) -> int | None:
        with self._lock:
            too_late = self.limit is not None and self._late > self.limit.count
            return None if self.crashes or too_late else next(self._indices, None)

    def _count_late(self, latency: float) -> None:
        if self.limit is not None and latency > self.limit.latency_bound:
            with self._lock:
                self._late += 1


MAX_TRIALS = 10
PRECISION = 1.05
"""The search ends when the highest rate that keeps the bound and the lowest that doesn't are this close."""


@dataclass(frozen=True)
class RateTrial:
    """One rate that was tried."""

    rate: float
    """Pictures a second."""
    latency: float
    """The percentile of the latencies, in seconds; infinite where the trial was stopped: too many were late."""
    count: int
    valid: bool


@dataclass(frozen=True)
class MaxRate:
    """The highest rate that kept the bound, 0 where none did, and what was tried."""

    rate: float
    latency_bound: float
    rank: float
    trials: tuple[RateTrial, ...]


def max_rate(
    predictor: Predictor,
    images: Sequence[Picture],
    server: Server,
    *,
    min_seconds: float = 2.0,
    min_count: int | None = None,
    progress: Callable[[RateTrial], None] | None = None,
) -> MaxRate:
    """Search for the highest rate that keeps the bound of `server` (whose own rate is not used), to within 5 %.

    Each trial takes at least `min_seconds` of arrivals, 20 times the bound (so that at 5 % too many a second the queue
    has time to exceed it), and `min_count` pictures (default and least: what the percentile needs). Raises
    InputError where no picture can be answered.
    """
    min_count = max(min_count or 0, MINIMUM_COUNTS.get(server.rank, 0))
    seconds = max(min_seconds, server.latency_bound / (PRECISION - 1))
    pictures = [images[index % len(images)] for index in range(4 * predictor.cores)]
    Offline().run(predictor, pictures, 0)
    capacity = Offline().run(predictor, pictures, 0)
    if not capacity.answered:
        raise InputError(f"none of {len(pictures)} pictures could be answered: {capacity.first_error}")
    highest_kept, lowest_missed = 0.0, 1.25 * Offline().speed(capacity)
    rate, trials = 0.8 * Offline().speed(capacity), list[RateTrial]()
    while len(trials) < MAX_TRIALS and lowest_missed > PRECISION * max(
        highest_kept, capacity.answered / capacity.seconds / 50
    ):
        trial = _try(predictor, images, replace(server, rate=rate), max(min_count, math.ceil(rate * seconds)))
        trials.append(trial)
        if progress is not None:
            progress(trial)
        if trial.valid:
            highest_kept, lowest_missed = rate, max(lowest_missed, 1.25 * rate)
        else:
            lowest_missed = rate
        rate = (highest_kept + lowest_missed) / 2
    return MaxRate(highest_kept, server.latency_bound, server.rank, tuple(trials))


def _try(predictor: Predictor, images: Sequence[Picture], server: Server, count: int) -> RateTrial:
    """Let pictures arrive at the server's rate until so many are late that the percentile can't be kept any more."""
    pictures = [images[index % len(images)] for index in range(count)]
    late = math.floor(count * (1 - server.rank / 100))
    limit = LateLimit(server.latency_bound, late)
    result = answer_arrivals(predictor, pictures, arrivals(server.rate, count, server.seed), limit)
    if result.answered + result.failed < count:
        return RateTrial(server.rate, math.inf, result.answered, valid=False)
    # A picture without an answer counts as one whose answer came too late.
    latency = percentile([*result.latencies, *[math.inf] * result.failed], server.rank)
    return RateTrial(server.rate, latency, result.answered, latency <= server.latency_bound)
