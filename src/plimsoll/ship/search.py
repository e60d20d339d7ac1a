"""The search: which variants are tried in which order, under which limits, and which of them wins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plimsoll.report import Check
from plimsoll.ship.variant import Variant, first_round, is_quantized_here, more_in_float, neighbours
from plimsoll.target import Target

FINALISTS = 3
SIMPLER_WITHIN = 0.02
"""A simpler variant goes before one that is faster by no more than this."""


@dataclass(frozen=True)
class Attempt:
    """A row of the ladder: a variant, and what came of it."""

    variant: Variant
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
    # A limit below zero is a loss that is allowed; the least signal to noise is above zero, and what is measured below it.
    more, less = (check.limit, check.measured) if check.bound == "at_least" and check.limit > 0 else (check.measured, check.limit)
    if check.passed and not less:
        return 0.0
    return more / less if math.isfinite(more) and less else math.inf


Try = Callable[[Variant], Attempt]


def explore(targets: Sequence[Target], calibrators: Sequence[str], attempt: Try, deadline: float) -> Iterator[Attempt]:
    """Yield attempts: every target once, then what lies next to the best, then mixed precision, until nothing new is near or time is up.

    What was not tried for lack of time is yielded as skipped, so that the ladder names it. `deadline` is on the clock of
    time.monotonic.
    """
    done: dict[Variant, Attempt] = {}
    queue = list(first_round(targets, calibrators))
    while queue:
        variant = queue.pop(0)
        if variant in done:
            continue
        late = time.monotonic() >= deadline
        made = Attempt(variant, "skipped", "the time limit was reached before its turn") if late else attempt(variant)
        done[variant] = made
        yield made
        if not queue and time.monotonic() < deadline:
            tried = list(done.values())
            queue = [near for near in _next(tried, calibrators) if near not in done] or mixtures(tried)


def _next(attempts: Sequence[Attempt], calibrators: Sequence[str]) -> list[Variant]:
    """Return what is worth trying next: around the fastest that pass, and other calibrators for fast ones that drift too far."""
    ran = sorted((one for one in attempts if one.status == "ok"), key=lambda one: -one.ratio)
    passed = [one for one in ran if one.passed]
    best = passed[0].ratio if passed else 0.0
    hopeful = [one for one in ran if not one.passed and one.ratio > best and one.variant.calibrator is not None and not one.variant.float_layers][:2]
    return [near for one in [*hopeful, *passed[:2]] for near in neighbours(one.variant, calibrators)]


def mixtures(attempts: Sequence[Attempt]) -> list[Variant]:
    """Return the next variants of mixed precision: one for each target whose int8 is faster than all that passes, but drifts too far with every calibrator.

    More and more layers stay in float32, until the budget holds or until it is no longer faster. None where the network in float32 misses
    the budget behind the same input steps.
    """
    ran = [one for one in attempts if one.status == "ok"]
    floor = max([1.0, *(one.ratio for one in ran if one.passed)])
    found = []
    for target in dict.fromkeys(one.variant.target for one in ran if is_quantized_here(one.variant.target)):
        whole = [one for one in ran if one.variant.target == target and not one.variant.float_layers]
        hopeful = [one for one in whole if one.ratio > floor and math.isfinite(one.excess)]
        if not hopeful or any(one.passed for one in whole):
            continue
        nearest = min(hopeful, key=lambda one: (one.excess, -one.ratio))
        if _fails_in_float(ran, nearest.variant.steps):
            continue
        last = _last_mixture(attempts, nearest)
        if last.status == "ok" and not last.passed and last.ratio > floor and (more := more_in_float(last.variant)) is not None:
            found.append(more)
    return found


def _fails_in_float(ran: Sequence[Attempt], steps: str) -> bool:
    tried = [one.passed for one in ran if one.variant.steps == steps and one.variant.target.precision == "float32"]
    return bool(tried) and not any(tried)


def _last_mixture(attempts: Sequence[Attempt], whole: Attempt) -> Attempt:
    """Return the attempt that has the most layers in float32, of a variant and its mixtures."""
    family = [one for one in attempts if replace(one.variant, float_layers=0) == whole.variant]
    return max(family, key=lambda one: one.variant.float_layers)


def objective_key(objective: str) -> Callable[[Attempt], tuple[float, ...]]:
    """Return what sorts passing attempts best first; among equals the simpler one comes first.

    For latency and throughput the speed was measured in that scenario, so its ratio decides.
    """
    if objective == "size":
        return lambda one: (float(one.result["size_bytes"]), -one.ratio, one.variant.distance)
    return lambda one: (-one.ratio, one.variant.distance)


def finalists_of(attempts: Sequence[Attempt], objective: str) -> list[Attempt]:
    """Return the best of those that pass, best first, and behind them the best in float32 that is not among them.

    That one drifts least: it is what can ship where none of the others stands the judging pictures. Variants that differ in their
    calibrator alone compute the same with other constants, so what sets their speeds apart is noise: the one goes on that strains the
    budget least.
    """
    alike: dict[Variant, list[Attempt]] = {}
    for one in attempts:
        if one.passed:
            alike.setdefault(replace(one.variant, calibrator=None), []).append(one)
    ranked = sorted((min(group, key=lambda one: one.strain) for group in alike.values()), key=objective_key(objective))
    best = ranked[:FINALISTS]
    return best + [one for one in ranked[FINALISTS:] if one.variant.target.precision == "float32"][:1]


def simplest_first(raced: Sequence[Attempt]) -> list[Attempt]:
    """Sort raced finalists, the fastest first; one that is simpler and nearly as fast goes before it."""
    ordered = sorted(raced, key=objective_key("throughput"))
    close = [one for one in ordered if one.ratio >= (1 - SIMPLER_WITHIN) * ordered[0].ratio]
    return sorted(close, key=lambda one: one.variant.distance) + [one for one in ordered if one not in close]


def gain(attempt: Attempt, reference: Attempt, objective: str) -> float:
    """Return by which share an attempt is better than the reference: surely faster (the lower end of its interval), or smaller on disk."""
    if objective == "size":
        return 1 - float(attempt.result["size_bytes"]) / float(reference.result["size_bytes"])
    return float(attempt.result["speed"]["low"]) - 1
