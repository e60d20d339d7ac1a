"""Measure one or several candidates in turns, so that whatever the machine does meanwhile hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from plimsoll.benchmark.conditions import Conditions, snapshot
from plimsoll.benchmark.scenarios import Offline, Round, Scenario
from plimsoll.benchmark.statistics import Comparison, Estimate, compare, estimate, percentiles, spread
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Picture, Predictor

WARM_UP_S = 0.2
"""trtexec's default. A first call also allocates, and a processor raises its clock."""

ROUNDS = 20
"""How many rounds the time is cut into: enough for a narrow interval, few enough that starting and ending a stream
costs little."""

FEWEST_ROUNDS = 12
"""From 12 rounds on the interval leaves out the two extremes at each end, so that two disturbed rounds can't widen it
without end."""

PATIENCE = 5
"""A run ends after so many times the minimum time, whatever count it has reached."""

NOISY = 0.05
"""An interval that reaches further than this from its median, or rounds that spread twice as far, are reported as
noise."""


@dataclass(frozen=True)
class SystemUnderTest:
    """One deployment under its name in the results. Whoever opened the predictor closes it."""

    name: str
    predictor: Predictor


@dataclass(frozen=True)
class Measured:
    """All rounds of one candidate."""

    name: str
    rounds: tuple[Round, ...]
    speeds: tuple[float, ...]
    """The scenario's figure of each round, higher is faster."""

    @property
    def seconds(self) -> float:
        """Measured wall time."""
        return sum(one.seconds for one in self.rounds)

    @property
    def answered(self) -> int:
        """Pictures that got an answer."""
        return sum(one.answered for one in self.rounds)

    @property
    def failed(self) -> int:
        """Pictures that got none."""
        return sum(one.failed for one in self.rounds)

    @property
    def first_error(self) -> str:
        """Why the first picture without an answer has none."""
        return next((one.first_error for one in self.rounds if one.first_error), "")

    @property
    def rate(self) -> Estimate:
        """Answers a second: the median of the rounds and its interval."""
        return estimate([one.answered / one.seconds for one in self.rounds])

    @cached_property
    def latencies(self) -> NDArray[np.float64]:
        """Seconds to each answer, over all rounds; empty where the scenario has none."""
        return np.array([latency for one in self.rounds for latency in one.latencies])

    @cached_property
    def percentiles(self) -> dict[str, float]:
        """The percentiles of the latencies that their count supports, in seconds."""
        return percentiles(self.latencies)


