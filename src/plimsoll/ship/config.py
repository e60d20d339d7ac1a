"""`SearchConfig`: what the user asks of a `ship`; and which targets it tries by default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from plimsoll import backends
from plimsoll.backends.base import AvailableTarget
from plimsoll.core.budget import DEFAULT_BUDGET, Budget
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.report.ship_result import Objective
from plimsoll.report.trial import Candidate

CALIBRATORS = ("percentile", "minmax", "moving_average", "entropy", "mse")
"""Plimsoll's own calibrators; the first one is tried first."""
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

REFERENCE = Candidate("reference", False, REFERENCE_TARGET)
"""What all candidates are compared with."""


@dataclass(frozen=True)
class SearchConfig:
    """What the user asks of a `ship`."""

    targets: tuple[Target, ...]
    calibrators: tuple[str, ...] = CALIBRATORS
    """Which of Plimsoll's own to try; a runtime that calibrates by itself brings its own."""
    budget: Budget = DEFAULT_BUDGET
    objective: Objective = "throughput"
    search_seconds: float = 180.0
    """How long to try candidates; the final benchmark and the test come on top."""
    min_gain: float = 0.03
    """A winner must be better than the reference by at least this share: faster, at the lower end of its interval, or
    smaller."""
    measure_seconds: float = 2.0
    """Measured time of each candidate, and of the reference beside it."""
    candidate_seconds: float = 180.0
    """How long one candidate may take in all."""
    memory_bytes: int | None = None
    """How much memory one candidate may use; by default three quarters of what there is."""
    calibration: Path | None = None
    """A calibration table to use in place of `calibrators`."""
    accept_accuracy: bool = False
    """Whether to ship a network that is badly right on the labelled pictures, or righter under another contract."""


def default_targets() -> tuple[Target, ...]:
    """Return the targets that are tried unless the user names others: those that this machine has and that need nothing
    to be installed."""
    return tuple(
        available.target for available in _available() if not available.toolchain or _is_installed(available.toolchain)
    )


def all_targets() -> tuple[Target, ...]:
    """Return every target whose runtime this machine has, including those that need a toolchain not installed yet."""
    return tuple(available.target for available in _available())


def missing_toolchains(targets: tuple[Target, ...]) -> tuple[str, ...]:
    """Return the toolchains that the targets need and that are not installed yet, each once."""
    needed = (available.toolchain for available in _available() if available.target in targets and available.toolchain)
    return tuple(name for name in dict.fromkeys(needed) if not _is_installed(name))


def _available() -> list[AvailableTarget]:
    deployable = (backend for backend in map(backends.get, backends.names()) if backend.deployable)
    return [available for backend in deployable for available in backend.targets() if not available.missing]


def _is_installed(toolchain: str) -> bool:
    from plimsoll.system.toolchains import is_ready  # Only where a target needs one.

    return is_ready(toolchain)
