"""What a benchmark found, as a `Report`: figures by name, and the rows that a table or a plot is drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from plimsoll.benchmark.footprint import Footprint
from plimsoll.benchmark.measure import Measured, Outcome
from plimsoll.benchmark.profile import Profile
from plimsoll.benchmark.rates import MaxRate
from plimsoll.benchmark.scenarios import Server
from plimsoll.benchmark.statistics import MINIMUM_COUNTS, Comparison, Estimate, percentile
from plimsoll.core.check import Check
from plimsoll.report.report import Report


def report(
    outcome: Outcome, *, profiles: Sequence[Profile] = (), footprints: Mapping[str, Footprint] | None = None
) -> Report:
    """Return the report of `bench`, with profiles and footprints (by the candidates' names) where they were taken.

    `measurements` holds `NAME: images/s`, `NAME: p90 ms` …; `details` the scenario, a row a candidate with every round,
    the comparisons with their ratios and verdicts, and the warnings. The server scenario has a check a candidate: its
    latency against the bound, NaN (which never passes) where there were too few answers for the percentile.
    """
    figures: dict[str, float | int | str] = {}
    for one in outcome.measured:
        figures[f"{one.name}: images/s"] = one.rate.median
        figures.update({f"{one.name}: {name} ms": 1e3 * value for name, value in one.percentiles.items()})
    figures.update({f"{one.candidate} against {one.baseline}": one.verdict for one in outcome.comparisons})
    scenario = outcome.scenario
    baseline, *others = [one.name for one in outcome.measured]
    return Report(
        kind="bench",
        subject=f"{', '.join(others)} against {baseline}: {scenario.name}"
        if others
        else f"{baseline}: {scenario.name}",
        checks=tuple(_check(one, scenario) for one in outcome.measured) if isinstance(scenario, Server) else (),
        measurements=figures,
        details={
            "scenario": _scenario(outcome),
            "candidates": [_row(one, profiles, footprints or {}) for one in outcome.measured],
            "comparisons": [_comparison(one) for one in outcome.comparisons],
            "conditions": {
                "load_before": outcome.conditions.load_before,
                "busy_cores_of_others": outcome.conditions.others,
                "steal": outcome.conditions.steal,
            },
            "warnings": list[JsonValue](outcome.warnings),
        },
    )


def _check(measured: Measured, server: Server) -> Check:
    # A picture without an answer is one whose answer came too late.
    latencies = [*measured.latencies, *[math.inf] * measured.failed]
    needed = MINIMUM_COUNTS.get(server.rank, 0)
    enough = len(latencies) >= needed
    return Check(
        name=f"{measured.name}: P{server.rank:g} latency",
        measured=1e3 * percentile(latencies, server.rank) if enough else math.nan,
        limit=1e3 * server.latency_bound,
        unit="ms",
        detail=f"at {server.rate:g} pictures a second"
        if enough
        else f"{len(latencies):,} answers; P{server.rank:g} takes at least {needed:,}",
    )


def _scenario(outcome: Outcome) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {
        "name": outcome.scenario.name,
        "images": outcome.images,
        "min_count": outcome.min_count,
        "cores": outcome.cores,
    }
    if isinstance(server := outcome.scenario, Server):
        facts.update(
            {
                "rate": server.rate,
                "latency_bound_ms": 1e3 * server.latency_bound,
                "percentile": server.rank,
                "seed": server.seed,
            }
        )
    return facts


def _row(measured: Measured, profiles: Sequence[Profile], footprints: Mapping[str, Footprint]) -> dict[str, JsonValue]:
    row: dict[str, JsonValue] = {
        "name": measured.name,
        "answered": measured.answered,
        "failed": measured.failed,
        "seconds": measured.seconds,
        "images_per_second": _estimate(measured.rate),
        "latency_ms": {name: 1e3 * value for name, value in measured.percentiles.items()},
        "rounds": [{"seconds": one.seconds, "answered": one.answered, "failed": one.failed} for one in measured.rounds],
    }
    if (found := footprints.get(measured.name)) is not None:
        row["footprint"] = _footprint(found)
    for one in profiles:
        if one.name == measured.name:
            row["profile"] = _profile(one)
    return row


def _estimate(found: Estimate) -> dict[str, JsonValue]:
    return {"median": found.median, "low": found.low, "high": found.high}


def _comparison(found: Comparison) -> dict[str, JsonValue]:
    return {
        "baseline": found.baseline,
        "candidate": found.candidate,
        "verdict": found.verdict,
        "speed": _estimate(found.speed),
        "ratios": list[JsonValue](found.ratios),
        "sentence": found.sentence(),
    }


def _footprint(found: Footprint) -> dict[str, JsonValue]:
    return {
        "disk_bytes": found.disk_bytes,
        "load_seconds": found.load_seconds,
        "peak_bytes": found.peak_bytes,
        "streams": found.threads.streams,
        "threads": found.threads.threads,
    }


def _profile(found: Profile) -> dict[str, JsonValue]:
    stages: list[JsonValue] = [{"name": one.name, "ms": 1e3 * one.seconds, "share": one.share} for one in found.stages]
    return {
        "pictures": found.pictures,
        "stages": stages,
        "queue_ms": 1e3 * found.queue,
        "images_per_second": found.rate,
        "with_an_infinitely_fast_network": found.front_rate,
        "with_an_infinitely_fast_front_end": found.network_rate,
    }


def rates_report(found: Mapping[str, MaxRate]) -> Report:
    """Return the report of `max_rate` for candidates by their names: the highest rate of each, and every trial."""
    first = next(iter(found.values()))
    rows: dict[str, Any] = {
        name: [
            {"rate": one.rate, "latency_ms": 1e3 * one.latency, "answered": one.count, "valid": one.valid}
            for one in rate.trials
        ]
        for name, rate in found.items()
    }
    return Report(
        kind="bench",
        subject=f"{', '.join(found)}: the highest rate with P{first.rank:g} ≤ {1e3 * first.latency_bound:g} ms",
        measurements={f"{name}: images/s": one.rate for name, one in found.items()},
        details={
            "scenario": {"name": "max_rate", "latency_bound_ms": 1e3 * first.latency_bound, "percentile": first.rank},
            "trials": rows,
        },
    )
