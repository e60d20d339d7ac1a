"""The search space, and the strategy: which candidates are tried in which order, which go to the final benchmark, and
which of them comes first. It measures nothing itself."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from plimsoll import backends
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.preprocessing import Preprocessing
from plimsoll.preprocessing.preprocessor import scaled_side
from plimsoll.report.reason import BetterShips, NotFinalist, OutOfTime, Ranking, Reason, SiblingUsesLess, SimplerShips
from plimsoll.report.ship_result import Objective
from plimsoll.report.trial import Candidate, Trial
from plimsoll.ship.config import CALIBRATORS
from plimsoll.spec import Input

FLOAT_LAYERS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
"""How many layers stay in float, one candidate of mixed precision after another: never twice as many as needed."""
_PRECISIONS = ("int8", "bfloat16", "float32", "float16")
"""In the order in which they are tried: where int8 keeps the budget it is mostly the fastest. Others, dynamic and
emulated ones, rarely are."""


def is_built_in_toolchain(target: Target) -> bool:
    """Whether a toolchain builds networks for a target."""
    available = backends.get(target.runtime).targets()
    return any(here.target == target and here.toolchain for here in available)


def is_quantized_here(target: Target) -> bool:
    """Whether a target takes a network that Plimsoll quantized with a calibration table; such a network can be of mixed
    precision."""
    return backends.get(target.runtime).onnx_form(target) == "qdq"


def needs_tensors(target: Target) -> bool:
    """Whether the runtime's own tool reads calibration tensors for this target."""
    return not is_quantized_here(target) and backends.get(target.runtime).takes_calibration(target)


def takes_table(target: Target) -> bool:
    """Whether a target's network can be built with one of Plimsoll's calibration tables."""
    return is_quantized_here(target) or needs_tensors(target)


def needs_table(candidate: Candidate) -> bool:
    """Whether a candidate's network is built with one of Plimsoll's calibration tables, rather than calibrated by the
    runtime's own tool."""
    own = backends.get(candidate.target.runtime).calibrators(candidate.target)
    return takes_table(candidate.target) and candidate.calibrator not in own


def calibrators_of(target: Target, ours: Sequence[str]) -> Sequence[str]:
    """Return the calibrators to try for a target, in order; none where nothing is calibrated.

    `ours` are those of Plimsoll's that were asked for; those of the runtime's own tool come after them.
    """
    return (*ours, *backends.get(target.runtime).calibrators(target)) if takes_table(target) else ()


def calibrator_for(target: Target, name: str | None) -> str | None:
    """Return the calibrator of that name, by default the target's first; None where nothing is calibrated.

    Raises InputError for one that the target doesn't have.
    """
    known = calibrators_of(target, CALIBRATORS)
    if name is None:
        return known[0] if known else None
    if name not in known:
        hint = f"Choose from {', '.join(known)}." if known else "Nothing is calibrated for this target."
        raise InputError(f"unknown calibrator '{name}' for {target}", hint)
    return name


def scaled_sides(spec: Input, pictures: Sequence[str]) -> tuple[int, int] | None:
    """Return the shortest and the longest shorter side of the pictures that scaled preprocessing shrinks while it
    decodes them; None where they are too few to prove anything about it."""
    sides = [side for picture in pictures if (side := scaled_side(spec, _beginning(picture))) is not None]
    if len(sides) < max(_LEAST_SCALED, _LEAST_SCALED_SHARE * len(pictures)):
        return None
    return min(sides), max(sides)


def _beginning(picture: str) -> bytes:
    try:
        with Path(picture).open("rb") as file:
            return file.read(_HEADER_BYTES)
    except OSError:
        return b""


def first_round(
    targets: Sequence[Target], calibrators: Sequence[str], preprocessing: Preprocessing = "fast"
) -> Iterator[Candidate]:
    """Yield one candidate for each target, with the preprocessing that promises most and its first calibrator.

    Precisions take turns, and runtimes among them, so that little time is not spent on one of them alone; of those with
    equal turns the most promising comes first. Precisions that are rarely the fastest come after all others.
    """
    remaining = list(targets)
    precisions: Counter[str] = Counter()
    runtimes: Counter[str] = Counter()
    while remaining:
        target = min(
            remaining,
            key=lambda target: (
                target.precision not in _PRECISIONS,
                precisions[target.precision],
                runtimes[target.runtime],
                _priority(target),
            ),
        )
        remaining.remove(target)
        precisions[target.precision] += 1
        runtimes[target.runtime] += 1
        yield Candidate(preprocessing, False, target, next(iter(calibrators_of(target, calibrators)), None))


