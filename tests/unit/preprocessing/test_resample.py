"""Resizing against those who defined it: stored answers of TensorFlow 2.21, and OpenCV and Pillow themselves."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import pillow_reference
from plimsoll.errors import ImageError
from plimsoll.preprocessing import Preprocessor, fast
from plimsoll.preprocessing.decode import Array, as_array, as_image
from plimsoll.preprocessing.reference import crop, resize, resize_image, resized_size
from plimsoll.spec.files import validate
from plimsoll.spec.steps import Crop, ImageSpec, Resize

HERE = Path(__file__).parent
PHOTOS = HERE.parents[2] / "examples" / "photos"
with np.load(HERE / "data" / "tensorflow_resize.npz") as _stored:
    TENSORFLOW: dict[str, Array] = dict(_stored)
PICTURE = TENSORFLOW.pop("picture")
PILLOW: dict[str, dict[str, str]] = json.loads((HERE / "data" / "pillow_resize.json").read_text(encoding="utf-8"))
LOADER: dict[str, dict[str, str]] = json.loads((HERE / "data" / "tensorflow_loader.json").read_text(encoding="utf-8"))[
    "photos"
]

SIZES = [(16, 12), (50, 61), (29, 37), (61, 12), (9, 55), (28, 38), (1, 1), (58, 74), (90, 37)]
"""(height, width) from a picture of 29 x 37: shrink, grow, leave alone, mixed."""


def by_step(pixels: Array | Image.Image, **options: Any) -> Array:
    return as_array(resize(pixels, Resize(**options), ImageSpec()))


def worst(a: Array, b: Array) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.float64) - b).max())


@pytest.mark.parametrize("key", TENSORFLOW)
def test_tensorflow(key: str) -> None:
    method, coordinates, antialias, size = key.split("/")
    height, width = map(int, size.split("x"))
    options: dict[str, Any] = {
        "filter": method.removesuffix("3"),
        "coordinates": coordinates,
        "width": width,
        "height": height,
    }
    if method != "area":
        options["antialias"] = antialias == "True"
    result = by_step(PICTURE, convention="tensorflow", rounding="none", **options)
    assert result.dtype == np.float32
    # TensorFlow's area sums up in float32: that is its own error, not a difference.
    tolerance = 1e-2 if antialias == "True" else {"bilinear": 0.0, "nearest": 0.0, "area": 2e-3}.get(method, 1e-3)
    assert worst(result[:, :, -1], TENSORFLOW[key]) <= tolerance


def test_tensorflows_conventions_differ_from_one_another() -> None:
    """Else the test above would not tell them apart."""
    same = {frozenset({"area/half_pixel", "area/asymmetric"})}
    shrunk = {key.removesuffix("/16x12"): array for key, array in TENSORFLOW.items() if key.endswith("/16x12")}
    for a, b in itertools.combinations(shrunk, 2):
        if frozenset({a.removesuffix("/False"), b.removesuffix("/False")}) not in same:
            assert worst(shrunk[a], shrunk[b]) > 1, (a, b)


@pytest.mark.parametrize("name", sorted(LOADER))
def test_the_tensorflow_loader_of_open_nsfw_is_bit_identical(name: str) -> None:
    """Every stage of the card open_nsfw_tf against real TensorFlow: see benchmarks/tensorflow_loader.py."""
    card = tomllib.loads(files("plimsoll").joinpath("zoo/cards/open_nsfw_tf.toml").read_text(encoding="utf-8"))
    preprocessor = Preprocessor(validate(card["spec"]).input)
    names = {"decode": "decoded", "resize": "resized", "jpeg": "roundtrip"}
    pixels: Any = (PHOTOS / name).read_bytes()
    for stage, function in preprocessor.stages:
        pixels = function(pixels)
        if stage in names:
            assert sha256(as_array(pixels)) == LOADER[name][names[stage]], stage
    assert sha256(preprocessor(PHOTOS / name)) == LOADER[name]["final"]


def sha256(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


OPENCV = {
    "nearest": "INTER_NEAREST",
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "lanczos": "INTER_LANCZOS4",
    "area": "INTER_AREA",
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", OPENCV)
def test_opencv(name: str, size: tuple[int, int]) -> None:
    height, width = size
    flag: int = getattr(cv2, OPENCV[name])
    options: dict[str, Any] = {"convention": "opencv", "filter": name, "width": width, "height": height}
    levels = by_step(PICTURE, **options)
    assert levels.dtype == np.uint8
    assert worst(levels, cv2.resize(PICTURE, (width, height), interpolation=flag)) <= (0 if name == "nearest" else 1)
    values = by_step(PICTURE, rounding="none", **options)
    assert worst(values, cv2.resize(PICTURE.astype(np.float32), (width, height), interpolation=flag)) <= 2e-3


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
def test_pillow(name: str, size: tuple[int, int]) -> None:
    height, width = size
    options: dict[str, Any] = {"filter": "area" if name == "box" else name, "width": width, "height": height}
    filter_ = getattr(Image.Resampling, name.upper())

    def horizontally_first(image: Image.Image) -> Array:
        return np.asarray(image.resize((width, image.height), filter_).resize((width, height), filter_))

    expected = horizontally_first(Image.fromarray(PICTURE))
    assert np.array_equal(by_step(PICTURE, **options), expected)
    assert np.array_equal(by_step(Image.fromarray(PICTURE), **options), expected)
    assert np.array_equal(by_step(PICTURE[:, :, ::-1], **options), expected[:, :, ::-1])
    grey = Image.fromarray(PICTURE[:, :, 0])
    assert np.array_equal(by_step(PICTURE[:, :, :1], **options)[:, :, 0], horizontally_first(grey))


@pytest.mark.parametrize("filter_", pillow_reference.FILTERS)
@pytest.mark.parametrize("mode", pillow_reference.MODES)
@pytest.mark.parametrize("size", pillow_reference.SIZES)
def test_tall_pictures_are_resized_horizontally_first(size: str, mode: str, filter_: str) -> None:
    """The bytes are those of Pillow 12.3, whichever version is installed: Pillow 13 resizes tall pictures vertically
    first."""
    before, (width, height) = pillow_reference.SIZES[size]
    image = pillow_reference.picture(mode, before)
    expected = PILLOW[f"{mode} {filter_}"][size]
    assert pillow_reference.digest(resize_image(image, width, height, pillow_reference.FILTERS[filter_])) == expected
    if mode in {"L", "RGB"}:
        step = {"width": width, "height": height, "filter": filter_}
        assert pillow_reference.digest(as_image(by_step(image, **step))) == expected
        assert pillow_reference.digest(as_image(by_step(as_array(image), **step))) == expected


@pytest.mark.parametrize("filter_", ["bicubic", "lanczos", "area"])
def test_fast_preprocessing_resizes_what_opencv_cannot_as_the_reference_does(filter_: str) -> None:
    image = pillow_reference.picture("RGB", (333, 500))
    step: dict[str, Any] = {"width": 256, "height": 256, "filter": filter_}
    result = as_image(fast.resize(as_array(image), Resize(**step), ImageSpec()))
    assert pillow_reference.digest(result) == PILLOW[f"RGB {filter_}"]["333x500 to 256x256"]


def test_rounding() -> None:
    """TensorFlow's convert_image_dtype cuts `v / 255 * 255.5` off; the usual way adds a half."""
    options: dict[str, Any] = {"convention": "tensorflow", "width": 12, "height": 16}
    exact = by_step(PICTURE, rounding="none", **options)
    assert np.array_equal(by_step(PICTURE, **options), np.floor(exact + 0.5).astype(np.uint8))
    unit = by_step(PICTURE.astype(np.float32) * np.float32(1 / 255), rounding="none", **options)
    assert np.array_equal(
        by_step(PICTURE, rounding="tensorflow", **options), (unit * np.float32(255.5)).astype(np.uint8)
    )
    white = np.full((8, 8, 3), 255, np.uint8)
    assert (
        by_step(white, convention="tensorflow", filter="bicubic", rounding="tensorflow", width=5, height=5).min() == 255
    )


