"""OpenVINO on the CPU: ONNX files, and OpenVINO's own (IR).

- `backend`: targets, options
- `session`: compiles a network for the sizes that come
- `ir`: reads OpenVINO IR
"""

from __future__ import annotations

from plimsoll.backends.openvino.backend import BACKEND

__all__ = ["BACKEND"]
