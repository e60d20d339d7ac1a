"""ONNX Runtime, on the CPU and on NVIDIA GPUs."""

from __future__ import annotations

from plimsoll.backends.onnxruntime.backend import BACKEND

__all__ = ["BACKEND"]
