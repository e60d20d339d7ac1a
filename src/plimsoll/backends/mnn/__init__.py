"""MNN on the CPU.

- `backend`: targets, options; `session`: its interpreters
- `conversion`: converts ONNX networks and quantizes them
- `graph`: reads MNN files; `grids`: chooses the 8-bit grid of each tensor
- `quantizer_config`: the settings file of MNN's quantizer
"""

from __future__ import annotations

from plimsoll.backends.mnn.backend import BACKEND

__all__ = ["BACKEND"]