def _priority(target: Target) -> tuple[int, str]:
    rank = _PRECISIONS.index(target.precision) if target.precision in _PRECISIONS else len(_PRECISIONS)
    return rank, str(target)


def neighbours(candidate: Candidate, calibrators: Sequence[str]) -> Iterator[Candidate]:
    """Yield what differs from a good candidate in one respect: folding first, then the calibrator, then the
    preprocessing."""
    yield replace(candidate, folded=not candidate.folded)
    if not candidate.float_layers:  # The ranking of the layers belongs to the calibrator.
        for calibrator in calibrators_of(candidate.target, calibrators):
            if calibrator != candidate.calibrator:
                yield replace(candidate, calibrator=calibrator)
    if candidate.preprocessing != "reference":
        yield replace(candidate, preprocessing="fast" if candidate.preprocessing == "scaled" else "reference")


def with_more_float_layers(candidate: Candidate) -> Candidate | None:
    """Return the candidate with more of its layers in float32; None where it has as many as are tried, or can't have
    any."""
    if not is_quantized_here(candidate.target):
        return None
    count = next((count for count in FLOAT_LAYERS if count > candidate.float_layers), None)
    return None if count is None else replace(candidate, float_layers=count)


_LEAST_SCALED, _LEAST_SCALED_SHARE = 10, 0.1
"""So many of the pictures, and such a share of them, must be large for scaled preprocessing to be tried."""
_HEADER_BYTES = 1 << 20

FINALISTS = 3
SIMPLER_WITHIN = 0.02
"""A simpler candidate goes before one that is faster by no more than this."""

TryCandidate = Callable[[Candidate], Trial]


def explore(
    targets: Sequence[Target],
    calibrators: Sequence[str],
    try_candidate: TryCandidate,
    seconds: float,
    preprocessing: Preprocessing = "fast",
) -> Iterator[Trial]:
    """Yield trials: every target once with `preprocessing`, then what is close to the best, then mixed precision, until
    there is nothing new to try or time is up.

    Targets whose networks a toolchain builds, which takes many times as long, wait until every precision has had a turn
    without one. From then on they get a third of the time, and all of it once nothing else is left to try. What was not
    tried within `seconds` is yielded as skipped, so that the table names it.
    """
    deadline = time.monotonic() + seconds
    trials: dict[Candidate, Trial] = {}
    turns = _Turns(first_round(targets, calibrators, preprocessing))
    while (candidate := turns.next()) is not None:
        began = time.monotonic()
        if began >= deadline or turns.is_too_long(candidate, deadline - began):
            trial = Trial(candidate=candidate, status="skipped", reason=OutOfTime(limit_seconds=seconds))
        else:
            trial = try_candidate(candidate)
            turns.note(candidate, time.monotonic() - began)
        trials[candidate] = trial
        yield trial
        if time.monotonic() < deadline and not turns.quick:
            tried = list(trials.values())
            turns.add(_close_to_best(tried, calibrators))
            if not turns.slow and not turns.quick:
                turns.add(mixed_precision(tried))