def letterbox(pixels: Array, shape: tuple[int, int], *, auto: bool, scaleup: bool, stride: int) -> Array:
    """YOLOv5's `letterbox` (utils/augmentations.py), written out; `shape` is (height, width)."""
    height, width = pixels.shape[:2]
    r = min(shape[0] / height, shape[1] / width)
    if not scaleup:
        r = min(r, 1.0)
    unpadded = round(width * r), round(height * r)
    dw, dh = float(shape[1] - unpadded[0]), float(shape[0] - unpadded[1])
    if auto:
        dw, dh = dw % stride, dh % stride
    dw, dh = dw / 2, dh / 2
    if (width, height) != unpadded:
        pixels = np.asarray(cv2.resize(pixels, unpadded, interpolation=cv2.INTER_LINEAR))
    top, bottom, left, right = round(dh - 0.1), round(dh + 0.1), round(dw - 0.1), round(dw + 0.1)
    return np.asarray(cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114)))


@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (97, 64), (20, 20), (29, 37), (33, 37)], ids=str)
@pytest.mark.parametrize("stride", [0, 16, 32])
@pytest.mark.parametrize("enlarge", [True, False])
def test_letterbox_is_yolov5s(shape: tuple[int, int], stride: int, enlarge: bool) -> None:
    expected = letterbox(PICTURE, shape, auto=stride > 0, scaleup=enlarge, stride=stride)
    result = by_step(
        PICTURE, fit="letterbox", convention="opencv", width=shape[1], height=shape[0], stride=stride, enlarge=enlarge
    )
    assert worst(result, expected) <= 1
    assert np.array_equal(result == 114, expected == 114) or worst(result, expected) == 1
    if not stride:
        assert result.shape == (*shape, 3)


