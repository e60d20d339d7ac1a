"""PyTorch, on NVIDIA GPUs and on the CPU: networks are translated to its operators and compiled ahead of time."""

from __future__ import annotations

from plimsoll.backends.torch.backend import BACKEND

__all__ = ["BACKEND"]
