"""Fast preprocessing: libjpeg-turbo, OpenCV, and whole numbers until the last moment.

The same steps as `plimsoll.preprocessing.reference` and nearly the same pixels: `docs/fast-preprocessing.md` states the
difference of each on real photos. Used only on request. Pictures are uint8 arrays, height x width x channels,
throughout; OpenCV is imported with the first picture, and runs each call in one thread because pictures are already
spread over threads.

Pillow's and TensorFlow's anti-aliased bilinear weigh the source's pixels by a triangle as wide as the reduction: for
the output pixel `o` and the ratio `r`, the pixel at distance `d` from `(o + 1/2) r - 1/2` counts `1 - |d| / r`. OpenCV
samples with the narrow triangle (r = 1) only. But a triangle is nearly a short symmetric filter of the source followed
by that sampling, and exactly so where `r` is a whole number. So `shrink_antialiased` takes means of
2 × 2 while the picture is much too large, a few taps in each direction, and bilinear sampling. The taps are those with
the least squared error of the weights over all positions where a sample can fall.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from plimsoll.errors import BackendMissingError, ImageError
from plimsoll.preprocessing import decode as reference_decode
from plimsoll.preprocessing import reference
from plimsoll.preprocessing.affine import PIXEL_STEPS, Affine, Normalization
from plimsoll.preprocessing.decode import Array, Pixels, as_array, check_format, check_size
from plimsoll.spec.steps import Cast, Crop, Decode, ImageSpec, Jpeg, Resize, Step

_INSTALL = "Install it: pip install 'plimsoll-line[fast]'"

_HALVED_FROM = 4.0
"""Where both axes shrink by so much, a mean of 2 × 2 comes first: exact enough, and the taps stay few."""
_MOST_TAPS = 15
_PHASES = 8
"""The weights are compared at so many positions between two pixels."""
_RATIO_STEP = 1 / 64
_TAP_STEP = 1 / 256
"""OpenCV computes filters of bytes with 8 bits; taps of that precision keep their sum of 1."""


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
    if check_format(data, step) == "jpeg":
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


def resize(pixels: Pixels, step: Resize, image: ImageSpec) -> Pixels:
    """Resize with OpenCV where it has the step's arithmetic or comes near it; with the reference where it doesn't."""
    del image
    return reference.resize_to_fit(as_array(pixels), step, _resize_to)


def _resize_to(pixels: Pixels, width: int, height: int, step: Resize) -> Array:
    array = as_array(pixels)
    shrinks = width <= array.shape[1] and height <= array.shape[0]
    grows = width >= array.shape[1] and height >= array.shape[0]
    antialiased = step.antialiased and not grows
    if (
        antialiased
        and shrinks
        and step.filter == "bilinear"
        and step.rounding == "nearest"
        and (shrunk := shrink_antialiased(opencv(), array, width, height)) is not None
    ):
        return shrunk
    flag = _opencv_flag(step, shrinks=shrinks, antialiased=antialiased)
    if flag is None:
        return as_array(reference.resize_to(array, width, height, step))
    source = (
        array if step.rounding == "nearest" else reference.to_resized_range(array, step).astype(np.float32, copy=False)
    )
    out = opencv().resize(source, (width, height), interpolation=getattr(opencv(), flag))
    return reference.round_resized(as_array(out), step)


def _opencv_flag(step: Resize, *, shrinks: bool, antialiased: bool) -> str | None:
    """Return the interpolation of OpenCV that has the step's arithmetic, or None."""
    if step.filter == "area":
        # Pillow's box counts whole pixels only, and where TensorFlow enlarges, its area is no bilinear.
        return "INTER_AREA" if step.convention == "opencv" or (step.convention == "tensorflow" and shrinks) else None
    if antialiased:
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


def jpeg(pixels: Pixels, step: Jpeg, image: ImageSpec) -> Array:
    """Encode with OpenCV, decode with simplejpeg: both libjpeg-turbo, so the pixels equal the reference's.

    simplejpeg can't encode here: it always takes the fast cosine transform, which shifts open_nsfw's score by up to
    0.03.
    """
    cv2 = opencv()
    array = as_array(pixels)
    options = [cv2.IMWRITE_JPEG_QUALITY, step.quality]
    if image.colour != "grey":
        options += [
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{step.subsampling.replace(':', '')}"),
        ]
    if image.colour == "RGB":
        array = array[:, :, ::-1]  # OpenCV takes what it is given for BGR.
    written, data = cv2.imencode(".jpg", np.ascontiguousarray(array), options)
    if not written:
        raise ImageError("OpenCV could not encode the picture as JPEG")
    colour = "GRAY" if image.colour == "grey" else image.colour
    decoded: Array = simplejpeg.decode_jpeg(
        data, colour, fastdct=step.dct == "fast", fastupsample=step.upsampling == "plain"
    )
    return decoded


