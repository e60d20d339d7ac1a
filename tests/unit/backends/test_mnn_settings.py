"""MNN's quantization JSON: a Spec's input steps as MNN's tool does them, checked pixel by pixel; what it can't say is
refused."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from plimsoll.backends.mnn.quantizer_config import Quantization, export
from plimsoll.errors import InputError, SpecError
from plimsoll.preprocessing import Preprocessor
from plimsoll.spec import Spec, files
from plimsoll.zoo import card

RESIZE = {"step": "resize", "width": 64, "height": 48, "convention": "opencv"}
NCHW = {"step": "layout", "order": "NCHW"}


def spec(*steps: dict[str, Any], colour: str = "RGB") -> Spec:
    return files.validate(
        {
            "name": "test",
            "input": {"steps": [{"step": "decode", "colour": colour}, *steps]},
            "output": {"task": "tensor"},
        }
    )


def tensor(spec: Spec) -> np.ndarray[Any, Any]:
    """What the steps make of a picture of random pixels at their size, so that the resize changes nothing."""
    pixels = np.random.default_rng(4).integers(0, 256, (48, 64, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "png")
    return np.asarray(Preprocessor(spec.input)(held.getvalue()), np.float32)


def as_mnn_does(quantization: Quantization) -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(4).integers(0, 256, (48, 64, 3), np.uint8)
    held = pixels[..., ::-1] if quantization.format == "BGR" else pixels
    high, wide = round(48 * quantization.center_crop_h), round(64 * quantization.center_crop_w)
    top, left = (48 - high) // 2, (64 - wide) // 2
    cut = held[top : top + high, left : left + wide].astype(np.float32)
    return np.ascontiguousarray(
        ((cut - np.array(quantization.mean)) * np.array(quantization.normal)).transpose(2, 0, 1), np.float32
    )


@pytest.mark.parametrize(
    "steps",
    [
        [RESIZE, NCHW],
        [RESIZE, {"step": "channels", "order": "BGR"}, {"step": "mean", "values": [104, 117, 123]}, NCHW],
        [RESIZE, {"step": "mean", "values": [123, 117, 104]}, {"step": "channels", "order": "BGR"}, NCHW],
        [
            RESIZE,
            {"step": "scale", "divisor": 255},
            {"step": "mean", "values": [0.485, 0.456, 0.406]},
            {"step": "std", "values": [0.229, 0.224, 0.225]},
            NCHW,
        ],
        [RESIZE, {"step": "mean", "values": [127.5]}, {"step": "scale", "factor": 0.0078125}, NCHW],
        [RESIZE, {"step": "crop", "width": 32, "height": 24}, {"step": "scale", "divisor": 255}, NCHW],
    ],
    ids=["plain", "BGR then mean", "mean then BGR", "ImageNet", "one mean", "crop"],
)
def test_the_file_means_what_the_spec_means(steps: list[dict[str, Any]]) -> None:
    given_ = spec(*steps)
    quantization, _ = export(given_, "images/")
    np.testing.assert_allclose(
        as_mnn_does(Quantization.loads(quantization.dumps())), tensor(given_), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "steps",
    [
        [RESIZE, {"step": "channels", "order": "BGR"}, {"step": "mean", "values": [104, 117, 123]}, NCHW],
        [RESIZE, {"step": "scale", "divisor": 255}, {"step": "std", "values": [0.2, 0.3, 0.4]}, NCHW],
        [RESIZE, {"step": "crop", "width": 32, "height": 24}, NCHW],
    ],
    ids=["mean", "scale", "crop"],
)
def test_a_spec_comes_back_from_the_file(steps: list[dict[str, Any]]) -> None:
    given_ = spec(*steps)
    back = given_.model_copy(update={"input": export(given_, "images/")[0].input()})
    np.testing.assert_allclose(tensor(back), tensor(given_), rtol=1e-4, atol=1e-4)


def test_open_nsfw_says_what_mnn_does_differently() -> None:
    quantization, warnings = export(card("open_nsfw").spec, "images/", "EMA")
    assert (quantization.format, quantization.mean, quantization.width, quantization.center_crop_h) == (
        "BGR",
        (104, 117, 123),
        224,
        0.875,
    )
    assert quantization.feature_quantize_method == "EMA"
    message = " ".join(warnings)
    assert "anti-aliased" in message
    assert "JPEG" in message
    assert "[N, C, H, W]" in message


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"step": "resize", "fit": "letterbox", "width": 64, "height": 64}, NCHW], "letterbox"),
        (
            [{"step": "resize", "fit": "short_edge", "size": 64}, {"step": "crop", "width": 64, "height": 64}, NCHW],
            "short_edge",
        ),
        ([{"step": "resize", "fit": "short_edge", "size": 64}], "open"),
        ([{"step": "crop", "width": 64, "height": 48}, NCHW], "crops once"),
        ([RESIZE, {"step": "crop", "width": 32, "height": 24, "x": 0, "y": 0}, NCHW], "centre"),
        ([RESIZE, RESIZE, NCHW], "once"),
        ([RESIZE, {"step": "mean", "values": [5]}, {"step": "dtype", "to": "uint8"}, NCHW], "uint8"),
    ],
    ids=["letterbox", "short edge", "open size", "crop alone", "corner", "twice", "bytes"],
)
def test_what_the_file_can_not_say_is_refused(steps: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        export(spec(*steps), "images/")


def test_unknown_keys_are_kept() -> None:
    text = '{"path": "x/", "width": 2, "height": 3, "winogradOpt": false}'
    assert json.loads(Quantization.loads(text).dumps())["winogradOpt"] is False


@given(
    st.fixed_dictionaries(
        {"path": st.text(max_size=5), "width": st.integers(1, 99), "height": st.integers(1, 99)},
        optional={"quant_bits": st.integers(2, 8)},
    )
)
def test_what_is_written_is_read_again(data: dict[str, Any]) -> None:
    read = Quantization.loads(json.dumps(data))
    assert Quantization.loads(read.dumps()) == read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "JSON"),
        ("[]", "object"),
        ("{}", "width"),
        ('{"path": "x", "width": 0, "height": 1}', "width"),
        ('{"path": "x", "width": 1, "height": 1, "format": "CMYK"}', "format"),
        ('{"path": "x", "width": 1, "height": 1, "feature_quantize_method": "MAX"}', "feature_quantize_method"),
        ('{"path": "x", "width": 1, "height": 1, "feature_clamp_value": 128}', "feature_clamp_value"),
        ('{"path": "x", "width": 1, "height": 1, "mean": [NaN]}', "mean"),
    ],
)
def test_mistakes_are_reported(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Quantization.loads(text, "a file")


@pytest.mark.parametrize("data", [{"format": "RGBA"}, {"input_type": "sequence"}, {"normal": [0.0]}])
def test_what_no_spec_can_say_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Quantization.loads(json.dumps({"path": "x", "width": 8, "height": 8, **data})).input()
