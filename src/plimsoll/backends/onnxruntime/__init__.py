"""ONNX Runtime, on the CPU and on NVIDIA GPUs.

- `backend`: targets, options, the session
- `nvidia`: its providers for GPUs, and the proof that they did the work
- `calibration_table`: the tables that its quantizer writes
"""

from __future__ import annotations

from plimsoll.backends.onnxruntime.backend import BACKEND

__all__ = ["BACKEND"]
