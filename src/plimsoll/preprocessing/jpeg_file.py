"""JPEG files, marker by marker (ITU-T T.81, Annex B): what can be decoded and why not, without what isn't pixels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

from plimsoll.errors import ImageError

MAX_SCANS = 100
"""Progressive JPEGs have about ten scans. Thousands in a small file keep a decoder busy for minutes (libjpeg's known
attack)."""

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""FF and a code that is not stuffing (00), a restart (D0 to D7) or a fill byte (FF): none of these ends a scan."""
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
END_OF_IMAGE = b"\xff\xd9"
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Start of frame: the codes C0 to CF but DHT (C4), JPG (C8) and DAC (CC)."""
_LOSSLESS, _HIERARCHICAL = frozenset({0xC3, 0xCB}), frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_LEAST_JFIF, _LEAST_ADOBE = 14, 12
"""Bytes of JFIF's segment (JFIF 1.02) and of Adobe's (Technical Note 5116) without their marker and length."""
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"


@dataclass(frozen=True)
class Segment:
    """A marker with its parameters: `data[start:end]` is all of it, `data[start + 4 : end]` what it says."""

    code: int
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What stands before the first scan."""

    process: int
    """The code of its start of frame: C0 baseline, C1 extended, C2 progressive, C9 and CA the same with arithmetic
    coding."""
    bits: int
    width: int
    height: int
    components: int
    segments: tuple[Segment, ...]
    """All before the first scan."""


def read_header(data: bytes) -> Header | None:
    """Return a JPEG file's header; None where it is damaged, so that a decoder can say where."""
    segments = []
    frame = None
    for segment in _segments(data):
        if segment.code == _SCAN:
            break
        segments.append(segment)
        if segment.code in _FRAMES and frame is None:
            frame = segment
    if frame is None or frame.end - frame.start < 10:
        return None
    bits, height, width, components = struct.unpack_from(">BHHB", data, frame.start + 4)
    return Header(frame.code, bits, width, height, components, tuple(segments))


def _segments(data: bytes, at: int = 2) -> Iterator[Segment]:
    """Yield the segments up to the first scan, which is the last; fewer where the file is damaged."""
    while (marker := _MARKER.search(data, at)) is not None:
        code, start = data[marker.end() - 1], marker.start()
        if code in {0x01, _START}:
            at = marker.end()
            continue
        length = int.from_bytes(data[start + 2 : start + 4])
        at = start + 2 + length
        if code == _END or length < 2 or at > len(data):
            return
        yield Segment(code, start, at)
        if code == _SCAN:
            return


def check(header: Header) -> None:
    """Raise ImageError for a kind of JPEG that is not decoded, and say which it is."""
    if header.process in _LOSSLESS:
        raise _refused("a lossless JPEG")
    if header.process in _HIERARCHICAL:
        raise _refused("a hierarchical JPEG")
    if header.bits != 8:
        raise _refused(f"a JPEG of {header.bits} bits a sample; 8 are decoded")
    if header.components not in {1, 3, 4}:
        raise _refused(f"a JPEG of {header.components} colour components; 1, 3 and 4 are decoded")


def _refused(kind: str) -> ImageError:
    return ImageError(kind, "Store it as an ordinary JPEG (baseline or progressive, 8 bits) or as PNG.")


def check_scans(data: bytes) -> None:
    """Raise ImageError for more scans than any camera or program writes.

    They are counted as libjpeg reads them. The bytes FF DA may also stand in metadata, and in a film that a phone has
    put behind the picture.
    """
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return
    scans, at = 0, 2
    while scans <= MAX_SCANS and (marker := _MARKER.search(data, at)) is not None:
        code, at = data[marker.end() - 1], marker.end()
        if code == _END:
            break
        scans += code == _SCAN
        if code not in {0x01, _START}:
            at += int.from_bytes(data[at : at + 2])
    if scans > MAX_SCANS:
        raise ImageError(f"a JPEG file with too many scans; at most {MAX_SCANS} are decoded")


def has_one_scan(data: bytes, header: Header) -> bool:
    """Whether libjpeg reads the first scan only: not progressive, and all components are in it."""
    at = header.segments[-1].end
    scan = data[at : at + 5]
    return header.process in _SEQUENTIAL and scan[:2] == b"\xff\xda" and scan[4:] == bytes([header.components])


