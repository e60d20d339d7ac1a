"""The head of the page in words: how many times faster, at which loss, proven on how many pictures."""

from __future__ import annotations

import math

from plimsoll.report import figures
from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import FlippedDecisions, Trial


def title(result: ShipResult) -> str:
    """Return the headline, one line of plain text."""
    if result.outcome == "nothing_passed":
        return "Nothing passed: the reference ships"
    if result.outcome == "not_better":
        return f"Not {_better(result)}: the simplest is kept"
    return f"{_gain(result)}, {_loss(result)}"


def _better(result: ShipResult) -> str:
    return "smaller" if result.objective == "size" else "faster"


def _gain(result: ShipResult) -> str:
    """Return by how much the winner is better: 4.8× faster, 74 % smaller."""
    winner, reference = result.trial(result.winner), result.trial(result.reference)
    if result.objective == "size":
        sizes = [trial.measured.size_bytes if trial else math.nan for trial in (winner, reference)]
        return f"{figures.reduction(*sizes)} smaller" if all(map(math.isfinite, sizes)) else "Smaller"
    ratio = winner.measured.speed.ratio if winner else math.nan
    return f"{figures.ratio_rounded_down(ratio)} faster" if math.isfinite(ratio) else "Faster"


def _loss(result: ShipResult) -> str:
    flips = result.test.worst_flips
    if flips is not None:
        return f"{flips.flipped:,} of {flips.count:,} decisions flipped"
    if math.isfinite(result.test.deviation.max):
        return f"deviation {figures.number(result.test.deviation.max, 2)} at most"
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
            " the simplest one ships.",
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
    if math.isfinite(test.deviation.max):
        results.append(f"no score moved by more than {figures.number(test.deviation.max, 2)}")
    body = "; ".join(results) if results else "the budget's checks are below"
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
        before, after = reference.measured.speed.images_per_second, winner.measured.speed.images_per_second
        facts += [
            ("images a second", _change(figures.rate(before), figures.rate(after))),
            ("speed", _ratio_with_interval(winner)),
            ("on disk", _change(figures.size(reference.measured.size_bytes), figures.size(winner.measured.size_bytes))),
            (
                "peak memory",
                _change(figures.size(reference.measured.peak_bytes), figures.size(winner.measured.peak_bytes)),
            ),
        ]
    return [(term, value) for term, value in facts if value != figures.MISSING]


def _change(before: str, after: str) -> str:
    return after if figures.MISSING in (before, after) or before == after else f"{before} → {after}"


def _ratio_with_interval(trial: Trial) -> str:
    speed, ratio = trial.measured.speed, figures.ratio(trial.measured.speed.ratio)
    if not math.isfinite(speed.low) or not math.isfinite(speed.high) or speed.low == speed.high:
        return ratio
    return f"{ratio} ({figures.ratio_interval(speed.low, speed.high)})"


def outcome(trial: Trial) -> tuple[str, str]:
    """Return the verdict on a candidate in a word or two, and the reason."""
    if trial.status != "ok":
        return trial.status, trial.reason
    if trial.passed is None:
        return "not evaluated", trial.reason
    if trial.passed:
        return "passed", trial.reason
    missed = [
        f"{check.name} {figures.with_unit(check.measured, check.unit)}, limit"
        f" {figures.with_unit(check.limit, check.unit)}"
        for check in trial.validation.checks
        if not check.passed
    ]
    return "beyond the budget", "; ".join(filter(None, [trial.reason, *missed]))
