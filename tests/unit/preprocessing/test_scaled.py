"""Large pictures: decoders that leave out what the resize would throw away, and ways that are faster than Pillow's."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plimsoll.errors import ImageError
from plimsoll.preprocessing import Preprocessing, Preprocessor, fast, fast_decode, memory
from plimsoll.preprocessing.decode import Array, Reduced, as_array, decode
from plimsoll.spec import Input
from plimsoll.spec.steps import Decode, Resize

SIDE = 64
SIZES = [(SIDE * 16, SIDE * 8), (SIDE * 9 + 5, SIDE * 17 + 3), (SIDE * 33 + 7, SIDE * 40 + 1)]
"""Reduced by whole numbers; decoded at 1/4 and at 1/8 with squares that reach beyond the picture."""


@cache
def detailed(width: int, height: int) -> Image.Image:
    """A picture with structure of every size, and no symmetry."""
    random = np.random.default_rng(width)
    pixels = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 9):
        coarse = random.integers(0, 256, (2**octave, 2**octave, 3), np.uint8)
        pixels += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32) / 8
    pixels += random.normal(0, 6, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def saved(image: Image.Image, format_: str, orientation: int = 1, **options: Any) -> bytes:
    stored = io.BytesIO()
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    image.save(stored, format_, **options)
    return stored.getvalue()


def preprocessor(preprocessing: Preprocessing, *steps: dict[str, Any], **decode_options: Any) -> Preprocessor:
    resize = {"step": "resize", "width": SIDE, "height": SIDE}
    return Preprocessor(
        Input.model_validate({"steps": [{"step": "decode", **decode_options}, *(steps or (resize,))]}), preprocessing
    )


def difference(data: bytes, first: Preprocessor, second: Preprocessor) -> Array:
    return np.asarray(first(data).astype(np.int64) - second(data))


@pytest.mark.parametrize("preprocessing", ["fast", "scaled"])
@pytest.mark.parametrize("size", [*SIZES, (SIDE * 2, SIDE * 2), (SIDE * 65, SIDE * 65)], ids=str)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP"])
def test_nothing_rounds_to_one_side(size: tuple[int, int], format_: str, preprocessing: Preprocessing) -> None:
    """Pillow itself rounds halves up, which shows at a reduction by exactly 2: an eighth of a level in two passes; so
    does OpenCV before 5 where each sample lies in the middle of four pixels."""
    data = saved(detailed(*size), format_)
    whole = size[0] % SIDE == size[1] % SIDE == 0
    allowed = 0.15 if size[0] == SIDE * 2 or (whole and int(fast_decode.opencv().__version__[0]) < 5) else 0.06
    assert abs(difference(data, preprocessor(preprocessing), preprocessor("reference")).mean()) < allowed


def test_a_plain_colour_stays_what_it_is() -> None:
    data = saved(Image.new("RGB", (SIDE * 20, SIDE * 20), (1, 128, 254)), "PNG")
    assert np.unique(preprocessor("fast")(data).reshape(-1, 3), axis=0).tolist() == [[1, 128, 254]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_decoding_at_a_part_of_the_size_is_near_the_reference(size: tuple[int, int], orientation: int) -> None:
    """As near as fast preprocessing: its means are the decoder's. A shift by one pixel of the picture would show."""
    data = saved(detailed(*size), "JPEG", orientation, quality=92)
    reference, fast_, scaled = (preprocessor(name, exif_orientation=True) for name in ("reference", "fast", "scaled"))
    decoded = scaled.stages[0][1](data)
    assert isinstance(decoded, Reduced)
    assert decoded.mean == {0: 4, 1: 4, 2: 8}[SIZES.index(size)]
    own, allowed = (np.abs(difference(data, way, reference)) for way in (scaled, fast_))
    assert own.mean() < allowed.mean() + 0.1
    assert own.max() <= allowed.max() + 3
    assert scaled.with_geometry(data)[1] == reference.with_geometry(data)[1]


@pytest.mark.parametrize(
    "resize",
    [
        {"fit": "short_edge", "size": SIDE},
        {"fit": "letterbox", "width": SIDE, "height": SIDE},
        {"fit": "stretch", "width": SIDE, "height": SIDE, "filter": "bicubic"},
        {"fit": "stretch", "width": SIDE, "height": SIDE, "filter": "lanczos"},
        {"fit": "stretch", "width": SIDE, "height": SIDE, "filter": "area"},
        {"fit": "stretch", "width": SIDE, "height": SIDE, "convention": "tensorflow", "antialias": True},
    ],
    ids=str,
)
def test_every_resize_that_averages_may_follow(resize: dict[str, Any]) -> None:
    data = saved(detailed(*SIZES[2]), "JPEG", 6, quality=92)
    reference, scaled = (
        preprocessor(name, {"step": "resize", **resize}, exif_orientation=True) for name in ("reference", "scaled")
    )
    decoded = scaled.stages[0][1](data)
    assert isinstance(decoded, Reduced)
    assert decoded.mean > 1
    apart = np.abs(difference(data, scaled, reference))
    assert apart.mean() < 0.8
    assert apart.max() < 12
    assert scaled.with_geometry(data)[1] == reference.with_geometry(data)[1]


