"""Detection: boxes with a label and a score.

task         boxes, their points and masks, in the picture's pixels
heads        how networks write boxes into their outputs
grids        heads with a box in each cell of several grids
reading      what all heads share
columns      what stands in which column of the outputs
coding       what the four numbers of a box mean
suppression  greedy and blended non-maximum suppression
masks        masks of single objects
"""

from __future__ import annotations

from plimsoll.tasks.detect.coding import decode_boxes
from plimsoll.tasks.detect.masks import BoxMask
from plimsoll.tasks.detect.suppression import MAX_CANDIDATES, suppress
from plimsoll.tasks.detect.task import DECODER, Box, Detection, DetectTask

__all__ = ["DECODER", "MAX_CANDIDATES", "Box", "BoxMask", "DetectTask", "Detection", "decode_boxes", "suppress"]
