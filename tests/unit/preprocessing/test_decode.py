"""Decoding, in both implementations: what every kind of picture becomes, and what is refused."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from plimsoll.errors import ImageError
from plimsoll.preprocessing import fast_decode
from plimsoll.preprocessing.decode import Array, Pixels, as_array, orientation
from plimsoll.preprocessing.decode import decode as reference_decode
from plimsoll.spec.steps import Decode

EXAMPLES = Path(__file__).parents[3] / "examples"
PICTURES = sorted([*(EXAMPLES / "photos").glob("*.jpg"), *(EXAMPLES / "awkward").iterdir()])
PHOTO = (EXAMPLES / "photos" / "coffee_cup.jpg").read_bytes()

Decoder = Callable[..., Array]
"""Takes a file's bytes and the options of the decode step."""


@pytest.fixture(params=[reference_decode, fast_decode.decode], ids=["reference", "fast"])
def decode(request: pytest.FixtureRequest) -> Decoder:
    def run(data: bytes, **options: Any) -> Array:
        return as_array(request.param(data, Decode(**options)))

    return run


def noise(*shape: int, dtype: type = np.uint8) -> Array:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def smooth(width: int = 64, height: int = 48) -> Image.Image:
    with Image.open(io.BytesIO(PHOTO)) as image:
        return image.convert("RGB").resize((width, height))


def png16(samples: Array) -> bytes:
    """An RGB PNG of 16 bits a sample, which Pillow can't write."""
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_lossless_colours_come_back(decode: Decoder, format_: str) -> None:
    pixels = noise(5, 7, 3)
    assert np.array_equal(decode(saved(Image.fromarray(pixels), format_), formats=("png", "bmp", "tiff")), pixels)


def test_lossless_webp_comes_back(decode: Decoder) -> None:
    pixels = noise(5, 7, 3)
    assert np.array_equal(decode(saved(Image.fromarray(pixels), "WEBP", lossless=True)), pixels)


def test_grey_becomes_three_equal_channels_or_stays_one(decode: Decoder) -> None:
    pixels = noise(5, 7)
    data = saved(Image.fromarray(pixels), "PNG")
    assert np.array_equal(decode(data), np.repeat(pixels[:, :, None], 3, axis=2))
    assert np.array_equal(decode(data, colour="grey"), pixels[:, :, None])


def test_grey_of_a_colour_picture_is_itu_r_601_luma(decode: Decoder) -> None:
    pixels = noise(16, 16, 3)
    luma = pixels.astype(float) @ [0.299, 0.587, 0.114]
    grey = decode(saved(Image.fromarray(pixels), "PNG"), colour="grey")
    assert grey.shape == (16, 16, 1)
    assert np.abs(grey[:, :, 0] - luma).max() <= 1


def test_a_grey_jpeg_both_ways(decode: Decoder) -> None:
    data = (EXAMPLES / "awkward" / "grey.jpg").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        stored = np.asarray(image)
    assert np.array_equal(decode(data, colour="grey")[:, :, 0], stored)
    assert np.array_equal(decode(data), np.repeat(stored[:, :, None], 3, axis=2))


@pytest.mark.parametrize("transparency", [None, 2, b"\x00\xff\x80"])
def test_a_palette_gives_its_colours(decode: Decoder, transparency: object) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)
    indices = noise(6, 5) % 3
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    data = saved(image, "PNG", **options)
    assert np.array_equal(decode(data), colours[indices])
    if transparency == 2:
        over_white = np.where((indices == 2)[:, :, None], 255, colours[indices])
        assert np.array_equal(decode(data, alpha="composite"), over_white)
    if isinstance(transparency, bytes):
        grey = decode(data, colour="grey")[:, :, 0]
        assert np.abs(grey - colours[indices].astype(float) @ [0.299, 0.587, 0.114]).max() <= 1


def test_alpha_is_dropped_or_composited_on_a_colour(decode: Decoder) -> None:
    pixels = noise(9, 8, 4)
    data = saved(Image.fromarray(pixels), "PNG")
    assert np.array_equal(decode(data), pixels[:, :, :3])
    background = (10, 200, 60)
    opacity = pixels[:, :, 3:] / 255
    blended = pixels[:, :, :3] * opacity + np.array(background) * (1 - opacity)
    composited = decode(data, alpha="composite", background=background)
    assert composited.shape == (9, 8, 3)
    assert np.abs(composited - blended).max() <= 1


