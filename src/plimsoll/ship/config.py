"""What the user asks of a `ship`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plimsoll import backends
from plimsoll.backends.base import AvailableTarget
from plimsoll.core.budget import DEFAULT_BUDGET, Budget
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.ship.candidate import Candidate

CALIBRATORS = ("percentile", "minmax", "moving_average", "entropy", "mse")
"""Plimsoll's own calibrators, the one that is tried first in front."""
OBJECTIVES = ("throughput", "latency", "size")

REFERENCE = Candidate("reference", False, REFERENCE_TARGET)
"""What all candidates are compared with."""


@dataclass(frozen=True)
class SearchConfig:
    """What the user asks of a `ship`."""

    targets: tuple[Target, ...]
    calibrators: tuple[str, ...] = CALIBRATORS
    """Plimsoll's own to try; a runtime that calibrates by itself brings its own."""
    budget: Budget = DEFAULT_BUDGET
    objective: str = "throughput"
    """One of OBJECTIVES."""
    seconds: float = 180.0
    """How long to look for better ones; the race and the judging come on top."""
    min_gain: float = 0.03
    """A winner must be better than the reference by at least this share: faster, at the lower end of its interval, or
    smaller."""
    measure_seconds: float = 2.0
    """Measured time of each candidate, and of the reference beside it."""
    candidate_seconds: float = 180.0
    """How long one candidate may take in all."""
    memory_bytes: int | None = None
    """How much memory one candidate may hold; by default three quarters of what there is."""
    calibration: Path | None = None
    """A calibration table that is used in place of `calibrators`."""


def default_targets() -> tuple[Target, ...]:
    """Return the targets that are tried unless the user names others: those that this machine has and that nothing has
    to be installed for."""
    return tuple(offer.target for offer in _present() if not offer.toolchain or _is_made(offer.toolchain))


def all_targets() -> tuple[Target, ...]:
    """Return every target whose runtime this machine has, also those that need a toolchain which is not made yet."""
    return tuple(offer.target for offer in _present())


def toolchains(targets: tuple[Target, ...]) -> tuple[str, ...]:
    """Return the toolchains that the targets need and that are not made yet, each once."""
    needed = (offer.toolchain for offer in _present() if offer.target in targets and offer.toolchain)
    return tuple(name for name in dict.fromkeys(needed) if not _is_made(name))


def _present() -> list[AvailableTarget]:
    deployable = (backend for backend in map(backends.get, backends.names()) if backend.deployable)
    return [offer for backend in deployable for offer in backend.targets() if not offer.missing]


def _is_made(toolchain: str) -> bool:
    from plimsoll.system.toolchains import made  # Only where a target needs one.

    return made(toolchain)
