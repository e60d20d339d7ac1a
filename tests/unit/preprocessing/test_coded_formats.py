"""HEIC and AVIF: what they become, what they are turned by, and their limits."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from plimsoll.errors import ImageError
from plimsoll.preprocessing import fast_decode
from plimsoll.preprocessing.decode import Array, as_array, orientation
from plimsoll.preprocessing.decode import decode as reference_decode
from plimsoll.preprocessing.frames import frames
from plimsoll.spec.steps import Decode

pillow_heif = pytest.importorskip("pillow_heif")
pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")

FORMATS = ("heif", "avif")


def picture(size: tuple[int, int] = (96, 64)) -> Image.Image:
    rng = np.random.default_rng(2)
    return Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


def saved(format_: str, image: Image.Image | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = image or picture()
    if format_ == "avif":
        image.save(stream, "AVIF", **options)
    else:
        pillow_heif.from_pillow(image).save(stream, **options)
    return stream.getvalue()


def decoded(data: bytes, **options: Any) -> Array:
    step = Decode(formats=FORMATS, **options)
    reference, quick = as_array(reference_decode(data, step)), as_array(fast_decode.decode(data, step))
    assert np.array_equal(reference, quick)
    return reference


@pytest.mark.parametrize("format_", FORMATS)
def test_pixels_come_out_as_their_own_library_gives_them(format_: str) -> None:
    data = saved(format_, quality=90)
    if format_ == "avif":
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))
    else:
        expected = np.asarray(pillow_heif.open_heif(io.BytesIO(data)).to_pillow().convert("RGB"))
    assert np.array_equal(decoded(data), expected)
    assert np.abs(decoded(data).astype(int) - np.asarray(picture())).mean() < 4
    assert decoded(data, colour="grey").shape == (64, 96, 1)


@pytest.mark.parametrize("format_", FORMATS)
def test_transparency_is_dropped_or_composited(format_: str) -> None:
    image = picture().convert("RGBA")
    image.putalpha(0)
    data = saved(format_, image, quality=90)
    assert decoded(data, alpha="composite").min() >= 254
    assert decoded(data, alpha="drop").shape == (64, 96, 3)


@pytest.mark.parametrize("value", range(1, 9))
def test_an_avif_is_turned_where_the_spec_asks_for_it(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    data = saved("avif", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert orientation(data) == value
    assert np.array_equal(decoded(data, exif_orientation=True), expected)


def test_the_turning_of_a_heic_is_a_part_of_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = pillow_heif.from_pillow(picture())
    file[0].info["exif"] = exif.tobytes()  # Its writer turns this into a property of the picture.
    stream = io.BytesIO()
    file.save(stream, quality=90)
    data = stream.getvalue()
    for follows in (False, True):
        assert decoded(data, exif_orientation=follows).shape == (96, 64, 3)
    assert orientation(data) == 1


@pytest.mark.parametrize("format_", FORMATS)
def test_size_is_checked_before_anything_is_decoded(format_: str) -> None:
    data = saved(format_, picture((640, 480)))
    for decode in (reference_decode, fast_decode.decode):
        with pytest.raises(ImageError, match="640x480"):
            decode(data, Decode(formats=FORMATS, max_megapixels=0.3))


@pytest.mark.parametrize("options", [{}, {"save_all": True, "append_images": [picture((48, 80))]}])
@pytest.mark.parametrize("stated", [(16, 16), (48, 79), (80, 48), (50, 82)])
def test_an_avif_that_states_another_size_than_it_codes_is_refused(
    stated: tuple[int, int], options: dict[str, Any]
) -> None:
    """libavif would decode it whole and rescale it; a track may be larger than its frames, as where pixels are not
    square."""
    data = saved("avif", picture((48, 80)), **options)
    if options:
        claims = [b"@\0\0\0" + (size[0] << 16).to_bytes(4) + (size[1] << 16).to_bytes(4) for size in ((48, 80), stated)]
    else:
        claims = [b"ispe" + bytes(4) + size[0].to_bytes(4) + size[1].to_bytes(4) for size in ((48, 80), stated)]
    hostile = data.replace(claims[0], claims[1])
    assert hostile != data
    if options and stated == (50, 82):
        assert decoded(hostile).shape == (82, 50, 3)
        return
    for decode in (reference_decode, fast_decode.decode):
        with pytest.raises(ImageError, match=f"states {stated[0]}x{stated[1]}, but its AV1 picture is coded as 48x80"):
            decode(hostile, Decode(formats=FORMATS))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_cut_or_damaged_file_is_an_error(format_: str) -> None:
    data = saved(format_, quality=90)
    for cut in (20, 60, len(data) // 3, len(data) - 40):
        for decode in (reference_decode, fast_decode.decode):
            with pytest.raises(ImageError):
                decode(data[:cut], Decode(formats=FORMATS))


def test_the_pictures_of_a_heic_file_are_its_frames() -> None:
    file = pillow_heif.HeifFile()
    for level in (20, 240):
        file.add_from_pillow(Image.new("RGB", (32, 32), (level,) * 3))
    stream = io.BytesIO()
    file.save(stream, quality=90)
    step = Decode(formats=FORMATS, frames="all")
    levels = [int(as_array(pixels).mean()) for _, pixels in frames(stream.getvalue(), step)]
    assert levels == pytest.approx([20, 240], abs=3)


def test_without_its_library_a_heic_is_refused_with_what_to_install() -> None:
    program = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from plimsoll.preprocessing.decode import decode\n"
        "from plimsoll.spec.steps import Decode\n"
        "try: decode(sys.stdin.buffer.read(), Decode(formats=('heif',)))\n"
        "except Exception as error: print(type(error).__name__, error.message, error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=saved("heif"), capture_output=True, check=True, timeout=120
    )
    assert done.stdout.decode().startswith("ImageError a HEIC picture: what reads it is not installed")
    assert "pip install 'plimsoll-line[heif]'" in done.stdout.decode()
