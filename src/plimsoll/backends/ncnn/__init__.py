"""ncnn on the CPU."""

from __future__ import annotations

from plimsoll.backends.ncnn.backend import BACKEND

__all__ = ["BACKEND"]
