"""Calibration tables, Plimsoll's own and those of the runtimes: read into a `Calibration`, and written from one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from plimsoll import backends
from plimsoll.backends.calibration_tables import MAX_BYTES, CalibrationTable
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.quantize.calibration import Calibration
from plimsoll.system import files

OWN = "plimsoll"
"""The name of Plimsoll's own format, which is JSON."""


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
