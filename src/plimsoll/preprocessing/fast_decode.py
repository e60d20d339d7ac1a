"""Decoding for fast and scaled preprocessing: libjpeg-turbo for JPEG, OpenCV for PNG and WebP, NumPy for BMP.

Each way is taken only where it gives the reference's pixels. All that it can't do alone, and every damaged file, goes
the reference's way, so that all implementations answer and refuse alike. `docs/fast-preprocessing.md` says what was
measured and why these libraries.

Where the first step after decoding is a resize, what a decoder can leave out is left out: `Reduced` holds the
picture before that resize.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable
from functools import cache
from types import ModuleType

import numpy as np
import simplejpeg

from plimsoll.errors import BackendMissingError, ImageError
from plimsoll.preprocessing import decode as reference_decode
from plimsoll.preprocessing import jpeg_file, memory, metadata
from plimsoll.preprocessing.decode import (
    FLIPPED_X,
    FLIPPED_Y,
    SWAPPED,
    Array,
    Reduced,
    as_array,
    check_format,
    check_size,
)
from plimsoll.spec.steps import Decode

_INSTALL = "Install it: pip install 'plimsoll-line[fast]'"

ScaleFor = Callable[[int, int], int]
"""Takes the width and height of an upright picture, returns by what the decoder may divide both: 1, 2, 4 or 8."""

_BYTES = 4
"""What a pixel takes: 3 bytes, and nearly one more in the first mean. A progressive JPEG's coefficients take 3 more."""
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2


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
    """Decode straight into `order` (RGB or BGR; a grey picture stays grey), uint8 [H, W, C]."""
    array = _decode_directly(data, step, order, None)
    if isinstance(array, Reduced):
        return as_array(array)
    return in_order(as_array(reference_decode.decode(data, step)), order)


def decode_for_resize(data: bytes, step: Decode, order: str, scale_for: ScaleFor | None) -> Reduced:
    """Decode a picture whose next step is a resize. Where Pillow decoded it, it stays Pillow's, RGB: Pillow can shrink
    it without a copy."""
    reduced = _decode_directly(data, step, order, scale_for)
    if reduced is not None:
        return reduced
    picture = reference_decode.as_image(reference_decode.decode(data, step))
    return Reduced(picture, picture.size)


def in_order(rgb: Array, order: str) -> Array:
    """Return RGB pixels in `order`; grey ones as they are."""
    if rgb.shape[2] == 1 or order == "RGB":
        return rgb
    swapped: Array = opencv().cvtColor(rgb, opencv().COLOR_RGB2BGR)  # nine times as fast as NumPy
    return swapped


def _decode_directly(data: bytes, step: Decode, order: str, scale_for: ScaleFor | None) -> Reduced | None:
    """Return what one of the fast ways gives, or None where the reference's is to be taken."""
    format_ = check_format(data, step)
    if step.colour_profile == "srgb" and metadata.icc_profile(data, format_):
        return None
    if format_ == "jpeg":
        return _decode_jpeg(data, step, order, scale_for)
    if step.colour != "RGB" or format_ not in _PLAIN or (size := _PLAIN[format_](data, step)) is None:
        return None
    check_size(*size, step)
    if step.exif_orientation and reference_decode.orientation(data) != 1:
        return None
    memory.budget().reserve(_BYTES * size[0] * size[1])
    pixels = _bmp(data, *size, order) if format_ == "bmp" else _with_opencv(data, size, order)
    return None if pixels is None else Reduced(pixels, size)


