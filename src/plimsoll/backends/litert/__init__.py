"""LiteRT (TensorFlow Lite) on the CPU.

- `backend`: targets, options; `session`: its interpreters
- `tflite_file`: reads the outline of TFLite files
- `conversion`: converts ONNX networks and quantizes them, in the toolchain `onnx2tf` (`toolchain`)
- `metadata`: writes what MediaPipe Tasks configures itself from
"""

from __future__ import annotations

from plimsoll.backends.litert.backend import BACKEND, LiteRtOptions
from plimsoll.backends.litert.metadata import export

__all__ = ["BACKEND", "LiteRtOptions", "export"]
