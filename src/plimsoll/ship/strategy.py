"""The search: which candidates are tried in which order, under which limits, and which of them wins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plimsoll.core.check import Check
from plimsoll.core.target import Target
from plimsoll.ship.candidate import Candidate, first_round, is_quantized_here, more_in_float, neighbours

FINALISTS = 3
SIMPLER_WITHIN = 0.02
"""A simpler candidate goes before one that is faster by no more than this."""


@dataclass(frozen=True)
class Trial:
    """A row of the table: a candidate, and what came of it."""

    candidate: Candidate
    status: str
    """ok, failed or skipped."""
    reason: str = ""
    """Why it failed or was skipped."""
    result: dict[str, Any] = field(default_factory=dict)
    """What its process measured."""
    checks: tuple[Check, ...] = ()
    """The budget, on the selection part."""

    @property
    def passed(self) -> bool:
        """Whether it ran and kept the budget."""
        return self.status == "ok" and bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def ratio(self) -> float:
        """How many times as fast as the reference; 0 where it was not measured."""
        return float(self.result["speed"]["ratio"]) if self.status == "ok" else 0.0

    @property
    def excess(self) -> float:
        """How far it is over the budget: the worst figure as a multiple of its limit, infinite where one is missing."""
        return max((1.0 if check.passed else _used(check) for check in self.checks), default=math.inf)

    @property
    def strain(self) -> float:
        """How much of the budget it uses up: its figures as shares of their limits, added up."""
        return sum(_used(check) for check in self.checks)


def _used(check: Check) -> float:
    """Return a figure as a share of its limit; infinite where it is none."""
    # A limit below zero is a loss that is allowed; the least signal to noise is above zero, and what is measured below
    # it.
    more, less = (
        (check.limit, check.measured)
        if check.bound == "at_least" and check.limit > 0
        else (check.measured, check.limit)
    )
    if check.passed and not less:
        return 0.0
    return more / less if math.isfinite(more) and less else math.inf


Try = Callable[[Candidate], Trial]


def explore(targets: Sequence[Target], calibrators: Sequence[str], trial: Try, deadline: float) -> Iterator[Trial]:
    """Yield trials: every target once, then what lies next to the best, then mixed precision, until nothing new is near
    or time is up.

    What was not tried for lack of time is yielded as skipped, so that the table names it. `deadline` is on the clock of
    time.monotonic.
    """
    done: dict[Candidate, Trial] = {}
    queue = list(first_round(targets, calibrators))
    while queue:
        candidate = queue.pop(0)
        if candidate in done:
            continue
        late = time.monotonic() >= deadline
        made = Trial(candidate, "skipped", "the time limit was reached before its turn") if late else trial(candidate)
        done[candidate] = made
        yield made
        if not queue and time.monotonic() < deadline:
            tried = list(done.values())
            queue = [near for near in _next(tried, calibrators) if near not in done] or mixtures(tried)


def _next(trials: Sequence[Trial], calibrators: Sequence[str]) -> list[Candidate]:
    """Return what is worth trying next: around the fastest that pass, and other calibrators for fast ones that deviate
    too far."""
    ran = sorted((one for one in trials if one.status == "ok"), key=lambda one: -one.ratio)
    passed = [one for one in ran if one.passed]
    best = passed[0].ratio if passed else 0.0
    hopeful = [
        one
        for one in ran
        if not one.passed
        and one.ratio > best
        and one.candidate.calibrator is not None
        and not one.candidate.float_layers
    ][:2]
    return [near for one in [*hopeful, *passed[:2]] for near in neighbours(one.candidate, calibrators)]


def mixtures(trials: Sequence[Trial]) -> list[Candidate]:
    """Return the next candidates of mixed precision: one for each target whose int8 is faster than all that passes, but
    deviates too far with every calibrator.

    More and more layers stay in float32, until the budget holds or until it is no longer faster. None where the network
    in float32 misses the budget behind the same input steps.
    """
    ran = [one for one in trials if one.status == "ok"]
    floor = max([1.0, *(one.ratio for one in ran if one.passed)])
    found = []
    for target in dict.fromkeys(one.candidate.target for one in ran if is_quantized_here(one.candidate.target)):
        whole = [one for one in ran if one.candidate.target == target and not one.candidate.float_layers]
        hopeful = [one for one in whole if one.ratio > floor and math.isfinite(one.excess)]
        if not hopeful or any(one.passed for one in whole):
            continue
        nearest = min(hopeful, key=lambda one: (one.excess, -one.ratio))
        if _fails_in_float(ran, nearest.candidate.steps):
            continue
        last = _last_mixture(trials, nearest)
        if (
            last.status == "ok"
            and not last.passed
            and last.ratio > floor
            and (more := more_in_float(last.candidate)) is not None
        ):
            found.append(more)
    return found


def _fails_in_float(ran: Sequence[Trial], steps: str) -> bool:
    tried = [one.passed for one in ran if one.candidate.steps == steps and one.candidate.target.precision == "float32"]
    return bool(tried) and not any(tried)


def _last_mixture(trials: Sequence[Trial], whole: Trial) -> Trial:
    """Return the trial that has the most layers in float32, of a candidate and its mixtures."""
    family = [one for one in trials if replace(one.candidate, float_layers=0) == whole.candidate]
    return max(family, key=lambda one: one.candidate.float_layers)


def objective_key(objective: str) -> Callable[[Trial], tuple[float, ...]]:
    """Return what sorts passing trials best first; among equals the simpler one comes first.

    For latency and throughput the speed was measured in that scenario, so its ratio decides.
    """
    if objective == "size":
        return lambda one: (float(one.result["size_bytes"]), -one.ratio, one.candidate.distance)
    return lambda one: (-one.ratio, one.candidate.distance)


def finalists_of(trials: Sequence[Trial], objective: str) -> list[Trial]:
    """Return the best of those that pass, best first, and behind them the best in float32 that is not among them.

    That one deviates least: it is what can ship where none of the others stands the judging pictures. Candidates that
    differ in their calibrator alone compute the same with other constants, so what sets their speeds apart is noise:
    the one goes on that strains the budget least.
    """
    alike: dict[Candidate, list[Trial]] = {}
    for one in trials:
        if one.passed:
            alike.setdefault(replace(one.candidate, calibrator=None), []).append(one)
    ranked = sorted((min(group, key=lambda one: one.strain) for group in alike.values()), key=objective_key(objective))
    best = ranked[:FINALISTS]
    return best + [one for one in ranked[FINALISTS:] if one.candidate.target.precision == "float32"][:1]


def simplest_first(raced: Sequence[Trial]) -> list[Trial]:
    """Sort raced finalists, the fastest first; one that is simpler and nearly as fast goes before it."""
    ordered = sorted(raced, key=objective_key("throughput"))
    close = [one for one in ordered if one.ratio >= (1 - SIMPLER_WITHIN) * ordered[0].ratio]
    return sorted(close, key=lambda one: one.candidate.distance) + [one for one in ordered if one not in close]


def gain(trial: Trial, reference: Trial, objective: str) -> float:
    """Return by which share an trial is better than the reference: surely faster (the lower end of its interval), or
    smaller on disk."""
    if objective == "size":
        return 1 - float(trial.result["size_bytes"]) / float(reference.result["size_bytes"])
    return float(trial.result["speed"]["low"]) - 1
