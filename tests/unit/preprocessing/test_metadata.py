"""Metadata never decides whether a picture is read: what is damaged or absurd counts as absent, what is sound beside it
still counts."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from plimsoll.errors import ImageError
from plimsoll.preprocessing import fast_decode, metadata
from plimsoll.preprocessing.decode import Array, as_array, orientation
from plimsoll.preprocessing.decode import decode as reference_decode
from plimsoll.spec.steps import Decode

PHOTO = Path(__file__).parents[3] / "examples" / "photos" / "coffee_cup.jpg"
DECODERS = [reference_decode, fast_decode.decode]
SHORT, LONG, ASCII, RATIONAL = 3, 4, 2, 5


def photo() -> Image.Image:
    with Image.open(PHOTO) as image:
        return image.convert("RGB").resize((60, 40))


def saved(format_: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    photo().save(stream, format_, **options)
    return stream.getvalue()


def pixels(data: bytes, **options: Any) -> Array:
    reference, quick = (as_array(decode(data, Decode(**options))) for decode in DECODERS)
    assert np.array_equal(reference, quick)
    return reference


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


ORIENTATION = entry(0x0112, SHORT, 1, b"\6\0")
TEXT_AS_RESOLUTION = entry(0x011A, ASCII, 20, struct.pack("<I", 60))
WILD_OFFSET = entry(0x8769, LONG, 1, b"\xff\xff\xff\x7f")
UNKNOWN_TYPE = entry(0x010F, 99, 1_000_000_000, b"\xff\xff\xff\xff")
DAMAGED_BESIDE = {
    "text where a number belongs": [TEXT_AS_RESOLUTION, ORIENTATION],
    "an offset beyond the end": [WILD_OFFSET, ORIENTATION],
    "an unknown type": [UNKNOWN_TYPE, ORIENTATION],
    "a rational of 0 / 0 cut off": [entry(0x011A, RATIONAL, 1, struct.pack("<I", 5_000)), ORIENTATION],
    "more entries announced than there are": [ORIENTATION] * 1,
}


def exif(entries: list[bytes], announced: int | None = None) -> bytes:
    return b"II*\0\x08\0\0\0" + struct.pack("<H", announced or len(entries)) + b"".join(entries) + bytes(4)


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    data = saved("JPEG", quality=90)
    extra = b"".join(bytes([0xFF, code]) + struct.pack(">H", len(content) + 2) + content for code, content in segments)
    return data[:2] + extra + data[2:]


def png_with(*chunks: bytes) -> bytes:
    data = saved("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def webp_with(kind: bytes, content: bytes) -> bytes:
    data = saved("WEBP", lossless=True, exif=b"Exif\0\0" + exif([entry(0x010F, ASCII, 2, b"x")]))
    at = data.index(b"EXIF")
    body = data[:at] + kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) & 1)
    return body[:4] + struct.pack("<I", len(body) - 8) + body[8:]


@pytest.mark.parametrize("damage", DAMAGED_BESIDE)
@pytest.mark.parametrize("format_", ["jpeg", "png", "webp"])
def test_an_orientation_counts_whatever_is_damaged_beside_it(format_: str, damage: str) -> None:
    block = exif(DAMAGED_BESIDE[damage], announced=40 if damage.startswith("more") else None)
    data = {
        "jpeg": lambda: jpeg_with((0xE1, b"Exif\0\0" + block)),
        "png": lambda: png_with(chunk(b"eXIf", block)),
        "webp": lambda: webp_with(b"EXIF", block),
    }[format_]()
    stored = pixels(data)
    assert orientation(data) == 6
    assert np.array_equal(pixels(data, exif_orientation=True), np.rot90(stored, -1))


@pytest.mark.parametrize(
    "block",
    [
        exif([entry(0x0112, ASCII, 2, b"6\0")]),
        exif([entry(0x0112, SHORT, 1, b"\x2a\0")]),
        exif([entry(0x0112, SHORT, 5_000, b"\6\0")]),
        exif([ORIENTATION])[:15],
        b"II*\0\xff\xff\xff\xff",
        b"",
        b"\0" * 50,
    ],
    ids=["text", "42", "many", "cut", "no directory", "empty", "zeros"],
)
def test_an_orientation_that_can_not_be_read_is_none(block: bytes) -> None:
    data = jpeg_with((0xE1, b"Exif\0\0" + block))
    assert orientation(data) == 1
    assert np.array_equal(pixels(data, exif_orientation=True), pixels(saved("JPEG", quality=90)))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_what_pillow_writes_is_read_as_pillow_reads_it(format_: str, value: int) -> None:
    block = Image.Exif()
    block[0x0112] = value
    block[0x010F] = "a camera"
    data = saved(format_, exif=block, **({"lossless": True} if format_ == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert orientation(data) == value
    assert np.array_equal(pixels(data, exif_orientation=True), expected)


def test_an_orientation_in_xmp_or_in_imagemagick_s_text_counts_where_there_is_no_exif() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    raw = b"\nexif\n      26\n" + (b"Exif\0\0" + exif([ORIENTATION])).hex().encode()
    assert orientation(jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))) == 6
    assert orientation(png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))) == 6
    assert orientation(png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)))) == 6
    assert orientation(png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)))) == 6
    assert orientation(png_with(chunk(b"tEXt", b"Raw profile type exif\0" + raw))) == 6
    assert orientation(webp_with(b"XMP ", xmp)) == 6
    eight = exif([entry(0x0112, SHORT, 1, b"\x08\0")])
    both = jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp), (0xE1, b"Exif\0\0" + eight))
    assert orientation(both) == 8


ZEROS = zlib.compress(bytes(100_000_000))
BESIDE_THE_PIXELS = {
    "a text that unpacks to 100 MB": chunk(b"zTXt", b"Comment\0\0" + ZEROS),
    "a hundred of them": chunk(b"zTXt", b"Comment\0\0" + ZEROS) * 100,
    "an international one": chunk(b"iTXt", b"Comment\0\1\0\0\0" + ZEROS),
    "a profile that unpacks to 100 MB": chunk(b"iCCP", b"icc\0\0" + ZEROS),
    "a damaged profile": chunk(b"iCCP", b"icc\0\0" + b"nothing"),
    "a profile of an unknown compression": chunk(b"iCCP", b"icc\0\7" + b"nothing"),
    "a wrong checksum": chunk(b"tEXt", b"Comment\0hello", checksum=1),
    "a wrong checksum of the transparency": chunk(b"tRNS", b"\0\1\0\1\0\1", checksum=1),
    "a time that isn't": chunk(b"tIME", b"\xff"),
    "sizes that aren't": chunk(b"pHYs", b"\xff"),
    "an orientation of nothing": chunk(b"eXIf", b"\xff" * 40),
    "a chunk that nobody knows": chunk(b"zzZz", bytes(1000)),
}


@pytest.mark.parametrize("what", BESIDE_THE_PIXELS)
@pytest.mark.parametrize("options", [{}, {"exif_orientation": True, "colour_profile": "srgb", "alpha": "composite"}])
def test_a_png_is_read_whatever_stands_beside_its_pixels(what: str, options: dict[str, Any]) -> None:
    expected = np.asarray(photo())
    assert np.array_equal(pixels(png_with(BESIDE_THE_PIXELS[what]), **options), expected)
    data = saved("PNG")
    behind = data[:-12] + BESIDE_THE_PIXELS[what] + data[-12:]
    assert np.array_equal(pixels(behind, **options), expected)


def test_a_png_keeps_its_transparency_and_its_critical_chunks_are_still_checked() -> None:
    transparent = Image.new("P", (8, 8))
    transparent.putpalette([10, 20, 30])
    stream = io.BytesIO()
    transparent.save(stream, "PNG", transparency=0)
    assert pixels(stream.getvalue(), alpha="composite")[0, 0].tolist() == [255, 255, 255]
    broken = bytearray(saved("PNG"))
    broken[30] ^= 1  # the header's checksum
    for decode in DECODERS:
        with pytest.raises(ImageError):
            decode(bytes(broken), Decode())


def test_a_png_of_absurdly_many_chunks_is_refused() -> None:
    data = png_with(chunk(b"tEXt", b"a\0b") * (metadata.MAX_CHUNKS + 10))
    for decode in DECODERS:
        with pytest.raises(ImageError, match="more than 100,000 chunks"):
            decode(data, Decode())


JUNK = [
    (0xE2, b"ICC_PROFILE\0\1\1" + b"\xff" * 60_000),
    (0xE2, b"ICC_PROFILE\0"),
    (0xE2, b"MPF\0" + b"\xff" * 200),
    (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff"),
    (0xE1, b"Exif\0\0" + b"\xff" * 300),
    (0xE0, b"JFXX\0" + b"\x10" * 30),
    (0xE0, b"JFIF\0"),
    (0xEE, b"Adobe"),
    (0xFE, b"a comment"),
]


@pytest.mark.parametrize("segment", JUNK, ids=lambda segment: segment[1][:11])
def test_a_jpeg_is_read_whatever_stands_beside_its_pixels(segment: tuple[int, bytes]) -> None:
    expected = pixels(saved("JPEG", quality=90))
    for options in ({}, {"exif_orientation": True, "colour_profile": "srgb"}):
        assert np.array_equal(pixels(jpeg_with(segment), **options), expected)


def test_bytes_between_the_segments_are_passed_over() -> None:
    data = jpeg_with((0xE1, b"Exif\0\0" + exif([ORIENTATION])))
    second = data.index(b"\xff\xdb")
    assert np.array_equal(pixels(data[:second] + b"junk here" + data[second:]), pixels(data))


def test_the_colours_of_a_jpeg_depend_on_its_adobe_segment_which_stays() -> None:
    data = saved("JPEG", quality=95, subsampling=0)
    without_jfif = data[:2] + data[20:]
    as_rgb = without_jfif[:2] + b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\0" + without_jfif[2:]
    with Image.open(io.BytesIO(as_rgb)) as image:
        assert np.array_equal(pixels(as_rgb), np.asarray(image))
    assert np.abs(pixels(as_rgb).astype(int) - pixels(data)).max() > 60
