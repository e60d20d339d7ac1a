"""Each step of the reference against a plain statement of what it does."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from plimsoll.preprocessing import fast, fast_decode, reference
from plimsoll.preprocessing.decode import Array, as_array
from plimsoll.spec.steps import Cast, Channels, Crop, ImageSpec, Jpeg, Layout, Mean, Scale, Std, Step

PHOTO = Path(__file__).parents[3] / "examples" / "photos" / "coffee_cup.jpg"
RGB = np.random.default_rng(11).integers(0, 256, (13, 17, 3), np.uint8)
GREY = RGB[:, :, :1]


def photo() -> Image.Image:
    with Image.open(PHOTO) as image:
        return image.convert("RGB").resize((131, 97))


def run(pixels: Array | Image.Image, step: Step, form: ImageSpec | None = None) -> Array:
    return as_array(reference.FUNCTIONS[type(step)](pixels, step, form or ImageSpec()))


def test_every_step_but_decode_is_there() -> None:
    from plimsoll.spec.steps import Resize

    assert set(reference.FUNCTIONS) == {Resize, Jpeg, Crop, Channels, Scale, Mean, Std, Layout, Cast}


def test_channels() -> None:
    assert np.array_equal(run(RGB, Channels(order="BGR")), RGB[:, :, [2, 1, 0]])
    assert np.array_equal(run(RGB, Channels(order="RGB")), RGB)
    assert np.array_equal(run(RGB, Channels(order="RGB"), ImageSpec(colour="BGR")), RGB[:, :, [2, 1, 0]])


def test_crop() -> None:
    assert np.array_equal(run(RGB, Crop(width=4, height=3, x=2, y=5)), RGB[5:8, 2:6])
    assert np.array_equal(run(Image.fromarray(RGB), Crop(width=4, height=3, x=2, y=5)), RGB[5:8, 2:6])
    assert np.array_equal(run(RGB, Crop(width=4, height=4)), RGB[4:8, 6:10])


def test_scale() -> None:
    factor = run(RGB, Scale(factor=0.1))
    assert factor.dtype == np.float32
    assert np.array_equal(factor, RGB.astype(np.float32) * np.float32(0.1))
    assert np.array_equal(run(RGB, Scale(divisor=255)), RGB.astype(np.float32) / np.float32(255))
    assert not np.array_equal(run(RGB, Scale(divisor=255)), run(RGB, Scale(factor=1 / 255)))


@pytest.mark.parametrize(
    ("step", "operation"),
    [(Mean(values=(104.0, 116.5, 122.7)), np.subtract), (Std(values=(58.4, 57.1, 0.225)), np.divide)],
)
def test_mean_and_std_by_channel(step: Mean | Std, operation: np.ufunc) -> None:
    expected = np.stack(
        [operation(RGB[:, :, channel].astype(np.float32), np.float32(step.values[channel])) for channel in range(3)],
        axis=2,
    )
    result = run(RGB, step)
    assert result.dtype == np.float32
    assert np.array_equal(result, expected)
    assert np.array_equal(
        run(RGB[:, ::-1][:, :, ::-1], step),
        operation(RGB[:, ::-1][:, :, ::-1].astype(np.float32), np.asarray(step.values, np.float32)),
    )
    first = run(RGB.transpose(2, 0, 1), step, ImageSpec(layout="NCHW"))
    assert np.array_equal(first, expected.transpose(2, 0, 1))


def test_one_value_goes_for_all_channels() -> None:
    assert np.array_equal(run(RGB, Mean(values=(127.5,))), RGB - np.float32(127.5))
    assert np.array_equal(run(GREY, Std(values=(127.5,)), ImageSpec(colour="grey")), GREY / np.float32(127.5))
    assert np.array_equal(
        run(RGB.transpose(2, 0, 1), Mean(values=(1.5,)), ImageSpec(layout="NCHW")),
        RGB.transpose(2, 0, 1) - np.float32(1.5),
    )


def test_layout() -> None:
    assert np.array_equal(run(RGB, Layout(order="NCHW")), np.moveaxis(RGB, 2, 0))
    assert np.array_equal(run(RGB, Layout(order="NHWC")), RGB)
    assert np.array_equal(run(np.moveaxis(RGB, 2, 0), Layout(order="NHWC"), ImageSpec(layout="NCHW")), RGB)


def test_dtype() -> None:
    values = np.array([[[-3.0, -0.5, 0.49], [0.5, 254.5, 255.4], [1e9, 1.5, 2.5]]], np.float32)
    assert run(values, Cast(to="uint8")).tolist() == [[[0, 0, 0], [1, 255, 255], [255, 2, 3]]]
    assert run(RGB, Cast(to="uint8")).dtype == np.uint8
    half = run(values[:, :1], Cast(to="float16"))
    assert half.dtype == np.float16
    assert half[0, 0, 2] == np.float16(0.49)
    assert np.array_equal(run(RGB, Cast(to="float32")), RGB.astype(np.float32))


@pytest.mark.parametrize(
    "step",
    [
        Channels(order="BGR"),
        Crop(width=4, height=3),
        Scale(factor=2.0),
        Mean(values=(1.0,)),
        Std(values=(2.0,)),
        Cast(to="uint8"),
        Jpeg(),
    ],
)
def test_no_step_changes_what_it_is_given(step: Step) -> None:
    before = RGB.copy()
    run(before, step)
    assert np.array_equal(before, RGB)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [1, 50, 75, 100])
def test_jpeg_is_pillows_round_trip(subsampling: Any, quality: int) -> None:
    stream = io.BytesIO()
    photo().save(stream, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(stream) as image:
        expected = np.asarray(image)
    step = Jpeg(quality=quality, subsampling=subsampling)
    assert np.array_equal(run(photo(), step), expected)
    pixels = np.asarray(photo())
    assert np.array_equal(run(pixels, step), expected)
    assert np.array_equal(run(pixels[:, :, ::-1], step, ImageSpec(colour="BGR")), expected[:, :, ::-1])


def test_the_subsamplings_differ() -> None:
    results = [run(photo(), Jpeg(subsampling=subsampling)) for subsampling in ("4:4:4", "4:2:2", "4:2:0")]
    assert not np.array_equal(results[0], results[1])
    assert not np.array_equal(results[1], results[2])


@pytest.mark.parametrize("dct", ["accurate", "fast"])
@pytest.mark.parametrize("upsampling", ["fancy", "plain"])
def test_jpeg_is_decoded_as_asked(dct: Any, upsampling: Any) -> None:
    stream = io.BytesIO()
    photo().save(stream, "JPEG", quality=75, subsampling=2)
    expected = simplejpeg.decode_jpeg(stream.getvalue(), fastdct=dct == "fast", fastupsample=upsampling == "plain")
    assert np.array_equal(run(photo(), Jpeg(dct=dct, upsampling=upsampling)), expected)


def test_a_grey_picture_stays_grey_in_jpeg() -> None:
    grey = np.asarray(photo().convert("L"))[:, :, np.newaxis]
    for options in ({}, {"upsampling": "plain"}):
        result = run(grey, Jpeg.model_validate(options), ImageSpec(colour="grey"))
        assert result.shape == grey.shape
        assert 0 < np.abs(result.astype(int) - grey).mean() < 4


FORMS: list[tuple[Array, ImageSpec]] = [
    (np.asarray(photo()), ImageSpec()),
    (np.asarray(photo())[:, :, ::-1], ImageSpec(colour="BGR")),
]
FORMS.append((np.asarray(photo().convert("L"))[:, :, np.newaxis], ImageSpec(colour="grey")))


@pytest.mark.parametrize(("pixels", "form"), FORMS, ids=["RGB", "BGR", "grey"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"quality": 100},
        {"quality": 1},
        {"dct": "fast"},
        {"upsampling": "plain"},
    ],
    ids=str,
)
def test_the_fast_jpeg_equals_the_reference(pixels: Array, form: ImageSpec, options: dict[str, Any]) -> None:
    step = Jpeg(**options)
    assert np.array_equal(fast.jpeg(pixels, step, form), run(pixels, step, form))


def test_opencv_runs_in_one_thread_under_fast_preprocessing() -> None:
    fast_decode.opencv.cache_clear()
    fast_decode.opencv()
    assert cv2.getNumThreads() == 1
