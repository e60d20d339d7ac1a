"""Formats are told by content, and size is checked before anything is decoded."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import decode, fast_decode
from plimsoll.preprocessing.decode import Pixels, as_array, check_format, read, sample_pictures
from plimsoll.preprocessing.decode import decode as reference_decode
from plimsoll.preprocessing.formats import sniff
from plimsoll.preprocessing.jpeg_file import MAX_SCANS
from plimsoll.spec.steps import Decode

ALL = Decode(formats=("jpeg", "png", "webp", "bmp", "gif", "tiff"))
Decoder = Callable[[bytes, Decode], Pixels]
DECODERS: list[Decoder] = [reference_decode, fast_decode.decode]
Claim = Callable[[int, int], bytes]


def photo(format_: str, **options: Any) -> bytes:
    """A 32 x 24 picture in a file format."""
    pixels = np.random.default_rng(7).integers(0, 256, (24, 32, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format_, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + png_chunk(b"IEND", b"")
    )


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 54 + 40, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        + b"\0" * 40
    )


def gif(width: int, height: int) -> bytes:
    data = photo("GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def gif_frame(width: int, height: int) -> bytes:
    """A GIF of a tiny canvas whose first frame is larger than the canvas."""
    data = gif(1, 1)
    at = data.index(b"\x2c\0\0\0\0") + 5
    return data[:at] + struct.pack("<HH", width, height) + data[at + 4 :]


def jpeg(width: int, height: int, *, progressive: bool = False) -> bytes:
    data = photo("JPEG", progressive=progressive)
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def webp_extended(width: int, height: int) -> bytes:
    chunk = (
        b"VP8X"
        + struct.pack("<I", 10)
        + b"\x02\0\0\0"
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    body = b"WEBP" + chunk + b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_lossy(width: int, height: int) -> bytes:
    data = photo("WEBP")
    at = data.index(b"\x9d\x01\x2a") + 3
    return data[:at] + struct.pack("<HH", width, height) + data[at + 4 :]


def webp_lossless(width: int, height: int) -> bytes:
    data = photo("WEBP", lossless=True)
    at = data.index(b"VP8L") + 9
    bits = int.from_bytes(data[at : at + 4], "little") & ~0xFFFFFFF
    return data[:at] + (bits | (height - 1) << 14 | (width - 1)).to_bytes(4, "little") + data[at + 4 :]


def tiff(width: int, height: int) -> bytes:
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, 16),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 24) + b"\0" * 16 + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


CLAIMS: dict[str, Claim] = {
    "png": png,
    "bmp": bmp,
    "gif": gif,
    "gif frame": gif_frame,
    "jpeg": jpeg,
    "webp canvas": webp_extended,
    "webp lossy": webp_lossy,
    "webp lossless": webp_lossless,
    "tiff": tiff,
}


@pytest.mark.parametrize("kind", CLAIMS)
@pytest.mark.parametrize("decoder", DECODERS, ids=["reference", "fast"])
def test_a_claim_beyond_the_limit_is_refused_at_once(kind: str, decoder: Decoder) -> None:
    data = CLAIMS[kind](8000, 8000)
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"8000x8000 = 64\.0 megapixels; the limit is 50"):
        decoder(data, ALL)
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize(
    ("kind", "side"),
    [("png", 60_000), ("bmp", 60_000), ("gif", 60_000), ("gif frame", 60_000), ("jpeg", 65_000), ("tiff", 60_000)],
)
@pytest.mark.parametrize("decoder", DECODERS, ids=["reference", "fast"])
def test_an_absurd_claim_is_refused_at_once(kind: str, side: int, decoder: Decoder) -> None:
    data = CLAIMS[kind](side, side)
    start = time.perf_counter()
    with pytest.raises(ImageError, match="megapixels; the limit is 50"):
        decoder(data, ALL)
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("make", [webp_extended, webp_lossy, webp_lossless])
def test_an_absurd_webp_canvas_is_refused_before_pillow_opens_it(make: Claim) -> None:
    with pytest.raises(ImageError, match=r"16383x16383 = 268\.4 megapixels"):
        check_format(make(16_383, 16_383), ALL)


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "jpeg", "tiff", "webp lossy", "webp lossless"])
def test_the_makers_of_claims_make_files_that_are_decoded_where_the_claim_is_true(kind: str) -> None:
    """Else the tests above would be refused for another reason."""
    data = CLAIMS[kind](32, 24) if kind not in {"png", "bmp", "tiff"} else CLAIMS[kind](4, 3)
    assert as_array(reference_decode(data, ALL)).shape[2] == 3


def test_the_limit_is_the_specs() -> None:
    with pytest.raises(ImageError, match=r"the limit is 0\.0005"):
        reference_decode(photo("PNG"), Decode(max_megapixels=0.0005))
    assert reference_decode(photo("PNG"), Decode(max_megapixels=32 * 24 / 1e6)) is not None


@pytest.mark.parametrize("decoder", DECODERS, ids=["reference", "fast"])
def test_a_jpeg_of_a_thousand_scans_is_refused(decoder: Decoder) -> None:
    data = photo("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    attack = data[:last] + data[last:-2] * 1000 + b"\xff\xd9"
    with pytest.raises(ImageError, match=rf"at most {MAX_SCANS} are decoded"):
        decoder(attack, ALL)


@pytest.mark.parametrize("decoder", DECODERS, ids=["reference", "fast"])
def test_scans_are_counted_in_the_picture_not_in_what_follows_it_or_its_metadata(decoder: Decoder) -> None:
    """A phone's "motion photo" has a film behind the JPEG: megabytes in which FF DA stands by chance."""
    data = photo("JPEG", progressive=True)
    metadata = b"\xff\xe5" + struct.pack(">H", 2 + 600) + b"\xff\xda" * 300
    filmed = data[:2] + metadata + data[2:] + b"\xff\xda" * 300
    assert np.array_equal(as_array(decoder(filmed, ALL)), as_array(decoder(data, ALL)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_format_is_recognized_by_content(kind: str) -> None:
    assert sniff(photo(kind)) == kind.lower()


@pytest.mark.parametrize("data", [b"", b"\xff", b"RIFF", b"<svg/>", b"%PDF-1.7", b"\0" * 64])
def test_anything_else_is_not_a_format(data: bytes) -> None:
    assert sniff(data) is None


def test_an_empty_file_and_a_text_say_so() -> None:
    with pytest.raises(ImageError, match="empty"):
        check_format(b"", ALL)
    with pytest.raises(ImageError, match=r"not a picture: it starts with b'Plimsoll'; accepted formats: jpeg"):
        check_format(b"Plimsoll marks", ALL)


def test_tiff_is_refused_by_default_and_taken_when_asked_for() -> None:
    with pytest.raises(ImageError, match="a tiff file; accepted formats") as caught:
        check_format(photo("TIFF"), Decode())
    assert '"tiff"' in caught.value.hint
    assert check_format(photo("TIFF"), ALL) == "tiff"


def test_read_takes_bytes_and_paths(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert read(b"abc") == read(path) == b"abc"


def test_read_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="not a regular file but a folder"):
        read(tmp_path)
    with pytest.raises(ImageError, match="null"):
        read(Path("a\0b"))
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 10)
    (tmp_path / "large").write_bytes(b"x" * 11)
    for source in (tmp_path / "large", b"x" * 11):
        with pytest.raises(ImageError, match="larger than"):
            read(source)


def test_samples_are_those_whose_format_the_spec_accepts() -> None:
    names = [name for name, _ in sample_pictures(Decode())]
    assert len(names) == 6
    assert names == sorted(names)
    assert [name for name, _ in sample_pictures(Decode(formats=("png", "gif")))] == ["alpha.png"]
    for _, data in sample_pictures(Decode()):
        assert reference_decode(data, Decode())
