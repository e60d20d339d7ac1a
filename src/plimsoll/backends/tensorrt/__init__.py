"""TensorRT 10 and 11 on NVIDIA GPUs."""

from __future__ import annotations

from plimsoll.backends.tensorrt.backend import BACKEND, TensorRtOptions

__all__ = ["BACKEND", "TensorRtOptions"]
