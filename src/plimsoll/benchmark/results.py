"""A benchmark as a `Report`: figures by name, and the rows that a table or a plot is drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from plimsoll.benchmark.measure import BenchmarkResult, SystemResult
from plimsoll.benchmark.profile import Footprint, Profile
from plimsoll.benchmark.scenarios import MaxRate, Server
from plimsoll.benchmark.statistics import Estimate, SpeedComparison, percentile
from plimsoll.core.budget import Check
from plimsoll.metrics.decisions import MINIMUM_COUNTS
from plimsoll.report.report import Report


def report(
    result: BenchmarkResult, *, profiles: Sequence[Profile] = (), footprints: Mapping[str, Footprint] | None = None
) -> Report:
    """Return the report of `bench`, with profiles and footprints (by the systems' names) where they were measured.

    `measurements` holds `NAME: images/s`, `NAME: p90 ms` …; `details` the scenario, a row per system with every round,
    the comparisons with their ratios and verdicts, and the warnings. The server scenario has one check per system: its
    latency against the bound, NaN (which never passes) where there were too few answers for the percentile.
    """
    figures: dict[str, float | int | str] = {}
    for system in result.systems:
        figures[f"{system.name}: images/s"] = system.rate.median
        figures |= {f"{system.name}: {name} ms": 1e3 * value for name, value in system.percentiles.items()}
    figures |= {f"{pair.candidate} against {pair.baseline}": pair.verdict for pair in result.comparisons}
    scenario = result.scenario
    baseline, *others = [system.name for system in result.systems]
    return Report(
        kind="bench",
        subject=f"{', '.join(others)} against {baseline}: {scenario.name}"
        if others
        else f"{baseline}: {scenario.name}",
        checks=tuple(_check(system, scenario) for system in result.systems) if isinstance(scenario, Server) else (),
        measurements=figures,
        details={
            "scenario": _scenario(result),
            "candidates": [_row(system, profiles, footprints or {}) for system in result.systems],
            "comparisons": [_comparison(comparison) for comparison in result.comparisons],
            "conditions": {
                "load_before": result.conditions.load_before,
                "busy_cores_of_others": result.conditions.others,
                "steal": result.conditions.steal,
            },
            "warnings": list[JsonValue](result.warnings),
        },
    )


def _check(system: SystemResult, server: Server) -> Check:
    # A picture without an answer counts as one whose answer came too late.
    latencies = [*system.latencies, *[math.inf] * system.failed]
    needed = MINIMUM_COUNTS.get(server.rank, 0)
    enough = len(latencies) >= needed
    return Check(
        name=f"{system.name}: P{server.rank:g} latency",
        measured=1e3 * percentile(latencies, server.rank) if enough else math.nan,
        limit=1e3 * server.latency_bound,
        unit="ms",
        detail=f"at {server.rate:g} pictures a second"
        if enough
        else f"{len(latencies):,} answers; P{server.rank:g} takes at least {needed:,}",
    )


def _scenario(result: BenchmarkResult) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {
        "name": result.scenario.name,
        "images": result.images,
        "min_count": result.min_count,
        "cores": result.cores,
    }
    if isinstance(server := result.scenario, Server):
        facts.update(
            {
                "rate": server.rate,
                "latency_bound_ms": 1e3 * server.latency_bound,
                "percentile": server.rank,
                "seed": server.seed,
            }
        )
    return facts


def _row(
    system: SystemResult, profiles: Sequence[Profile], footprints: Mapping[str, Footprint]
) -> dict[str, JsonValue]:
    row: dict[str, JsonValue] = {
        "name": system.name,
        "answered": system.answered,
        "failed": system.failed,
        "seconds": system.seconds,
        "images_per_second": _estimate(system.rate),
        "latency_ms": {name: 1e3 * value for name, value in system.percentiles.items()},
        "rounds": [
            {"seconds": result.seconds, "answered": result.answered, "failed": result.failed}
            for result in system.rounds
        ],
    }
    if (footprint := footprints.get(system.name)) is not None:
        row["footprint"] = _footprint(footprint)
    for profile in profiles:
        if profile.name == system.name:
            row["profile"] = _profile(profile)
    return row


def _estimate(estimate: Estimate) -> dict[str, JsonValue]:
    return {"median": estimate.median, "low": estimate.low, "high": estimate.high}


def _comparison(comparison: SpeedComparison) -> dict[str, JsonValue]:
    return {
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "verdict": comparison.verdict,
        "speed": _estimate(comparison.speed),
        "ratios": list[JsonValue](comparison.ratios),
        "sentence": comparison.sentence(),
    }


def _footprint(footprint: Footprint) -> dict[str, JsonValue]:
    return {
        "disk_bytes": footprint.disk_bytes,
        "load_seconds": footprint.load_seconds,
        "peak_bytes": footprint.peak_bytes,
        "streams": footprint.streams,
        "threads": footprint.threads,
    }


def _profile(profile: Profile) -> dict[str, JsonValue]:
    stages: list[JsonValue] = [
        {"name": stage.name, "ms": 1e3 * stage.seconds, "share": stage.share} for stage in profile.stages
    ]
    return {
        "pictures": profile.pictures,
        "stages": stages,
        "queue_ms": 1e3 * profile.queue,
        "images_per_second": profile.rate,
        "with_infinitely_fast_network": profile.infinite_network_rate,
        "with_infinitely_fast_preprocessing": profile.infinite_preprocessing_rate,
    }


def rates_report(rates: Mapping[str, MaxRate]) -> Report:
    """Return the report of `max_rate` for systems by their names: the highest rate of each, and every trial."""
    first = next(iter(rates.values()))
    rows: dict[str, Any] = {
        name: [
            {"rate": trial.rate, "latency_ms": 1e3 * trial.latency, "answered": trial.count, "valid": trial.valid}
            for trial in rate.trials
        ]
        for name, rate in rates.items()
    }
    return Report(
        kind="bench",
        subject=f"{', '.join(rates)}: the highest rate with P{first.rank:g} ≤ {1e3 * first.latency_bound:g} ms",
        measurements={f"{name}: images/s": rate.rate for name, rate in rates.items()},
        details={
            "scenario": {"name": "max_rate", "latency_bound_ms": 1e3 * first.latency_bound, "percentile": first.rank},
            "trials": rows,
        },
    )
