"""`Candidate`: one candidate deployment; and in which order candidates are worth trying."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from plimsoll import backends
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.preprocessing import Preprocessing

CALIBRATED = "qdq"
"""The form of a network that needs calibration; see `Backend.needs`."""
IN_FLOAT = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
"""How many layers stay in float, one candidate of mixed precision after another: never twice as many as needed."""


@dataclass(frozen=True, order=True)
class Candidate:
    """An input plan × a target × how it is calibrated."""

    steps: Preprocessing
    folded: bool
    """Whether channels, scale, mean, std, layout and dtype are part of the network, which then takes the uint8 picture.
    """
    target: Target
    calibrator: str | None = None
    """For calibrated targets: minmax, percentile …"""
    float_layers: int = 0
    """Mixed precision: so many of the layers that deviate most when they are quantized stay in float32."""

    @property
    def name(self) -> str:
        """For people: `onnxruntime:cpu:int8 percentile, fast steps, folded, 5 layers in float32`."""
        target = f"{self.target} {self.calibrator}" if self.calibrator else str(self.target)
        return ", ".join(
            part for part in (target, f"{self.steps} steps", "folded" if self.folded else "", self.mixture) if part
        )

    @property
    def mixture(self) -> str:
        """What stays in float32, in words; empty but for mixed precision."""
        return (
            f"{self.float_layers} layer{'s' if self.float_layers > 1 else ''} in float32" if self.float_layers else ""
        )

    @property
    def key(self) -> str:
        """For files: letters, digits, dashes."""
        mixture = f"float{self.float_layers}" if self.float_layers else ""
        parts = (
            self.steps,
            "folded" if self.folded else "plain",
            *str(self.target).split(":"),
            self.calibrator,
            mixture,
        )
        return "-".join(part for part in parts if part)

    @property
    def distance(self) -> int:
        """In how many respects it differs from the reference: fewer is simpler."""
        other_precision = (self.target.precision != "float32") + (self.float_layers > 0)
        return (
            (self.steps != "reference")
            + self.folded
            + other_precision
            + (self.target.runtime != REFERENCE_TARGET.runtime)
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {
            "name": self.name,
            "steps": self.steps,
            "folded": self.folded,
            "target": str(self.target),
            "calibrator": self.calibrator,
            "float_layers": self.float_layers,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        return cls(
            data["steps"], data["folded"], Target.parse(data["target"]), data["calibrator"], data["float_layers"]
        )


def is_quantized_here(target: Target) -> bool:
    """Whether a target takes a network that Plimsoll quantized with a table of ranges; such a one can be of mixed
    precision."""
    return backends.get(target.runtime).onnx_form(target) == CALIBRATED


def needs_tensors(target: Target) -> bool:
    """Whether the runtime's own tool reads calibration tensors for this target."""
    return not is_quantized_here(target) and backends.get(target.runtime).takes_calibration(target)


def takes_table(target: Target) -> bool:
    """Whether a target's network can be made with one of Plimsoll's tables of ranges."""
    return is_quantized_here(target) or needs_tensors(target)


def needs_table(candidate: Candidate) -> bool:
    """Whether a candidate's network is made with one of Plimsoll's tables of ranges: unless the runtime's own tool
    calibrates it."""
    return takes_table(candidate.target) and candidate.calibrator not in backends.get(
        candidate.target.runtime
    ).calibrators(candidate.target)


def calibrators_of(target: Target, ours: Sequence[str]) -> Sequence[str]:
    """Return the calibrators to try for a target, the first one first; none where nothing is calibrated.

    `ours` are those of Plimsoll's that were asked for; those of the runtime's own tool come after them.
    """
    return (*ours, *backends.get(target.runtime).calibrators(target)) if takes_table(target) else ()


def first_round(targets: Sequence[Target], calibrators: Sequence[str]) -> Iterator[Candidate]:
    """Yield one candidate a target, with the fast steps and its first calibrator, the most promising target first."""
    for target in sorted(targets, key=_promise):
        yield Candidate("fast", False, target, next(iter(calibrators_of(target, calibrators)), None))


def _promise(target: Target) -> tuple[int, str]:
    """Quantized ones first: where they keep the budget they are mostly the fastest; dynamic and emulated ones rarely
    are."""
    order = ("int8", "bfloat16", "float32", "float16", "dynamic")
    return (order.index(target.precision) if target.precision in order else len(order), str(target))


def neighbours(candidate: Candidate, calibrators: Sequence[str]) -> Iterator[Candidate]:
    """Yield what differs from a good candidate in one respect: folding first, then the calibrator, then the reference
    steps."""
    yield replace(candidate, folded=not candidate.folded)
    if not candidate.float_layers:  # The ranking of the layers belongs to the calibrator.
        for calibrator in calibrators_of(candidate.target, calibrators):
            if calibrator != candidate.calibrator:
                yield replace(candidate, calibrator=calibrator)
    if candidate.steps == "fast":
        yield replace(candidate, steps="reference")


def more_in_float(candidate: Candidate) -> Candidate | None:
    """Return the candidate with more of its layers in float32; None where it has as many as are tried, or can't have
    any."""
    if not is_quantized_here(candidate.target):
        return None
    count = next((count for count in IN_FLOAT if count > candidate.float_layers), None)
    return None if count is None else replace(candidate, float_layers=count)