@dataclass(frozen=True)
class Outcome:
    """What `bench` found; the first candidate is the baseline."""

    scenario: Scenario
    images: int
    """How many different pictures there were."""
    min_count: int
    measured: tuple[Measured, ...]
    conditions: Conditions
    cores: int

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every other candidate against the first."""
        first = self.measured[0]
        return tuple(compare(first.name, one.name, first.speeds, one.speeds) for one in self.measured[1:])

    @property
    def warnings(self) -> list[str]:
        """Return what a reader of the figures must know, in words."""
        found = self.conditions.warnings()
        swing = spread(self.measured[0].speeds)
        if swing > 2 * NOISY:
            found.append(f"the middle half of {self.measured[0].name}'s rounds spreads over {swing:.0%}")
        for one in self.comparisons:
            if one.speed.blur > NOISY and one.verdict == "no difference":
                blur = f"less than {one.speed.blur:.0%}" if one.speed.blur < 1 else "any size"
                found.append(
                    f"too noisy to tell a difference of {blur} between {one.candidate} and {one.baseline}: measure"
                    " longer, or on a quieter machine"
                )
        for done in self.measured:
            if done.failed:
                found.append(
                    f"{done.name}: {done.failed:,} of {done.failed + done.answered:,} pictures got no answer; the"
                    f" first: {done.first_error}"
                )
            if done.answered < self.min_count:
                found.append(
                    f"{done.name}: {done.answered:,} answers when the time was over, {self.min_count:,} were wanted"
                )
        return found


Watch = Callable[[float], None]
"""Told the share of the work that is done, 0 to 1."""


def bench(
    candidates: Sequence[SystemUnderTest],
    images: Sequence[Picture],
    *,
    scenario: Scenario | None = None,
    min_seconds: float = 10.0,
    min_count: int | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Measure candidates round by round, A B A B …, all on the same pictures in the same round.

    Every candidate gets at least `min_seconds` of measured time, `min_count` answers (default: the scenario's own) and
    12 rounds, but no more than five times `min_seconds`; what is missing then is a warning. The default scenario is
    `Offline()`. Raises InputError without candidates, without pictures, or where a candidate answers none of them.
    """
    chosen = scenario or Offline()
    _check(candidates, images, min_seconds)
    wanted = chosen.min_count if min_count is None else min_count
    cores = candidates[0].predictor.cores
    slowest = min(_warm_up(one, images, chosen, min_seconds) for one in candidates)
    chunks = _chunks(images, chosen.size(slowest, cores, min(1.0, min_seconds / ROUNDS)))
    rounds: list[list[Round]] = [[] for _ in candidates]
    before = snapshot()
    while (share := _progress(rounds, min_seconds, wanted)) < 1:
        if watch is not None:
            watch(share)
        chunk, number = next(chunks), len(rounds[0])
        for one, done in zip(candidates, rounds, strict=True):
            done.append(chosen.run(one.predictor, chunk, number))
    if watch is not None:
        watch(1.0)
    measured = tuple(
        Measured(one.name, tuple(done), tuple(map(chosen.speed, done)))
        for one, done in zip(candidates, rounds, strict=True)
    )
    return Outcome(chosen, len(images), wanted, measured, Conditions.between(before, snapshot()), cores)


def _check(candidates: Sequence[SystemUnderTest], images: Sequence[Picture], min_seconds: float) -> None:
    names = [one.name for one in candidates]
    if not candidates or not images:
        raise InputError(
            f"{len(candidates)} candidates and {len(images)} pictures: a benchmark needs at least one of each"
        )
    if len(set(names)) != len(names):
        raise InputError(f"two candidates have the same name: {', '.join(names)}", "Results are told apart by it.")
    if not min_seconds > 0:
        raise InputError(f"a minimum time of {min_seconds:g} s, expected more than 0")


def _warm_up(candidate: SystemUnderTest, images: Sequence[Picture], scenario: Scenario, min_seconds: float) -> float:
    """Load the network, run for WARM_UP_S, and return answers a second; raises InputError where there is none."""
    rehearsal = scenario.warm_up()
    first = rehearsal.run(
        candidate.predictor, images[: 2 * candidate.predictor.cores], 0
    )  # Loads: too slow to judge by.
    spent, last = 0.0, first
    while last.answered and spent < min(WARM_UP_S, min_seconds):
        size = rehearsal.size(last.answered / last.seconds, candidate.predictor.cores, WARM_UP_S / 2)
        last = rehearsal.run(candidate.predictor, next(_chunks(images, size)), 0)
        spent += last.seconds
    if not last.answered:
        last = rehearsal.run(candidate.predictor, images, 0)
    if not last.answered:
        raise InputError(f"{candidate.name} answers none of the {len(images):,} pictures: {last.first_error}")
    return last.answered / last.seconds


def _chunks(images: Sequence[Picture], size: int) -> Iterator[list[Picture]]:
    """Yield chunks of `size` pictures for ever, going round and round."""
    at = 0
    while True:
        yield [images[(at + place) % len(images)] for place in range(size)]
        at += size


def _progress(rounds: Sequence[Sequence[Round]], min_seconds: float, min_count: int) -> float:
    """Return the share of the work that is done; 1 where it is complete, or where the patience is over."""
    seconds = min(sum(one.seconds for one in done) for done in rounds)
    answered = min(sum(one.answered for one in done) for done in rounds)
    patience = sum(one.seconds for done in rounds for one in done) / (PATIENCE * min_seconds * len(rounds))
    complete = min(seconds / min_seconds, answered / max(1, min_count), len(rounds[0]) / FEWEST_ROUNDS)
    return min(1.0, max(complete, patience))
