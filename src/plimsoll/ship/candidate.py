"""The search space: which candidates a target has, which are tried first, and which are close to a good one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from plimsoll import backends
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.report.trial import Candidate
from plimsoll.ship.config import CALIBRATORS

FLOAT_LAYERS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
"""How many layers stay in float, one candidate of mixed precision after another: never twice as many as needed."""
_PRECISIONS = ("int8", "bfloat16", "float32", "float16", "dynamic")
"""In the order in which they are tried: where int8 keeps the budget it is mostly the fastest; dynamic and emulated ones
rarely are."""


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


def first_round(targets: Sequence[Target], calibrators: Sequence[str]) -> Iterator[Candidate]:
    """Yield one candidate for each target, with fast preprocessing and its first calibrator, the most promising target
    first."""
    for target in sorted(targets, key=_priority):
        yield Candidate("fast", False, target, next(iter(calibrators_of(target, calibrators)), None))


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
    if candidate.preprocessing == "fast":
        yield replace(candidate, preprocessing="reference")


def with_more_float_layers(candidate: Candidate) -> Candidate | None:
    """Return the candidate with more of its layers in float32; None where it has as many as are tried, or can't have
    any."""
    if not is_quantized_here(candidate.target):
        return None
    count = next((count for count in FLOAT_LAYERS if count > candidate.float_layers), None)
    return None if count is None else replace(candidate, float_layers=count)
