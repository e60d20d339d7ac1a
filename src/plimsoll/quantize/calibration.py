"""`Calibration`: the range of every tensor that is quantized, as a table that people can read, keep and write; also in
the formats of the runtimes' tools."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plimsoll import backends
from plimsoll.backends.calibration_tables import CalibrationTable
from plimsoll.core.model import Model
from plimsoll.core.wording import explain
from plimsoll.errors import InputError, ModelError
from plimsoll.quantize.parameters import Symmetry
from plimsoll.system import files

MAX_BYTES = 64_000_000
"""A larger file is not read as a calibration table."""

OWN = "plimsoll"
"""The name of Plimsoll's own format, which is JSON."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Calibration(BaseModel):
    """Ranges, and where they come from. Only `ranges` is required: your own table may leave the rest out. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["calibration"] = "calibration"
    schema_version: Literal[1] = 1
    model: Sha256 | None = None
    """SHA-256 of the network that it was made with; None fits every network that has these tensors."""
    images: Annotated[int, Field(ge=0)] = 0
    """How many pictures it was made with."""
    digest: Sha256 | None = None
    """SHA-256 of the input tensors that it was made with."""
    method: str = "given"
    parameter: float | None = None
    """The percentile, where the method is `percentile`."""
    symmetry: Symmetry = "auto"
    """The symmetry that the method assumed, and that the network gets."""
    ranges: Annotated[dict[str, tuple[float, float]], Field(min_length=1)]
    """Each tensor's lowest and highest value; values outside are clipped."""

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
        if self.model is not None and self.model not in {ancestor.sha256 for ancestor in _line(model)}:
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


def tables() -> dict[str, CalibrationTable]:
    """Return the formats of the runtimes' tools by their names."""
    return {table.name: table for name in backends.names() for table in backends.get(name).calibration_tables}


def table_names() -> tuple[str, ...]:
    """Return the names of all formats, Plimsoll's own first."""
    return (OWN, *tables())


def read_table(path: Path, model: Model) -> Calibration:
    """Read a table in whichever format it is, for a network that has these tensors; raises InputError, and BuildError
    for the table of another network's layers."""
    data = _read(path)
    if _is_own(data):
        return Calibration.read(path)
    for table in tables().values():
        if table.recognises(data):
            return Calibration(method=f"from {table.name}", ranges=table.read(data, str(path), model))
    raise InputError(f"{path}: not a calibration table", f"The formats are: {', '.join(table_names())}.")


def write_table(
    calibration: Calibration, path: Path, name: str, model: Model, picture: NDArray[Any] | None = None
) -> None:
    """Write a table in one of `table_names()`; raises InputError.

    A table of layers needs the network; `picture` `[1, …]`, what the network reads, helps to tell its tensors apart.
    """
    if name == OWN:
        calibration.write(path)
        return
    known = tables()
    if name not in known:
        raise InputError(f"unknown calibration table format '{name}'", f"Choose from: {', '.join(table_names())}.")
    data = known[name].write(calibration.ranges, model, picture)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: can't write the calibration table: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        data = files.read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"{path}: can't read the calibration table: {error.strerror}") from error
    if not data:
        raise InputError(f"{path}: the calibration table is empty")
    return data


def _is_own(data: bytes) -> bool:
    """Tell whether a file is to be read as Plimsoll's own: its reader says best what is wrong with any odd JSON."""
    if data.lstrip()[:1] != b"{":
        return False
    try:
        keys = json.loads(data).keys()
    except (ValueError, AttributeError, RecursionError):
        return True
    return "ranges" in keys or "kind" in keys


def _line(model: Model) -> Iterator[Model]:
    """Yield the model and those it was made from."""
    ancestor: Model | None = model
    while ancestor is not None:
        yield ancestor
        ancestor = ancestor.parent
