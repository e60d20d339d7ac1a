"""From a picture file to the tensor that a network takes.

preprocessor   `Preprocessor`: a Spec's input steps, ready to run; `ImageGeometry`: where its pixels lie in the picture
formats        what a file is, by its first bytes
decode         what is accepted and what it becomes, with Pillow; what pixels are between steps
decoded        arrays and Pillow's images instead of files
frames         the frames of an animation, the pages of a TIFF
jpeg_file      JPEG, marker by marker
tiff_file      which TIFF is read as the picture it holds
avif_file      AVIF whose coded size is not the stated one
pillow_file    opening a file with Pillow, and HEIC with libheif
metadata       orientation and profile, whatever else a file says
colour_profile from a profile's colours to sRGB
reference      the steps in Pillow and NumPy: the truth
resample       resizing as OpenCV and TensorFlow define it, in NumPy
fast           the steps in libjpeg-turbo and OpenCV
fast_decode    decoding for them, also at a part of the size
shrink         Pillow's anti-aliased bilinear with OpenCV
memory         a bound on what pictures under way take
affine         channels, scale, mean and std summed up as one affine map
folded         these steps moved into the network
samples        pictures for self-tests
"""

from plimsoll.core.target import Preprocessing
from plimsoll.preprocessing.decoded import ArrayColour, DecodedPicture, PixelArray
from plimsoll.preprocessing.preprocessor import ImageGeometry, ImageSource, PictureSource, Preprocessor

__all__ = [
    "ArrayColour",
    "DecodedPicture",
    "ImageGeometry",
    "ImageSource",
    "PictureSource",
    "PixelArray",
    "Preprocessing",
    "Preprocessor",
]  # fmt: skip
