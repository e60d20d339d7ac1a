"""`Calibration`: the range of every tensor that is quantized, as a table that people can read, keep and write."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plimsoll.core.model import Model
from plimsoll.core.wording import explain
from plimsoll.errors import InputError, ModelError
from plimsoll.quantize.parameters import Symmetry
from plimsoll.system import files

MAX_BYTES = 64_000_000
"""A larger file is not read as a calibration table."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Calibration(BaseModel):
    """Ranges, and where they come from. Only `ranges` is needed: a table of your own may leave the rest out. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["calibration"] = "calibration"
    schema_version: Literal[1] = 1
    model: Sha256 | None = None
    """SHA-256 of the network that it was made with; None fits every network that has these tensors."""
    images: Annotated[int, Field(ge=0)] = 0
    """How many pictures it was made with."""
    digest: Sha256 | None = None
    """SHA-256 of the input tensors that it was made with (`digest_of`)."""
    method: str = "given"
    parameter: float | None = None
    """The percentile, where the method is `percentile`."""
    symmetry: Symmetry = "auto"
    """The grids that the method had in mind, and that the network gets."""
    ranges: Annotated[dict[str, tuple[float, float]], Field(min_length=1)]
    """Each tensor's lowest and highest value that keep their places; what lies outside is clipped."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in self.ranges.items():
            if low > high:
                raise ValueError(f"the range of '{name}' is [{low:g}, {high:g}]: its low end lies above its high end")
            if not math.isfinite(max(high, 0.0) - min(low, 0.0)) or max(-low, high) > 1e38:
                raise ValueError(f"the range of '{name}' is [{low:g}, {high:g}], which float32 can't hold")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a table from its JSON file; raises InputError that names what is wrong."""
        try:
            return cls.model_validate_json(files.read_bytes(path, MAX_BYTES))
        except OSError as error:
            raise InputError(f"{path}: can't read the calibration table: {error.strerror}") from error
        except ValidationError as error:
            raise InputError(
                f"{path}: not a calibration table that this version reads: {explain(error, 'the table')}",
                'The least is {"ranges": {"tensor": [low, high]}}.',
            ) from error

    def write(self, path: Path) -> None:
        """Write the table as JSON, one line a tensor; raises InputError where that can't be done."""
        facts = self.model_dump(exclude={"ranges"})
        head = "".join(
            f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in facts.items() if value is not None
        )
        rows = ",\n".join(f"    {json.dumps(name)}: [{low!r}, {high!r}]" for name, (low, high) in self.ranges.items())
        try:
            files.write(path, f'{{\n{head}  "ranges": {{\n{rows}\n  }}\n}}\n')
        except OSError as error:
            raise InputError(f"{path}: can't write the calibration table: {error.strerror}") from error

    def check_fit(self, model: Model, tensors: Collection[str]) -> None:
        """Raise ModelError where the table was made for another network than this one and those it was made from, or
        lacks one of these tensors."""
        if self.model is not None and self.model not in {one.sha256 for one in _line(model)}:
            raise ModelError(
                f"{model.path}: the calibration table was made with another network (its SHA-256 begins"
                f" {self.model[:12]}, this one's {model.sha256[:12]})",
                "Calibrate again; where you know that its ranges hold for this network too, leave `model` out of the"
                " table.",
            )
        missing = [name for name in tensors if name not in self.ranges]
        if missing:
            shown = ", ".join(f"'{name}'" for name in missing[:3]) + (" …" if len(missing) > 3 else "")
            raise ModelError(
                f"{model.path}: the calibration table has no range for {len(missing)} of the {len(tensors)} tensors"
                f" that are quantized: {shown}",
                "Calibrate again, or add them to the table.",
            )


def _line(model: Model) -> Iterator[Model]:
    one: Model | None = model
    while one is not None:
        yield one
        one = one.parent
