"""TIFF files by their first directory (TIFF 6.0; BigTIFF): which of them Pillow reads as the picture they hold.

Each refusal here is a variant that Pillow 12 or 13 refuses with less to say, or reads as another picture: compared with
tifffile over byte orders, bits, planes, predictors, compressions, tiles and kinds of alpha.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

from PIL import Image, UnidentifiedImageError

from plimsoll.errors import ImageError

Tags = Mapping[int, tuple[int, ...]]

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT, _SUBSAMPLING = 277, 284, 322, 323, 339, 530
_DNG_VERSION = 50706
TAGS = frozenset(
    {
        _SUBFILE,
        _WIDTH,
        _HEIGHT,
        _BITS,
        _COMPRESSION,
        _PHOTOMETRIC,
        _SAMPLES,
        _PLANAR,
        _TILE_WIDTH,
        _TILE_HEIGHT,
        _SAMPLE_FORMAT,
        _SUBSAMPLING,
        _DNG_VERSION,
    }
)
_WHITE_IS_ZERO, _YCBCR = 0, 6
_UNCOMPRESSED, _SEPARATE_PLANES = 1, 2
_SIGNED, _FLOAT = 2, 3
_PREVIEW = 1
_NAMES = {34661: "JBIG", 34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 34887: "LERC", 50002: "JPEG XL"}
"""Compressions that Pillow doesn't read."""
_DEEP = 16

_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Field types that hold whole numbers, as `struct` calls them."""
_MOST_ENTRIES, _MOST_VALUES = 4096, 16

_STORE = "Store it as PNG, or as TIFF with 8 or 16 bits a sample, black at zero, samples of a pixel side by side."


def read_tags(data: bytes) -> Tags:
    """Return the tags of the first directory that `check` looks at; empty where it can't be read."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        if struct.unpack_from(order + "H", data, 2)[0] == 43:
            return _directory(data, order, struct.unpack_from(order + "Q", data, 8)[0], large=True)
        return _directory(data, order, struct.unpack_from(order + "I", data, 4)[0], large=False)
    except (struct.error, OverflowError, ValueError):
        return {}


def _directory(data: bytes, order: str, at: int, *, large: bool) -> Tags:
    count_format, entry, size = ("Q", "HHQ", 20) if large else ("H", "HHI", 12)
    count = struct.unpack_from(order + count_format, data, at)[0]
    at += struct.calcsize(count_format)
    tags: dict[int, tuple[int, ...]] = {}
    for start in range(at, at + size * min(count, _MOST_ENTRIES), size):
        tag, kind, values = struct.unpack_from(order + entry, data, start)
        if tag not in TAGS or kind not in _TYPES:
            continue
        field = order + min(values, _MOST_VALUES) * _TYPES[kind]
        inside = start + struct.calcsize("=" + entry)
        if values * struct.calcsize("=" + _TYPES[kind]) > size - (inside - start):
            inside = struct.unpack_from(order + ("Q" if large else "I"), data, inside)[0]
        tags[tag] = struct.unpack_from(field, data, inside)
    return tags


def check(tags: Tags) -> None:
    """Raise ImageError for a TIFF that Pillow doesn't read, or reads as another picture."""
    if _DNG_VERSION in tags:
        raise ImageError("a camera raw file (DNG)", "Store it as JPEG or PNG.")
    if is_preview(tags):
        raise ImageError("a TIFF whose first picture is a preview, as in camera raw files", "Store it as JPEG or PNG.")
    bits = _first(tags, _BITS, 1)
    formats = tags.get(_SAMPLE_FORMAT, (1,))
    if _FLOAT in formats:
        raise ImageError(f"a TIFF of {bits}-bit floating-point samples: their range is not known", _STORE)
    if _SIGNED in formats:
        raise ImageError(f"a TIFF of signed {bits}-bit samples: their range is not known", _STORE)
    if bits not in {1, 2, 4, 8, _DEEP}:
        raise ImageError(f"a TIFF of {bits}-bit samples: their range is not known", _STORE)
    photometric, uncompressed = _first(tags, _PHOTOMETRIC, 0), _first(tags, _COMPRESSION, 1) == _UNCOMPRESSED
    if bits == _DEEP and photometric == _WHITE_IS_ZERO:
        raise ImageError("a TIFF of 16 bits whose white is zero", _STORE)
    if (
        bits == _DEEP
        and uncompressed
        and _first(tags, _SAMPLES, 1) > 1
        and _first(tags, _PLANAR, 1) == _SEPARATE_PLANES
    ):
        raise ImageError("an uncompressed TIFF of 16 bits with a plane for each colour", _STORE)
    if photometric == _YCBCR and uncompressed and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        raise ImageError("an uncompressed TIFF with subsampled YCbCr colours", _STORE)


def open_picture(data: bytes) -> Image.Image:
    """Open a TIFF, not decoded yet; raises ImageError with the kind of the file where Pillow doesn't know it."""
    try:
        return Image.open(io.BytesIO(data), formats=("TIFF",))
    except UnidentifiedImageError as error:
        tags = read_tags(data)
        if not tags:
            raise
        compression = _first(tags, _COMPRESSION, _UNCOMPRESSED)
        raise ImageError(
            f"a TIFF that is damaged or of a kind that can't be read: {_first(tags, _SAMPLES, 1)} samples of"
            f" {_first(tags, _BITS, 1)} bits, photometric interpretation {_first(tags, _PHOTOMETRIC, 0)}, compression"
            f" {_NAMES.get(compression, compression)}",
            _STORE,
        ) from error


def is_preview(tags: Tags) -> bool:
    """Tell whether a page is a smaller copy of another."""
    return bool(_first(tags, _SUBFILE, 0) & _PREVIEW)


def tile_size(tags: Tags) -> tuple[int, int]:
    """Return the (width, height) of a tile, each of which is decoded whole; (1, 1) where there are none."""
    return _first(tags, _TILE_WIDTH, 1), _first(tags, _TILE_HEIGHT, 1)


def _first(tags: Tags, tag: int, otherwise: int) -> int:
    values = tags.get(tag, ())
    return values[0] if values else otherwise
