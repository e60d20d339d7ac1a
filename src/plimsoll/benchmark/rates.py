"""The highest rate of arrivals at which a server still keeps its latency bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from plimsoll.benchmark.scenarios import Hope, Offline, Server, arrivals, serve
from plimsoll.benchmark.statistics import MINIMUM_COUNTS, percentile
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Picture, Predictor

MAX_TRIALS = 10
PRECISION = 1.05
"""The search ends when the highest rate that holds and the lowest that doesn't are this close."""


@dataclass(frozen=True)
class RateTrial:
    """One rate that was tried."""

    rate: float
    """Pictures a second."""
    latency: float
    """The percentile of the latencies, in seconds; infinite where the trial was given up, since too many came too late.
    """
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
    watch: Callable[[RateTrial], None] | None = None,
) -> MaxRate:
    """Search the highest rate that keeps the bound of `server` (whose own rate is not used), to within 5 %.

    Each trial takes at least `min_seconds` of arrivals, 20 times the bound (so that at 5 % too many a second the queue
    has the time to break it), and `min_count` pictures (default and least: what the percentile needs). Raises
    InputError where no picture can be answered.
    """
    needed = max(min_count or 0, MINIMUM_COUNTS.get(server.rank, 0))
    seconds = max(min_seconds, server.latency_bound / (PRECISION - 1))
    pictures = [images[place % len(images)] for place in range(4 * predictor.cores)]
    Offline().run(predictor, pictures, 0)
    capacity = Offline().run(predictor, pictures, 0)
    if not capacity.answered:
        raise InputError(f"none of {len(pictures)} pictures could be answered: {capacity.first_error}")
    holds, breaks = 0.0, 1.25 * Offline().speed(capacity)
    rate, trials = 0.8 * Offline().speed(capacity), list[RateTrial]()
    while len(trials) < MAX_TRIALS and breaks > PRECISION * max(holds, capacity.answered / capacity.seconds / 50):
        trial = _try(predictor, images, replace(server, rate=rate), max(needed, math.ceil(rate * seconds)))
        trials.append(trial)
        if watch is not None:
            watch(trial)
        if trial.valid:
            holds, breaks = rate, max(breaks, 1.25 * rate)
        else:
            breaks = rate
        rate = (holds + breaks) / 2
    return MaxRate(holds, server.latency_bound, server.rank, tuple(trials))


def _try(predictor: Predictor, images: Sequence[Picture], server: Server, count: int) -> RateTrial:
    """AvailableTarget pictures at the server's rate until so many came too late that the percentile can't be kept any
    more."""
    pictures = [images[place % len(images)] for place in range(count)]
    late = math.floor(count * (1 - server.rank / 100))
    done = serve(predictor, pictures, arrivals(server.rate, count, server.seed), Hope(server.latency_bound, late))
    if done.answered + done.failed < count:
        return RateTrial(server.rate, math.inf, done.answered, valid=False)
    # A picture without an answer is one whose answer came too late.
    latency = percentile([*done.latencies, *[math.inf] * done.failed], server.rank)
    return RateTrial(server.rate, latency, done.answered, latency <= server.latency_bound)
