"""TIFF is read as the picture it holds, or refused: no variant comes out as another picture."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import fast_decode
from plimsoll.preprocessing.decode import Array, as_array
from plimsoll.preprocessing.decode import decode as reference_decode
from plimsoll.preprocessing.tiff_file import read_tags
from plimsoll.spec.steps import Decode

STEP = Decode(formats=("tiff",))
MINISWHITE, MINISBLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
TYPES = {3: "H", 4: "I", 16: "Q"}


def tiff(samples: Array, *, order: str = "<", large: bool = False, planes: bool = False, **tags: Any) -> bytes:
    """An uncompressed TIFF of one strip a plane; `tags` are those of `TAGS`."""
    samples = samples[:, :, np.newaxis] if samples.ndim == 2 else samples
    height, width, channels = samples.shape
    kind = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[samples.dtype.kind]
    stored = samples.astype(np.dtype(order + samples.dtype.str[1:]))
    parts = [stored[:, :, channel].tobytes() for channel in range(channels)] if planes else [stored.tobytes()]
    fields: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (8 * samples.dtype.itemsize,) * channels,
        259: (1,),
        262: (tags.get("photometric", RGB if channels == 3 else MINISBLACK),),
        277: (channels,),
        278: (height,),
        279: tuple(map(len, parts)),
        284: (2 if planes else 1,),
        339: (kind,) * channels,
    }
    fields.update({int(key[1:]): value for key, value in tags.items() if key.startswith("t")})
    return _file(fields, parts, order, large)


def _file(fields: dict[int, tuple[int, ...]], parts: list[bytes], order: str, large: bool) -> bytes:
    start = 16 if large else 8
    offsets = [start + sum(map(len, parts[:number])) for number in range(len(parts))]
    fields = dict(sorted({**fields, 273: tuple(offsets)}.items()))
    body = b"".join(parts) + bytes(sum(map(len, parts)) % 2)
    pointer, count, room = ("Q", "Q", 8) if large else ("I", "H", 4)
    at = start + len(body)
    behind = at + struct.calcsize("<" + count) + len(fields) * (12 + 8 * large) + room
    directory, outside = struct.pack(order + count, len(fields)), b""
    for tag, values in fields.items():
        kind = 4 if tag in {273, 279} else 3
        content = struct.pack(f"{order}{len(values)}{TYPES[kind]}", *values)
        directory += struct.pack(order + "HH" + pointer, tag, kind, len(values))
        if len(content) <= room:
            directory += content.ljust(room, b"\0")
        else:
            directory += struct.pack(order + pointer, behind + len(outside))
            outside += content + bytes(len(content) % 2)
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if large else 42)
    header += struct.pack(order + "HHQ", 8, 0, at) if large else struct.pack(order + "I", at)
    return header + body + directory + struct.pack(order + pointer, 0) + outside


def noise(*shape: int, dtype: str = "u1") -> Array:
    return np.random.default_rng(4).integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=dtype)


def decoded(data: bytes) -> Array:
    reference, quick = as_array(reference_decode(data, STEP)), as_array(fast_decode.decode(data, STEP))
    assert np.array_equal(reference, quick)
    return reference


def refusal(data: bytes) -> str:
    words = []
    for decode in (reference_decode, fast_decode.decode):
        with pytest.raises(ImageError) as caught:
            decode(data, STEP)
        words.append(caught.value.message)
    assert words[0] == words[1]
    return words[0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("large", [False, True], ids=["classic", "big"])
@pytest.mark.parametrize("planes", [False, True], ids=["together", "planes"])
def test_eight_bits_come_back(order: str, large: bool, planes: bool) -> None:
    if large and order == ">":
        pytest.skip("refused: see below")
    colours = noise(9, 7, 3)
    assert np.array_equal(decoded(tiff(colours, order=order, large=large, planes=planes)), colours)
    grey = noise(9, 7)
    assert np.array_equal(decoded(tiff(grey, order=order, large=large))[:, :, 1], grey)
    white = tiff(grey, order=order, large=large, photometric=MINISWHITE)
    assert np.array_equal(decoded(white)[:, :, 1], 255 - grey)
    inks = noise(9, 7, 4)
    expected = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))
    assert np.array_equal(decoded(tiff(inks, order=order, large=large, planes=planes, photometric=CMYK)), expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("large", [False, True], ids=["classic", "big"])
def test_sixteen_bits_keep_their_high_byte(order: str, large: bool) -> None:
    if large and order == ">":
        pytest.skip("refused: see below")
    grey, colours = noise(9, 7, dtype="u2"), noise(9, 7, 3, dtype="u2")
    assert np.array_equal(decoded(tiff(grey, order=order, large=large))[:, :, 0], grey >> 8)
    assert np.array_equal(decoded(tiff(colours, order=order, large=large)), colours >> 8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("large", [False, True], ids=["classic", "big"])
@pytest.mark.parametrize(
    ("samples", "options", "reason"),
    [
        (noise(9, 7, 3, dtype="u2"), {"planes": True}, "uncompressed TIFF of 16 bits with a plane for each colour"),
        (noise(9, 7, 4, dtype="u2"), {"planes": True, "photometric": CMYK}, "a plane for each colour"),
        (noise(9, 7, dtype="u2"), {"photometric": MINISWHITE}, "16 bits whose white is zero"),
        (noise(9, 7, dtype="i1"), {}, "signed 8-bit samples"),
        (noise(9, 7, dtype="i2"), {}, "signed 16-bit samples"),
        (noise(9, 7, dtype="u4"), {}, "32-bit samples"),
        (noise(9, 7, dtype="i4"), {}, "signed 32-bit samples"),
        (np.ones((9, 7), np.float16), {}, "16-bit floating-point samples"),
        (np.ones((9, 7, 3), np.float32), {}, "32-bit floating-point samples"),
        (np.ones((9, 7), np.float64), {}, "64-bit floating-point samples"),
        (noise(9, 8), {"t258": (12,), "t256": (5,)}, "12-bit samples"),
        (noise(8, 8, 3), {"photometric": YCBCR, "t530": (2, 2)}, "subsampled YCbCr"),
        (noise(9, 7), {"t254": (1,)}, "preview"),
        (noise(9, 7), {"t50706": (1, 4, 0, 0)}, "camera raw file (DNG)"),
    ],
)
def test_what_pillow_reads_as_another_picture_is_refused(
    samples: Array, options: Mapping[str, Any], reason: str, order: str, large: bool
) -> None:
    if large and order == ">":
        reason = "big-endian BigTIFF"
    assert reason in refusal(tiff(samples, order=order, large=large, **options))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"t259": (34712,)}, "3 samples of 8 bits, photometric interpretation 2, compression JPEG 2000"),
        ({"t259": (12345,)}, "compression 12345"),
        ({"photometric": 32803}, "photometric interpretation 32803"),
    ],
)
def test_a_kind_that_pillow_does_not_know_is_not_called_damaged_alone(options: Mapping[str, Any], reason: str) -> None:
    words = refusal(tiff(noise(9, 7, 3), **options))
    assert words.startswith("a TIFF that is damaged or of a kind that can't be read: ")
    assert reason in words


def test_data_that_its_compression_cannot_read_is_refused_in_words() -> None:
    assert refusal(tiff(noise(9, 7, 3), t259=(8,))) == (
        "can't be decoded: its data is damaged, or coded in a way that isn't read"
    )


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_planes_of_sixteen_bits_are_read(compression: str | None) -> None:
    """Only uncompressed ones are read wrongly; Pillow can't write planes, so this is what it does write."""
    grey = noise(9, 7, dtype="u2")
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "TIFF", compression=compression)
    assert np.array_equal(decoded(stream.getvalue())[:, :, 0], grey >> 8)


def test_a_tile_larger_than_the_limit_is_refused_before_it_is_allocated() -> None:
    data = tiff(noise(9, 7), t322=(60_000,), t323=(60_000,))
    assert "60000x60000" in refusal(data)


def test_a_directory_that_can_not_be_read_is_left_to_the_decoder() -> None:
    data = tiff(noise(9, 7))
    assert read_tags(data)[256] == (7,)
    for damaged in (data[:6], data[:4] + b"\xff\xff\xff\xff", b"II*\0" + bytes(4), b"II+\0\x08\0\0\0" + b"\xff" * 8):
        assert read_tags(damaged) == {}
        assert refusal(damaged)
    many = data[:4] + struct.pack("<I", 8) + b"\xff\xff" + bytes(60)
    assert refusal(many)
