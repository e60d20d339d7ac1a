"""The steps in the fast preprocessing: libjpeg-turbo, OpenCV, and whole numbers until the last moment.

The same steps as `plimsoll.preprocessing.reference`, nearly the same pixels: `docs/fast-preprocessing.md` states the difference
of each on real photos. Used only when asked for. Pictures are uint8 arrays, height x width x channels, throughout;
OpenCV is imported when the first picture comes, and runs each call in one thread because pictures are already spread
over threads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from plimsoll.errors import BackendMissingError, ImageError
from plimsoll.preprocessing import decode as reference_decode
from plimsoll.preprocessing import reference as reference
from plimsoll.preprocessing.formats import admit, check_size
from plimsoll.preprocessing.pixels import Array, Pixels, as_array
from plimsoll.preprocessing.triangle import shrink
from plimsoll.spec.steps import Cast, Crop, Decode, ImageSpec, Jpeg, Layout, Mean, Resize, Scale, Std, Step

_INSTALL = "Install it: pip install 'plimsoll-line[fast]'"


def require_opencv() -> None:
    """Raise BackendMissingError where OpenCV is not installed, without importing it: that takes a while, and is done
    while a runtime is being loaded."""
    if importlib.util.find_spec("cv2") is None:
        raise BackendMissingError("fast preprocessing needs OpenCV, which is not installed", _INSTALL)


@cache
def opencv() -> ModuleType:
    """Import OpenCV; raises BackendMissingError where it can't be."""
    try:
        import cv2
    except ImportError as error:
        raise BackendMissingError(
            f"fast preprocessing needs OpenCV, which can't be imported: {error}", _INSTALL
        ) from error
    cv2.setNumThreads(1)
    module: ModuleType = cv2
    return module


def decode(data: bytes, step: Decode, order: str = "RGB") -> Array:
    """Decode straight into `order` (RGB or BGR; a grey picture stays grey), uint8.

    JPEG goes through libjpeg-turbo without Pillow; all that it can't do alone, and every damaged file, goes the
    reference's way, so that both implementations answer and refuse alike.
    """
    if admit(data, step) == "jpeg":
        array = _decode_jpeg(data, step, order)
        if array is not None:
            return array
    array = as_array(reference_decode.decode(data, step))
    return array if array.shape[2] == 1 or order == "RGB" else np.ascontiguousarray(array[:, :, ::-1])


def _decode_jpeg(data: bytes, step: Decode, order: str) -> Array | None:
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space in {"CMYK", "YCCK"} or (step.colour == "grey" and space != "Gray"):
            return None
        check_size(width, height, step)
        if width * height > reference_decode.LARGE_PIXELS or (
            step.exif_orientation and reference_decode.orientation(data) != 1
        ):
            return None
        colour = "GRAY" if step.colour == "grey" else order
        array: Array = simplejpeg.decode_jpeg(
            data, colour, fastdct=step.dct == "fast", fastupsample=step.upsampling == "plain"
        )
        return array
    except ImageError:
        raise
    except (ValueError, RuntimeError):
        return None


def resize(pixels: Pixels, step: Resize, form: ImageSpec) -> Pixels:
    """Resize with OpenCV where it has the step's arithmetic or comes near it; with the reference where it doesn't."""
    del form
    return reference.fitted(as_array(pixels), step, _resize_to)


def _resize_to(pixels: Pixels, width: int, height: int, step: Resize) -> Array:
    array = as_array(pixels)
    shrinks = width <= array.shape[1] and height <= array.shape[0]
    grows = width >= array.shape[1] and height >= array.shape[0]
    widened = step.antialiased and not grows
    if (
        widened
        and shrinks
        and step.filter == "bilinear"
        and step.rounding == "nearest"
        and (shrunk := shrink(opencv(), array, width, height)) is not None
    ):
        return shrunk
    flag = _opencv_flag(step, shrinks=shrinks, widened=widened)
    if flag is None:
        return as_array(reference.resize_to(array, width, height, step))
    source = array if step.rounding == "nearest" else reference.unit(array, step).astype(np.float32, copy=False)
    out = opencv().resize(source, (width, height), interpolation=getattr(opencv(), flag))
    return reference.rounded(as_array(out), step)


