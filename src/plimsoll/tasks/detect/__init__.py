"""Detection: boxes with a label and a score."""

from __future__ import annotations

from plimsoll.tasks.detect.task import DECODER, Detection, DetectTask

__all__ = ["DECODER", "DetectTask", "Detection"]