def test_grey_with_alpha_is_composited(decode: Decoder) -> None:
    pixels = noise(9, 8, 2)
    data = saved(Image.fromarray(pixels), "PNG")
    opacity = pixels[:, :, 1] / 255
    blended = pixels[:, :, 0] * opacity + 100 * (1 - opacity)
    assert (
        np.abs(decode(data, alpha="composite", background=(100, 100, 100), colour="grey")[:, :, 0] - blended).max() <= 1
    )
    assert np.array_equal(decode(data, colour="grey")[:, :, 0], pixels[:, :, 0])


def test_cmyk_is_converted_as_pillow_does_it(decode: Decoder) -> None:
    data = (EXAMPLES / "awkward" / "cmyk.jpg").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK"
        assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))
    with pytest.raises(ImageError, match="CMYK"):
        decode(data, dct="fast")


def test_sixteen_bits_keep_their_high_byte(decode: Decoder) -> None:
    grey = noise(6, 7, dtype=np.uint16)
    data = saved(Image.fromarray(grey), "PNG")
    assert np.array_equal(decode(data, colour="grey")[:, :, 0], grey >> 8)
    assert np.array_equal(decode(data)[:, :, 1], grey >> 8)
    colour = noise(6, 7, 3, dtype=np.uint16)
    assert np.array_equal(decode(png16(colour)), colour >> 8)


def test_the_transparent_level_of_a_sixteen_bit_grey_picture_is_composited(decode: Decoder) -> None:
    grey = np.array([[0x1234, 0x1235, 0xFFFF]], np.uint16)
    data = saved(Image.fromarray(grey), "PNG", transparency=0x1234)
    assert decode(data)[0, :, 0].tolist() == [0x12, 0x12, 0xFF]
    assert decode(data, alpha="composite", background=(200, 200, 200))[0, :, 0].tolist() == [200, 0x12, 0xFF]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_unknown_range_are_refused(decode: Decoder, mode: str) -> None:
    with pytest.raises(ImageError, match="32-bit"):
        decode(saved(Image.new(mode, (4, 4)), "TIFF"), formats=("tiff",))


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_followed_only_if_asked_for(decode: Decoder, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    data = saved(smooth(40, 24), "JPEG", exif=exif, quality=95)
    with Image.open(io.BytesIO(data)) as image:
        turned, stored = np.asarray(ImageOps.exif_transpose(image)), np.asarray(image)
    assert orientation(data) == value
    assert np.array_equal(decode(data), stored)
    assert np.array_equal(decode(data, exif_orientation=True), turned)
    assert turned.shape == ((40, 24, 3) if value >= 5 else (24, 40, 3))
    fast_dct = decode(data, exif_orientation=True, dct="fast")
    assert fast_dct.shape == turned.shape
    assert np.abs(fast_dct.astype(int) - turned).max() < 16


def test_an_orientation_that_does_not_exist_changes_nothing(decode: Decoder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    data = saved(smooth(), "JPEG", exif=exif)
    assert orientation(data) == 1
    assert np.array_equal(decode(data, exif_orientation=True), decode(data))


def test_the_first_frame_of_a_gif_counts(decode: Decoder) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(data), np.full((4, 6, 3), [255, 0, 0]))


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_lossy_formats_equal_pillow(decode: Decoder, format_: str) -> None:
    data = saved(smooth(), format_)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))


def test_a_wrong_extension_does_not_matter(decode: Decoder) -> None:
    data = (EXAMPLES / "awkward" / "mislabelled.jpg").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert decode(data).shape == (decode(data, formats=("png",))).shape
    with pytest.raises(ImageError, match="a png file; accepted formats: jpeg"):
        decode(data, formats=("jpeg",))


FILLED = ["JPEG", "PNG", "GIF", "BMP"]
"""The formats of which Pillow gives the part before the cut; libwebp and libtiff give none."""