@pytest.mark.parametrize(
    "resize",
    [
        {"filter": "nearest"},
        {"convention": "opencv"},
        {"convention": "opencv", "filter": "area"},
        {"convention": "tensorflow"},
        {"convention": "tensorflow", "antialias": True, "rounding": "none"},
    ],
    ids=str,
)
def test_a_resize_that_needs_every_pixel_gets_it(resize: dict[str, Any]) -> None:
    step = Resize(width=SIDE, height=SIDE, **resize)
    assert fast.decoder_scale(SIDE * 40, SIDE * 40, step) == 1


def test_the_decoder_leaves_twice_the_result_and_no_less() -> None:
    step = Resize(width=SIDE, height=SIDE)
    assert [fast.decoder_scale(SIDE * ratio, SIDE * (ratio + 1), step) for ratio in (3, 4, 7, 8, 15, 16, 39)] == [
        1, 2, 2, 4, 4, 8, 8,
    ]  # fmt: skip


@pytest.mark.parametrize("other", [(SIDE * 3, SIDE * 3), (SIDE * 120, SIDE * 4)], ids=["small", "narrow"])
def test_where_there_is_nothing_to_leave_out_scaled_is_fast(other: tuple[int, int]) -> None:
    data = saved(detailed(*other), "JPEG")
    assert not difference(data, preprocessor("scaled"), preprocessor("fast")).any()


def test_pictures_of_other_sizes_than_proven_are_prepared_as_fast() -> None:
    spec = preprocessor("scaled").spec
    data = saved(detailed(*SIZES[0]), "JPEG")
    shorter = min(SIZES[0])
    proven = Preprocessor(spec, "scaled", scaled_sides=(shorter, shorter))
    assert not difference(data, proven, preprocessor("scaled")).any()
    for sides in ((shorter + 1, 9999), (0, shorter - 1)):
        assert not difference(data, Preprocessor(spec, "scaled", scaled_sides=sides), preprocessor("fast")).any()


FILES: dict[str, Callable[[Image.Image, int], bytes]] = {
    "jpeg": lambda image, turn: saved(image, "JPEG", turn),
    "grey jpeg": lambda image, turn: saved(image.convert("L"), "JPEG", turn),
    "progressive jpeg": lambda image, turn: saved(image, "JPEG", turn, progressive=True),
    "cmyk jpeg": lambda image, turn: saved(image.convert("CMYK"), "JPEG", turn),
    "png": lambda image, turn: saved(image, "PNG", turn),
    "rgba png": lambda image, turn: saved(_with_alpha(image), "PNG", turn),
    "webp": lambda image, turn: saved(image, "WEBP", turn),
    "lossless webp": lambda image, turn: saved(image, "WEBP", turn, lossless=True),
    "webp with alpha": lambda image, turn: saved(_with_alpha(image), "WEBP", turn),
    "bmp": lambda image, _: saved(image, "BMP"),
}


def _with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", FILES)
def test_every_way_of_decoding_gives_the_references_pixels(kind: str, turn: int, order: str) -> None:
    data = FILES[kind](detailed(61, 43), turn)
    for step in (Decode(exif_orientation=True), Decode(), Decode(alpha="composite"), Decode(colour="grey")):
        expected = as_array(decode(data, step))
        expected = expected[:, :, ::-1] if order == "BGR" and step.colour == "RGB" else expected
        assert np.array_equal(fast_decode.decode(data, step, order), expected), step


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_are_answered_and_refused_alike(kind: str) -> None:
    whole = FILES[kind](detailed(61, 43), 1)
    random = np.random.default_rng(len(kind))
    damaged = [whole[: int(cut)] for cut in np.linspace(1, len(whole) - 1, 25)]
    for _ in range(40):
        changed = bytearray(whole)
        changed[int(random.integers(8, len(whole)))] ^= 1 << int(random.integers(8))
        damaged.append(bytes(changed))
    for truncated in ("error", "fill"):
        for data in damaged:
            step = Decode.model_validate({"truncated": truncated})
            expected, answer = _outcome(decode, data, step), _outcome(fast_decode.decode, data, step)
            assert type(expected) is type(answer), (expected, answer)
            assert np.array_equal(expected, answer)


def _outcome(way: Any, data: bytes, step: Decode) -> Array | str:
    try:
        return as_array(way(data, step))
    except ImageError as error:
        return str(error)


def test_a_jpeg_of_50_megapixels_and_more_needs_little_memory_where_its_decoder_shrinks_it() -> None:
    """What is reserved before decoding: the means and the file, not the picture."""
    data = saved(Image.new("RGB", (7000, 7000), (90, 20, 200)), "JPEG")
    step = Decode()
    budget = memory.budget()
    with budget.picture():
        fast_decode.decode_for_resize(data, step, "RGB", lambda *_: 8)
        assert 0 < budget.taken < 4_000_000
    assert budget.taken == 0


def test_a_limit_above_pillows_own_is_the_only_one() -> None:
    """Pillow warns from 89 megapixels on and refuses 179; the Spec may allow what the largest phones make."""
    limit = Image.MAX_IMAGE_PIXELS
    data = saved(Image.new("L", (13_400, 13_400), 77), "JPEG")
    with pytest.raises(ImageError, match=r"179.6 megapixels; the limit is 50"):
        preprocessor("reference")(data)
    for preprocessing in ("reference", "scaled"):
        tensor = preprocessor(preprocessing, max_megapixels=200)(data)
        assert np.unique(tensor).tolist() == [77]
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert limit == Image.MAX_IMAGE_PIXELS
