"""ONNX Runtime Web: the runtime that a web package answers with in a browser, here in Node.js."""

from __future__ import annotations

from plimsoll.backends.web.backend import BACKEND

__all__ = ["BACKEND"]
