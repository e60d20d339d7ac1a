"""Decode a picture file with Pillow: the reference.

What Pillow leaves open is decided here: 16-bit samples keep their high byte, transparency is dropped or composited as
the Spec says, EXIF orientation is followed only if asked for, and a truncated file is an error.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from plimsoll.errors import ImageError, PlimsollError
from plimsoll.preprocessing.formats import admit, check_size, sniff
from plimsoll.preprocessing.pixels import Pixels, as_image
from plimsoll.spec.steps import Decode

LARGE_PIXELS = 25_000_000
_one_large_at_a_time = threading.Semaphore(1)
"""A picture of 50 megapixels takes up to 0.6 GB while it is decoded, so those wait for one another."""

_WITH_ORIENTATION = ("JPEG", "PNG", "WEBP", "GIF")
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""Without any of these in a PNG file, no chunk of it tells an orientation."""

_DEEP_GREY = {"I;16", "I;16L", "I;16B", "I;16N"}


def decode(data: bytes, step: Decode) -> Pixels:
    """Decode a file's bytes to 8-bit pixels, RGB or grey.

    Raises ImageError for a format that is not accepted, for more pixels than allowed, and for damaged or truncated
    files.
    """
    format_ = admit(data, step)
    with translated(), Image.open(io.BytesIO(data), formats=_plugins(format_)) as image:
        check_size(*image.size, step)
        with _room_for(image), _filling(step.truncated == "fill"):
            if format_ == "jpeg" and (step.dct, step.upsampling) != ("accurate", "fancy"):
                return _decode_jpeg_as_asked(image, data, step)
            image.load()
            return _finish(image, step)


@contextmanager
def translated() -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError; hostile files make Pillow raise nearly every built-in
    exception."""
    try:
        yield
    except PlimsollError:
        raise
    except MemoryError as error:
        raise ImageError("the picture needs more memory than there is") from error
    except UnidentifiedImageError as error:  # whose text names an object in memory
        raise ImageError("can't be decoded: it begins like a picture, and does not go on like one") from error
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise ImageError(f"can't be decoded: {text}") from error


def orientation(data: bytes, *, fill: bool = False) -> int:
    """Return the orientation that following it would undo, 1 to 8; 1 where there is none, and for TIFF, which Pillow
    turns while it reads.

    `fill` accepts a truncated file. Raises ImageError.
    """
    format_ = sniff(data)
    if format_ in {"bmp", "tiff"} or (format_ == "png" and not any(mark in data for mark in _PNG_ORIENTATION)):
        return 1  # To be sure of a PNG file, Pillow would decode all of it.
    with translated(), _filling(fill), Image.open(io.BytesIO(data), formats=_WITH_ORIENTATION) as image:
        value = image.getexif().get(0x0112, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _plugins(format_: str) -> tuple[str, ...]:
    return (format_.upper(),)


@contextmanager
def _room_for(image: Image.Image) -> Iterator[None]:
    if image.width * image.height <= LARGE_PIXELS:
        yield
    else:
        with _one_large_at_a_time:
            yield


def _finish(image: Image.Image, step: Decode) -> Image.Image:
    """Turn a loaded picture of any mode into mode RGB or L."""
    if step.exif_orientation:
        image = ImageOps.exif_transpose(image)
    image = _to_eight_bits(image)
    if step.alpha == "composite" and image.has_transparency_data:
        foreground = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*step.background, 255)), foreground)
    if image.mode in {"P", "PA"} and step.colour == "grey":
        image = image.convert("RGB")  # A palette's transparency colour must not become a grey level.
    wanted = "L" if step.colour == "grey" else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey; Pillow's own conversion would clip all above 255 to white."""
    if image.mode in _DEEP_GREY:
        deep = np.asarray(image).astype(np.uint16)
        high = Image.fromarray((deep >> 8).astype(np.uint8))
        if "transparency" in image.info:
            high.putalpha(Image.fromarray(np.where(deep == image.info["transparency"], 0, 255).astype(np.uint8)))
        return high
    if image.mode in {"I", "F"}:
        raise ImageError(
            f"32-bit samples (mode {image.mode}): their range is not known",
            "Store the picture with 8 or 16 bits a sample.",
        )
    return image


def _decode_jpeg_as_asked(header: Image.Image, data: bytes, step: Decode) -> Pixels:
    """Decode a JPEG with another cosine transform or chroma filter than Pillow lets one choose; the same libjpeg-turbo
    does it."""
    if header.mode == "CMYK":
        raise ImageError(
            "a CMYK JPEG: dct and upsampling can be chosen for grey and YCbCr files only",
            "Leave dct and upsampling of the decode step at their defaults.",
        )
    if step.truncated == "fill":
        data += b"\xff\xd9"
    array = simplejpeg.decode_jpeg(
        data,
        "GRAY" if step.colour == "grey" else "RGB",
        fastdct=step.dct == "fast",
        fastupsample=step.upsampling == "plain",
        strict=step.truncated == "error",
    )
    image = as_image(array)
    if step.exif_orientation:
        image.getexif()[0x0112] = orientation(data)
        image = ImageOps.exif_transpose(image)
    return image


class _PerThread:
    """A truth value of each thread's own, to stand in for Pillow's global LOAD_TRUNCATED_IMAGES."""

    def __init__(self, otherwise: bool) -> None:
        self.otherwise = otherwise
        self.here = threading.local()

    def __bool__(self) -> bool:
        return getattr(self.here, "value", self.otherwise)


_install = threading.Lock()


@contextmanager
def _filling(fill: bool) -> Iterator[None]:
    """Let Pillow return the readable part of a truncated file, in this thread only.

    Pillow has one switch for the whole process. Spec by Spec, and beside other users of Pillow, that is too coarse:
    so on first need the switch becomes a value that each thread answers for itself.
    """
    if not fill:
        yield
        return
    with _install:
        switch: Any = ImageFile.LOAD_TRUNCATED_IMAGES
        if not isinstance(switch, _PerThread):
            switch = _PerThread(switch)
            ImageFile.LOAD_TRUNCATED_IMAGES = switch
    switch.here.value = True
    try:
        yield
    finally:
        del switch.here.value
