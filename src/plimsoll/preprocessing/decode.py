"""From a picture file to 8-bit pixels with Pillow: the reference.

A format is told from a file's first bytes, never from its name, and a picture's size is checked before it is decoded.
What Pillow leaves open is decided here: 16-bit samples keep their high byte, transparency is dropped or composited as
the Spec says, EXIF orientation is followed only on request, and a truncated file is an error.

Between steps, pixels are Pillow's `Image` or a NumPy array, height x width x channels.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import avif_file, jpeg_file, memory, metadata, pillow_file, tiff_file
from plimsoll.preprocessing.colour_profile import to_srgb
from plimsoll.preprocessing.formats import KINDS, recognise, sniff
from plimsoll.spec.steps import Decode, ImageFormat
from plimsoll.system import files

Array = NDArray[Any]


@dataclass(frozen=True)
class Reduced:
    """A picture before its first resize, of which only the means of small squares may be left."""

    pixels: Image.Image | Array
    """The means. An `Image` is RGB; an array is in the order that it was decoded for."""
    size: tuple[int, int]
    """(width, height) of the whole picture, upright."""
    mean: int = 1
    """Each value stands for so many pixels in each direction."""
    origin: tuple[int, int] = (0, 0)
    """(x, y) in the picture's pixels where the first square begins."""


Pixels = Image.Image | Array | Reduced

MAX_FILE_BYTES = 200_000_000
"""A file larger than this is not read; 50 megapixels uncompressed are 150 MB."""

_TOO_LARGE = "Is it a picture? Store it smaller."
_WEBP_HEADER = 30
PILLOW_BYTES = 4
"""Pillow holds 4 bytes a pixel, of RGB too."""

ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes an EXIF orientation."""

SWAPPED = frozenset({5, 6, 7, 8})
FLIPPED_X = frozenset({2, 3, 7, 8})
FLIPPED_Y = frozenset({3, 4, 6, 7})
"""Which EXIF orientations exchange the axes, and then mirror the stored columns and rows (Exif 2.32, tag 0x0112)."""

_DEEP_GREY = {"I;16", "I;16L", "I;16B", "I;16N"}


def read(source: bytes | Path) -> bytes:
    """Return a picture file's bytes; raises ImageError where it can't be read or is too large."""
    if isinstance(source, bytes):
        if len(source) > MAX_FILE_BYTES:
            raise ImageError(f"the file is larger than {MAX_FILE_BYTES // 1_000_000} MB", _TOO_LARGE)
        return source
    try:
        return files.read_bytes(source, MAX_FILE_BYTES, regular=True)
    except OSError as error:
        hint = _TOO_LARGE if error.errno == errno.EFBIG else ""
        raise ImageError(f"can't read the file: {error.strerror}", hint) from error


def decode(data: bytes, step: Decode) -> Pixels:
    """Decode a file's bytes to 8-bit pixels, RGB or grey; of an animation, or of several pages, the first.

    Raises ImageError for a format that is not accepted, for more pixels than allowed, and for damaged or truncated
    files.
    """
    format_ = check_format(data, step)
    with opened(data, format_, step) as image:
        if format_ == "jpeg" and (step.dct, step.upsampling) != ("accurate", "fancy"):
            return _decode_jpeg_with_options(image, data, step)
        image.load()
        return finished(image, data, format_, step)


@contextmanager
def opened(data: bytes, format_: ImageFormat, step: Decode, *, frames: bool = False) -> Iterator[Image.Image]:
    """Open a file whose format is known, without what isn't pixels, and check its size before anything is decoded."""
    with (
        pillow_file.translate_errors(),
        pillow_file.accept_truncated(step.truncated == "fill"),
        pillow_file.accept_size(step.max_megapixels * 1e6),
        pillow_file.open_picture(_pixels_only(data, format_, frames=frames), format_) as image,
    ):
        check_size(*image.size, step)
        memory.budget().reserve(PILLOW_BYTES * image.width * image.height)
        yield image


def _pixels_only(data: bytes, format_: ImageFormat, *, frames: bool = False) -> bytes:
    """Return a file without its metadata where their damage could stop Pillow; a JPEG that lacks nothing but its end
    marker gets it."""
    if format_ == "png":
        return metadata.png_without_metadata(data, frames=frames)
    if format_ == "jpeg" and (header := jpeg_file.read_header(data)) is not None:
        end = jpeg_file.END_OF_IMAGE if jpeg_file.lacks_only_its_end(data, header) else b""
        return jpeg_file.without_metadata(data, header) + end
    return data


def finished(image: Image.Image, data: bytes, format_: ImageFormat, step: Decode) -> Image.Image:
    """Turn a loaded picture of a file into what the decode step gives."""
    turn = _orientation(image, data, format_) if step.exif_orientation else 1
    profile = b""
    if step.colour_profile == "srgb":
        profile = metadata.icc_profile(data, format_) or image.info.get("icc_profile") or b""
    return converted(image, step, turn, profile)


def converted(image: Image.Image, step: Decode, orientation: int, profile: bytes) -> Image.Image:
    """Turn a loaded picture of any mode into mode RGB or L: upright by its EXIF orientation, and from its ICC profile
    to sRGB where the Spec asks for it."""
    if (method := _UPRIGHT.get(orientation)) is not None:
        image = image.transpose(method)
    image = _to_eight_bits(image)
    if step.colour_profile == "srgb":
        image = to_srgb(image, profile)
    return _to_rgb_or_grey(image, step)


