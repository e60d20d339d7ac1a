"""ONNX's own evaluator in NumPy: slow, simple, and authoritative on what a graph means. For tests."""

from __future__ import annotations

from plimsoll.backends.reference.backend import BACKEND

__all__ = ["BACKEND"]
