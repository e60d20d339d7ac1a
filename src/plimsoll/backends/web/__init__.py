"""ONNX Runtime Web: the runtime that answers in browsers, here in Node.js.

- `backend`: targets, and the pinned files of the runtime
- `session`: processes of Node that run `session.mjs`
"""

from __future__ import annotations

from plimsoll.backends.web.backend import BACKEND

__all__ = ["BACKEND"]
