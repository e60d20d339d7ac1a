"""`Artifacts`: what candidates are built from beside the network: tables of ranges, tensors, rankings of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from plimsoll.errors import BuildError
from plimsoll.ship.candidate import Candidate


@dataclass(frozen=True)
class Artifacts:
    """Made when the first candidate needs them, and kept in the work folder."""

    tables: Mapping[str, Path] = field(default_factory=dict)
    """Calibrator → its calibration table, for Plimsoll's own calibrators and tables that the user gave."""
    rankings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Calibrator → the layers that can be quantized, the one first that deviates most when it alone is."""
    tensors: Mapping[str, Path] = field(default_factory=dict)
    """`plain` or `folded` → `.npy` `[N, …]`: what the network reads for N calibration pictures."""

    def table(self, candidate: Candidate) -> Path:
        """Return the table of ranges that a candidate is quantized with; raises BuildError where there is none."""
        if candidate.calibrator is None or candidate.calibrator not in self.tables:
            raise BuildError(f"{candidate.name}: there is no calibration table for it")
        return self.tables[candidate.calibrator]

    def in_float(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the layers that a candidate of mixed precision keeps in float32; raises BuildError where nothing would
        be left to quantize."""
        if not candidate.float_layers:
            return ()
        ranking = self.rankings.get(candidate.calibrator or "", ())
        if candidate.float_layers >= len(ranking):
            raise BuildError(f"only {len(ranking)} of its layers can be quantized: nothing would be left in int8")
        return ranking[: candidate.float_layers]

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
