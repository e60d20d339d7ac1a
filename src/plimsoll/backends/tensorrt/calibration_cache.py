"""TensorRT's calibration cache (TensorRT up to 10).

Line 1 is `TRT-<version>-<algorithm>`, for example `TRT-8205-EntropyCalibration2`; each further line `<tensor>: <hex>`,
the hexadecimal digits of a big-endian IEEE 754 float32: a *scale*, of which 127 make the range's end. Names may hold
spaces and colons.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import NDArray

from plimsoll.backends.calibration_tables import CalibrationTable, Range, Ranges, decode, symmetric, threshold
from plimsoll.core.model import Model
from plimsoll.errors import InputError

STEPS = 127.0
_HEAD = re.compile(r"TRT-(\d+)-(\w+)")
_LARGEST = float.fromhex("0x1.fffffep+127")
_HINT = (
    "TensorRT writes such a file for its calibrators: TRT-<version>-<algorithm>, then a line <tensor>: <8 hexadecimal"
    " digits> for each tensor."
)


class TensorRtTable(CalibrationTable):
    """TensorRT's calibration cache."""

    name = "tensorrt"

    def recognises(self, data: bytes) -> bool:
        return data.lstrip()[:4] == b"TRT-"

    def read(self, data: bytes, where: str, model: Model) -> dict[str, Range]:
        del model
        return Cache.loads(decode(data, where), where).ranges

    def write(self, ranges: Ranges, model: Model, picture: NDArray[Any] | None = None) -> bytes:
        del model, picture
        return Cache.of(ranges).dumps().encode()


@dataclass(frozen=True)
class Cache:
    """A calibration cache."""

    scales: Mapping[str, float]
    version: str = "8600"
    """TensorRT's version as it writes it, for example 8205 for 8.2.5. TensorRT calibrates anew where it is another than
    its own."""
    algorithm: str = "EntropyCalibration2"

    @classmethod
    def of(cls, ranges: Ranges, version: str = "8600", algorithm: str = "EntropyCalibration2") -> Self:
        """Return the cache that ranges mean; raises InputError for what it can't hold."""
        if not re.fullmatch(r"\d+", version) or not re.fullmatch(r"\w+", algorithm):
            raise InputError(
                f"TRT-{version}-{algorithm} can't begin a TensorRT cache",
                "For example version 8205, algorithm EntropyCalibration2.",
            )
        if odd := [name for name in ranges if not name.strip() or name.splitlines() != [name] or name != name.strip()]:
            raise InputError(
                f"the tensor's name {odd[0]!r} can't stand in a TensorRT cache, where each has a line", "Rename it."
            )
        return cls(
            {name: _float32(threshold(low, high) / STEPS, name) for name, (low, high) in ranges.items()},
            version,
            algorithm,
        )

    @property
    def ranges(self) -> dict[str, Range]:
        """The ranges around zero that the scales mean."""
        return symmetric({name: scale * STEPS for name, scale in self.scales.items()})

    @classmethod
    def loads(cls, text: str, where: str = "cache") -> Self:
        """Read the text of a cache; raises InputError that names the line."""
        lines = text.split("\n")
        head = _HEAD.fullmatch(lines[0].strip())
        if head is None:
            raise InputError(f"{where}: its first line is {lines[0][:60]!r}, expected TRT-<version>-<algorithm>", _HINT)
        scales: dict[str, float] = {}
        for number, line in enumerate(lines[1:], 2):
            if not line.strip():
                continue
            name, colon, digits = line.rpartition(":")
            name, digits = name.strip(), digits.strip()
            if not colon or not name or not re.fullmatch(r"[0-9a-fA-F]{8}", digits):
                raise InputError(
                    f"{where}, line {number}: found {line[:80]!r}, expected <tensor>: <8 hexadecimal digits>", _HINT
                )
            (scale,) = struct.unpack(">f", bytes.fromhex(digits))
            if not math.isfinite(scale) or scale < 0:
                raise InputError(
                    f"{where}, line {number}: the scale of '{name}' is {scale}, expected a number from 0", _HINT
                )
            if name in scales:
                raise InputError(f"{where}, line {number}: duplicate tensor '{name}'", _HINT)
            scales[name] = scale
        if not scales:
            raise InputError(f"{where}: it holds no tensor", _HINT)
        return cls(scales, head[1], head[2])

    def dumps(self) -> str:
        """Return the text, as TensorRT reads it."""
        rows = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in self.scales.items()]
        return "\n".join([f"TRT-{self.version}-{self.algorithm}", *rows]) + "\n"


def _float32(value: float, name: str) -> float:
    if not math.isfinite(value) or value > _LARGEST:
        raise InputError(f"the range of '{name}' reaches to {value * STEPS:g}, which float32 can't hold")
    return float(struct.unpack(">f", struct.pack(">f", value))[0])
