"""ONNX Runtime's calibration tables, as its TensorRT execution provider reads them and `write_calibration_table` writes
them.

Three forms of the same: `calibration.flatbuffers`, a table of pairs of texts (schema: ONNX Runtime's `cal_table.fbs`;
`TrtTable { dict: [KeyValue] }`, `KeyValue { key: string; value: string; }`); `calibration.cache`, a line `<tensor>
<number>` each; and `calibration.json`. The number is the end of the range around zero. ONNX Runtime 1.31 writes the
larger of a range's two ends, which is too little where the lower one is further from zero; here it is the one further
from zero.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray

from plimsoll.backends.calibration_tables import CalibrationTable, Range, Ranges, symmetric, threshold
from plimsoll.core.model import Model
from plimsoll.errors import InputError
from plimsoll.system.flatbuffer import FlatBuffer, FlatBufferError, Writer

TableFormat = Literal["flatbuffers", "cache", "json"]

_HINT = "ONNX Runtime's write_calibration_table makes calibration.flatbuffers, calibration.cache and calibration.json."
_CACHE_LINE = re.compile(rb"[^\r\n]+ -?[0-9][0-9.e+-]*\s*$", re.MULTILINE)


def loads(data: bytes, where: str = "table") -> dict[str, Range]:
    """Read a table in whichever form it is; raises InputError."""
    text = data.lstrip()
    if text[:1] == b"{" and not _CACHE_LINE.match(text):  # A tensor in the cache may have any name.
        return _from_json(data, where)
    return _from_cache(data, where) if _is_text(data) else _from_flatbuffers(data, where)


def dumps(ranges: Ranges, form: TableFormat = "flatbuffers") -> bytes:
    """Return a table; raises InputError for names that its form can't hold."""
    thresholds = {name: _finite(threshold(low, high), f"'{name}'") for name, (low, high) in sorted(ranges.items())}
    if form == "cache":
        if odd := [name for name in thresholds if not name or name != "".join(name.split()) or not name.isprintable()]:
            raise InputError(
                f"the tensor's name {odd[0]!r} can't stand in calibration.cache, where a space ends it",
                "Write calibration.flatbuffers instead.",
            )
        return "".join(f"{name} {value!r}\n" for name, value in thresholds.items()).encode()
    if form == "json":
        method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
        rows = {name: _tensor_data(*ranges[name]) for name in thresholds}
        return json.dumps({"CLS": "TensorsData", "data": rows, "calibration_method": method}, indent=1).encode()
    return _to_flatbuffers({name: repr(value) for name, value in thresholds.items()})


class OnnxRuntimeTable(CalibrationTable):
    """One of the three forms."""

    def __init__(self, name: str, form: TableFormat) -> None:
        self.name = name  # type: ignore[misc]  # one class for three formats
        self._form = form

    def recognises(self, data: bytes) -> bool:
        return _form_of(data) == self._form

    def read(self, data: bytes, where: str, model: Model) -> dict[str, Range]:
        del model
        return loads(data, where)

    def write(self, ranges: Ranges, model: Model, picture: NDArray[Any] | None = None) -> bytes:
        del model, picture
        return dumps(ranges, self._form)


def _form_of(data: bytes) -> TableFormat | None:
    """Return the form of a file, by a quick look; None for other tools' tables."""
    if not _is_text(data):
        return "flatbuffers"
    text = data.lstrip()
    if text[:1] == b"{":
        try:
            keys = json.loads(data).keys()
        except (ValueError, AttributeError, RecursionError):
            return None
        return None if "ranges" in keys or "kind" in keys else "json"
    return "cache" if _CACHE_LINE.match(text) else None


def _is_text(data: bytes) -> bool:
    try:
        return data.decode("utf-8").replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    except UnicodeDecodeError:
        return False


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value) or value < 0:
        raise InputError(f"the range of {what} reaches to {value}, expected a number from 0", _HINT)
    return value


def _number(text: str, what: str) -> float:
    try:
        return _finite(float(text), what)
    except ValueError as error:
        raise InputError(f"{what}: found {text[:40]!r}, expected a number", _HINT) from error


def _from_cache(data: bytes, where: str) -> dict[str, Range]:
    thresholds: dict[str, float] = {}
    for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, space, value = line.strip().rpartition(" ")
        if not space or name in thresholds:
            raise InputError(
                f"{where}, line {number}: found {line[:80]!r}, expected <tensor> <number>, each tensor once", _HINT
            )
        thresholds[name.strip()] = _number(value, f"{where}, line {number}")
    return _some(symmetric(thresholds), where)


def _from_json(data: bytes, where: str) -> dict[str, Range]:
    """Read what ONNX Runtime's CalibrationCacheEncoder writes; numbers there may be lists or NumPy arrays of one."""
    try:
        read: Any = json.loads(data)
        rows = read["data"] if isinstance(read.get("data"), dict) else read
        return _some(
            {name: (_end(row, "lowest"), _end(row, "highest")) for name, row in rows.items() if isinstance(row, dict)},
            where,
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError) as error:
        raise InputError(
            f"{where}: can't be read as ONNX Runtime's calibration.json: {type(error).__name__}: {str(error)[:100]}",
            _HINT,
        ) from error


def _end(row: Mapping[str, Any], key: str) -> float:
    value: Any = row[key]
    while isinstance(value, (dict, list)):
        value = (value["data"] if "data" in value else value["value"]) if isinstance(value, dict) else value[0]
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"a range's end is {number}", _HINT)
    return number


def _tensor_data(low: float, high: float) -> dict[str, Any]:
    def array(value: float) -> dict[str, Any]:
        return {"CLS": "numpy.array", "data": [float(value)], "dtype": "float32"}

    return {"CLS": "TensorData", "lowest": array(low), "highest": array(high)}


def _some(ranges: dict[str, Range], where: str) -> dict[str, Range]:
    if not ranges:
        raise InputError(f"{where}: it holds no tensor", _HINT)
    return ranges


def _to_flatbuffers(pairs: Mapping[str, str]) -> bytes:
    writer = Writer()
    rows = [
        writer.table([("offset", writer.text(key)), ("offset", writer.text(value))]) for key, value in pairs.items()
    ]
    return writer.finish(writer.table([("offset", writer.tables(rows))]))


def _from_flatbuffers(data: bytes, where: str) -> dict[str, Range]:
    thresholds: dict[str, float] = {}
    try:
        for pair in FlatBuffer(data).root().tables(0):
            if not (pair.has(0) and pair.has(1)):
                raise FlatBufferError("a pair lacks its name or its number")
            key, value = pair.text(0, "strict"), pair.text(1, "strict")
            if key in thresholds:
                raise InputError(f"{where}: duplicate tensor '{key}'", _HINT)
            thresholds[key] = _number(value, f"{where}, '{key}'")
    except (FlatBufferError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: can't be read as ONNX Runtime's calibration.flatbuffers: {error}", _HINT) from error
    return _some(symmetric(thresholds), where)


TABLES = (
    OnnxRuntimeTable("onnxruntime", "flatbuffers"),
    OnnxRuntimeTable("onnxruntime-cache", "cache"),
    OnnxRuntimeTable("onnxruntime-json", "json"),
)
