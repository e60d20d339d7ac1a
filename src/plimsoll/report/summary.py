"""What a `ship` found, in words: the head of the page and the terminal say the same, from here.

`Row` is a candidate in the results table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from plimsoll.report import figures
from plimsoll.report.measurements import FlippedDecisions
from plimsoll.report.reason import Failed, IsReference, in_words
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Trial


def title(result: ShipResult) -> str:
    """Return the headline, one line of plain text."""
    if result.outcome == "nothing_passed":
        return "Nothing passed: the reference ships"
    if result.outcome == "not_better":
        return f"Not {_better(result)}: the reference ships"
    return f"{_gain(result)}, {_loss(result)}"


def _better(result: ShipResult) -> str:
    return "smaller" if result.objective == "size" else "faster"


def _gain(result: ShipResult) -> str:
    """Return by how much the winner is better: 4.83 times as fast, 74 % smaller."""
    winner, reference = result.trial(result.winner), result.trial(result.reference)
    if result.objective == "size":
        sizes = [trial.measured.size_bytes if trial else math.nan for trial in (winner, reference)]
        return f"{figures.reduction(*sizes)} smaller" if all(map(math.isfinite, sizes)) else "Smaller"
    ratio = winner.measured.speed.ratio if winner else math.nan
    return figures.times_as_fast(ratio) if math.isfinite(ratio) else "Faster"


def _loss(result: ShipResult) -> str:
    flips = result.test.worst_flips
    if flips is not None:
        return f"{flips.flipped:,} of {flips.count:,} decisions flipped"
    if result.test.headline and budget_kept(result):
        return f"inside the budget on {figures.counted(result.test.count, 'picture')}"
    if math.isfinite(result.test.deviation.max):
        return f"largest deviation {figures.number(result.test.deviation.max)}"
    return "inside the budget" if budget_kept(result) else "beyond the budget"


def budget_kept(result: ShipResult) -> bool:
    """Whether every check on the test pictures passed; False where there was none."""
    return result.test.passed


def sentences(result: ShipResult) -> list[str]:
    """Return what is said below the headline: the sample, the confidence, and why this candidate."""
    measured = sum(trial.status == "ok" for trial in result.trials)
    tried = f"{figures.counted(len(result.trials), 'candidate')} tried, {measured} measured"
    if result.outcome == "nothing_passed":
        return [f"{tried}; none kept the budget. So the network ships as it was trained, with its own preprocessing."]
    if result.outcome == "not_better":
        noise = "" if result.objective == "size" else "the noise and "
        return [
            f"{tried}; none inside the budget was {_better(result)} by more than {noise}the required gain. So"
            " the reference ships.",
            *_proof(result),
        ]
    return _proof(result) or [
        "It was not tested on pictures of their own: read the results table before you rely on it."
    ]


def _proof(result: ShipResult) -> list[str]:
    test = result.test
    if not test.count:
        return []
    results = []
    flips = test.worst_flips
    if flips is not None:
        bound = (
            f", and with 95 % confidence no more than {figures.percent_at_most(flips.upper)} of all decisions flip"
            if math.isfinite(flips.upper)
            else ""
        )
        results.append(f"{_flips_in_words(flips)}{bound}")
    if math.isfinite(test.deviation.mean):
        upper = f" (with 95 % confidence at most {figures.bound(test.deviation.mean_upper)})"
        results.append(
            f"the mean deviation of the scores is {figures.number(test.deviation.mean)}"
            f"{upper if math.isfinite(test.deviation.mean_upper) else ''}, the largest"
            f" {figures.number(test.deviation.max)}"
        )
    body = "; ".join(results) or test.headline or "the budget's checks are below"
    return [f"On {figures.counted(test.count, 'picture')} never used before: {body}."]


def _flips_in_words(flips: FlippedDecisions) -> str:
    where = "the top class" if flips.threshold is None else f"threshold {figures.number(flips.threshold)}"
    return f"{flips.flipped:,} of {flips.count:,} decisions flipped at {where}"


def verdict(result: ShipResult) -> tuple[str, bool]:
    """Return the verdict on the budget, and whether it is a good one."""
    stated = f" ({', '.join(result.budget.texts)})" if result.budget.texts else ""
    if result.outcome == "nothing_passed":
        return f"No candidate kept the budget{stated}", False
    if not result.test.checks:
        return f"Budget not tested{stated}", False
    inside = budget_kept(result)
    return f"Budget {'kept' if inside else 'not kept'}{stated}", inside


def plate(result: ShipResult) -> list[tuple[str, str]]:
    """Return the builder's plate, as terms and values: what ships, and its main figures beside the reference's."""
    winner, reference = result.trial(result.winner), result.trial(result.reference)
    facts = [("ships", winner.name if winner else result.winner)]
    if winner and reference:
        speed = winner.measured.speed
        before, after = reference.measured.speed.images_per_second, speed.images_per_second
        facts += [
            ("images a second", _change(figures.rate(before), figures.rate(after))),
            ("times as fast", figures.ratio_with_interval(speed.ratio, speed.low, speed.high)),
            ("on disk", _change(figures.size(reference.measured.size_bytes), figures.size(winner.measured.size_bytes))),
            (
                "peak memory",
                _change(figures.size(reference.measured.peak_bytes), figures.size(winner.measured.peak_bytes)),
            ),
        ]
    return [(term, value) for term, value in facts if value != figures.MISSING]


@dataclass(frozen=True)
class Row:
    """A candidate in the results table, in words; a dash for what was not measured."""

    times_as_fast: str
    interval: str
    """Of the ratio, with 95 % confidence; empty where it is unknown."""
    size: str
    mean_deviation: str
    max_deviation: str
    flips: str
    """How many of how many decisions, at the threshold with the most."""
    flips_bound: str
    """The share that is not exceeded with 95 % confidence; empty where it is unknown."""
    measured: Mapping[str, str]
    """For answers without scores: each of the budget's figures by its name."""
    verdict: str
    reason: str


