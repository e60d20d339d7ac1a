"""What is drawn over frames and pictures.

canvas   rectangles, discs, text and sprites in NumPy
overlay  answers over their picture
"""

from __future__ import annotations

from plimsoll.inference.drawing.canvas import canvas_of
from plimsoll.inference.drawing.overlay import draw

__all__ = ["canvas_of", "draw"]