class _Turns:
    """Whose turn it is: candidates that are quick to build, and those that a toolchain builds."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.quick: deque[Candidate] = deque()
        self.slow: deque[Candidate] = deque()
        self._known: set[Candidate] = set()
        self._seconds = {False: 0.0, True: 0.0}
        self._longest: dict[str, float] = {}
        self.add(candidates)
        precisions = {candidate.target.precision for candidate in self.quick}
        self._before_slow = len(precisions.intersection(_PRECISIONS))

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Add those that are new."""
        for candidate in candidates:
            if candidate not in self._known:
                self._known.add(candidate)
                (self.slow if is_built_in_toolchain(candidate.target) else self.quick).append(candidate)

    def next(self) -> Candidate | None:
        """Return the candidate whose turn it is; None where there is none."""
        may_be_slow = self._before_slow <= 0 and 2 * self._seconds[True] <= self._seconds[False]
        queue = self.slow if self.slow and (may_be_slow or not self.quick) else self.quick
        if not queue:
            return None
        self._before_slow -= queue is self.quick
        return queue.popleft()

    def is_too_long(self, candidate: Candidate, seconds: float) -> bool:
        """Whether what its runtime's toolchain took before, or another one's, is more than is left."""
        if not is_built_in_toolchain(candidate.target):
            return False
        return self._longest.get(candidate.target.runtime, max(self._longest.values(), default=0.0)) > seconds

    def note(self, candidate: Candidate, seconds: float) -> None:
        """Count what a trial took."""
        slow, runtime = is_built_in_toolchain(candidate.target), candidate.target.runtime
        self._seconds[slow] += seconds
        if slow:
            self._longest[runtime] = max(self._longest.get(runtime, 0.0), seconds)


def _close_to_best(trials: Sequence[Trial], calibrators: Sequence[str]) -> list[Candidate]:
    """Return what is worth trying next: around the fastest that pass, other calibrators for faster ones that deviate
    too far, and the whole picture where scaled preprocessing does."""
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
    unscaled = [
        replace(trial.candidate, preprocessing="fast")
        for trial in measured
        if not trial.passed and trial.ratio > best and trial.candidate.preprocessing == "scaled"
    ]
    return [near for trial in centres for near in neighbours(trial.candidate, calibrators)] + unscaled


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


Reasons = dict[Candidate, Reason]
"""Why candidates go no further."""


def finalists(trials: Sequence[Trial], objective: Objective) -> tuple[list[Trial], Reasons]:
    """Return the best of those that pass, best first, followed by the best in float32 if it is not among them; and why
    the others that pass are none.

    The one in float32 deviates least: it is what can ship where all others fail on the test pictures. Candidates that
    differ in their calibrator alone compute the same with other constants, so what sets their speeds apart is noise:
    the one that uses the least of the budget goes on.
    """
    by_network: dict[Candidate, list[Trial]] = {}
    for trial in trials:
        if trial.passed:
            by_network.setdefault(replace(trial.candidate, calibrator=None), []).append(trial)
    reasons: Reasons = {}
    chosen = []
    for group in by_network.values():
        least = min(group, key=lambda trial: trial.budget_used)
        chosen.append(least)
        reasons |= {
            trial.candidate: SiblingUsesLess(sibling=least.key, used=trial.budget_used, sibling_used=least.budget_used)
            for trial in group
            if trial is not least
        }
    ranked = sorted(chosen, key=ranking_key(objective))
    best, others = ranked[:FINALISTS], ranked[FINALISTS:]
    in_float32 = [trial for trial in others if trial.precision == "float32"][:1]
    reasons |= {
        trial.candidate: NotFinalist(
            ranking=ranking_of(objective),
            figure=ranked_figure(trial, objective),
            last_finalist=ranked_figure(best[-1], objective),
            finalists=len(best),
        )
        for trial in others
        if trial not in in_float32
    }
    return best + in_float32, reasons


def ranking_of(objective: Objective) -> Ranking:
    """Return by what candidates are ranked."""
    return "size" if objective == "size" else "speed"


def ranked_figure(trial: Trial, objective: Objective) -> float:
    """Return the figure that candidates are ranked by: bytes on disk, or times as fast as the reference."""
    return trial.measured.size_bytes if objective == "size" else trial.ratio


def runner_up(trial: Trial, winner: Trial, objective: Objective) -> Reason:
    """Return why a finalist that keeps the budget does not ship where another does, which came before it."""
    figure, best = ranked_figure(trial, objective), ranked_figure(winner, objective)
    if objective != "size" and figure > best:
        return SimplerShips(winner=winner.key, figure=figure, winner_figure=best, within=SIMPLER_WITHIN)
    return BetterShips(winner=winner.key, ranking=ranking_of(objective), figure=figure, winner_figure=best)


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