_MOST_FIGURES = 3


def judged_figures(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Return the names of the figures that the results table shows of answers without scores, those of the budget; none
    where answers have scores: their deviations and flips are shown."""
    for trial in trials:
        if trial.validation.checks and trial.validation.worst_flips is None:
            return tuple(dict.fromkeys(check.name for check in trial.validation.checks))[:_MOST_FIGURES]
    return ()


def row(trial: Trial, names: Mapping[str, str]) -> Row:
    """Return a trial as it stands in the results table. `names`: key of a candidate → its name."""
    speed, deviation, flips = trial.measured.speed, trial.validation.deviation, trial.validation.worst_flips
    written, interval = figures.ratio_and_interval(speed.ratio, speed.low, speed.high)
    return Row(
        times_as_fast=f"{written}×" if written != figures.MISSING else written,
        interval=interval,
        size=figures.size(trial.measured.size_bytes),
        mean_deviation=figures.number(deviation.mean),
        max_deviation=figures.number(deviation.max),
        flips=f"{flips.flipped:,} of {flips.count:,}" if flips else figures.MISSING,
        measured={check.name: figures.check_in_words(check).measured for check in trial.validation.checks},
        flips_bound=f"≤ {figures.percent_at_most(flips.upper)}" if flips and math.isfinite(flips.upper) else "",
        verdict=_verdict(trial),
        reason=in_words(trial.reason, names),
    )


def _verdict(trial: Trial) -> str:
    if trial.status == "skipped":
        return "skipped"
    if trial.status == "failed" or isinstance(trial.reason, Failed):
        return "failed"
    if isinstance(trial.reason, IsReference):
        return "reference"
    return {True: "passed", False: "beyond the budget", None: "not evaluated"}[trial.passed]


def _change(before: str, after: str) -> str:
    return after if figures.MISSING in (before, after) or before == after else f"{before} → {after}"


def labelled(result: ShipResult) -> list[str]:
    """Return the figures against the given labels, and on how many pictures; nothing without labels."""
    test = result.test
    if not test.labelled:
        return []
    figures_in_words = (
        f"{name} {figures.number(metric.candidate, 4)} (reference {figures.number(metric.reference, 4)})"
        for name, metric in test.labelled.items()
    )
    return [f"{labelled_pictures(result)}: {', '.join(figures_in_words)}"]


def labelled_pictures(result: ShipResult) -> str:
    """Return how many of the test pictures have a label."""
    return f"Against the given labels, which {result.test.labelled_count:,} of {result.test.count:,} test pictures have"


def reasons(result: ShipResult) -> list[str]:
    """Return why candidates don't ship that were tried, one each, the fastest first; and how many were not tried."""
    lines = []
    for trial in result.ranked():
        words = in_words(trial.reason, result.names)
        if words and trial.status != "skipped":
            lines.append(f"{trial.name}: {words}")
    skipped = [trial for trial in result.trials if trial.status == "skipped"]
    if skipped:
        why = in_words(skipped[0].reason, result.names)
        lines.append(f"{figures.counted(len(skipped), 'candidate')} not tried: {why.removesuffix(' before its turn')}")
    return lines


def nearest(result: ShipResult) -> list[str]:
    """Return, where nothing passed, which candidates came nearest, and which limits they missed by how much."""
    if result.outcome != "nothing_passed":
        return []
    return [f"{trial.name}: {in_words(reason, result.names)}" for trial, reason in result.nearest()]
