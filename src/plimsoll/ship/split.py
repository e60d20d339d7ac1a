"""Split the user's images into a calibration, a selection and a judging part that share no picture."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plimsoll.errors import ImageError, InputError
from plimsoll.preprocessing.decode import read

CALIBRATION_SHARE = 0.3
SELECTION_SHARE = 0.2
MAX_CALIBRATION = 300
"""More calibration images change the ranges no further; they serve better as judges."""
MINIMUM = 12
"""Below this no part is worth its name."""


@dataclass(frozen=True)
class Split:
    """Three lists of picture paths. What calibrates never chooses, and what chooses never judges."""

    calibration: tuple[str, ...]
    selection: tuple[str, ...]
    judging: tuple[str, ...]
    digest: str
    """SHA-256 over the pictures' contents and their parts."""
    unreadable: tuple[str, ...] = ()
    """Files that could not even be read."""
    duplicates: int = 0
    """Pictures left out because another has the same bytes: one that calibrates must not judge under another name."""


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
            f"{len(contents)} different pictures; at least {MINIMUM} are needed to calibrate, to choose and to judge"
            " with different ones",
            "A proof needs a few hundred pictures of the kind that the model will meet.",
        )
    # Shuffled by content: the order does not change when a file is renamed or one is added.
    order = sorted(contents, key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest())
    calibration = min(MAX_CALIBRATION, round(len(order) * CALIBRATION_SHARE))
    selection = round(len(order) * SELECTION_SHARE)
    parts = order[:calibration], order[calibration : calibration + selection], order[calibration + selection :]
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
