"""`Reason`: why a trial ended as it did, as data. The search writes it when it decides; the page and the terminal only
word it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from plimsoll.core.budget import Check
from plimsoll.report import figures
from plimsoll.report.measurements import Figure, ResultModel

Ranking = Literal["speed", "size"]
"""By what candidates are ranked: times as fast as the reference, or bytes on disk."""


class Ships(ResultModel):
    """It is what ships."""

    kind: Literal["ships"] = "ships"


class IsReference(ResultModel):
    """It is what all others are compared with."""

    kind: Literal["reference"] = "reference"


class Failed(ResultModel):
    """It could not be built, loaded or run."""

    kind: Literal["failed"] = "failed"
    message: str
    on_test_part: bool = False


class OutOfTime(ResultModel):
    """The time limit of the search was reached before its turn."""

    kind: Literal["out_of_time"] = "out_of_time"
    limit_seconds: Figure


class MissesBudget(ResultModel):
    """Its answers lose more than the budget allows."""

    kind: Literal["misses_budget"] = "misses_budget"
    part: Literal["validation", "test"]
    """Of the pictures."""
    checks: tuple[Check, ...]
    """Those that failed."""


class SiblingUsesLess(ResultModel):
    """It keeps the budget, but another one that differs in the calibrator alone uses less of it: both compute the same
    with other constants, so that what sets their speeds apart is noise."""

    kind: Literal["sibling_uses_less_of_budget"] = "sibling_uses_less_of_budget"
    sibling: str
    """Its key."""
    used: Figure
    """Shares of the limits, added up."""
    sibling_used: Figure


class NotFinalist(ResultModel):
    """It keeps the budget, but others did better in their first measurement, and went to the final benchmark."""

    kind: Literal["not_finalist"] = "not_finalist"
    ranking: Ranking
    figure: Figure
    last_finalist: Figure
    """The same figure of the finalist that came last."""
    finalists: int


class GainTooSmall(ResultModel):
    """It keeps the budget, but is not surely better than the reference by the least gain that is worth a change."""

    kind: Literal["gain_too_small"] = "gain_too_small"
    ranking: Ranking
    gain: Figure
    """Faster at the lower end of the interval, or smaller: a share."""
    required: Figure


class SimplerShips(ResultModel):
    """It is faster than what ships, but hardly, and what ships is simpler."""

    kind: Literal["simpler_ships"] = "simpler_ships"
    winner: str
    """Its key."""
    figure: Figure
    winner_figure: Figure
    within: Figure
    """The share up to which a simpler candidate goes before a faster one."""


class BetterShips(ResultModel):
    """It was a finalist, and what ships came before it."""

    kind: Literal["better_ships"] = "better_ships"
    winner: str
    """Its key."""
    ranking: Ranking
    figure: Figure
    winner_figure: Figure


Reason = Annotated[
    Ships
    | IsReference
    | Failed
    | OutOfTime
    | MissesBudget
    | SiblingUsesLess
    | NotFinalist
    | GainTooSmall
    | SimplerShips
    | BetterShips,
    Field(discriminator="kind"),
]


def in_words(reason: Reason | None, names: Mapping[str, str]) -> str:
    """Return a reason in words; nothing for what needs none. `names`: key of a candidate → its name."""
    match reason:
        case Failed():
            return f"on the test pictures: {reason.message}" if reason.on_test_part else reason.message
        case OutOfTime():
            return f"the time limit of {figures.duration(reason.limit_seconds)} was reached before its turn"
        case MissesBudget():
            where = "on the test pictures: " if reason.part == "test" else ""
            return where + "; ".join(figures.missed(check) for check in reason.checks)
        case SiblingUsesLess():
            used, less = (figures.percent(share) for share in (reason.used, reason.sibling_used))
            return (
                f"set aside: {names.get(reason.sibling, reason.sibling)} is the same but for its calibrator, and uses"
                f" less of the budget ({less}, this one {used})"
            )
        case NotFinalist():
            worst, own = (_ranked(reason.ranking, value) for value in (reason.last_finalist, reason.figure))
            better = f"{reason.finalists} others" if reason.finalists > 1 else "another"
            return f"not in the final benchmark: {better} did better when tried (at least {worst}; this one {own})"
        case GainTooSmall():
            better = "smaller" if reason.ranking == "size" else "surely faster"
            return (
                f"{better} than the reference by {figures.percent(max(reason.gain, 0.0))}; at least"
                f" {figures.percent(reason.required)} is required"
            )
        case SimplerShips():
            own, other = figures.ratio(reason.figure), figures.ratio(reason.winner_figure)
            return f"what ships is simpler, and as fast within {reason.within:.0%} ({other}; this one {own})"
        case BetterShips():
            own, other = (_ranked(reason.ranking, value) for value in (reason.figure, reason.winner_figure))
            return f"what ships is {'smaller' if reason.ranking == 'size' else 'faster'} ({other}; this one {own})"
        case _:
            return ""


def _ranked(ranking: Ranking, figure: float) -> str:
    return figures.size(figure) if ranking == "size" else figures.ratio(figure)
