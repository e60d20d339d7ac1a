"""What a picture file says beside its pixels and a Spec can ask for: the orientation and the ICC profile.

Both are read here, from the file's own structure, within limits. Whatever is damaged counts as absent: metadata never
decides whether a picture is read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from plimsoll.errors import ImageError
from plimsoll.preprocessing import jpeg_file

MAX_PROFILE_BYTES = 4_000_000
"""ICC profiles of printers have up to 3 MB."""
_MAX_TEXT_BYTES = 1_000_000
MAX_CHUNKS = 100_000
"""PNG: a file of 200 MB in the usual 8 KB has 25,000."""

_ORIENTATION = 0x0112
_INTEGERS = {3: "H", 4: "I", 8: "h", 9: "i"}
"""Field types of EXIF that hold whole numbers, as `struct` calls them."""
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")

_FRAME_CHUNKS = frozenset({b"acTL", b"fcTL", b"fdAT"})


def orientation(data: bytes, format_: str) -> int:
    """Return the orientation that the metadata of a JPEG, PNG, WebP or GIF file states, 1 to 8; 1 where there is none,
    or none that can be read. EXIF counts before XMP."""
    exif, xmp = b"", b""
    if format_ == "jpeg" and (header := jpeg_file.read_header(data)) is not None:
        exif, xmp = jpeg_file.exif(data, header), jpeg_file.xmp(data, header)
    elif format_ == "png":
        exif, xmp = _png_exif(data)
    elif format_ == "webp":
        chunks = dict(_webp_chunks(data))
        exif, xmp = chunks.get(b"EXIF", b""), chunks.get(b"XMP ", b"")
    elif format_ == "gif" and (at := data.find(b"XMP DataXMP")) >= 0:
        xmp = data[at : at + _MAX_TEXT_BYTES]
    return exif_orientation(exif) or _xmp_orientation(xmp) or 1


def icc_profile(data: bytes, format_: str) -> bytes:
    """Return the ICC profile of a JPEG, PNG or WebP file; empty where there is none, or it is damaged or too large."""
    profile = b""
    if format_ == "jpeg" and (header := jpeg_file.read_header(data)) is not None:
        profile = jpeg_file.icc_profile(data, header)
    elif format_ == "png":
        stored = next((body for kind, body in _png_chunks(data) if kind == b"iCCP"), b"")
        profile = _inflated(stored.partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
    elif format_ == "webp":
        profile = dict(_webp_chunks(data)).get(b"ICCP", b"")
    return profile if len(profile) <= MAX_PROFILE_BYTES else b""


def png_without_metadata(data: bytes, *, frames: bool = False) -> bytes:
    """Return a PNG file with nothing but what decides its pixels (and, with `frames`, its animation): no text, profile
    or time, whose size or damage then can't stop a decoder.

    A chunk of transparency with a wrong checksum is left out, as libpng does it. Raises ImageError for absurdly many
    chunks.
    """
    parts, at = [], 0
    for number, (kind, start, end) in enumerate(_png_spans(data)):
        if number > MAX_CHUNKS:
            raise ImageError(f"a PNG file of more than {MAX_CHUNKS:,} chunks")
        if not _decides_pixels(kind, frames) or (kind == b"tRNS" and not _checksum_fits(data, start, end)):
            parts.append(memoryview(data)[at:start])
            at = end
    return data if at == 0 else b"".join([*parts, memoryview(data)[at:]])


def _decides_pixels(kind: bytes, frames: bool) -> bool:
    """Tell what stays: chunks in capital letters are those without which the picture can't be understood."""
    return kind[:1].isupper() or kind == b"tRNS" or (frames and kind in _FRAME_CHUNKS)


def _png_spans(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each whole chunk's kind and where it begins and ends, its length and checksum included."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if end > len(data):
            return
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of each undamaged chunk of metadata."""
    for number, (kind, start, end) in enumerate(_png_spans(data)):
        if number > MAX_CHUNKS:
            return
        if not kind[:1].isupper() and kind not in _FRAME_CHUNKS and _checksum_fits(data, start, end):
            yield kind, data[start + 8 : end - 4]


def _checksum_fits(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])


def _png_exif(data: bytes) -> tuple[bytes, bytes]:
    """Return the EXIF block and the XMP packet of a PNG file: its own chunk, or text as ImageMagick writes it."""
    exif, xmp = b"", b""
    for kind, body in _png_chunks(data):
        if kind == b"eXIf":
            return body, xmp
        if kind in {b"tEXt", b"zTXt", b"iTXt"}:
            keyword, _, rest = body[: _MAX_TEXT_BYTES + 100].partition(b"\0")
            if keyword == b"Raw profile type exif":
                exif = _hexadecimal(_png_text(kind, rest))
            elif keyword == b"XML:com.adobe.xmp":
                xmp = _png_text(kind, rest)
    return exif, xmp


def _png_text(kind: bytes, rest: bytes) -> bytes:
    """Return a text chunk's text, what follows its keyword (PNG, 11.3.3)."""
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflated(rest[1:], _MAX_TEXT_BYTES)
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return _inflated(text, _MAX_TEXT_BYTES) if rest[:1] == b"\1" else text


def _hexadecimal(text: bytes) -> bytes:
    """Return the bytes that a raw profile holds behind its name and length, a line each."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def _inflated(packed: bytes, limit: int) -> bytes:
    """Decompress; empty where that is damaged or gives more than `limit` bytes."""
    unpack = zlib.decompressobj()
    try:
        content = unpack.decompress(packed, limit)
    except zlib.error:
        return b""
    return content if unpack.eof else b""


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of the chunks of metadata (RFC 9649, 2.3)."""
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in {b"EXIF", b"XMP ", b"ICCP"}:
            yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + (size & 1)


def _xmp_orientation(xmp: bytes) -> int:
    stated = _XMP_ORIENTATION.search(xmp)
    return int(stated[1]) if stated is not None else 0


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in the first directory of an EXIF block (a TIFF structure, Exif 2.32, 4.6), or 0.

    Only this one entry is read, so that no damage beside it matters.
    """
    exif = re.sub(rb"^(?:Exif\0\0)+", b"", exif)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return 0
    directory = struct.unpack_from(order + "I", exif, 4)[0]
    if directory + 2 > len(exif):
        return 0
    count = struct.unpack_from(order + "H", exif, directory)[0]
    for at in range(directory + 2, min(directory + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", exif, at)
        if tag == _ORIENTATION and values == 1 and kind in _INTEGERS:
            value = struct.unpack_from(order + _INTEGERS[kind], exif, at + 8)[0]
            return value if 1 <= value <= 8 else 0
    return 0
