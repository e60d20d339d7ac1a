"""OpenVINO on the CPU."""

from __future__ import annotations

from plimsoll.backends.openvino.backend import BACKEND

__all__ = ["BACKEND"]
