"""The highest rate of Poisson arrivals that a server holds with its 99th percentile within a limit: found by halving,
servers in turn."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from measure import Load
from servers import Running

from plimsoll.metrics.decisions import MINIMUM_COUNTS

LONGEST = 40.0
"""Seconds of one probe: a slow server needs long for the requests that a percentile takes."""


@dataclass
class Search:
    """Between which rates a server's limit lies."""

    failed: float
    """The lowest rate at which it was too slow."""
    passed: float = 0.0
    """The highest rate at which it was fast enough."""
    p99: float = 0.0
    """Milliseconds, at the rate that it held."""
    probes: list[dict[str, float]] = field(default_factory=list)


def highest_rates(
    running: Sequence[Running], load: Load, limit: float, seconds: float, steps: int
) -> dict[str, Search]:
    """Search each server's highest rate; the first bound is what 16 clients in a closed loop get, and a tenth."""
    searches: dict[str, Search] = {}
    for process in running:
        process.freeze(signal.SIGCONT)
        searches[process.server.name] = Search(failed=1.1 * load.closed(process, min(seconds, 5)).rate)
        process.freeze()
    for _ in range(steps):
        for process in running:
            process.freeze(signal.SIGCONT)
            _probe(process, load, searches[process.server.name], limit, seconds)
            process.freeze()
    return searches


def _probe(running: Running, load: Load, search: Search, limit: float, seconds: float) -> None:
    """Try the rate in the middle; a request with an error counts as infinitely late."""
    rate = (search.passed + search.failed) / 2
    load.arriving(running, rate, 1)
    measured = load.arriving(running, rate, min(LONGEST, max(seconds, 1.1 * MINIMUM_COUNTS[99.0] / rate)))
    p99 = measured.percentile(99)
    search.probes.append(
        {"rate": rate, "p99": p99, "answers": len(measured.latencies), "errors": sum(measured.errors.values())}
    )
    if p99 <= limit:
        search.passed, search.p99 = rate, p99
    else:
        search.failed = rate
    print(f"{running.server.name:24} {rate:7.1f}/s  p99 {p99:8.1f} ms", file=sys.stderr, flush=True)
