"""Whole preprocessors: the fast one against the reference, and the reference of open_nsfw against its definition."""

from __future__ import annotations

import io
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plimsoll.errors import BackendMissingError, ImageError
from plimsoll.preprocessing import Preprocessor, fast_decode
from plimsoll.preprocessing.decode import Array
from plimsoll.spec import Input
from plimsoll.spec.files import validate

PHOTOS = sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))
AWKWARD = sorted((Path(__file__).parents[3] / "examples" / "awkward").iterdir())
Steps = list[dict[str, Any]]


def steps(text: str) -> Steps:
    """Read `resize width=4 height=4 | channels order="BGR"`: a line a Spec is easier to compare than a page of TOML."""
    listed: Steps = [{"step": "decode"}]
    for part in filter(None, (part.strip() for part in text.split("|"))):
        name, *pairs = part.split(" ")
        listed.append({"step": name, **tomllib.loads("\n".join(pairs))})
    return listed


def card(name: str) -> Input:
    return validate(
        tomllib.loads(files("plimsoll").joinpath(f"zoo/cards/{name}.toml").read_text(encoding="utf-8"))["spec"]
    ).input


EXACT = [
    "",
    'channels order="BGR"',
    'channels order="BGR" | layout order="NCHW"',
    'layout order="NCHW" | dtype to="uint8"',
    'dtype to="float32"',
    'dtype to="float16"',
    'jpeg | crop width=100 height=80 | channels order="BGR" | mean values=[104,117,123]',
    'jpeg quality=40 subsampling="4:4:4" | mean values=[104,117,123] | channels order="BGR"',
    "crop width=64 height=48 | mean values=[127.5]",
    'crop width=64 height=48 x=3 y=5 | layout order="NCHW" | mean values=[123,117,104]',
    'channels order="BGR" | jpeg | channels order="RGB" | crop width=50 height=50',
    'crop width=64 height=48 | mean values=[1,2,3] | channels order="BGR" | mean values=[4,5,6] | layout order="NCHW"',
    'dtype to="float32" | dtype to="uint8"',
    'scale factor=1.7 | dtype to="uint8" | mean values=[9.5] | std values=[3]',
    'scale divisor=255 | dtype to="float16" | mean values=[0.5] | layout order="NCHW"',
]
"""The fast preprocessor gives the same bits: no rounding happens, or the same."""

CLOSE = [
    "scale divisor=255 | mean values=[0.485,0.456,0.406] | std values=[0.229,0.224,0.225]",
    'scale divisor=255 | mean values=[0.485,0.456,0.406] | std values=[0.229,0.224,0.225] | layout order="NCHW"',
    "mean values=[127.5] | scale factor=0.0078125",
    'mean values=[123.68,116.779,103.939] | std values=[58.4,57.1,57.4] | channels order="BGR"',
    'channels order="BGR" | std values=[1,2,3] | channels order="RGB" | mean values=[5,6,7] | scale divisor=3',
    'layout order="NCHW" | scale divisor=127.5 | mean values=[1] | dtype to="float16"',
    'scale divisor=127.5 | mean values=[1] | layout order="NCHW" | dtype to="float16"',
    'crop width=64 height=48 | scale divisor=255 | dtype to="float16" | dtype to="float32"',
    'channels order="BGR" | std values=[2] | mean values=[7,8,9] | crop width=64 height=48 | channels order="RGB"',
    (
        'channels order="BGR" | resize width=64 height=64 filter="area" convention="opencv" rounding="none" | scale'
        " divisor=255 | crop width=32 height=32"
    ),
    'resize width=300 height=280 filter="bicubic" convention="opencv" rounding="none" | scale divisor=255',
    (
        'resize fit="letterbox" width=320 height=256 filter="area" convention="opencv" rounding="none" | scale'
        ' divisor=255 | layout order="NCHW"'
    ),
    'resize width=90 height=70 convention="tensorflow" rounding="none" | mean values=[1,2,3]',
    (
        'resize width=90 height=70 convention="tensorflow" coordinates="align_corners" rounding="none" | mean'
        " values=[1,2,3]"
    ),
]
"""The same up to float32's last digits (float16: its own last digit), because the arithmetic is folded into one pass.
"""


def both(text: str, **decode: Any) -> tuple[Preprocessor, Preprocessor]:
    listed = steps(text)
    listed[0].update(decode)
    spec = Input.model_validate({"steps": listed})
    return Preprocessor(spec), Preprocessor(spec, "fast")


def checked(preprocessor: Preprocessor, path: Path) -> Array:
    """The tensor, after a look at its form."""
    tensor = preprocessor(path)
    assert tensor.flags.c_contiguous
    assert tensor.dtype == preprocessor.tensor_spec.dtype
    assert all(
        expected in (None, size) for expected, size in zip(preprocessor.tensor_spec.shape, tensor.shape, strict=True)
    )
    return tensor


