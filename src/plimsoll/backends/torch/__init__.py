"""PyTorch, on NVIDIA GPUs and on the CPU: networks are translated to its operators and compiled ahead of time.

- `backend`: targets, options; `session`: runs a program
- `graph`, `operators`: translate ONNX networks
- `compilation`: compiles them in a process of its own, or takes a program from the cache
"""

from __future__ import annotations

from plimsoll.backends.torch.backend import BACKEND

__all__ = ["BACKEND"]
