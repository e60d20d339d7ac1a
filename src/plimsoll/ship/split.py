"""Split the user's images into a calibration, a validation and a test part that share no picture; and check that the
test part is large enough to prove the budget."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plimsoll.core.budget import MEANS, Budget, Limit, limit_kind
from plimsoll.errors import ImageError, InputError
from plimsoll.preprocessing.decode import read
from plimsoll.prove.labels import LABELS_HINT, Truths, label_of
from plimsoll.prove.proof import provable

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

    left_out: int = 0
    """Pictures beyond the limit."""

    @property
    def total(self) -> int:
        """How many pictures are in the parts together."""
        return len(self.calibration) + len(self.validation) + len(self.test)


def split(paths: Iterable[str], limit: int, seed: int = 0) -> Split:
    """Split at most `limit` pictures, drawn at random but always alike for the same files and seed.

    Raises InputError where there are fewer than 12 different pictures.
    """
    given = chosen = sorted(paths)
    if len(given) > limit:
        chosen = sorted(random.Random(seed).sample(given, limit))
    contents, unreadable = _distinct(chosen)
    if len(contents) < MINIMUM:
        raise InputError(
            f"only {len(contents)} different pictures; at least {MINIMUM} are needed to calibrate, validate and test",
            "A proof needs a few hundred pictures of the kind that the model will meet.",
        )
    # Shuffled by content: the order does not change when a file is renamed or one is added.
    order = sorted(contents, key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest())
    calibration, validation = _sizes(len(order))
    parts = order[:calibration], order[calibration : calibration + validation], order[calibration + validation :]
    total = hashlib.sha256("\n".join(" ".join(part) for part in parts).encode()).hexdigest()
    named = [tuple(contents[digest] for digest in part) for part in parts]
    duplicates = len(chosen) - len(contents) - len(unreadable)
    left_out = len(given) - len(chosen)
    return Split(named[0], named[1], named[2], total, tuple(unreadable), duplicates, left_out)


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


def check_provable(budget: Budget, parts: Split, truths: Truths | None) -> None:
    """Check that the test part is large enough to prove each limit, if the candidate is flawless there.

    Raises InputError that says how many pictures it takes, and what so many as there are can prove; also for a limit on
    a labelled metric where no labels were given, or none of a test picture.
    """
    count = len(parts.test)
    labels = [label for path in parts.test if (label := label_of(truths or {}, path)) is not None]
    objects = sum(len(label) for label in labels if isinstance(label, tuple))
    for limit in budget.limits:
        if limit_kind(limit.metric) in ("change", "rise"):
            _require_labels(limit, count, len(labels), bool(truths))
            if limit.metric in MEANS:
                continue
            if objects:
                _require(limit, parts, objects, "labelled objects ", "even without a loss")
            else:
                _require(limit, parts, len(labels), "with a label ", "even without a loss")
        elif limit.metric == "flips":
            _require(limit, parts, count, "", "even without a flip")


def _require_labels(limit: Limit, count: int, labelled: int, given: bool) -> None:
    if not given:
        raise InputError(f"the budget limits {limit.metric}, which needs labelled pictures", LABELS_HINT)
    if not labelled:
        raise InputError(
            f"the budget limits {limit.metric}, but none of the {count:,} test pictures has a label",
            "Do the labels name the --images?",
        )


def _require(limit: Limit, parts: Split, count: int, labelled: str, flawless: str) -> None:
    needed, least = provable(abs(limit.value), count)
    if needed <= count:
        return
    share = count / max(len(parts.test), 1)
    total = _total_for(math.ceil(needed / share))
    limited = f" (with --max-images: {parts.left_out:,} were left out)" if parts.left_out else ""
    smallest = Limit(limit.metric, math.copysign(_rounded_up(least), limit.value))
    raise InputError(
        f"the budget {limit} can't be proven: {parts.total:,} pictures leave {count:,} {labelled}to test, and"
        f" {flawless} it takes {needed:,}",
        f"Give {total:,} pictures or more{limited}, or allow {smallest}.",
    )


def _total_for(test: int) -> int:
    """Return how many pictures leave so many for the test part."""
    return next(total for total in itertools.count(test) if total - sum(_sizes(total)) >= test)


def _sizes(count: int) -> tuple[int, int]:
    """Return how many pictures calibrate and validate."""
    return min(MAX_CALIBRATION, round(count * CALIBRATION_SHARE)), round(count * VALIDATION_SHARE)


def _rounded_up(share: float) -> float:
    """Return a share as people write it, and no less: 9.81 % → 10 %, 0.398 % → 0.4 %."""
    step = 10.0 ** math.floor(math.log10(share))
    step = step / 10 if share / step < 5 else step
    return round(math.ceil(share / step - 1e-9) * step, 12)
