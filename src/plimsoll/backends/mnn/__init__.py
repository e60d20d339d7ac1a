"""MNN on the CPU."""

from __future__ import annotations

from plimsoll.backends.mnn.backend import BACKEND

__all__ = ["BACKEND"]
