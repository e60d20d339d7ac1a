"""Calibration tables in other tools' formats: read into a `Calibration`, and written from one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from plimsoll.backends.calibration_tables import MAX_BYTES, Range
from plimsoll.backends.ncnn import int8_table
from plimsoll.backends.onnxruntime import calibration_table
from plimsoll.backends.tensorrt import calibration_cache
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.quantize.calibration import Calibration
from plimsoll.system import files

FORMATS = ("plimsoll", "tensorrt", "ncnn", "onnxruntime", "onnxruntime-cache", "onnxruntime-json")
"""plimsoll: our own JSON. onnxruntime: calibration.flatbuffers, as its TensorRT provider reads it; and the two others
that it writes beside it."""


def read_table(path: Path, model: Model) -> Calibration:
    """Read a table in whichever format it is, for a network that has these tensors; raises InputError, and BuildError
    for ncnn's of another network."""
    data = _read(path)
    found = _format(data)
    if found == "plimsoll":
        return Calibration.read(path)
    ranges: Mapping[str, Range]
    if found == "tensorrt":
        ranges = calibration_cache.Cache.loads(_text(data, path), str(path)).ranges
    elif found == "ncnn":
        ranges = _of_layers(int8_table.Table.loads(_text(data, path), str(path)), model)
    else:
        ranges = calibration_table.loads(data, str(path))
    return Calibration(method=f"from {found}", ranges=dict(ranges))


def write_table(
    calibration: Calibration, path: Path, wanted: str, model: Model, picture: NDArray[Any] | None = None
) -> None:
    """Write a table in one of FORMATS; raises InputError.

    ncnn's has scales of layers instead of tensors, so the network is converted for it; `picture` `[1, …]`, what the
    network reads, helps to tell its tensors apart.
    """
    if wanted == "plimsoll":
        calibration.write(path)
        return
    write: dict[str, Callable[[], bytes]] = {
        "tensorrt": lambda: calibration_cache.Cache.of(calibration.ranges).dumps().encode(),
        "ncnn": lambda: _to_layers(calibration, model, picture).dumps().encode(),
        "onnxruntime": lambda: calibration_table.dumps(calibration.ranges),
        "onnxruntime-cache": lambda: calibration_table.dumps(calibration.ranges, "cache"),
        "onnxruntime-json": lambda: calibration_table.dumps(calibration.ranges, "json"),
    }
    if wanted not in write:
        raise InputError(f"'{wanted}' is no format of calibration tables", f"There are: {', '.join(FORMATS)}.")
    data = write[wanted]()
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


def _format(data: bytes) -> str:
    start = data.lstrip()[:4]
    if start == b"TRT-":
        return "tensorrt"
    if start[:1] == b"{":
        try:
            keys = json.loads(data).keys()
        except (ValueError, AttributeError, RecursionError):
            return "plimsoll"  # Its reader says what is wrong.
        return "plimsoll" if "ranges" in keys or "kind" in keys else "onnxruntime-json"
    return "ncnn" if b"_param_0 " in data else "onnxruntime"


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: it is not UTF-8 text: {error}") from error


def _to_layers(calibration: Calibration, model: Model, picture: NDArray[Any] | None) -> int8_table.Table:
    from plimsoll.backends.ncnn import conversion

    with TemporaryDirectory(prefix="plimsoll-table-") as work:
        return conversion.table_of(conversion.convert(model, Path(work)), calibration.ranges, picture)


def _of_layers(table: int8_table.Table, model: Model) -> dict[str, Range]:
    from plimsoll.backends.ncnn import conversion

    with TemporaryDirectory(prefix="plimsoll-table-") as work:
        return conversion.ranges_of(conversion.convert(model, Path(work)), table)
