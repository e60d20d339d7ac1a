"""From a picture file to the tensor that a network takes, in two implementations: reference and fast."""

from plimsoll.image.plan import Implementation, InputPlan, Source
from plimsoll.image.view import View

__all__ = ["Implementation", "InputPlan", "Source", "View"]
