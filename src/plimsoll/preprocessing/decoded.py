"""Pictures that are decoded already: arrays, and Pillow's images, brought to what the decode step gives.

The options of the decode step hold for them as for a file, but for `formats`, `dct`, `upsampling`, `truncated` and
`frames`: an image that stands at a frame of an animation is that frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import memory, metadata
from plimsoll.preprocessing.decode import ORIENTATION_TAG, Pixels, check_size, converted
from plimsoll.spec.steps import Decode

ArrayColour = Literal["grey", "RGB", "BGR", "RGBA", "BGRA"]
"""The order of an array's channels."""

_CHANNELS: dict[str, int] = {"grey": 1, "RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4}
_SAY = "Say it: predict(array, colour='{0}'), or '{1}' for what OpenCV reads."
_AS_LEVELS = {
    "f": "floats of 0 to 1 are levels by (array * 255).round().astype('uint8')",
    "b": "of a mask, levels are array.astype('uint8') * 255",
    "u": "16-bit samples are levels by (array >> 8).astype('uint8'), levels of 0 to 255 by array.astype('uint8')",
    "i": "levels of 0 to 255 by array.astype('uint8')",
}
"""How to make levels of an array, by its kind of dtype."""
_BYTES = 4


@dataclass(frozen=True, eq=False)
class PixelArray:
    """The pixels of a picture: uint8, height x width x channels, or height x width for grey, from the top left."""

    samples: NDArray[Any]
    colour: ArrayColour | None = None
    """The order of the channels; None is enough for grey."""


DecodedPicture = Image.Image | PixelArray


def decoded_pixels(picture: DecodedPicture, step: Decode) -> tuple[Pixels, int]:
    """Return a picture's pixels, RGB or grey, and the EXIF orientation that was followed, 1 where none was.

    Nothing of the picture is changed. Raises ImageError for another dtype or shape, for colours whose order isn't said,
    for more pixels than the Spec allows, and for an `Image` that can't be loaded.
    """
    if isinstance(picture, PixelArray):
        return _of_array(picture, step), 1
    check_size(*picture.size, step)
    memory.budget().reserve(_BYTES * picture.width * picture.height)
    picture.load()
    turn = _orientation(picture) if step.exif_orientation else 1
    profile = picture.info.get("icc_profile") if step.colour_profile == "srgb" else None
    return converted(picture, step, turn, profile or b""), turn


def _of_array(picture: PixelArray, step: Decode) -> Pixels:
    samples = picture.samples
    if samples.dtype != np.uint8:
        raise ImageError(
            f"an array of {samples.dtype}; expected uint8, levels of 0 to 255",
            f"Convert it: {_AS_LEVELS[samples.dtype.kind]}." if samples.dtype.kind in _AS_LEVELS else "",
        )
    if samples.ndim == 2:
        samples = samples[:, :, np.newaxis]
    if samples.ndim != 3 or samples.shape[2] not in (1, 3, 4):
        raise ImageError(
            f"an array of shape {picture.samples.shape}; expected height x width x channels (1, 3 or 4), or height x"
            " width for grey"
        )
    height, width, channels = samples.shape
    colour = picture.colour or ("grey" if channels == 1 else None)
    if colour is None:
        orders = ("RGB", "BGR") if channels == 3 else ("RGBA", "BGRA")
        raise ImageError(f"an array of {channels} channels, whose order is not known", _SAY.format(*orders))
    if colour not in _CHANNELS or _CHANNELS[colour] != channels:
        raise ImageError(f"an array of {channels} channels, but colour = {colour!r}", f"Choose from {[*_CHANNELS]}.")
    check_size(width, height, step)
    if colour.startswith("BGR"):
        samples = samples[:, :, [2, 1, 0, 3]] if channels == 4 else samples[:, :, ::-1]
    if channels == 4 and step.alpha == "drop":
        samples = samples[:, :, :3]
    if (samples.shape[2], step.colour) in {(3, "RGB"), (1, "grey")}:
        return samples
    memory.budget().reserve(_BYTES * width * height)
    levels = np.ascontiguousarray(samples[:, :, 0] if channels == 1 else samples)
    return converted(Image.fromarray(levels), step, 1, b"")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 where none can be read."""
    stored = image.info.get("exif")
    if isinstance(stored, bytes):
        return metadata.exif_orientation(stored) or 1
    value = image.getexif().get(ORIENTATION_TAG)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
