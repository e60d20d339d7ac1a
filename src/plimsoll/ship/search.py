"""The search: which variants are tried in which order, under which limits, and which of them wins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from plimsoll.report import Check
from plimsoll.ship.variant import Variant, first_round, neighbours
from plimsoll.target import Target


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


Try = Callable[[Variant], Attempt]


def explore(targets: Sequence[Target], calibrators: Sequence[str], attempt: Try, deadline: float) -> Iterator[Attempt]:
    """Yield attempts: every target once, then what lies next to the best, until nothing new is near or time is up.

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
            queue = [near for near in _next(list(done.values()), calibrators) if near not in done]


def _next(attempts: Sequence[Attempt], calibrators: Sequence[str]) -> list[Variant]:
    """Return what is worth trying next: around the fastest that pass, and other calibrators for fast ones that drift too far."""
    ran = sorted((one for one in attempts if one.status == "ok"), key=lambda one: -one.ratio)
    passed = [one for one in ran if one.passed]
    around = passed[:2]
    best = passed[0].ratio if passed else 0.0
    hopeful = [one for one in ran if not one.passed and one.ratio > best and one.variant.calibrator is not None][:2]
    return [near for one in [*hopeful, *around] for near in neighbours(one.variant, calibrators)]


def objective_key(objective: str) -> Callable[[Attempt], tuple[float, ...]]:
    """Return what sorts passing attempts best first; among equals the simpler one comes first.

    For latency and throughput the speed was measured in that scenario, so its ratio decides.
    """
    if objective == "size":
        return lambda one: (float(one.result["size_bytes"]), -one.ratio, one.variant.distance)
    return lambda one: (-one.ratio, one.variant.distance)