@pytest.mark.parametrize("decode", [{}, {"colour": "grey"}, {"exif_orientation": True}], ids=str)
@pytest.mark.parametrize("text", EXACT)
def test_the_fast_preprocessor_equals_the_reference(text: str, decode: dict[str, Any]) -> None:
    if decode.get("colour") == "grey" and ("channels" in text or "," in text):
        pytest.skip("needs a colour picture")
    reference, fast = both(text, **decode)
    for path in PHOTOS[:4]:
        assert np.array_equal(checked(reference, path), checked(fast, path))


@pytest.mark.parametrize("text", CLOSE)
def test_the_fast_preprocessor_is_as_near_as_float32_allows(text: str) -> None:
    reference, fast = both(text)
    relative = 2e-3 if "float16" in text else 5e-5 if "tensorflow" in text else 1e-5
    for path in PHOTOS[:4]:
        a, b = checked(reference, path), checked(fast, path)
        assert np.abs(a.astype(np.float64) - b).max() <= relative * np.abs(a).max()


@pytest.mark.parametrize("text", [text for text in CLOSE if text.count(",") == 0 and "channels" not in text])
def test_the_same_for_grey(text: str) -> None:
    reference, fast = both(text, colour="grey")
    a, b = checked(reference, PHOTOS[0]), checked(fast, PHOTOS[0])
    assert 1 in a.shape
    assert np.abs(a.astype(np.float64) - b).max() <= (2e-3 if "float16" in text else 1e-5) * np.abs(a).max()


@pytest.mark.parametrize("text", [EXACT[6], CLOSE[0]])
@pytest.mark.parametrize("path", AWKWARD, ids=lambda path: path.name)
def test_both_refuse_alike(path: Path, text: str) -> None:
    messages = []
    for preprocessor in both(text):
        try:
            preprocessor(path)
            messages.append("")
        except ImageError as error:
            messages.append(str(error))
    assert messages[0] == messages[1]


def yahoo(data: bytes) -> Array:
    """Yahoo's own input steps, written out with Pillow and NumPy alone."""
    with Image.open(io.BytesIO(data)) as opened:
        image = opened if opened.mode == "RGB" else opened.convert("RGB")
        stream = io.BytesIO()
        narrowed = image.resize(
            (256, image.height), Image.Resampling.BILINEAR
        )  # Pillow 12 did so in one call, Pillow 13 doesn't always.
        narrowed.resize((256, 256), Image.Resampling.BILINEAR).save(stream, format="JPEG")
    with Image.open(stream) as stored:
        pixels = np.asarray(stored).astype(np.float32)
    return np.asarray(pixels[16:240, 16:240, ::-1] - np.array([104, 117, 123], np.float32))


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_open_nsfw_is_yahoos_definition_bit_for_bit(path: Path) -> None:
    tensor = checked(Preprocessor(card("open_nsfw")), path)
    assert tensor.shape == (224, 224, 3)
    assert np.array_equal(tensor, yahoo(path.read_bytes()))


@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
@pytest.mark.parametrize("name", ["open_nsfw", "open_nsfw_tf"])
def test_a_preprocessor_is_shared_by_threads(name: str, preprocessing: Any) -> None:
    preprocessor = Preprocessor(card(name), preprocessing)
    paths = PHOTOS[:6] * 4
    alone = [preprocessor(path) for path in PHOTOS[:6]] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(preprocessor, paths))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_stages_are_named_and_compose() -> None:
    reference, fast = Preprocessor(card("open_nsfw")), Preprocessor(card("open_nsfw"), "fast")
    assert [name for name, _ in reference.stages] == ["decode", "resize", "jpeg", "crop", "channels", "mean"]
    assert [name for name, _ in fast.stages] == ["decode", "resize", "jpeg", "crop", "normalize"]
    for preprocessor in (reference, fast):
        pixels: Any = PHOTOS[0].read_bytes()
        for _, stage in preprocessor.stages:
            pixels = stage(pixels)
        assert np.array_equal(pixels, preprocessor(PHOTOS[0]))


def test_bytes_and_paths_give_the_same() -> None:
    preprocessor = Preprocessor(card("open_nsfw"))
    assert np.array_equal(preprocessor(PHOTOS[0]), preprocessor(PHOTOS[0].read_bytes()))


def test_the_fast_preprocessor_says_how_to_install_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_decode.opencv.cache_clear()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BackendMissingError) as caught:
        Preprocessor(card("open_nsfw"), "fast")
    assert "pip install 'plimsoll-line[fast]'" in caught.value.hint


def test_a_preprocessor_refuses_what_is_too_small_for_its_crop() -> None:
    for preprocessor in both("crop width=5000 height=10"):
        with pytest.raises(ImageError, match="does not fit"):
            preprocessor(PHOTOS[0])