def test_letterbox_pads_at_the_end_with_any_level() -> None:
    result = by_step(PICTURE, fit="letterbox", filter="nearest", width=74, height=74, pad_position="end", pad_value=7)
    assert np.array_equal(result[:58], by_step(PICTURE, filter="nearest", width=74, height=58))
    assert (result[58:] == 7).all()


@pytest.mark.parametrize("pad_position", ["centre", "end"])
def test_a_letterbox_that_pads_first_resizes_the_square(pad_position: str) -> None:
    """NudeNet's program does so: 37 of 57 columns are 23.4 of 36, and the 24th is mixed with the padding."""
    picture = np.repeat(PICTURE, 2, axis=0)[:57, :37]
    left = (57 - 37) // 2 if pad_position == "centre" else 0
    square = np.full((57, 57, 3), 7, np.uint8)
    square[:, left : left + 37] = picture
    options: dict[str, Any] = {"width": 36, "height": 36, "convention": "opencv"}
    padded = {"fit": "letterbox", "pad_value": 7, "pad_position": pad_position}
    result = by_step(picture, **padded, **options, pad_first=True)
    assert np.array_equal(result, by_step(square, **options))
    assert not np.array_equal(result, by_step(picture, **padded, **options))


def test_a_strip_is_not_padded_to_gigapixels() -> None:
    with pytest.raises(ImageError, match="padded to a square"):
        by_step(np.zeros((10, 20_000, 3), np.uint8), fit="letterbox", width=64, height=64, pad_first=True)


def test_letterbox_that_does_not_enlarge_keeps_the_pixels() -> None:
    result = by_step(PICTURE, fit="letterbox", width=41, height=40, enlarge=False)
    assert np.array_equal(result[5 : 5 + 29, 2 : 2 + 37], PICTURE)
    assert (result[:5] == 114).all()


def resize_norm_img(pixels: Array, height: int, width: int) -> Array:
    """PaddleOCR's `resize_norm_img` (tools/infer/predict_rec.py) before it normalizes, written out; what it pads is 0
    there, after the mean of 127.5 was subtracted."""
    ratio = pixels.shape[1] / float(pixels.shape[0])
    resized_width = width if math.ceil(height * ratio) > width else math.ceil(height * ratio)
    padded = np.full((height, width, 3), 127, np.uint8)
    padded[:, :resized_width] = cv2.resize(pixels, (resized_width, height))
    return padded


@pytest.mark.parametrize("width", [320, 90, 62, 48])
@pytest.mark.parametrize("height", [48, 32, 29])
@pytest.mark.parametrize("quick", [False, True])
def test_a_line_of_text_keeps_its_aspect_as_paddleocrs(width: int, height: int, quick: bool) -> None:
    options: dict[str, Any] = {"fit": "height", "convention": "opencv", "height": height, "pad_value": 127}
    step = Resize(width=width, **options)
    expected = resize_norm_img(PICTURE, height, width)
    result = as_array(fast.resize(PICTURE, step, ImageSpec())) if quick else by_step(PICTURE, width=width, **options)
    assert result.shape == (height, width, 3) == expected.shape
    assert worst(result, expected) <= 1
    assert (result[:, math.ceil(height * 37 / 29) :] == 127).all()
    assert step.after(ImageSpec()).shape == (height, width, 3)


