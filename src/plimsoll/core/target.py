"""`Target`: where and how a model runs, as `runtime:device:precision`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from plimsoll.errors import TargetError

PRECISIONS = ("float32", "float16", "bfloat16", "int8", "dynamic", "int8_weights", "int16x8", "fp8")
"""`dynamic`: int8 weights, activations quantized at run time."""

Preprocessing = Literal["reference", "fast", "scaled"]
"""How pictures become tensors: see `plimsoll.preprocessing.Preprocessor`."""

_WORD = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, order=True)
class Target:
    """A runtime, a device and a precision.

    >>> Target.parse("onnxruntime:cpu:float32")
    Target(runtime='onnxruntime', device='cpu', precision='float32')
    >>> str(Target("onnxruntime", "cpu", "int8"))
    'onnxruntime:cpu:int8'
    """

    runtime: str
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for part in (self.runtime, self.device):
            if not _WORD.fullmatch(part):
                raise TargetError(f"'{self}' is not a target: '{part}' is not a name", _EXAMPLE)
        if self.precision not in PRECISIONS:
            raise TargetError(
                f"'{self}' is not a target: precision '{self.precision}', expected one of {', '.join(PRECISIONS)}",
                _EXAMPLE,
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `runtime[:device[:precision]]`; device is `cpu` and precision `float32` if they are left out."""
        parts = text.strip().split(":")
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise TargetError(f"'{text}' is not a target: expected runtime:device:precision", _EXAMPLE)
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.runtime}:{self.device}:{self.precision}"


_EXAMPLE = "For example onnxruntime:cpu:float32."

REFERENCE_TARGET = Target("onnxruntime", "cpu", "float32")
"""What every other target is compared with, and where a bare ONNX file runs by default."""
