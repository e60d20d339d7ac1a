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
import struct
from collections.abc import Mapping
from typing import Any, Literal

from plimsoll.backends.calibration_tables import Range, Ranges, symmetric, threshold
from plimsoll.errors import InputError

Kind = Literal["flatbuffers", "cache", "json"]

_HINT = "ONNX Runtime's write_calibration_table makes calibration.flatbuffers, calibration.cache and calibration.json."
_MOST = 1_000_000
_CACHE_LINE = re.compile(rb"[^\r\n]+ -?[0-9][0-9.e+-]*\s*$", re.MULTILINE)


def loads(data: bytes, where: str = "table") -> dict[str, Range]:
    """Read a table in whichever form it is; raises InputError."""
    text = data.lstrip()
    if text[:1] == b"{" and not _CACHE_LINE.match(text):  # A tensor in the cache may have any name.
        return _from_json(data, where)
    return _from_cache(data, where) if _is_text(data) else _from_flatbuffers(data, where)


def dumps(ranges: Ranges, kind: Kind = "flatbuffers") -> bytes:
    """Return a table; raises InputError for names that its form can't hold."""
    thresholds = {name: _finite(threshold(low, high), f"'{name}'") for name, (low, high) in sorted(ranges.items())}
    if kind == "cache":
        if odd := [name for name in thresholds if not name or name != "".join(name.split()) or not name.isprintable()]:
            raise InputError(
                f"the tensor's name {odd[0]!r} can't stand in calibration.cache, where a space ends it",
                "Write calibration.flatbuffers instead.",
            )
        return "".join(f"{name} {value!r}\n" for name, value in thresholds.items()).encode()
    if kind == "json":
        method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
        rows = {name: _tensor_data(*ranges[name]) for name in thresholds}
        return json.dumps({"CLS": "TensorsData", "data": rows, "calibration_method": method}, indent=1).encode()
    return _to_flatbuffers({name: repr(value) for name, value in thresholds.items()})


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
    found: dict[str, float] = {}
    for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, space, value = line.strip().rpartition(" ")
        if not space or name in found:
            raise InputError(
                f"{where}, line {number}: found {line[:80]!r}, expected <tensor> <number>, each tensor once", _HINT
            )
        found[name.strip()] = _number(value, f"{where}, line {number}")
    return _some(symmetric(found), where)


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


def _some(found: dict[str, Range], where: str) -> dict[str, Range]:
    if not found:
        raise InputError(f"{where}: it holds no tensor", _HINT)
    return found


def _to_flatbuffers(pairs: Mapping[str, str]) -> bytes:
    """Lay the table out from the front: root, its vector, then each pair with its two texts. Every offset leads
    forward, as the format asks."""
    out = bytearray(
        struct.pack("<I", 12) + struct.pack("<HHH", 6, 8, 4) + b"\0\0"
    )  # root offset, the root's vtable, padding
    out += struct.pack("<iI", 8, 4)  # the root: back to its vtable; its vector follows at once
    vector = len(out)
    out += struct.pack("<I", len(pairs)) + bytes(4 * len(pairs))
    for place, (key, value) in enumerate(pairs.items()):
        out += struct.pack("<HHHH", 8, 12, 4, 8)
        table = len(out)
        slot = vector + 4 + 4 * place
        struct.pack_into("<I", out, slot, table - slot)
        texts = [one.encode() for one in (key, value)]
        first = table + 12
        second = first + _text_size(texts[0])
        out += struct.pack("<iII", 8, first - (table + 4), second - (table + 8))
        for text in texts:
            out += struct.pack("<I", len(text)) + text + bytes(_text_size(text) - 4 - len(text))
    return bytes(out)


def _text_size(text: bytes) -> int:
    return (4 + len(text) + 1 + 3) // 4 * 4


def _from_flatbuffers(data: bytes, where: str) -> dict[str, Range]:
    found: dict[str, float] = {}
    try:
        root = _forward(data, 0)
        vector = _field(data, root, 0)
        count = _uint(data, vector) if vector else 0
        if count > min(_MOST, len(data) // 4):
            raise ValueError("its vector is longer than the file")
        for place in range(count):
            pair = _forward(data, vector + 4 + 4 * place)
            key, value = (_text(data, _field(data, pair, number)) for number in (0, 1))
            if key in found:
                raise InputError(f"{where}: '{key}' stands there twice", _HINT)
            found[key] = _number(value, f"{where}, '{key}'")
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: can't be read as ONNX Runtime's calibration.flatbuffers: {error}", _HINT) from error
    return _some(symmetric(found), where)


def _uint(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _forward(data: bytes, place: int) -> int:
    offset = _uint(data, place)
    if not offset > 0 or place + offset + 4 > len(data):
        raise ValueError("an offset leads out of the file")
    return place + offset


def _field(data: bytes, table: int, number: int) -> int:
    """Return where what a field refers to lies; 0 where it isn't given."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if not 0 <= vtable <= len(data) - 4:
        raise ValueError("an offset leads out of the file")
    size = int(struct.unpack_from("<H", data, vtable)[0])
    entry = 4 + 2 * number
    offset = int(struct.unpack_from("<H", data, vtable + entry)[0]) if entry < size else 0
    return _forward(data, table + offset) if offset else 0


def _text(data: bytes, place: int) -> str:
    if not place:
        raise ValueError("a pair lacks its name or its number")
    length = _uint(data, place)
    if place + 4 + length > len(data):
        raise ValueError("a text reaches beyond the file")
    return data[place + 4 : place + 4 + length].decode("utf-8")
