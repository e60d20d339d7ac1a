"""ncnn on the CPU.

- `backend`: targets, options; `session`: a loaded network
- `conversion`: converts ONNX networks, in the toolchain `pnnx` (`toolchain`); `dialect`: rewrites what pnnx gets wrong
- `network`: reads and writes ncnn's files
- `int8_table`: the tables of ncnn's quantizer
"""

from __future__ import annotations

from plimsoll.backends.ncnn.backend import BACKEND

__all__ = ["BACKEND"]
