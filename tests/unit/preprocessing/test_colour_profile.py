"""Colours of an ICC profile come out in sRGB where the Spec asks for it, and a profile that can't be followed changes
nothing."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from plimsoll.preprocessing import fast_decode
from plimsoll.preprocessing.decode import Array, as_array
from plimsoll.preprocessing.decode import decode as reference_decode
from plimsoll.spec.steps import Decode

FORMATS = ("jpeg", "png", "webp", "tiff", "avif")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exchanged() -> bytes:
    """sRGB whose red primary is called green, and the other way round: its pictures come out with these exchanged."""
    profile = bytearray(SRGB)
    for at in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12):
        tag = bytes(profile[at : at + 4])
        if tag in {b"rXYZ", b"gXYZ"}:
            profile[at : at + 4] = b"gXYZ" if tag == b"rXYZ" else b"rXYZ"
    return bytes(profile)


def linear_grey() -> bytes:
    """Light itself as levels of grey (ICC.1, 8.3.2: a white point and a curve)."""
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    tags = struct.pack(">I", 2) + b"wtpt" + struct.pack(">II", 156, 20) + b"kTRC" + struct.pack(">II", 176, 12)
    header = bytearray(128)
    header[8:12], header[12:16], header[16:20], header[20:24] = b"\2\x40\0\0", b"mntr", b"GRAY", b"XYZ "
    header[36:40], header[68:80] = b"acsp", struct.pack(">iii", 63190, 65536, 54061)
    body = tags + white + curve
    header[0:4] = struct.pack(">I", 128 + len(body))
    return bytes(header) + body


def colours() -> Image.Image:
    rng = np.random.default_rng(8)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((48, 32), Image.Resampling.BICUBIC)


def saved(image: Image.Image, format_: str, profile: bytes, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, icc_profile=profile, **options)
    return stream.getvalue()


def decoded(data: bytes, **options: Any) -> Array:
    """What both implementations give, which must be the same."""
    step = Decode(formats=FORMATS, **{"colour_profile": "srgb", **options})
    reference, quick = as_array(reference_decode(data, step)), as_array(fast_decode.decode(data, step))
    assert np.array_equal(reference, quick)
    return reference


OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {},
}


@pytest.mark.parametrize("format_", OPTIONS)
def test_colours_are_converted_where_the_spec_asks_for_it(format_: str) -> None:
    data = saved(colours(), format_, exchanged(), **OPTIONS[format_])
    stored = decoded(data, colour_profile="ignore")
    followed = decoded(data)
    assert np.abs(followed.astype(int) - stored[:, :, [1, 0, 2]]).max() <= 2
    assert np.abs(followed.astype(int) - stored).max() > 50


@pytest.mark.parametrize("format_", OPTIONS)
def test_an_srgb_profile_changes_nothing_that_one_could_see(format_: str) -> None:
    data = saved(colours(), format_, SRGB, **OPTIONS[format_])
    assert np.abs(decoded(data).astype(int) - decoded(data, colour_profile="ignore")).max() <= 1


@pytest.mark.parametrize(
    "profile",
    [
        b"nothing of the kind",
        SRGB[:200],
        SRGB[:36] + b"xxxx" + SRGB[40:],
        SRGB[:16] + b"CMYK" + SRGB[20:],
        SRGB[:128] + b"\xff" * 200,
        linear_grey(),
    ],
    ids=["text", "cut", "no signature", "another space", "damaged tags", "grey for colours"],
)
@pytest.mark.parametrize("format_", OPTIONS)
def test_a_profile_that_can_not_be_followed_is_ignored(format_: str, profile: bytes) -> None:
    data = saved(colours(), format_, profile, **OPTIONS[format_])
    assert np.array_equal(decoded(data), decoded(data, colour_profile="ignore"))


def test_alpha_and_palettes_go_along() -> None:
    rgba = colours().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    data = saved(rgba, "PNG", exchanged())
    plain = saved(Image.fromarray(np.asarray(rgba)[:, :, [1, 0, 2, 3]]), "PNG", b"")
    for alpha in ("drop", "composite"):
        assert np.abs(decoded(data, alpha=alpha).astype(int) - decoded(plain, alpha=alpha)).max() <= 2
    palette = colours().quantize(16)
    data = saved(palette, "PNG", exchanged())
    stored = decoded(data, colour_profile="ignore")
    assert np.abs(decoded(data).astype(int) - stored[:, :, [1, 0, 2]]).max() <= 2


def test_linear_grey_becomes_brighter_and_may_stay_grey() -> None:
    levels = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    data = saved(levels, "PNG", linear_grey())
    level = np.arange(256).reshape(16, 16) / 255
    expected = 255 * np.where(level <= 0.0031308, 12.92 * level, 1.055 * level ** (1 / 2.4) - 0.055)
    followed = decoded(data)
    assert followed.shape == (16, 16, 3)
    assert np.abs(followed[:, :, 0] - expected).max() <= 2
    grey = decoded(data, colour="grey")
    assert grey.shape == (16, 16, 1)
    assert np.abs(grey[:, :, 0].astype(int) - followed[:, :, 0]).max() <= 1


def test_a_profile_in_several_parts_of_a_jpeg_counts_only_whole() -> None:
    padded = exchanged() + bytes(150_000)
    data = saved(colours(), "JPEG", padded, quality=95)
    assert data.count(b"ICC_PROFILE\0") == 3
    stored = decoded(data, colour_profile="ignore")
    assert np.abs(decoded(data).astype(int) - stored[:, :, [1, 0, 2]]).max() <= 2
    at = data.index(b"ICC_PROFILE\0\2")
    assert np.array_equal(decoded(data[: at + 12] + b"\7" + data[at + 13 :]), stored)