def orientation(data: bytes, *, fill: bool = False) -> int:
    """Return the EXIF orientation that decoding with `exif_orientation` undoes, 1 to 8.

    It is 1 where there is none, or none that can be read; and for TIFF, which Pillow turns while it reads, and HEIC,
    whose turning is a part of the picture. `fill` accepts a truncated file. Raises ImageError.
    """
    format_ = sniff(data)
    if format_ != "avif":
        return metadata.orientation(data, format_) if format_ is not None else 1
    with (
        pillow_file.translate_errors(),
        pillow_file.accept_truncated(fill),
        pillow_file.open_picture(data, format_) as image,
    ):
        return _orientation(image, data, format_)


def _orientation(image: Image.Image, data: bytes, format_: ImageFormat) -> int:
    """AVIF states it as a property of the picture, which Pillow passes on as EXIF."""
    if format_ != "avif":
        return metadata.orientation(data, format_)
    value = image.getexif().get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def sample_pictures(step: Decode) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each picture that comes with Plimsoll and whose format the Spec accepts, by name;
    they are JPEG, PNG and WebP, CC0."""
    entries = resources.files("plimsoll.preprocessing").joinpath("samples").iterdir()
    for entry in sorted(entries, key=lambda entry: entry.name):
        if not entry.name.endswith(".md") and sniff(data := entry.read_bytes()) in step.formats:
            yield entry.name, data


def check_format(data: bytes, step: Decode) -> ImageFormat:
    """Return a file's format; raises ImageError for formats that the Spec doesn't accept, WebP canvases that are too
    large, and JPEG files of too many scans."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    format_ = sniff(data)
    allowed = ", ".join(step.formats)
    if format_ is None:
        kind = recognise(data)
        if kind is not None:
            raise ImageError(f"{kind.with_article}, which can't be read; accepted formats: {allowed}", kind.advice)
        raise ImageError(f"not a picture: it starts with {data[:8]!r}; accepted formats: {allowed}")
    if format_ not in step.formats:
        article = "an" if format_ == "avif" else "a"
        raise ImageError(f"{article} {format_} file; accepted formats: {allowed}", KINDS[format_].advice)
    if format_ == "webp" and (size := webp_canvas(data)) is not None:
        check_size(*size, step)  # Pillow allocates the whole canvas as soon as it opens a WebP file.
    if format_ == "jpeg":
        _check_jpeg(data, step)
    if format_ == "tiff":
        tags = tiff_file.read_tags(data)
        tiff_file.check(tags)
        check_size(*tiff_file.tile_size(tags), step)  # libtiff allocates a whole tile.
    if format_ == "avif" and (size := avif_file.check(data, step.max_megapixels * 1e6)) is not None:
        check_size(*size, step)
    return format_


def check_size(width: int, height: int, step: Decode) -> None:
    """Raise ImageError for a picture without pixels or with more than the Spec allows."""
    if width < 1 or height < 1:
        raise ImageError(f"the picture has no pixels ({width}x{height})")
    if width * height > step.max_megapixels * 1e6:
        raise ImageError(
            f"{width}x{height} = {width * height / 1e6:,.1f} megapixels; the limit is {step.max_megapixels:g}",
            pillow_file.LARGER,
        )


def as_array(pixels: Pixels) -> Array:
    """Return height x width x channels, uint8 for an `Image`; a grey picture has one channel."""
    array = np.asarray(pixels.pixels if isinstance(pixels, Reduced) else pixels)
    return array[:, :, np.newaxis] if array.ndim == 2 else array


def as_image(pixels: Pixels) -> Image.Image:
    """Return uint8 pixels with 1 or 3 channels as an `Image`; the colour order stays."""
    if isinstance(pixels, Image.Image):
        return pixels
    if isinstance(pixels, Reduced):
        return as_image(pixels.pixels)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def size_of(pixels: Pixels) -> tuple[int, int]:
    """Return (width, height) in pixels."""
    if isinstance(pixels, (Image.Image, Reduced)):
        return pixels.size
    return pixels.shape[1], pixels.shape[0]


def _check_jpeg(data: bytes, step: Decode) -> None:
    header = jpeg_file.read_header(data)
    if header is None or not jpeg_file.has_one_scan(data, header):
        jpeg_file.check_scans(data)  # It looks at every byte.
    if header is not None:
        jpeg_file.check(header)
        check_size(header.width, header.height, step)


def webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the first chunk of a WebP file (RFC 9649, sections 2.5 to 2.7), or None if it is cut
    short."""
    if len(data) < _WEBP_HEADER:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _to_rgb_or_grey(image: Image.Image, step: Decode) -> Image.Image:
    if step.alpha == "composite" and image.has_transparency_data:
        foreground = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*step.background, 255)), foreground)
    if image.mode in {"P", "PA"} and step.colour == "grey":
        image = image.convert("RGB")  # A palette's transparency colour must not become a grey level.
    mode = "L" if step.colour == "grey" else "RGB"
    return image if image.mode == mode else image.convert(mode)


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


def _decode_jpeg_with_options(header: Image.Image, data: bytes, step: Decode) -> Pixels:
    """Decode a JPEG with another cosine transform or chroma filter than Pillow lets one choose; the same libjpeg-turbo
    does it."""
    if header.mode == "CMYK":
        raise ImageError(
            "a CMYK JPEG: dct and upsampling can be chosen for grey and YCbCr files only",
            "Leave dct and upsampling of the decode step at their defaults.",
        )
    end = jpeg_file.END_OF_IMAGE if step.truncated == "fill" else b""
    array = simplejpeg.decode_jpeg(
        _pixels_only(data, "jpeg") + end,
        "GRAY" if step.colour == "grey" else "RGB",
        fastdct=step.dct == "fast",
        fastupsample=step.upsampling == "plain",
        strict=step.truncated == "error",
    )
    return finished(as_image(array), data, "jpeg", step)
