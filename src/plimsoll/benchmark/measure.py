"""Measure one or several systems in turns, so that whatever else the machine does affects all of them alike; and record
what else it did."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plimsoll.benchmark.scenarios import Offline, RoundResult, Scenario
from plimsoll.benchmark.statistics import Estimate, SpeedComparison, compare_speeds, estimate, percentiles, spread
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Picture, Predictor
from plimsoll.system import host

_STAT = Path("/proc/stat")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
"""Columns of the `cpu` line of /proc/stat (proc_stat(5)); the first eight are disjoint."""


@dataclass(frozen=True)
class Snapshot:
    """The machine's counters at one moment, in seconds of CPU time; NaN where the system doesn't provide them."""

    wall: float
    own: float
    busy: float
    steal: float
    total: float
    load: float
    """The load average of the last minute."""


def snapshot(stat: Path = _STAT) -> Snapshot:
    """Read the counters."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    busy, steal, total = _processor_times(stat)
    return Snapshot(time.perf_counter(), time.process_time(), busy, steal, total, load)


def _processor_times(stat: Path) -> tuple[float, float, float]:
    try:
        fields = stat.read_text().splitlines()[0].split()
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[1:9]]
    except (OSError, ValueError, IndexError, AttributeError):
        return math.nan, math.nan, math.nan
    if fields[0] != "cpu" or len(ticks) <= _STEAL:
        return math.nan, math.nan, math.nan
    total = sum(ticks)
    return total - ticks[_IDLE] - ticks[_IOWAIT] - ticks[_STEAL], ticks[_STEAL], total


@dataclass(frozen=True)
class Conditions:
    """How quiet the machine was between two snapshots; NaN where the system doesn't provide it."""

    load_before: float
    """The load average of the last minute before the start."""
    others: float
    """How many cores other programs kept busy on average; in a container this counts the whole host."""
    steal: float
    """The share of CPU time that the hypervisor gave to other machines."""

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Conditions:
        """Work out what happened between two snapshots."""
        wall, total = after.wall - before.wall, after.total - before.total
        others = (after.busy - before.busy - (after.own - before.own)) / wall if wall > 0 else math.nan
        steal = (after.steal - before.steal) / total if total > 0 else math.nan
        return cls(before.load, max(0.0, others) if math.isfinite(others) else math.nan, steal)

    def warnings(self, cores: int | None = None) -> list[str]:
        """Return what a reader of the figures must know."""
        count = cores or host.cores()
        warnings = []
        if self.others > 0.1 * count:
            warnings.append(f"other programs kept {self.others:.1f} of {count} cores busy")
        elif math.isnan(self.others) and self.load_before > 0.5 * count:
            warnings.append(f"the load average was {self.load_before:.1f} on {count} cores before the start")
        if self.steal > 0.01:
            warnings.append(f"the hypervisor took {self.steal:.0%} of the CPU time for other machines")
        return warnings


WARM_UP_S = 0.2
"""trtexec's default. A first call also allocates, and a processor raises its clock."""

ROUNDS = 20
"""How many rounds the time is divided into: enough for a narrow interval, few enough that starting and ending a stream
costs little."""

MIN_ROUNDS = 12
"""From 12 rounds on the interval leaves out the two extremes at each end, so that two disturbed rounds can't widen it
without bound."""

MAX_TIME_FACTOR = 5
"""A run ends after this many times the minimum time, whatever count it has reached."""

NOISY = 0.05
"""An interval that reaches farther than this from its median, or rounds that spread twice as far, are reported as
noise."""


@dataclass(frozen=True)
class SystemUnderTest:
    """One deployment, with its name in the results. The predictor stays the caller's to close."""

    name: str
    predictor: Predictor


@dataclass(frozen=True)
class SystemResult:
    """All rounds of one system."""

    name: str
    rounds: tuple[RoundResult, ...]
    speeds: tuple[float, ...]
    """The scenario's figure of each round, higher is faster."""

    @property
    def seconds(self) -> float:
        """Measured wall time."""
        return sum(result.seconds for result in self.rounds)

    @property
    def answered(self) -> int:
        """Pictures that got an answer."""
        return sum(result.answered for result in self.rounds)

    @property
    def failed(self) -> int:
        """Pictures that got none."""
        return sum(result.failed for result in self.rounds)

    @property
    def first_error(self) -> str:
        """Why the first picture without an answer has none."""
        return next((result.first_error for result in self.rounds if result.first_error), "")

    @property
    def rate(self) -> Estimate:
        """Answers a second: the median of the rounds and its interval."""
        return estimate([result.answered / result.seconds for result in self.rounds])

    @cached_property
    def latencies(self) -> NDArray[np.float64]:
        """Seconds to each answer, over all rounds; empty where the scenario has none."""
        return np.array([latency for result in self.rounds for latency in result.latencies])

    @cached_property
    def percentiles(self) -> dict[str, float]:
        """The percentiles of the latencies that their count supports, in seconds."""
        return percentiles(self.latencies)


