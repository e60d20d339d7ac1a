"""ONNX's own evaluator in NumPy: slow, plain, and the judge of what a graph means. For tests."""

from __future__ import annotations

from plimsoll.backends.reference.backend import BACKEND

__all__ = ["BACKEND"]
