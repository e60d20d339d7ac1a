"""Detection: boxes with a label and a score.

heads    how networks write boxes into their outputs
columns  what stands in which column of them
coding   what the four numbers of a box mean
task     suppression, and boxes in the picture's pixels
"""

from __future__ import annotations

from plimsoll.tasks.detect.coding import decode_boxes
from plimsoll.tasks.detect.task import DECODER, MAX_CANDIDATES, Box, Detection, DetectTask, suppress

__all__ = ["DECODER", "MAX_CANDIDATES", "Box", "DetectTask", "Detection", "decode_boxes", "suppress"]
