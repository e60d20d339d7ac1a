"""Split the user's images into a calibration, a validation and a test part that share no picture; and say what the test
part is too small to prove."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plimsoll.core.budget import Budget, Limit, limit_kind
from plimsoll.errors import ImageError, InputError
from plimsoll.metrics.decisions import pictures_needed
from plimsoll.preprocessing.decode import read
from plimsoll.prove.comparison import label_of

CALIBRATION_SHARE = 0.3
VALIDATION_SHARE = 0.2
MAX_CALIBRATION = 300
"""More calibration images hardly change the ranges; they serve better in the test part."""
MINIMUM = 12
"""With fewer images, the parts would be too small to be of use."""


@dataclass(frozen=True)
class Split:
    """Three lists of picture paths. What calibrates never validates, and what validates never tests."""

    calibration: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    digest: str
    """SHA-256 over the pictures' contents and their parts."""
    unreadable: tuple[str, ...] = ()
    """Files that could not be read."""
    duplicates: int = 0
    """Pictures left out because another has the same bytes: one that calibrates must not test under another name."""


def split(paths: Iterable[str], limit: int, seed: int = 0) -> Split:
    """Split at most `limit` pictures, drawn at random but always alike for the same files and seed.

    Raises InputError where there are fewer than 12 different pictures.
    """
    chosen = sorted(paths)
    if len(chosen) > limit:
        chosen = sorted(random.Random(seed).sample(chosen, limit))
    contents, unreadable = _distinct(chosen)
    if len(contents) < MINIMUM:
        raise InputError(
            f"only {len(contents)} different pictures; at least {MINIMUM} are needed to calibrate, validate and test",
            "A proof needs a few hundred pictures of the kind that the model will meet.",
        )
    # Shuffled by content: the order does not change when a file is renamed or one is added.
    order = sorted(contents, key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest())
    calibration = min(MAX_CALIBRATION, round(len(order) * CALIBRATION_SHARE))
    validation = round(len(order) * VALIDATION_SHARE)
    parts = order[:calibration], order[calibration : calibration + validation], order[calibration + validation :]
    total = hashlib.sha256("\n".join(" ".join(part) for part in parts).encode()).hexdigest()
    named = [tuple(contents[digest] for digest in part) for part in parts]
    return Split(named[0], named[1], named[2], total, tuple(unreadable), len(chosen) - len(contents) - len(unreadable))


def _distinct(paths: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return content hash → first path with that content, and the files that can't be read."""
    contents: dict[str, str] = {}
    unreadable = []
    for path in paths:
        try:
            digest = hashlib.sha256(read(Path(path))).hexdigest()
        except ImageError:
            unreadable.append(path)
            continue
        contents.setdefault(digest, path)
    return contents, unreadable


def unprovable(budget: Budget, parts: Split, truths: Mapping[str, str] | None) -> list[str]:
    """Return a sentence for each limit that even a flawless candidate could not keep on so few test pictures.

    Raises InputError for a limit on a labelled metric where no labels were given, or none of a test picture.
    """
    count = len(parts.test)
    labelled = sum(label_of(truths, path) is not None for path in parts.test) if truths else 0
    notes = []
    for limit in budget.limits:
        if limit_kind(limit.metric) == "change":
            _require_labels(limit, count, labelled, bool(truths))
            notes += _too_few(limit, labelled, "labelled test pictures", "without a loss")
        elif limit.metric == "flips":
            notes += _too_few(limit, count, "test pictures", "without a flip")
    return notes


def _require_labels(limit: Limit, count: int, labelled: int, given: bool) -> None:
    if not given:
        hint = "Give --labels: a CSV file with path,label or a folder with one folder for each class."
        raise InputError(f"the budget limits {limit.metric}, which needs labelled pictures", hint)
    if not labelled:
        raise InputError(
            f"the budget limits {limit.metric}, but none of the {count:,} test pictures has a label",
            "Do the labels name the --images?",
        )


def _too_few(limit: Limit, count: int, pictures: str, flawless: str) -> list[str]:
    needed = pictures_needed(abs(limit.value))
    if needed <= count:
        return []
    advice = "give more, or allow more"
    return [f"{limit} can't be proven on {count:,} {pictures}: even {flawless} it takes {needed:,}; {advice}"]
