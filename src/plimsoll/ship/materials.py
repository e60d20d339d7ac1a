"""`Materials`: what variants are built from beside the network: tables of ranges, tensors, rankings of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from plimsoll.errors import BuildFailed
from plimsoll.ship.variant import Variant


@dataclass(frozen=True)
class Materials:
    """Made when the first variant needs them, and kept in the work folder."""

    tables: Mapping[str, Path] = field(default_factory=dict)
    """Calibrator → its calibration table, for Plimsoll's own calibrators and tables that the user gave."""
    rankings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Calibrator → the layers that can be quantized, the one first that drifts most when it alone is."""
    tensors: Mapping[str, Path] = field(default_factory=dict)
    """`plain` or `folded` → `.npy` `[N, …]`: what the network reads for N calibration pictures."""

    def table(self, variant: Variant) -> Path:
        """Return the table of ranges that a variant is quantized with; raises BuildFailed where there is none."""
        if variant.calibrator is None or variant.calibrator not in self.tables:
            raise BuildFailed(f"{variant.name}: there is no calibration table for it")
        return self.tables[variant.calibrator]

    def in_float(self, variant: Variant) -> tuple[str, ...]:
        """Return the layers that a variant of mixed precision keeps in float32; raises BuildFailed where nothing would be left to quantize."""
        if not variant.float_layers:
            return ()
        ranking = self.rankings.get(variant.calibrator or "", ())
        if variant.float_layers >= len(ranking):
            raise BuildFailed(f"only {len(ranking)} of its layers can be quantized: nothing would be left in int8")
        return ranking[: variant.float_layers]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "tables": {name: str(path) for name, path in self.tables.items()},
            "rankings": {name: list(layers) for name, layers in self.rankings.items()},
            "tensors": {name: str(path) for name, path in self.tensors.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        return cls(
            {name: Path(path) for name, path in data["tables"].items()},
            {name: tuple(layers) for name, layers in data["rankings"].items()},
            {name: Path(path) for name, path in data["tensors"].items()},
        )
