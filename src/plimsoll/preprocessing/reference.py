"""Reference preprocessing: Pillow + NumPy. It defines the truth.

Each function takes the pixels, the step, and the `ImageSpec` of the pixels before it; it returns new pixels and changes
none of its arguments. `FUNCTIONS` maps a step to its function.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import simplejpeg
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import memory
from plimsoll.preprocessing.decode import Array, Pixels, as_array, as_image, size_of
from plimsoll.preprocessing.resample import resample
from plimsoll.spec.steps import Cast, Channels, Crop, ImageSpec, Jpeg, Layout, Mean, Resize, Scale, Std

PILLOW_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}
_PREMULTIPLIED = {"LA": "La", "RGBA": "RGBa"}
"""Modes with alpha are resized in these, converted once for both passes: each conversion rounds."""
_PILLOW_SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
MAX_LONG_EDGE = 65_535
"""A picture of 1 x 50,000,000 pixels must not become 224 x 11 billion by its shorter side."""
MAX_SQUARE_PIXELS = 100_000_000
"""A picture of 50,000 x 10 pixels must not become 2.5 gigapixels."""


def resize(pixels: Pixels, step: Resize, image: ImageSpec) -> Pixels:
    """Resize as the step's convention does it; uint8, or float32 in 0…255 with rounding = 'none'."""
    del image
    return resize_to_fit(pad_to_square(pixels, step) if step.pad_first else pixels, step, resize_to)


def resize_to_fit(pixels: Pixels, step: Resize, resize_to: Callable[[Pixels, int, int, Resize], Pixels]) -> Pixels:
    """Work out the target size that `fit` asks for, resize with `resize_to(pixels, width, height, step)`, and pad."""
    width, height = resized_size(*size_of(pixels), step)
    out = (
        pixels
        if (width, height) == size_of(pixels) and step.rounding == "nearest"
        else resize_to(pixels, width, height, step)
    )
    return _padded(as_array(out), step, padding(width, height, step)) if step.pads else out


def resized_size(width: int, height: int, step: Resize) -> tuple[int, int]:
    """Return the (width, height) that a picture is resized to, before any padding; raises ImageError where that is
    absurd."""
    if step.fit == "short_edge":
        assert step.size is not None  # noqa: S101 - the Spec has refused it
        short, long = sorted((width, height))
        new_long = int(step.size * long / short)
        _require_long_edge(width, height, f"a shorter side of {step.size} the longer", new_long)
        return (step.size, new_long) if width <= height else (new_long, step.size)
    if step.fit == "height":
        assert step.height is not None  # noqa: S101 - the Spec has refused it
        # In PaddleOCR's order of operations: rounding up shows every last digit.
        new_width = math.ceil(step.height * (width / height))
        if step.width is not None:
            return min(step.width, new_width), step.height
        _require_long_edge(width, height, f"a height of {step.height} the width", new_width)
        return new_width, step.height
    assert step.width is not None and step.height is not None  # noqa: S101, PT018 - the Spec has refused it
    if step.fit == "stretch":
        return step.width, step.height
    ratio = min(step.width / width, step.height / height)
    if not step.enlarge:
        ratio = min(ratio, 1.0)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def _require_long_edge(width: int, height: int, given: str, pixels: int) -> None:
    if pixels > MAX_LONG_EDGE:
        raise ImageError(f"{width}x{height} pixels: with {given} would be {pixels:,}, more than {MAX_LONG_EDGE:,}")


def resize_to(pixels: Pixels, width: int, height: int, step: Resize) -> Pixels:
    """Resize to exactly width x height in the step's convention."""
    if step.convention == "pillow":
        return resize_image(as_image(pixels), width, height, PILLOW_FILTERS[step.filter])
    return round_resized(resample(to_resized_range(as_array(pixels), step), width, height, step), step)


