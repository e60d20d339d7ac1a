"""The highest arrival rate at which a server still keeps its latency bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from plimsoll.benchmark.scenarios import LateLimit, Offline, Server, answer_arrivals, arrivals
from plimsoll.benchmark.statistics import percentile
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Picture, Predictor
from plimsoll.metrics.decisions import MINIMUM_COUNTS

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