def test_a_line_of_text_may_be_as_wide_as_it_is() -> None:
    assert by_step(PICTURE, fit="height", height=58).shape == (58, 74, 3)
    assert by_step(PICTURE, fit="height", height=58, stride=32).shape == (58, 96, 3)
    assert by_step(PICTURE, fit="height", height=58, stride=32, width=320).shape == (58, 96, 3)
    assert by_step(PICTURE, fit="height", height=58, stride=32, width=64).shape == (58, 64, 3)
    assert Resize(fit="height", height=58).after(ImageSpec()).shape == (58, None, 3)
    with pytest.raises(ImageError, match="with a height of 100 the width would be 100,000, more than 65,535"):
        by_step(np.zeros((2, 2000, 3), np.uint8), fit="height", height=100)


@pytest.mark.parametrize(
    ("width", "height"), [(500, 375), (375, 500), (333, 500), (640, 480), (1, 7), (256, 256), (1023, 767)]
)
@pytest.mark.parametrize("size", [224, 256, 337])
def test_short_edge_is_torchvisions(width: int, height: int, size: int) -> None:
    """torchvision.transforms.functional._compute_resized_output_size."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    expected = (new_short, new_long) if width <= height else (new_long, new_short)
    assert resized_size(width, height, Resize(fit="short_edge", size=size)) == expected


def test_short_edge_resizes_so() -> None:
    assert by_step(PICTURE, fit="short_edge", size=58).shape == (58, 74, 3)


def test_short_edge_refuses_an_absurd_long_one() -> None:
    with pytest.raises(ImageError, match=r"the longer would be 11,200,000,000"):
        resized_size(1, 50_000_000, Resize(fit="short_edge", size=224))


@pytest.mark.parametrize(("margin_x", "margin_y"), [(0, 0), (1, 2), (3, 5), (7, 4)])
def test_the_centred_crop_rounds_as_asked(margin_x: int, margin_y: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10 + margin_y, 8 + margin_x, 3), np.uint8)
    floor = as_array(crop(pixels, Crop(width=8, height=10), ImageSpec()))
    assert np.array_equal(floor, pixels[margin_y // 2 :, margin_x // 2 :][:10, :8])
    # torchvision.transforms.functional.center_crop
    top, left = round(margin_y / 2.0), round(margin_x / 2.0)
    assert np.array_equal(
        as_array(crop(pixels, Crop(width=8, height=10, centre="round"), ImageSpec())),
        pixels[top : top + 10, left : left + 8],
    )


def test_a_crop_that_does_not_fit_is_an_error() -> None:
    for step in (Crop(width=38, height=29), Crop(width=30, height=20, x=8, y=0)):
        with pytest.raises(ImageError, match="does not fit into 37x29 pixels"):
            crop(PICTURE, step, ImageSpec())


def test_a_picture_of_one_pixel_grows_in_every_convention() -> None:
    pixel = np.array([[[10, 20, 30]]], np.uint8)
    for convention in ("pillow", "opencv", "tensorflow"):
        for name in ("nearest", "bilinear", "bicubic", "lanczos", "area"):
            assert (by_step(pixel, convention=convention, filter=name, width=5, height=4) == pixel).all(), (
                convention,
                name,
            )


@pytest.mark.parametrize(("size", "out"), [(225, 1000), (208, 640), (200, 224), (33, 99), (7, 1200)])
@pytest.mark.parametrize("name", ["nearest", "area"])
def test_opencv_falls_on_the_same_pixel_where_a_position_is_whole(name: str, size: int, out: int) -> None:
    """225 / 1000 and 1 / (1000 / 225) differ in the last bit, and so may the pixel that a whole position falls on."""
    row = np.random.default_rng(size).integers(0, 256, (3, size, 3)).astype(np.float32)
    expected = cv2.resize(row, (out, 5), interpolation=getattr(cv2, OPENCV[name]))
    assert (
        worst(
            by_step(row, convention="opencv", filter=name, rounding="none", width=out, height=5), np.asarray(expected)
        )
        <= 2e-3
    )