def _opencv_flag(step: Resize, *, shrinks: bool, widened: bool) -> str | None:
    """Return the interpolation of OpenCV that has the step's arithmetic, or None."""
    if step.filter == "area":
        # Pillow's box counts whole pixels only, and where TensorFlow enlarges, its area is no bilinear.
        return "INTER_AREA" if step.convention == "opencv" or (step.convention == "tensorflow" and shrinks) else None
    if widened:
        return None
    if step.convention == "opencv":
        return {
            "nearest": "INTER_NEAREST",
            "bilinear": "INTER_LINEAR",
            "bicubic": "INTER_CUBIC",
            "lanczos": "INTER_LANCZOS4",
        }[step.filter]
    if step.filter == "nearest":
        # TensorFlow's float32 coordinates fall on another pixel now and then, and that may be another colour
        # altogether.
        return "INTER_NEAREST_EXACT" if step.convention == "pillow" else None
    # Pillow's and TensorFlow's cubic have another A, and both another Lanczos.
    return "INTER_LINEAR" if step.filter == "bilinear" and step.coordinates == "half_pixel" else None


def jpeg(pixels: Pixels, step: Jpeg, form: ImageSpec) -> Array:
    """Encode with OpenCV, decode with simplejpeg: both libjpeg-turbo, so the pixels equal the reference's.

    simplejpeg can't encode here: it always takes the fast cosine transform, which shifts open_nsfw's score by up to
    0.03.
    """
    cv2 = opencv()
    array = as_array(pixels)
    options = [cv2.IMWRITE_JPEG_QUALITY, step.quality]
    if form.colour != "grey":
        options += [
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{step.subsampling.replace(':', '')}"),
        ]
    if form.colour == "RGB":
        array = array[:, :, ::-1]  # OpenCV takes what it is given for BGR.
    written, data = cv2.imencode(".jpg", np.ascontiguousarray(array), options)
    if not written:
        raise ImageError("OpenCV could not encode the picture as JPEG")
    colour = "GRAY" if form.colour == "grey" else form.colour
    decoded: Array = simplejpeg.decode_jpeg(
        data, colour, fastdct=step.dct == "fast", fastupsample=step.upsampling == "plain"
    )
    return decoded


@dataclass(frozen=True)
class Affine:
    """All of channels, scale, mean, std, layout and dtype as one pass: `value * factor + offset` a channel, in float32."""

    factor: NDArray[np.float32]
    offset: NDArray[np.float32]
    """Both [channels], in the channel order of the pixels that come in."""
    channels_first: bool
    dtype: str

    @classmethod
    def of(cls, steps: Sequence[Step], form: ImageSpec, order: str) -> Affine | None:
        """Fold the steps after the last one on pixels; None where a cast or work on pixels in their middle forbids it.

        `form` is the picture's before them; the pixels come in the channel order `order`, the one after them.
        """
        factor, offset = np.ones(form.channels), np.zeros(form.channels)
        channels_first = False
        before = dtype = form.dtype
        for step in steps:
            here = slice(None, None, 1 if form.colour == order else -1)
            if isinstance(step, Scale):
                by = step.factor if step.factor is not None else 1 / (step.divisor or 1.0)
                factor, offset = factor * by, offset * by
            elif isinstance(step, Mean):
                offset = offset - np.broadcast_to(step.values, form.channels)[here]
            elif isinstance(step, Std):
                by_channel = np.broadcast_to(step.values, form.channels)[here]
                factor, offset = factor / by_channel, offset / by_channel
            elif isinstance(step, Layout):
                channels_first = step.order == "NCHW"
            elif (isinstance(step, Cast) and step is not steps[-1] and step.to != "float32") or type(
                step
            ) in PIXEL_STEPS:
                return None
            form = step.after(form)
            dtype = form.dtype
        if dtype == "uint8" and (before != "uint8" or np.any(factor != 1) or np.any(offset != 0)):
            return None
        return cls(factor.astype(np.float32), offset.astype(np.float32), channels_first, dtype)

    def __call__(self, pixels: Array) -> Array:
        """Return the tensor of one picture."""
        height, width, channels = pixels.shape
        if self.channels_first:
            return self._planes(pixels)
        if self.dtype == "uint8":
            return np.ascontiguousarray(pixels)
        # Whole rows instead of single pixels: NumPy's inner loop is then 3 x width long, not 3.
        out = pixels.astype(np.float32, order="C").reshape(height, width * channels)
        if np.any(self.factor != 1):
            out *= np.tile(self.factor, width)
        if np.any(self.offset != 0):
            out += np.tile(self.offset, width)
        return out.reshape(height, width, channels).astype(self.dtype, copy=False)

    def _planes(self, pixels: Array) -> Array:
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        if self.dtype == "uint8":
            return planes
        out = planes * self.factor[:, np.newaxis, np.newaxis]
        out += self.offset[:, np.newaxis, np.newaxis]
        return out.astype(self.dtype, copy=False)


PIXEL_STEPS: Mapping[type, Callable[[Pixels, Any, ImageSpec], Pixels]] = MappingProxyType(
    {Resize: resize, Jpeg: jpeg, Crop: reference.crop}
)
"""The steps on pixels; all others are folded into an `Affine`."""