@dataclass(frozen=True)
class BenchmarkResult:
    """What `bench` measured; the first system is the baseline."""

    scenario: Scenario
    images: int
    """How many different pictures there were."""
    min_count: int
    systems: tuple[SystemResult, ...]
    conditions: Conditions
    cores: int

    @cached_property
    def comparisons(self) -> tuple[SpeedComparison, ...]:
        """Every other system against the first."""
        baseline, *others = self.systems
        return tuple(compare_speeds(baseline.name, other.name, baseline.speeds, other.speeds) for other in others)

    @property
    def warnings(self) -> list[str]:
        """What a reader of the figures must know."""
        warnings = self.conditions.warnings()
        swing = spread(self.systems[0].speeds)
        if swing > 2 * NOISY:
            warnings.append(f"the middle half of {self.systems[0].name}'s rounds spreads over {swing:.0%}")
        for comparison in self.comparisons:
            uncertainty = comparison.speed.uncertainty
            if uncertainty > NOISY and comparison.verdict == "no difference":
                size = f"less than {uncertainty:.0%}" if uncertainty < 1 else "any size"
                warnings.append(
                    f"too noisy to detect a difference of {size} between {comparison.candidate} and"
                    f" {comparison.baseline}: measure longer, or on a quieter machine"
                )
        for system in self.systems:
            if system.failed:
                warnings.append(
                    f"{system.name}: {system.failed:,} of {system.failed + system.answered:,} pictures got no answer;"
                    f" the first: {system.first_error}"
                )
            if system.answered < self.min_count:
                warnings.append(
                    f"{system.name}: {system.answered:,} answers when the time was over, expected at least"
                    f" {self.min_count:,}"
                )
        return warnings


ProgressCallback = Callable[[float], None]
"""Called with the share of the work that is done, 0 to 1."""


def bench(
    systems: Sequence[SystemUnderTest],
    images: Sequence[Picture],
    *,
    scenario: Scenario | None = None,
    min_seconds: float = 10.0,
    min_count: int | None = None,
    progress: ProgressCallback | None = None,
) -> BenchmarkResult:
    """Measure systems round by round, A B A B …, all on the same pictures in the same round.

    Every system gets at least `min_seconds` of measured time, `min_count` answers (default: the scenario's own) and 12
    rounds, but no more than five times `min_seconds`; what is missing then is a warning. The default scenario is
    `Offline()`. Raises InputError without systems, without pictures, or if a system answers none of them.
    """
    scenario = scenario or Offline()
    _check(systems, images, min_seconds)
    min_count = scenario.min_count if min_count is None else min_count
    cores = systems[0].predictor.cores
    slowest = min(_warm_up(system, images, scenario, min_seconds) for system in systems)
    chunks = _chunks(images, scenario.size(slowest, cores, min(1.0, min_seconds / ROUNDS)))
    results: list[list[RoundResult]] = [[] for _ in systems]
    before = snapshot()
    while (share := _share_done(results, min_seconds, min_count)) < 1:
        if progress is not None:
            progress(share)
        chunk, number = next(chunks), len(results[0])
        for system, rounds in zip(systems, results, strict=True):
            rounds.append(scenario.run(system.predictor, chunk, number))
    if progress is not None:
        progress(1.0)
    measured = tuple(
        SystemResult(system.name, tuple(rounds), tuple(map(scenario.speed, rounds)))
        for system, rounds in zip(systems, results, strict=True)
    )
    return BenchmarkResult(scenario, len(images), min_count, measured, Conditions.between(before, snapshot()), cores)


def _check(systems: Sequence[SystemUnderTest], images: Sequence[Picture], min_seconds: float) -> None:
    names = [system.name for system in systems]
    if not systems or not images:
        raise InputError(f"{len(systems)} systems and {len(images)} pictures: a benchmark needs at least one of each")
    if len(set(names)) != len(names):
        raise InputError(f"duplicate names: {', '.join(names)}", "Results are identified by name.")
    if not min_seconds > 0:
        raise InputError(f"minimum time {min_seconds:g} s: expected more than 0")


def _warm_up(system: SystemUnderTest, images: Sequence[Picture], scenario: Scenario, min_seconds: float) -> float:
    """Load the network, run for WARM_UP_S, and return answers a second; raises InputError if no picture is answered."""
    warm_up, predictor = scenario.warm_up(), system.predictor
    last = warm_up.run(predictor, images[: 2 * predictor.cores], 0)  # It also loads: its speed says nothing.
    seconds = 0.0
    while last.answered and seconds < min(WARM_UP_S, min_seconds):
        size = warm_up.size(last.answered / last.seconds, predictor.cores, WARM_UP_S / 2)
        last = warm_up.run(predictor, next(_chunks(images, size)), 0)
        seconds += last.seconds
    if not last.answered:
        last = warm_up.run(predictor, images, 0)
    if not last.answered:
        raise InputError(f"{system.name} answers none of the {len(images):,} pictures: {last.first_error}")
    return last.answered / last.seconds


def _chunks(images: Sequence[Picture], size: int) -> Iterator[list[Picture]]:
    """Yield chunks of `size` pictures without end, cycling through them."""
    cycle = itertools.cycle(images)
    while True:
        yield list(itertools.islice(cycle, size))


def _share_done(results: Sequence[Sequence[RoundResult]], min_seconds: float, min_count: int) -> float:
    """Return the share of the work that is done; 1 when it is complete, or when the time is over."""
    seconds = [sum(result.seconds for result in rounds) for rounds in results]
    answered = min(sum(result.answered for result in rounds) for rounds in results)
    complete = min(min(seconds) / min_seconds, answered / max(1, min_count), len(results[0]) / MIN_ROUNDS)
    return min(1.0, max(complete, sum(seconds) / (MAX_TIME_FACTOR * min_seconds * len(results))))
