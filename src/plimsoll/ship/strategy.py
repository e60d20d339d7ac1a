"""The strategy of the search: which candidates are tried in which order, which go to the final benchmark, and which of
them comes first. It measures nothing itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from plimsoll.core.target import Target
from plimsoll.report.ship_result import Objective
from plimsoll.report.trial import Candidate, Trial
from plimsoll.ship.candidate import first_round, is_quantized_here, neighbours, with_more_float_layers

FINALISTS = 3
SIMPLER_WITHIN = 0.02
"""A simpler candidate goes before one that is faster by no more than this."""

TryCandidate = Callable[[Candidate], Trial]


def explore(
    targets: Sequence[Target], calibrators: Sequence[str], try_candidate: TryCandidate, deadline: float
) -> Iterator[Trial]:
    """Yield trials: every target once, then what is close to the best, then mixed precision, until there is nothing new
    to try or time is up.

    What was not tried for lack of time is yielded as skipped, so that the table names it. `deadline` is on the clock of
    time.monotonic.
    """
    trials: dict[Candidate, Trial] = {}
    queue = list(first_round(targets, calibrators))
    while queue:
        candidate = queue.pop(0)
        if candidate in trials:
            continue
        if time.monotonic() >= deadline:
            trial = Trial(candidate=candidate, status="skipped", reason="the time limit was reached before its turn")
        else:
            trial = try_candidate(candidate)
        trials[candidate] = trial
        yield trial
        if not queue and time.monotonic() < deadline:
            tried = list(trials.values())
            queue = [near for near in _close_to_best(tried, calibrators) if near not in trials]
            queue = queue or mixed_precision(tried)


def _close_to_best(trials: Sequence[Trial], calibrators: Sequence[str]) -> list[Candidate]:
    """Return what is worth trying next: around the fastest that pass, and other calibrators for faster ones that
    deviate too far."""
    measured = sorted((trial for trial in trials if trial.status == "ok"), key=lambda trial: -trial.ratio)
    passed = [trial for trial in measured if trial.passed]
    best = passed[0].ratio if passed else 0.0
    recalibrated = [
        trial
        for trial in measured
        if not trial.passed
        and trial.ratio > best
        and trial.candidate.calibrator is not None
        and not trial.candidate.float_layers
    ]
    centres = [*recalibrated[:2], *passed[:2]]
    return [near for trial in centres for near in neighbours(trial.candidate, calibrators)]


def mixed_precision(trials: Sequence[Trial]) -> list[Candidate]:
    """Return the next candidates of mixed precision: one for each target whose int8 is faster than all that passes, but
    deviates too far with every calibrator.

    More and more layers stay in float32, until the budget holds or until it is no longer faster. None where the network
    in float32 misses the budget with the same preprocessing.
    """
    measured = [trial for trial in trials if trial.status == "ok"]
    fastest = max([1.0, *(trial.ratio for trial in measured if trial.passed)])
    targets = dict.fromkeys(trial.candidate.target for trial in measured)
    candidates = []
    for target in filter(is_quantized_here, targets):
        int8 = [trial for trial in measured if trial.candidate.target == target and not trial.candidate.float_layers]
        promising = [trial for trial in int8 if trial.ratio > fastest and math.isfinite(trial.violation)]
        if not promising or any(trial.passed for trial in int8):
            continue
        nearest = min(promising, key=lambda trial: (trial.violation, -trial.ratio))
        if _fails_in_float(measured, nearest.candidate.preprocessing):
            continue
        last = _most_float_layers(trials, nearest)
        if last.status == "ok" and not last.passed and last.ratio > fastest:
            candidates.append(with_more_float_layers(last.candidate))
    return [candidate for candidate in candidates if candidate is not None]


def _fails_in_float(measured: Sequence[Trial], preprocessing: str) -> bool:
    passed = [
        trial.passed
        for trial in measured
        if trial.candidate.preprocessing == preprocessing and trial.precision == "float32"
    ]
    return bool(passed) and not any(passed)


def _most_float_layers(trials: Sequence[Trial], int8: Trial) -> Trial:
    """Return the trial with the most layers in float32, of a candidate and its mixtures."""
    family = [trial for trial in trials if replace(trial.candidate, float_layers=0) == int8.candidate]
    return max(family, key=lambda trial: trial.candidate.float_layers)


def ranking_key(objective: Objective) -> Callable[[Trial], tuple[float, ...]]:
    """Return what sorts passing trials best first; among equals the simpler one comes first.

    For latency and throughput the speed was measured in that scenario, so its ratio decides.
    """
    if objective == "size":
        return lambda trial: (trial.measured.size_bytes, -trial.ratio, trial.candidate.distance)
    return lambda trial: (-trial.ratio, trial.candidate.distance)


def finalists(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """Return the best of those that pass, best first, followed by the best in float32 if it is not among them.

    That one deviates least: it is what can ship where all others fail on the test pictures. Candidates that differ in
    their calibrator alone compute the same with other constants, so what sets their speeds apart is noise: the one that
    uses the least of the budget goes on.
    """
    by_network: dict[Candidate, list[Trial]] = {}
    for trial in trials:
        if trial.passed:
            by_network.setdefault(replace(trial.candidate, calibrator=None), []).append(trial)
    chosen = [min(group, key=lambda trial: trial.budget_used) for group in by_network.values()]
    ranked = sorted(chosen, key=ranking_key(objective))
    best, others = ranked[:FINALISTS], ranked[FINALISTS:]
    return best + [trial for trial in others if trial.precision == "float32"][:1]


def simplest_first(benchmarked: Sequence[Trial]) -> list[Trial]:
    """Sort finalists after the final benchmark, the fastest first; one that is simpler and nearly as fast goes before
    it."""
    ordered = sorted(benchmarked, key=ranking_key("throughput"))
    close = [trial for trial in ordered if trial.ratio >= (1 - SIMPLER_WITHIN) * ordered[0].ratio]
    return sorted(close, key=lambda trial: trial.candidate.distance) + [
        trial for trial in ordered if trial not in close
    ]


def gain(trial: Trial, reference: Trial, objective: Objective) -> float:
    """Return by which share a trial is better than the reference: surely faster (the lower end of its interval), or
    smaller on disk; minus infinity where that was not measured."""
    smaller, faster = 1 - trial.measured.size_bytes / reference.measured.size_bytes, trial.measured.speed.low - 1
    share = smaller if objective == "size" else faster
    return -math.inf if math.isnan(share) else share