def _decode_jpeg(data: bytes, step: Decode, order: str, scale_for: ScaleFor | None) -> Reduced | None:
    try:
        header = jpeg_file.read_header(data)
        if header is None or header.process not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
            return None
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space in {"CMYK", "YCCK"} or (step.colour == "grey" and space != "Gray"):
            return None
        check_size(width, height, step)
        turn = reference_decode.orientation(data) if step.exif_orientation else 1
        upright = (height, width) if turn in SWAPPED else (width, height)
        scale = 1 if scale_for is None else scale_for(*upright)
        rows, columns = -(-height // scale), -(-width // scale)
        memory.budget().reserve(
            len(data) + _BYTES * rows * columns + (3 * height * width if header.process == _PROGRESSIVE else 0)
        )
        grey = step.colour == "grey"
        # NumPy asks the system for large pages: 45 instead of 56 ms for 12 megapixels.
        buffer = np.empty((rows, columns, 1 if grey else 3), np.uint8)
        pixels: Array = simplejpeg.decode_jpeg(
            data,
            "GRAY" if grey else order,
            fastdct=step.dct == "fast",
            fastupsample=step.upsampling == "plain",
            min_height=rows if scale > 1 else 0,
            min_width=columns if scale > 1 else 0,
            buffer=buffer,
        )
    except ImageError:
        raise
    except (ValueError, RuntimeError, KeyError):  # KeyError: a sampling that simplejpeg has no name for
        return None
    if pixels.shape[:2] != (rows, columns):
        return None
    # The last squares of the stored rows and columns may reach beyond the picture; mirrored, they are the first.
    x = width - scale * columns if turn in FLIPPED_X else 0
    y = height - scale * rows if turn in FLIPPED_Y else 0
    return Reduced(_turned(pixels, turn), upright, scale, (y, x) if turn in SWAPPED else (x, y))


def _turned(pixels: Array, orientation: int) -> Array:
    """Undo an EXIF orientation: mirror the stored columns and rows, then exchange the axes."""
    cv2 = opencv()
    x, y = orientation in FLIPPED_X, orientation in FLIPPED_Y
    channels = pixels.shape[2]
    if orientation in SWAPPED:
        turn = {(False, True): cv2.ROTATE_90_CLOCKWISE, (True, False): cv2.ROTATE_90_COUNTERCLOCKWISE}.get((x, y))
        pixels = cv2.rotate(pixels, turn) if turn is not None else cv2.transpose(cv2.flip(pixels, -1) if x else pixels)
    elif x or y:
        pixels = cv2.flip(pixels, -1 if x and y else 1 if x else 0)
    return pixels.reshape(*pixels.shape[:2], channels)


def _with_opencv(data: bytes, size: tuple[int, int], order: str) -> Array | None:
    cv2 = opencv()
    try:
        pixels: Array | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        return None
    return _from_bgr(pixels, order) if pixels is not None and pixels.shape == (size[1], size[0], 3) else None


def _from_bgr(pixels: Array, order: str) -> Array:
    return in_order(pixels, "BGR" if order == "RGB" else "RGB")  # the same exchange as from RGB


def _plain_webp(data: bytes, step: Decode) -> tuple[int, int] | None:
    """Return (width, height) of a WebP file with one picture and no transparency (RFC 9649); None for others."""
    kind = data[12:16]
    if (kind == b"VP8X" and data[20] & 0x12) or (kind == b"VP8L" and data[24:25] and data[24] & 0x10):
        return None  # animated or with alpha
    del step
    return reference_decode.webp_canvas(data) if int.from_bytes(data[4:8], "little") + 8 <= len(data) else None


_PNG_CHUNKS = frozenset(
    (b"IHDR", b"IDAT", b"IEND", b"pHYs", b"sRGB", b"gAMA", b"cHRM", b"iCCP", b"tEXt", b"tIME", b"eXIf", b"bKGD")
)
_LARGE_TEXT = 65_536


def _plain_png(data: bytes, step: Decode) -> tuple[int, int] | None:
    """Return (width, height) of a PNG file (ISO 15948) of 8-bit RGB, or RGBA whose alpha is dropped, of well-known
    chunks that are whole and small, one picture; None for others."""
    at, size = 8, None
    for _ in range(metadata.MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 12 + length
        if kind not in _PNG_CHUNKS or end > len(data) or (size is None) != (kind == b"IHDR"):
            return None
        if kind == b"IHDR":
            depth, colour = data[at + 16 : at + 18].ljust(2, b"\0")
            if length != 13 or depth != 8 or (colour != 2 and (colour, step.alpha) != (6, "drop")):
                return None
            size = int.from_bytes(data[at + 8 : at + 12]), int.from_bytes(data[at + 12 : at + 16])
        elif kind != b"IDAT" and (
            length > _LARGE_TEXT or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end])
        ):
            return None
        if kind == b"IEND":
            return size
        at = end
    return None


_BMP_HEADER = 54


def _plain_bmp(data: bytes, step: Decode) -> tuple[int, int] | None:
    """Return (width, height) of a BMP file of 24 bits a pixel, uncompressed, rows from the bottom, with the usual
    header of 40 bytes and nothing before the pixels; None for others."""
    del step
    width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
    planes, bits = (int.from_bytes(data[at : at + 2], "little") for at in (26, 28))
    offset, header, compression = (int.from_bytes(data[at : at + 4], "little") for at in (10, 14, 30))
    plain = (offset, header, planes, bits, compression) == (_BMP_HEADER, 40, 1, 24, 0)
    if not plain or width < 1 or height < 1 or len(data) < offset + height * _bmp_row(width):
        return None
    return width, height


def _bmp_row(width: int) -> int:
    return (3 * width + 3) // 4 * 4


def _bmp(data: bytes, width: int, height: int, order: str) -> Array:
    rows = np.frombuffer(data, np.uint8, height * _bmp_row(width), _BMP_HEADER).reshape(height, -1)
    upside_down = rows[:, : 3 * width].reshape(height, width, 3)
    pixels: Array = opencv().flip(upside_down, 0)
    return _from_bgr(pixels, order)


_PLAIN: dict[str, Callable[[bytes, Decode], tuple[int, int] | None]] = {
    "webp": _plain_webp,
    "png": _plain_png,
    "bmp": _plain_bmp,
}
