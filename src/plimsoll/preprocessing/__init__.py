"""From a picture file to the tensor that a network takes.

preprocessor   `Preprocessor`: a Spec's input steps, ready to run; `ImageGeometry`: where its pixels lie in the picture
decode         file formats, size limits, Pillow's decoding; what pixels are between steps
reference      the steps in Pillow and NumPy: the truth
resample       resizing as OpenCV and TensorFlow define it, in NumPy
fast           the steps in libjpeg-turbo and OpenCV
affine         channels, scale, mean and std summed up as one affine map
folded         these steps moved into the network
samples        pictures for self-tests
"""

from plimsoll.preprocessing.preprocessor import ImageGeometry, ImageSource, Preprocessing, Preprocessor

__all__ = ["ImageGeometry", "ImageSource", "Preprocessing", "Preprocessor"]
