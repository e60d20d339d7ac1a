"""What a file is, by its first bytes: a picture that can be read, one that can't, or something else altogether.

Needs neither Pillow nor NumPy, so that a listing of files can ask it. 4 KB of a file are enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from plimsoll.spec.steps import ImageFormat

HEAD_BYTES = 4096

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_CONTAINER_BRANDS = frozenset({b"mif1", b"msf1"})
_JPEG_XL_BOX = b"\0\0\0\x0cJXL \r\n\x87\n"

_STORE = "Store it as JPEG, PNG or WebP."
_ANSWER_VIDEO = "Name it clip.mp4 or the like and give it to `plimsoll predict`; or store its frames as pictures."


@dataclass(frozen=True)
class FileKind:
    """What a file is."""

    name: str
    """In words: `HEIC picture`, `JPEG XL picture`, `video`."""
    format: ImageFormat | None = None
    """What the decode step of a Spec calls it, where it can be read."""
    extra: str | None = None
    """The extra of the package that reads it, where it doesn't come with Plimsoll."""
    picture: bool = True
    """Whether a person would call it a picture or a video; not so for a web page that was stored as .jpg."""

    @property
    def with_article(self) -> str:
        """The name as a sentence takes it."""
        return f"{'an' if self.name.startswith(('AV', 'SV', 'i', 'Op')) else 'a'} {self.name}"

    @property
    def advice(self) -> str:
        """What to do to have it read; empty for what is no picture."""
        if self.format is not None:
            enable = f'add "{self.format}" to `formats` of the decode step'
            if self.extra is None:
                return f"To accept it, {enable}."
            return f"To accept it, {enable}, and install what reads it: pip install 'plimsoll-line[{self.extra}]'"
        if not self.picture:
            return ""
        return _ANSWER_VIDEO if self.name.startswith("video") else _STORE


KINDS: Mapping[ImageFormat, FileKind] = MappingProxyType(
    {
        "jpeg": FileKind("JPEG picture", "jpeg"),
        "png": FileKind("PNG picture", "png"),
        "webp": FileKind("WebP picture", "webp"),
        "bmp": FileKind("BMP picture", "bmp"),
        "gif": FileKind("GIF picture", "gif"),
        "tiff": FileKind("TIFF picture", "tiff"),
        "avif": FileKind("AVIF picture", "avif"),
        "heif": FileKind("HEIC picture", "heif", "heif"),
    }
)
"""The formats that can be read."""

_RAW, _JPEG_XL = FileKind("camera raw picture"), FileKind("JPEG XL picture")
_JPEG_2000, _VIDEO = FileKind("JPEG 2000 picture"), FileKind("video")
_SVG, _ICON = FileKind("SVG drawing"), FileKind("icon")

_SIGNATURES: tuple[tuple[bytes, FileKind], ...] = (
    (b"\xff\x0a", _JPEG_XL),
    (_JPEG_XL_BOX, _JPEG_XL),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _JPEG_2000),
    (b"\xff\x4f\xff\x51", _JPEG_2000),
    (b"\xff\xd8\xff\xf7", FileKind("JPEG-LS picture")),
    (b"II\xbc\x01", FileKind("JPEG XR picture")),
    (b"MM\0+", FileKind("big-endian BigTIFF picture")),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"MMOR", _RAW),
    (b"IIU\0", _RAW),
    (b"FOVb", _RAW),
    (b"8BPS", FileKind("Photoshop picture")),
    (b"gimp xcf", FileKind("GIMP picture")),
    (b"\0\0\1\0", _ICON),
    (b"icns", _ICON),
    (b"v/1\x01", FileKind("OpenEXR picture")),
    (b"#?RADIANCE", FileKind("Radiance picture")),
    (b"qoif", FileKind("QOI picture")),
    (b"DDS ", FileKind("DDS texture")),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"FLV\x01", _VIDEO),
    (b"\0\0\x01\xba", _VIDEO),
    (b"\0\0\x01\xb3", _VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", _VIDEO),
    (b"%PDF-", FileKind("PDF document")),
    (b"%!PS", FileKind("PostScript document")),
    (b"PK\3\4", FileKind("ZIP archive", picture=False)),
    (b"\x1f\x8b", FileKind("gzip archive", picture=False)),
    (b"\0\5\x16\7", FileKind("macOS companion file without a picture", picture=False)),
    (b"version https://git-lfs", FileKind("Git LFS pointer in place of the file", picture=False)),
)

