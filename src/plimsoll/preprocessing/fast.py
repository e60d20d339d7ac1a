"""Fast preprocessing: libjpeg-turbo, OpenCV, and whole numbers until the last moment.

The same steps as `plimsoll.preprocessing.reference` and nearly the same pixels: `docs/fast-preprocessing.md` states the
difference of each on real photos. Used only on request. Pictures are uint8 arrays, height x width x channels,
throughout; OpenCV is imported with the first picture, and runs each call in one thread because pictures are already
spread over threads.

Scaled preprocessing is the same with one step more: `decoder_scale` says by how much a JPEG decoder may already shrink
a picture that is resized next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import reference
from plimsoll.preprocessing.affine import PIXEL_STEPS, Affine, Normalization
from plimsoll.preprocessing.decode import Array, Pixels, Reduced, as_array, as_image, size_of
from plimsoll.preprocessing.fast_decode import in_order, opencv
from plimsoll.preprocessing.shrink import can_shrink, mean_before, shrink
from plimsoll.spec.steps import Cast, Crop, ImageSpec, Jpeg, Resize, Step

_SCALES = (8, 4, 2)
"""libjpeg-turbo also gives 3/8, 5/8, 6/8 and 7/8: no faster than the next larger of these, and no means of squares."""
_LEAST_FITTED, _LEAST_OTHER = 2.0, 4.0
"""How many times as large as the result a picture stays at least when its decoder shrinks it: where taps are fitted to
the means, and where the step's own filter takes the means for pixels."""


def decoder_scale(width: int, height: int, step: Resize, least_fitted: float = _LEAST_FITTED) -> int:
    """Return by what both sides of a JPEG file's picture may be divided while it is decoded: 1, 2, 4 or 8."""
    if step.pad_first:
        return 1
    out_width, out_height = reference.resized_size(width, height, step)
    ratio = min(width / out_width, height / out_height)
    if _is_fitted(step) and can_shrink((width, height), out_width, out_height):
        least = least_fitted
    elif step.convention == "pillow" and step.filter in ("bicubic", "lanczos", "area"):
        least = _LEAST_OTHER
    else:
        return 1
    return next((scale for scale in _SCALES if ratio >= least * scale), 1)


def resize(pixels: Pixels, step: Resize, image: ImageSpec) -> Pixels:
    """Resize with OpenCV where it has the step's arithmetic or comes near it; with the reference where it doesn't.

    Takes what `fast_decode.decode_for_resize` gives, or an array in the order of `image`, and returns an array in that
    order.
    """
    source = pixels if isinstance(pixels, Reduced) else Reduced(as_array(pixels), size_of(pixels))
    if step.pad_first:
        square = reference.pad_to_square(_in_order(source.pixels, image.colour), step)
        source = Reduced(square, size_of(square))
    if reference.resized_size(*source.size, step) == source.size:
        return reference.resize_to_fit(_in_order(source.pixels, image.colour), step, _resize_array)
    return reference.resize_to_fit(source, step, partial(_resize_to, order=image.colour))


def _in_order(pixels: Image.Image | Array, order: str) -> Array:
    return in_order(as_array(pixels), order) if isinstance(pixels, Image.Image) else pixels


def _is_fitted(step: Resize) -> bool:
    return step.antialiased and step.filter == "bilinear" and step.rounding == "nearest"


def _resize_to(source: Pixels, width: int, height: int, step: Resize, order: str) -> Array:
    assert isinstance(source, Reduced)  # noqa: S101 - `resize` gives nothing else
    pillow = isinstance(source.pixels, Image.Image) and step.convention == "pillow"
    if _is_fitted(step) and can_shrink(source.size, width, height):
        mean = mean_before(min(source.size[0] / width, source.size[1] / height))
        if isinstance(source.pixels, Image.Image) and mean > 1:
            source = Reduced(
                source.pixels.reduce(mean), source.size, mean
            )  # Pillow's means, without a copy of the whole
        if source.mean > 1 or not pillow:
            return shrink(opencv(), _in_order(source.pixels, order), source, width, height)
    if source.mean > 1:
        return _resize_means(source, width, height, step)
    if pillow:
        return _in_order(as_image(reference.resize_to(source.pixels, width, height, step)), order)
    return _resize_array(_in_order(source.pixels, order), width, height, step)


def _resize_means(source: Reduced, width: int, height: int, step: Resize) -> Array:
    """Resize means as if they were pixels, with the step's own filter of Pillow."""
    image = as_image(source.pixels)
    (x, y), (source_width, source_height) = source.origin, source.size
    box = (-x / source.mean, -y / source.mean, (source_width - x) / source.mean, (source_height - y) / source.mean)
    return as_array(image.resize((width, height), reference.PILLOW_FILTERS[step.filter], box))


def _resize_array(pixels: Pixels, width: int, height: int, step: Resize) -> Array:
    array = as_array(pixels)
    shrinks = width <= array.shape[1] and height <= array.shape[0]
    grows = width >= array.shape[1] and height >= array.shape[0]
    flag = _opencv_flag(step, shrinks=shrinks, antialiased=step.antialiased and not grows)
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
        # altogether. So do those of OpenCV before 5 where Pillow's convention enlarges.
        return "INTER_NEAREST_EXACT" if step.convention == "pillow" and shrinks else None
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


FUNCTIONS: Mapping[type, Callable[[Pixels, Any, ImageSpec], Pixels]] = MappingProxyType(
    {Resize: resize, Jpeg: jpeg, Crop: reference.crop}
)
"""The function of each step on pixels; all other steps become one `Normalize`."""