def resize_image(image: Image.Image, width: int, height: int, filter_: Image.Resampling) -> Image.Image:
    """Resize with Pillow, horizontally first and vertically second, whatever order the installed version prefers.

    Each pass rounds to whole levels, so the order shows. Pillow 12 always resized horizontally first; Pillow 13 starts
    with the height of tall images, which moved scores of open_nsfw by up to 0.11.
    """
    if filter_ is Image.Resampling.NEAREST:
        return image.resize((width, height), filter_)  # It picks pixels in one go: there are no passes.
    if image.mode in _PREMULTIPLIED:
        return resize_image(image.convert(_PREMULTIPLIED[image.mode]), width, height, filter_).convert(image.mode)
    if image.width != width and image.height != height:
        image = image.resize((width, image.height), filter_)
    return image.resize((width, height), filter_)


def to_resized_range(array: Array, step: Resize) -> Array:
    """Return the values to resize: as they are, or in [0, 1] where TensorFlow's convert_image_dtype is followed."""
    return array * np.float32(1 / 255) if step.rounding == "tensorflow" else array


def round_resized(values: Array, step: Resize) -> Array:
    """Bring resized values, in the range that `to_resized_range` gave them, to the dtype that `rounding` asks for."""
    if step.rounding == "none":
        return values.astype(np.float32)
    if step.rounding == "tensorflow":
        # tf.image.convert_image_dtype to uint8: value * (255 + 0.5), clipped and cut off.
        return np.clip(values * np.float32(255.5), 0, 255).astype(np.uint8)
    if values.dtype == np.uint8:
        return values
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def padding(width: int, height: int, step: Resize) -> tuple[int, int, int, int]:
    """Return (left, top, width, height): where a resized picture lies after padding, and the size then."""
    if not step.pads:
        return 0, 0, width, height
    if step.fit == "height":
        missing = (step.width or (0 if step.stride else width)) - width
        return 0, 0, width + (missing % step.stride if step.stride else missing), height
    assert step.width is not None and step.height is not None  # noqa: S101, PT018 - the Spec has refused it
    missing_x, missing_y = step.width - width, step.height - height
    if step.stride:
        missing_x, missing_y = missing_x % step.stride, missing_y % step.stride
    # YOLOv5 rounds half a pixel of padding down on the left and top.
    left, top = (missing_x // 2, missing_y // 2) if step.pad_position == "centre" else (0, 0)
    return left, top, width + missing_x, height + missing_y


def square_around(width: int, height: int, step: Resize) -> tuple[int, int, int]:
    """Return (left, top, side): where a picture lies in the square that `pad_first` pads it to."""
    side = max(width, height)
    left, top = ((side - width) // 2, (side - height) // 2) if step.pad_position == "centre" else (0, 0)
    return left, top, side


def pad_to_square(pixels: Pixels, step: Resize) -> Array:
    """Return a picture padded to a square; raises ImageError where that is absurd."""
    width, height = size_of(pixels)
    left, top, side = square_around(width, height, step)
    if side * side > MAX_SQUARE_PIXELS:
        raise ImageError(
            f"{width}x{height} pixels: padded to a square it would have {side * side / 1e6:,.0f} megapixels, more than"
            f" {MAX_SQUARE_PIXELS / 1e6:,.0f}"
        )
    memory.budget().reserve(side * side * 3)
    return _padded(as_array(pixels), step, (left, top, side, side))


def _padded(pixels: Array, step: Resize, frame: tuple[int, int, int, int]) -> Array:
    height, width, channels = pixels.shape
    left, top, full_width, full_height = frame
    out = np.full((full_height, full_width, channels), step.pad_value, pixels.dtype)
    out[top : top + height, left : left + width] = pixels
    return out


def jpeg(pixels: Pixels, step: Jpeg, image: ImageSpec) -> Pixels:
    """Encode as JPEG and decode again, both with libjpeg-turbo; the channels keep their order."""
    if image.colour == "BGR":
        return as_array(jpeg(as_array(pixels)[:, :, ::-1], step, replace(image, colour="RGB")))[:, :, ::-1]
    with _memory_file() as file:
        as_image(pixels).save(file, "JPEG", quality=step.quality, subsampling=_PILLOW_SUBSAMPLING[step.subsampling])
        file.seek(0)
        data = file.read()
    if (step.dct, step.upsampling) != ("accurate", "fancy"):
        colour = "GRAY" if image.colour == "grey" else "RGB"
        array: Array = simplejpeg.decode_jpeg(
            data, colour, fastdct=step.dct == "fast", fastupsample=step.upsampling == "plain"
        )
        return array
    decoded = Image.open(io.BytesIO(data), formats=("JPEG",))
    decoded.load()
    return decoded


def _memory_file() -> IO[bytes]:
    """Return a file in memory, with a descriptor where the system has such files.

    While Pillow encodes into a descriptor, other threads run Python; into a BytesIO, none does. In four threads that
    halves this step's time.
    """
    return os.fdopen(os.memfd_create("plimsoll"), "w+b") if sys.platform == "linux" else io.BytesIO()


def crop(pixels: Pixels, step: Crop, image: ImageSpec) -> Pixels:
    """Cut out the rectangle; raises ImageError where the picture is too small for it."""
    del image
    width, height = size_of(pixels)
    try:
        x, y = step.origin(width, height)
    except ValueError as error:
        raise ImageError(str(error)) from error
    if isinstance(pixels, Image.Image):
        return pixels.crop((x, y, x + step.width, y + step.height))
    return as_array(pixels)[y : y + step.height, x : x + step.width]


def channels(pixels: Pixels, step: Channels, image: ImageSpec) -> Array:
    """Bring the channels into `step.order`."""
    array = as_array(pixels)
    return array if step.order == image.colour else array[:, :, ::-1]


def scale(pixels: Pixels, step: Scale, image: ImageSpec) -> Array:
    """Multiply or divide, in float32."""
    del image
    values = as_array(pixels).astype(np.float32, copy=False)
    return values / np.float32(step.divisor) if step.divisor is not None else values * np.float32(step.factor)


def mean(pixels: Pixels, step: Mean, image: ImageSpec) -> Array:
    """Subtract the mean, in float32."""
    return _by_channel(np.subtract, pixels, step.values, image)


def std(pixels: Pixels, step: Std, image: ImageSpec) -> Array:
    """Divide by the standard deviation, in float32."""
    return _by_channel(np.divide, pixels, step.values, image)


def _by_channel(operation: np.ufunc, pixels: Pixels, values: tuple[float, ...], image: ImageSpec) -> Array:
    """Apply `operation` between the pixels, as float32, and one value a channel (or one for all)."""
    array = as_array(pixels)
    row = np.asarray(values, np.float32)
    if image.layout == "NCHW":
        return np.asarray(operation(array, row.reshape(-1, 1, 1), dtype=np.float32))
    # Whole rows instead of single pixels: NumPy's inner loop is then 3 x width long, not 3, and five times as fast.
    height, width, depth = array.shape
    rows = array.astype(np.float32, order="C").reshape(height, width * depth)
    operation(rows, np.resize(row, width * depth), out=rows)
    return rows.reshape(array.shape)


def layout(pixels: Pixels, step: Layout, image: ImageSpec) -> Array:
    """Move the channel axis."""
    array = as_array(pixels)
    if step.order == image.layout:
        return array
    return array.transpose(2, 0, 1) if step.order == "NCHW" else array.transpose(1, 2, 0)


def dtype(pixels: Pixels, step: Cast, image: ImageSpec) -> Array:
    """Convert; to uint8 by rounding and clipping."""
    del image
    array = as_array(pixels)
    if step.to == "uint8" and array.dtype != np.uint8:
        return np.clip(np.floor(array + 0.5), 0, 255).astype(np.uint8)
    return array.astype(step.to, copy=False)


StepFunction = Callable[[Pixels, Any, ImageSpec], Pixels]

FUNCTIONS: Mapping[type, StepFunction] = MappingProxyType(
    {
        Resize: resize,
        Jpeg: jpeg,
        Crop: crop,
        Channels: channels,
        Scale: scale,
        Mean: mean,
        Std: std,
        Layout: layout,
        Cast: dtype,
    }
)
