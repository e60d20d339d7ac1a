"""TensorRT 10 and 11 on NVIDIA GPUs.

- `backend`, `options`: targets, options
- `construction`: builds an engine in a process of its own (`job`), or takes one from the cache
- `fp8`, `bfloat16`: networks as TensorRT 11 takes them; `calibration`, `calibration_cache`: TensorRT 10's calibrators
- `engine`: reads engines, and what they were built for
- `session`, `context`: run an engine; `runtime`: TensorRT's Python package
"""

from __future__ import annotations

from plimsoll.backends.tensorrt.backend import BACKEND
from plimsoll.backends.tensorrt.options import TensorRtOptions

__all__ = ["BACKEND", "TensorRtOptions"]
