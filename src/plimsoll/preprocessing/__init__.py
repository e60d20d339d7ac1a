"""From a picture file to the tensor that a network takes, in two implementations: reference and fast."""

from plimsoll.preprocessing.geometry import ImageGeometry
from plimsoll.preprocessing.preprocessor import ImageSource, Preprocessing, Preprocessor

__all__ = ["ImageGeometry", "ImageSource", "Preprocessing", "Preprocessor"]
