"""What a file is, by its first bytes: what can be read, what a person would call a picture, and what to do about it."""

from __future__ import annotations

import io
from typing import get_args

import pytest
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing.decode import check_format
from plimsoll.preprocessing.formats import HEAD_BYTES, KINDS, SUFFIXES, UNREADABLE_SUFFIXES, recognise, sniff
from plimsoll.spec.steps import Decode, ImageFormat


def box(*brands: bytes) -> bytes:
    body = b"ftyp" + brands[0] + b"\0\0\0\0" + b"".join(brands[1:])
    return (len(body) + 4).to_bytes(4) + body + bytes(100)


READABLE: list[tuple[bytes, ImageFormat]] = [
    (b"\xff\xd8\xff\xe0", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
    (b"GIF89a", "gif"),
    (b"BM\0\0", "bmp"),
    (b"II*\0\x08\0\0\0", "tiff"),
    (b"MM\0*\0\0\0\x08", "tiff"),
    (b"II+\0\x08\0\0\0", "tiff"),
    (box(b"avif", b"mif1", b"miaf"), "avif"),
    (box(b"avis", b"avif"), "avif"),
    (box(b"mif1", b"avif", b"miaf"), "avif"),
    (box(b"heic", b"mif1", b"heic"), "heif"),
    (box(b"heix"), "heif"),
    (box(b"mif1", b"heic"), "heif"),
    (box(b"msf1", b"hevc"), "heif"),
]
OTHERS = {
    "JPEG XL picture": [b"\xff\x0a\xfa\x7f", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl "],
    "JPEG 2000 picture": [b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51\0\x2f"],
    "JPEG-LS picture": [b"\xff\xd8\xff\xf7\0\x0b"],
    "camera raw picture": [b"II*\0\x10\0\0\0CR\x02\0", b"FUJIFILMCCD-RAW 0201", b"IIU\0\x08", box(b"crx ", b"isom")],
    "video": [box(b"isom", b"mp42"), box(b"qt  "), b"\x1aE\xdf\xa3\x9f", b"RIFF\0\0\0\0AVI LIST", b"\0\0\x01\xba!"],
    "HEIF picture of a rare coding": [box(b"avci", b"mif1"), box(b"mif3", b"avif")],
    "SVG drawing": [b"<svg xmlns=''>", b"<?xml version='1.0'?>\n<!-- a -->\n<svg>", b"\xef\xbb\xbf<svg/>"],
    "web page": [b"<!DOCTYPE html><title>404", b"\n <html>"],
    "PDF document": [b"%PDF-1.7"],
    "Photoshop picture": [b"8BPS\0\1"],
    "icon": [b"\0\0\1\0\1\0"],
    "Netpbm picture": [b"P6\n10 10 255\n"],
    "OpenEXR picture": [b"v/1\x01\x02"],
    "ZIP archive": [b"PK\3\4"],
    "Git LFS pointer in place of the file": [b"version https://git-lfs.github.com/spec/v1\n"],
}


@pytest.mark.parametrize(("data", "format_"), READABLE)
def test_what_can_be_read(data: bytes, format_: ImageFormat) -> None:
    assert sniff(data) == format_
    assert recognise(data) == KINDS[format_]


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, files in OTHERS.items() for data in files])
def test_what_can_not_be_read_has_a_name_and_advice(name: str, data: bytes) -> None:
    kind = recognise(data)
    assert sniff(data) is None
    assert kind is not None
    assert kind.name == name
    assert kind.format is None
    assert bool(kind.advice) == kind.picture
    with pytest.raises(ImageError, match=f"^{kind.with_article}, which can't be read") as caught:
        check_format(data, Decode())
    assert caught.value.hint == kind.advice


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"Plimsoll marks", b"RIFF\0\0\0\0WAVEfmt ", b"\xff", b"P6"])
def test_anything_else_is_nothing(data: bytes) -> None:
    assert recognise(data) is None


def test_the_head_of_a_file_is_enough() -> None:
    stream = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(stream, "PNG")
    assert recognise(stream.getvalue()[:HEAD_BYTES]) == KINDS["png"]
    assert len(stream.getvalue()) > HEAD_BYTES


@pytest.mark.parametrize(("format_", "extra"), [("avif", ""), ("heif", "plimsoll-line[heif]"), ("tiff", "")])
def test_a_format_that_is_not_enabled_is_refused_with_what_to_do(format_: ImageFormat, extra: str) -> None:
    data = next(data for data, kind in READABLE if kind == format_)
    with pytest.raises(ImageError, match=f"an? {format_} file; accepted formats") as caught:
        check_format(data, Decode())
    assert f'add "{format_}" to `formats`' in caught.value.hint
    assert extra in caught.value.hint


def test_every_format_has_a_kind_and_endings_of_its_own() -> None:
    assert set(KINDS) == set(SUFFIXES) == set(get_args(ImageFormat))
    endings = [ending for endings in SUFFIXES.values() for ending in endings]
    assert len(endings) == len(set(endings))
    assert not set(endings) & set(UNREADABLE_SUFFIXES)
    assert all(ending == ending.lower() and ending[0] == "." for ending in [*endings, *UNREADABLE_SUFFIXES])
