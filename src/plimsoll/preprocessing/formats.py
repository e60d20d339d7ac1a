"""Tell a picture's format from its first bytes, never from its name, and check its size before anything is decoded."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from plimsoll.errors import ImageError
from plimsoll.spec.steps import Decode, ImageFormat
from plimsoll.system import files

MAX_FILE_BYTES = 200_000_000
"""A file larger than this is not read; 50 megapixels uncompressed are 150 MB."""

MAX_JPEG_SCANS = 100
"""Progressive JPEGs have about ten scans. Thousands in a small file keep a decoder busy for minutes (libjpeg's known
attack)."""

_RIFF_HEADER = 30
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""FF and a code that is not stuffing (00), a restart (D0 to D7) or a fill byte (FF): none of these ends a scan."""
_TOO_LARGE = "Is it a picture? Store it smaller."
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA


def read(source: bytes | Path) -> bytes:
    """Return a picture file's bytes; raises ImageError where it can't be read or is too large."""
    if isinstance(source, bytes):
        if len(source) > MAX_FILE_BYTES:
            raise ImageError(f"the file is larger than {MAX_FILE_BYTES // 1_000_000} MB", _TOO_LARGE)
        return source
    try:
        return files.read_bytes(source, MAX_FILE_BYTES)
    except OSError as error:
        hint = _TOO_LARGE if error.errno == errno.EFBIG else ""
        raise ImageError(f"can't read the file: {error.strerror}", hint) from error


def sniff(data: bytes) -> ImageFormat | None:
    """Return the format that the first bytes announce, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"BM"):
        return "bmp"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    return None


def admit(data: bytes, step: Decode) -> ImageFormat:
    """Return the format of a picture that the Spec accepts; raises ImageError for all others."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    found = sniff(data)
    allowed = ", ".join(step.formats)
    if found is None:
        raise ImageError(f"not a picture: it starts with {data[:8]!r}; accepted formats: {allowed}")
    if found not in step.formats:
        raise ImageError(
            f"a {found} file; accepted formats: {allowed}",
            f'Add "{found}" to `formats` of the decode step to accept it.',
        )
    if found == "webp" and (size := _webp_canvas(data)) is not None:
        check_size(*size, step)  # Pillow allocates the whole canvas as soon as it opens a WebP file.
    if found == "jpeg" and data.count(b"\xff\xda") > MAX_JPEG_SCANS and _jpeg_scans(data) > MAX_JPEG_SCANS:
        raise ImageError(f"a JPEG file with too many scans; at most {MAX_JPEG_SCANS} are decoded")
    return found


def check_size(width: int, height: int, step: Decode) -> None:
    """Refuse a picture of more pixels than the Spec allows; raises ImageError."""
    if width < 1 or height < 1:
        raise ImageError(f"the picture has no pixels ({width}x{height})")
    if width * height > step.max_megapixels * 1e6:
        raise ImageError(
            f"{width}x{height} = {width * height / 1e6:,.1f} megapixels; the limit is {step.max_megapixels:g}",
            "Raise `max_megapixels` of the decode step if such pictures are meant to be read.",
        )


def _jpeg_scans(data: bytes) -> int:
    """Count the scans of a JPEG file's picture, marker by marker as libjpeg reads them (ITU-T T.81, B.1.1); stops above
    the maximum.

    The bytes FF DA may also stand in metadata, and in a film that a phone has put behind the picture.
    """
    scans, at = 0, 2
    while scans <= MAX_JPEG_SCANS and (marker := _JPEG_MARKER.search(data, at)) is not None:
        kind, at = data[marker.end() - 1], marker.end()
        if kind == _END_OF_IMAGE:
            break
        scans += kind == _START_OF_SCAN
        if kind not in (0x01, _START_OF_IMAGE):
            at += int.from_bytes(data[at : at + 2])
    return scans


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the first chunk of a WebP file (RFC 9649, sections 2.5 to 2.7), or None if it is cut
    short."""
    if len(data) < _RIFF_HEADER:
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
