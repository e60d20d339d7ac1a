"""`Variant`: one candidate deployment; and in which order candidates are worth trying."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from plimsoll import backends
from plimsoll.image import Implementation
from plimsoll.target import Target

CALIBRATED = "qdq"
"""The form of a network that needs calibration; see `Backend.needs`."""


@dataclass(frozen=True, order=True)
class Variant:
    """An input plan × a target × how it is calibrated."""

    steps: Implementation
    folded: bool
    """Whether channels, scale, mean, std, layout and dtype are part of the network, which then takes the uint8 picture."""
    target: Target
    calibrator: str | None = None
    """For calibrated targets: minmax, percentile …"""

    @property
    def name(self) -> str:
        """For people: `openvino:cpu:int8 percentile, fast steps, folded`."""
        parts = [f"{self.target} {self.calibrator}" if self.calibrator else str(self.target), f"{self.steps} steps"]
        return ", ".join([*parts, "folded"] if self.folded else parts)

    @property
    def key(self) -> str:
        """For files: letters, digits, dashes."""
        return "-".join([self.steps, "folded" if self.folded else "plain", *str(self.target).split(":"), *([self.calibrator] if self.calibrator else [])])

    @property
    def distance(self) -> int:
        """In how many respects it differs from the reference: fewer is simpler."""
        return (self.steps != "reference") + self.folded + (self.target.precision != "float32") + (self.target.runtime != "onnxruntime")

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {"name": self.name, "steps": self.steps, "folded": self.folded, "target": str(self.target), "calibrator": self.calibrator}


def needs_calibration(target: Target) -> bool:
    """Whether a target's network carries calibrated ranges."""
    return backends.get(target.runtime).needs(target) == CALIBRATED


def first_round(targets: Sequence[Target], calibrators: Sequence[str]) -> Iterator[Variant]:
    """Yield one variant a target, with the fast steps and the first calibrator, the most promising target first."""
    for target in sorted(targets, key=_promise):
        yield Variant("fast", False, target, calibrators[0] if needs_calibration(target) else None)


def _promise(target: Target) -> tuple[int, str]:
    """Quantized ones first: where they keep the budget they are mostly the fastest; dynamic and emulated ones rarely are."""
    order = ("int8", "bfloat16", "float32", "float16", "dynamic")
    return (order.index(target.precision) if target.precision in order else len(order), str(target))


def neighbours(variant: Variant, calibrators: Sequence[str]) -> Iterator[Variant]:
    """Yield what differs from a good variant in one respect: folding first, then the calibrator, then the reference steps."""
    yield replace(variant, folded=not variant.folded)
    if variant.calibrator is not None:
        for calibrator in calibrators:
            if calibrator != variant.calibrator:
                yield replace(variant, calibrator=calibrator)
    if variant.steps == "fast":
        yield replace(variant, steps="reference")