SUFFIXES: Mapping[ImageFormat, tuple[str, ...]] = MappingProxyType(
    {
        "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
        "png": (".png", ".apng"),
        "webp": (".webp",),
        "bmp": (".bmp",),
        "gif": (".gif",),
        "tiff": (".tif", ".tiff"),
        "avif": (".avif", ".avifs"),
        "heif": (".heic", ".heics", ".heif", ".heifs", ".hif"),
    }
)
"""The usual endings of the formats that can be read."""

_UNREADABLE: tuple[tuple[FileKind, str], ...] = (
    (_JPEG_XL, "jxl"),
    (_JPEG_2000, "jp2 j2k jpf jpx j2c"),
    (_RAW, "dng cr2 cr3 crw nef nrw arw srf sr2 raf orf rw2 pef srw x3f 3fr erf kdc mos mrw rwl iiq"),
    (_VIDEO, "mp4 m4v mov avi mkv webm 3gp 3g2 mpg mpeg mts m2ts wmv flv"),
    (_SVG, "svg svgz"),
    (_ICON, "ico icns cur"),
    (FileKind("Photoshop picture"), "psd psb"),
    (FileKind("GIMP picture"), "xcf"),
    (FileKind("JPEG XR picture"), "jxr wdp hdp"),
    (FileKind("Netpbm picture"), "ppm pgm pbm pnm pam pfm"),
    (FileKind("OpenEXR picture"), "exr"),
    (FileKind("Radiance picture"), "hdr"),
    (FileKind("QOI picture"), "qoi"),
    (FileKind("DDS texture"), "dds"),
    (FileKind("Targa picture"), "tga"),
    (FileKind("PCX picture"), "pcx"),
    (FileKind("SGI picture"), "sgi rgb"),
)
UNREADABLE_SUFFIXES: Mapping[str, FileKind] = MappingProxyType(
    {f".{ending}": kind for kind, endings in _UNREADABLE for ending in endings.split()}
)
"""The endings of pictures and videos that can't be read."""


def sniff(data: bytes) -> ImageFormat | None:
    """Return the format that the first bytes announce, if it is one that can be read."""
    if data.startswith(b"\xff\xd8\xff") and data[3:4] != b"\xf7":
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"BM"):
        return "bmp"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0")):
        return None if data[8:10] == b"CR" else "tiff"
    major, others = _brands(data)
    # `mif1` is only the container of HEIC and AVIF: what stands beside it tells which.
    if major in _AVIF_BRANDS or (major in _CONTAINER_BRANDS and others & _AVIF_BRANDS):
        return "avif"
    return "heif" if major in _HEIF_BRANDS else None


def recognise(data: bytes) -> FileKind | None:
    """Return what a file is, from its first bytes (`HEAD_BYTES` are enough); None for what nobody calls a picture."""
    format_ = sniff(data)
    if format_ is not None:
        return KINDS[format_]
    if data[:2] in {b"II", b"MM"} and data[8:10] == b"CR":
        return _RAW
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return _VIDEO
    if data[4:8] in {b"ftyp", b"moov", b"mdat", b"wide"}:
        major, others = _brands(data)
        if major == b"crx ":
            return _RAW
        return FileKind("HEIF picture of a rare coding") if major == b"mif3" or b"mif1" in others else _VIDEO
    return _text_kind(data)


def _text_kind(data: bytes) -> FileKind | None:
    """Tell apart what is text and was stored under a picture's name."""
    start = data[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return FileKind("web page", picture=False)
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start):
        return _SVG
    if re.match(rb"p[1-7]\s", start):
        return FileKind("Netpbm picture")
    return None


def _brands(data: bytes) -> tuple[bytes, frozenset[bytes]]:
    """Return the major brand of an ISO base media file and all that stand beside it (ISO/IEC 14496-12, 4.3)."""
    if data[4:8] != b"ftyp":
        return b"", frozenset()
    end = min(int.from_bytes(data[:4]), 256, len(data))
    return data[8:12], frozenset(data[at : at + 4] for at in range(12, end - 3, 4))