def without_metadata(data: bytes, header: Header) -> bytes:
    """Return the file with nothing but what decides its pixels: no EXIF, XMP, ICC profile, comment or preview, whose
    damage then can't stop a decoder.

    JFIF's and Adobe's own segments stay, because they say which colours the components are.
    """
    parts = [
        data[segment.start : segment.end]
        for segment in header.segments
        if not _is_metadata(segment.code, data[segment.start + 4 : segment.end])
    ]
    if len(parts) == len(header.segments):
        return data
    return b"".join([b"\xff\xd8", *parts, memoryview(data)[header.segments[-1].end :]])


def _is_metadata(code: int, content: bytes) -> bool:
    """libjpeg passes over JFIF's and Adobe's segments that are too short, and Pillow refuses to open the file."""
    if code == 0xE0:
        return not content.startswith(b"JFIF\0") or len(content) < _LEAST_JFIF
    if code == 0xEE:
        return not content.startswith(b"Adobe") or len(content) < _LEAST_ADOBE
    return 0xE0 < code <= 0xEF or code == 0xFE


def exif(data: bytes, header: Header) -> bytes:
    """Return the EXIF block, a TIFF structure, put together from its segments; empty where there is none."""
    return b"".join(_payloads(data, header, 0xE1, _EXIF))


def xmp(data: bytes, header: Header) -> bytes:
    """Return the last XMP packet; empty where there is none."""
    return next(iter([*_payloads(data, header, 0xE1, _XMP)][-1:]), b"")


def icc_profile(data: bytes, header: Header) -> bytes:
    """Return the ICC profile, put together from its segments in their own order (ICC.1, B.4); empty where there is none
    or a part of it is missing."""
    parts = sorted(_payloads(data, header, 0xE2, _ICC))
    if not parts or any(len(part) < 2 for part in parts) or [part[0] for part in parts] != [*range(1, parts[0][1] + 1)]:
        return b""
    return b"".join(part[2:] for part in parts)


def _payloads(data: bytes, header: Header, code: int, start: bytes) -> Iterator[bytes]:
    for segment in header.segments:
        if segment.code == code and data.startswith(start, segment.start + 4):
            yield data[segment.start + 4 + len(start) : segment.end]


def lacks_only_its_end(data: bytes, header: Header) -> bool:
    """Tell whether all of the pixels are there, and only the end marker isn't: what some cameras write, and what is
    left where a transfer loses the last bytes.

    libjpeg-turbo warns where a scan ends early; of a progressive file every coefficient must have come in full.
    """
    first_scan = header.segments[-1].end if header.segments else 2
    if data.find(END_OF_IMAGE, first_scan) >= 0 or not _has_all_scans(data, header, first_scan):
        return False
    try:
        # A grey picture is quicker, and takes the same reading.
        simplejpeg.decode_jpeg(data + END_OF_IMAGE, "CMYK" if header.components == 4 else "GRAY", strict=True)
    except (ValueError, RuntimeError, KeyError):  # KeyError: a sampling that simplejpeg has no name for
        return False
    return True


def _has_all_scans(data: bytes, header: Header, at: int) -> bool:
    """Tell whether the scans bring every coefficient of every component to its last bit (T.81, G.1.1.1)."""
    bits_missing: dict[int, list[int]] = {}
    while (marker := _MARKER.search(data, at)) is not None:
        code, start = data[marker.end() - 1], marker.start()
        at = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        scan = data[start + 4 : at]
        if code != _SCAN or len(scan) < 6:
            continue
        count = scan[0]
        if len(scan) < 1 + 2 * count + 3:
            return False
        first, last, approximation = scan[1 + 2 * count : 4 + 2 * count]
        if header.process not in _PROGRESSIVE:
            first, last, approximation = 0, 63, 0
        for component in scan[1 : 1 + 2 * count : 2]:
            missing = bits_missing.setdefault(component, [99] * 64)
            missing[first : min(last, 63) + 1] = [approximation & 15] * (min(last, 63) + 1 - first)
    return len(bits_missing) == header.components and not any(any(missing) for missing in bits_missing.values())