@pytest.mark.parametrize("format_", [*FILLED, "WEBP", "TIFF"])
def test_a_truncated_file_is_an_error(decode: Decoder, format_: str) -> None:
    data = saved(smooth(200, 200), format_)
    formats = ("jpeg", "png", "gif", "bmp", "webp", "tiff")
    assert decode(data, formats=formats).shape == (200, 200, 3)
    for share in (0.99, 0.6, 0.1):
        with pytest.raises(ImageError):
            decode(data[: int(len(data) * share)], formats=formats)


@pytest.mark.parametrize("format_", FILLED)
def test_or_the_missing_part_is_filled(decode: Decoder, format_: str) -> None:
    data = saved(smooth(200, 200), format_, interlace=0)
    whole, part = decode(data), decode(data[: int(len(data) * 0.6)], truncated="fill")
    assert part.shape == whole.shape
    rows = slice(-40, None) if format_ == "BMP" else slice(0, 40)  # BMP starts at the bottom.
    assert np.array_equal(part[rows], whole[rows])
    assert not np.array_equal(part, whole)


def test_a_truncated_jpeg_is_filled_with_other_options_too(decode: Decoder) -> None:
    data = saved(smooth(200, 200), "JPEG")
    cut = data[: int(len(data) * 0.6)]
    with pytest.raises(ImageError):
        decode(cut, dct="fast")
    assert np.array_equal(decode(cut, dct="fast", truncated="fill")[:40], decode(data, dct="fast")[:40])


def test_a_truncated_webp_can_not_be_filled(decode: Decoder) -> None:
    data = saved(smooth(200, 200), "WEBP")
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * 0.6)], truncated="fill")


def test_filling_in_one_thread_does_not_change_another(decode: Decoder) -> None:
    data = saved(smooth(200, 200), "PNG")
    cut = data[: int(len(data) * 0.6)]
    start, wrong = threading.Barrier(4), []

    def work(fill: bool) -> None:
        start.wait()
        for _ in range(40):
            try:
                decode(cut, truncated="fill" if fill else "error")
                filled = True
            except ImageError:
                filled = False
            if filled != fill:
                wrong.append(fill)

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_the_fast_cosine_transform_differs(decode: Decoder) -> None:
    difference = np.abs(decode(PHOTO, dct="fast").astype(int) - decode(PHOTO))
    assert 0 < difference.max() < 20
    assert difference.mean() < 2


def test_plain_upsampling_repeats_the_chroma(decode: Decoder) -> None:
    """Cr is constant in each 2 x 2, so R - Y is; up to rounding, and where nothing is clipped."""
    data = saved(smooth(64, 48), "JPEG", subsampling=2, quality=90)

    def spread(upsampling: str) -> float:
        rgb = decode(data, upsampling=upsampling).astype(int)
        with Image.open(io.BytesIO(data)) as image:
            image.draft("L", None)
            luma = np.asarray(image).astype(int)
        cr = (rgb[:, :, 0] - luma).reshape(24, 2, 32, 2)
        inside = ((rgb > 0) & (rgb < 255)).all(axis=2).reshape(24, 2, 32, 2).all(axis=(1, 3))
        assert inside.mean() > 0.5
        return float((cr.max(axis=(1, 3)) - cr.min(axis=(1, 3)))[inside].max())

    assert spread("plain") <= 1
    assert spread("fancy") > 2


CHOICES: list[dict[str, Any]] = [
    {},
    {"exif_orientation": True},
    {"colour": "grey"},
    {"truncated": "fill"},
    {"alpha": "composite"},
    {"dct": "fast"},
]


@pytest.mark.parametrize("options", CHOICES, ids=str)
@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_both_implementations_answer_and_refuse_alike(path: Path, options: dict[str, Any]) -> None:
    step, data = Decode(**options), path.read_bytes()
    expected, answer = outcome(lambda: reference_decode(data, step)), outcome(lambda: fast_decode.decode(data, step))
    if isinstance(expected, str) or isinstance(answer, str):
        assert answer == expected
    else:
        assert np.array_equal(answer, expected)
        if expected.shape[2] == 3:
            assert np.array_equal(fast_decode.decode(data, step, "BGR"), expected[:, :, ::-1])


def outcome(decode: Callable[[], Pixels]) -> Array | str:
    try:
        return as_array(decode())
    except ImageError as error:
        return str(error)