@dataclass(frozen=True)
class Normalize:
    """All of channels, scale, mean, std, layout and dtype in one pass: `value * factor + offset` in float32."""

    factor: NDArray[np.float32]
    offset: NDArray[np.float32]
    """Both `[channels]`, in the channel order of the pixels that come in."""
    channels_first: bool
    dtype: str

    @classmethod
    def of(cls, pixels: ImageSpec, steps: Sequence[Step]) -> Normalize | None:
        """Sum up the steps behind the last one on pixels; None where a cast or work on pixels among them forbids it.

        `pixels` describes the picture before them. The pixels passed in have the channel order after them.
        """
        if any(isinstance(step, PIXEL_STEPS) for step in steps) or any(
            isinstance(step, Cast) and step.to != "float32" for step in steps[:-1]
        ):
            return None
        summed = Normalization.of(pixels, steps)
        affine = next((part for part in summed.parts if isinstance(part, Affine)), Affine.identity(pixels.channels))
        if summed.dtype == "uint8" and (pixels.dtype != "uint8" or not affine.is_identity):
            return None
        return cls(
            affine.factor.astype(np.float32),
            affine.offset.astype(np.float32),
            summed.layout == "NCHW",
            summed.dtype,
        )

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


def shrink_antialiased(cv2: ModuleType, pixels: Array, width: int, height: int) -> Array | None:
    """Return uint8 [H, W, C] at a size that is not larger in either direction; None where one direction shrinks so much
    more that it would take long."""
    source_height, source_width = pixels.shape[:2]
    ratios = source_width / width, source_height / height
    mean = 1
    while min(ratios) / mean >= _HALVED_FROM:
        mean *= 2
    if _radius(max(ratios), mean) > _MOST_TAPS // 2:
        return None
    across, down = (triangle_taps(_RATIO_STEP * round(ratio / _RATIO_STEP), mean) for ratio in ratios)
    for _ in range(mean.bit_length() - 1):
        rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = cv2.resize(pixels[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    smooth = cv2.sepFilter2D(pixels, -1, across, down, borderType=cv2.BORDER_REPLICATE)
    if (smooth.shape[1] * mean, smooth.shape[0] * mean) == (source_width, source_height):
        sampled: Array = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        # An odd row or column was left behind, so the edges of what is left are not the picture's.
        x, y = ratios[0] / mean, ratios[1] / mean
        matrix = np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5]])
        sampled = cv2.warpAffine(
            smooth,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return sampled.reshape(height, width, -1)


@lru_cache(4096)
def triangle_taps(ratio: float, mean: int) -> NDArray[np.float32]:
    """Return the filter for a ratio, over pixels that are means of `mean` of the source's; an odd number of taps,
    symmetric, none negative, their sum is 1."""
    if ratio <= 1:
        return np.ones(1, np.float32)
    radius = _radius(ratio, mean)
    source = np.arange(-int(ratio) - mean - 2, int(ratio) + 2 * mean + 3)
    phase = ((np.arange(_PHASES) + 0.5) / _PHASES)[:, np.newaxis, np.newaxis]
    tap = np.arange(-radius, radius + 1)[:, np.newaxis]
    # What each tap alone gives each source pixel when a sample falls a part of the way from one pixel to the next:
    # [phase, tap, source].
    alone = ((1 - phase) * (source // mean == tap) + phase * (source // mean == tap + 1)) / mean
    triangle = np.maximum(0.0, 1 - np.abs(source - (phase[:, 0] + 0.5) * mean + 0.5) / ratio)
    centre = alone[:, radius]
    unknown = alone[:, radius + 1 :] + alone[:, :radius][:, ::-1] - 2 * centre[:, np.newaxis]
    expected = triangle / triangle.sum(axis=1, keepdims=True) - centre
    side = np.linalg.lstsq(unknown.transpose(0, 2, 1).reshape(-1, radius), expected.reshape(-1))[0]
    side = _TAP_STEP * np.rint(np.maximum(side, 0.0) / _TAP_STEP)
    return np.concatenate([side[::-1], [1 - 2 * side.sum()], side]).astype(np.float32)


def _radius(ratio: float, mean: int) -> int:
    """Return how far the triangle reaches beside the two pixels that are sampled."""
    return max(1, math.ceil(ratio / mean) - 1)


FUNCTIONS: Mapping[type, Callable[[Pixels, Any, ImageSpec], Pixels]] = MappingProxyType(
    {Resize: resize, Jpeg: jpeg, Crop: reference.crop}
)
"""The function of each step on pixels; all other steps become one `Normalize`."""
