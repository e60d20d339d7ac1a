"""Frames of animations, pages and collections: which are selected, what they show, and the limits."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from plimsoll.core.target import Preprocessing
from plimsoll.errors import ImageError
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.decode import as_array
from plimsoll.preprocessing.decode import decode as decode_first
from plimsoll.preprocessing.frames import frames
from plimsoll.spec import Input
from plimsoll.spec.steps import Decode

FORMATS = ("jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "heif")
COLOURS = ("red", "lime", "blue", "white", "black", "yellow", "magenta")


def pages(count: int, size: tuple[int, int] = (40, 24)) -> list[Image.Image]:
    """Pictures of one colour each, so that no format has to approximate."""
    return [Image.new("RGB", size, COLOURS[number % len(COLOURS)]) for number in range(count)]


def saved(images: Sequence[Image.Image], format_: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    images[0].save(stream, format_, save_all=True, append_images=images[1:], **options)
    return stream.getvalue()


def step(**options: Any) -> Decode:
    return Decode(formats=FORMATS, **{"frames": "all", **options})


def colours(data: bytes, **options: Any) -> list[tuple[int, list[int]]]:
    """The number of each selected frame, and its colour."""
    return [(number, as_array(pixels)[12, 20].tolist()) for number, pixels in frames(data, step(**options))]


ANIMATED: dict[str, dict[str, Any]] = {
    "GIF": {"duration": 50},
    "WEBP": {"duration": 50, "lossless": True},
    "PNG": {"duration": 50},
    "TIFF": {},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("format_", ANIMATED)
def test_all_frames_come_in_order(format_: str) -> None:
    images = pages(5)
    shown = colours(saved(images, format_, **ANIMATED[format_]))
    assert [number for number, _ in shown] == [0, 1, 2, 3, 4]
    for (_, colour), image in zip(shown, images, strict=True):
        assert np.abs(np.array(colour) - image.getpixel((0, 0))).max() <= (4 if format_ == "AVIF" else 0)


@pytest.mark.parametrize("format_", ANIMATED)
def test_every_second_and_the_first(format_: str) -> None:
    data = saved(pages(5), format_, **ANIMATED[format_])
    assert [number for number, _ in colours(data, frames="every 2")] == [0, 2, 4]
    assert [number for number, _ in colours(data, frames="every 9")] == [0]
    assert [number for number, _ in colours(data, frames="first")] == [0]


@pytest.mark.parametrize("format_", [*ANIMATED, "BMP", "JPEG"])
def test_a_single_picture_is_its_own_only_frame(format_: str) -> None:
    stream = io.BytesIO()
    Image.effect_noise((40, 24), 60).convert("RGB").save(stream, format_)
    ((number, pixels),) = frames(stream.getvalue(), step())
    assert number == 0
    assert np.array_equal(as_array(pixels), as_array(decode_first(stream.getvalue(), step())))


def test_a_frame_shows_what_earlier_ones_left_standing() -> None:
    first, second = Image.new("RGB", (40, 24), "red"), Image.new("RGB", (40, 24), "red")
    ImageDraw.Draw(second).rectangle((0, 0, 9, 9), fill="lime")
    data = saved([first, second], "GIF", duration=50, optimize=False)
    (_, _), (_, pixels) = frames(data, step())
    assert as_array(pixels)[5, 5].tolist() == [0, 255, 0]
    assert as_array(pixels)[20, 30].tolist() == [255, 0, 0]


def test_more_frames_than_the_limit_are_refused_after_it() -> None:
    data = saved(pages(6), "WEBP", lossless=True)
    iterator = frames(data, step(max_frames=4))
    assert len([*islice(iterator, 4)]) == 4
    with pytest.raises(ImageError, match="more than 4 frames") as caught:
        next(iterator)
    assert "every 5" in caught.value.hint
    assert len(colours(data, max_frames=3, frames="every 2")) == 3


def test_frames_share_a_budget_of_pixels() -> None:
    data = saved(pages(12, (100, 100)), "PNG")
    assert len(colours(data, max_megapixels=0.012)) == 12
    with pytest.raises(ImageError, match=r"more than 0\.1 megapixels together"):
        colours(data, max_megapixels=0.01)


def test_pages_of_other_sizes_are_checked_each() -> None:
    data = saved([*pages(1), *pages(1, (400, 300))], "TIFF")
    assert len(colours(data)) == 2
    with pytest.raises(ImageError, match="400x300"):
        colours(data, max_megapixels=0.1)


def test_a_page_that_pillow_reads_as_another_picture_is_refused() -> None:
    data = saved([*pages(1), Image.new("F", (40, 24))], "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        colours(data)


def test_previews_beside_the_pages_of_a_tiff_do_not_count() -> None:
    images = pages(3)
    images[1].encoderinfo = {"tiffinfo": {254: 1}}
    assert [colour for _, colour in colours(saved(images, "TIFF"))] == [[255, 0, 0], [0, 0, 255]]
    with pytest.raises(ImageError, match="preview"):
        colours(saved(pages(1), "TIFF", tiffinfo={254: 1}))


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_a_cut_animation_is_an_error_or_ends_early(format_: str) -> None:
    rng = np.random.default_rng(5)
    noise = [Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)) for _ in range(4)]
    data = saved(noise, format_, duration=50)
    cut = data[: len(data) * 7 // 10]
    try:
        shown = [number for number, _ in frames(cut, step())]
    except ImageError:
        return
    assert format_ == "GIF"  # Pillow takes the end of a GIF file for the end of the animation.
    assert shown == [0, 1]


@pytest.mark.parametrize("preprocessing", ["reference", "fast", "scaled"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_each_frame_becomes_the_tensor_that_it_alone_would(preprocessing: Preprocessing, order: str) -> None:
    rng = np.random.default_rng(6)
    noise = [Image.fromarray(rng.integers(0, 256, (30, 50, 3), np.uint8)) for _ in range(3)]
    steps = [
        {"step": "decode", "formats": FORMATS, "frames": "all"},
        {"step": "resize", "width": 16, "height": 16},
        {"step": "channels", "order": order},
        {"step": "mean", "values": [104.0, 117.0, 123.0]},
    ]
    preprocessor = Preprocessor(Input.model_validate({"steps": steps}), preprocessing)
    reference = Preprocessor(Input.model_validate({"steps": steps}))
    shown = [*preprocessor.frames(saved(noise, "WEBP", lossless=True))]
    assert len(shown) == 3
    for (_, tensor, geometry), image in zip(shown, noise, strict=True):
        # A picture that Pillow has decoded is resized by Pillow, in fast preprocessing too.
        assert np.array_equal(tensor, reference(saved([image], "PNG")))
        assert (geometry.width, geometry.height) == (50, 30)
