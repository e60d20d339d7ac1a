"""What so many judging pictures can prove: said before anything is tried."""

from __future__ import annotations

from collections.abc import Mapping

from plimsoll.core.budget import Budget, Limit, limit_kind
from plimsoll.errors import InputError
from plimsoll.metrics.decisions import pictures_needed
from plimsoll.prove.labels import label_of
from plimsoll.ship.split import Split


def unprovable(budget: Budget, split: Split, truths: Mapping[str, str] | None) -> list[str]:
    """Return a sentence for each limit that even a flawless candidate could not keep on so few judging pictures.

    Raises InputError for a limit on a labelled metric where there are no labels, or none of a judging picture.
    """
    judges = len(split.judging)
    labelled = sum(label_of(truths, path) is not None for path in split.judging) if truths else 0
    found = []
    for limit in budget.limits:
        if limit_kind(limit.metric) == "change":
            _require_labels(limit, judges, labelled, bool(truths))
            found += _too_few(limit, labelled, "labelled judging pictures", "without a loss")
        elif limit.metric == "flips":
            found += _too_few(limit, judges, "judging pictures", "without a flip")
    return found


def _require_labels(limit: Limit, judges: int, labelled: int, given: bool) -> None:
    if not given:
        hint = "Give --labels: a CSV file with path,label or a folder with one folder a class."
        raise InputError(f"the budget limits {limit.metric}, which needs labelled pictures", hint)
    if not labelled:
        raise InputError(
            f"the budget limits {limit.metric}, but none of the {judges:,} judging pictures has a label",
            "Do the labels name the --images?",
        )


def _too_few(limit: Limit, count: int, pictures: str, flawless: str) -> list[str]:
    needed = pictures_needed(abs(limit.value))
    if needed <= count:
        return []
    return [
        f"{limit} can't be proven on {count:,} {pictures}: even {flawless} it takes {needed:,}; give more, or allow"
        " more"
    ]
