"""What is drawn over frames and pictures.

canvas   rectangles, discs, text and sprites in NumPy
overlay  answers over their picture; `Layer`: what is drawn over frames
comments bullet comments that pass behind people
effects  a sprite at a gesture or a point
avatar   a puppet that does what a face does; `face`: what that is, from its points
"""

from __future__ import annotations

from plimsoll.inference.drawing.canvas import canvas_of
from plimsoll.inference.drawing.overlay import draw, thumbnail

__all__ = ["canvas_of", "draw", "thumbnail"]
