"""LiteRT (TensorFlow Lite) on the CPU."""

from __future__ import annotations

from plimsoll.backends.litert.backend import BACKEND, LiteRtOptions, export

__all__ = ["BACKEND", "LiteRtOptions", "export"]
