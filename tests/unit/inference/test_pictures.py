"""Whatever is given as a picture in Python is answered as the same picture in a file, and what isn't one is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from helpers.small_models import SPEC, small_model
from plimsoll.errors import ImageError, InputError
from plimsoll.inference.pictures import name_of, source
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.preprocessing import PixelArray, Preprocessor
from plimsoll.spec import Input
from plimsoll.spec.steps import Cast, Channels, Crop, Decode, Jpeg, Layout, Mean, Resize, Step

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = [
    *(EXAMPLES / "awkward" / name for name in ("alpha.png", "cmyk.jpg", "exif_rotated.jpg", "grey.jpg", "grey16.png")),
    *(EXAMPLES / "awkward" / name for name in ("palette.png", "lossless_alpha.webp", "photo.bmp", "animated.gif")),
    EXAMPLES / "photos" / "owl.jpg",
]
DECODES = [
    Decode(),
    Decode(colour="grey"),
    Decode(exif_orientation=True, alpha="composite", background=(9, 90, 200)),
    Decode(colour="grey", alpha="composite", colour_profile="srgb", exif_orientation=True),
]
BGR: tuple[Step, ...] = (Resize(width=40, height=32), Channels(order="BGR"), Mean(values=(104, 117, 123)))
STEPS: list[tuple[Step, ...]] = [
    (Resize(width=40, height=32), Jpeg(), Crop(width=24, height=24), Layout(order="NCHW"), Cast(to="float32")),
    (Resize(fit="letterbox", width=32, height=32, convention="opencv"),),
    (Resize(fit="short_edge", size=20, convention="tensorflow", rounding="none"), Crop(width=16, height=16)),
    (),
]


def photo() -> NDArray[np.uint8]:
    with Image.open(EXAMPLES / "photos" / "owl.jpg") as image:
        return np.asarray(image.convert("RGB"))


def png(array: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def predictor(tmp_path: Path) -> Iterator[Predictor]:
    with Predictor(ResolvedModel(small_model(tmp_path / "small"))) as opened:
        yield opened


def equal(tensor: Any, other: Any) -> bool:
    return bool(tensor.dtype == other.dtype and np.array_equal(tensor, other))


def near(tensor: Any, expected: Any, steps: tuple[Step, ...], preprocessing: str) -> bool:
    """Tell whether tensors are equal; fast preprocessing decodes files at a part of their size, or in another way."""
    if preprocessing == "reference" or equal(tensor, expected):
        return equal(tensor, expected)
    difference = np.abs(tensor.astype(np.float64) - expected)
    through_jpeg = any(isinstance(step, Jpeg) for step in steps)
    return bool(
        tensor.shape == expected.shape and difference.mean() < 2 and difference.max() < (64 if through_jpeg else 24)
    )


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("preprocessing", ["reference", "fast", "scaled"])
@pytest.mark.parametrize("steps", STEPS, ids=["jpeg", "letterbox", "short edge", "none"])
@pytest.mark.parametrize("decode", DECODES, ids=["plain", "grey", "composited", "all"])
def test_an_image_of_pillows_is_its_file(decode: Decode, steps: tuple[Step, ...], preprocessing: Any) -> None:
    preprocessor = Preprocessor(Input(steps=(decode, *steps)), preprocessing)
    for path in FILES:
        with Image.open(path) as image:
            tensor, geometry = preprocessor.with_geometry(image)
            frames = [*preprocessor.frames(image)]
        expected, expected_geometry = preprocessor.with_geometry(path)
        assert geometry == expected_geometry, path.name
        assert near(tensor, expected, steps, preprocessing), path.name
        assert len(frames) == 1
        assert equal(frames[0][1], tensor)


@pytest.mark.parametrize("preprocessing", ["reference", "fast", "scaled"])
@pytest.mark.parametrize("steps", [*STEPS, BGR], ids=["jpeg", "letterbox", "short edge", "none", "BGR"])
@pytest.mark.parametrize("decode", DECODES, ids=["plain", "grey", "composited", "all"])
def test_an_array_is_its_lossless_file(decode: Decode, steps: tuple[Step, ...], preprocessing: Any) -> None:
    if decode.colour == "grey" and steps == BGR:
        pytest.skip("needs a colour picture")
    preprocessor = Preprocessor(Input(steps=(decode, *steps)), preprocessing)
    rgb = photo()
    before = rgb.copy()
    rgba = np.dstack([rgb, np.linspace(0, 255, rgb.size // 3).reshape(rgb.shape[:2]).astype(np.uint8)])
    grey = rgb[:, :, 1]
    for array, colour, file in (
        (rgb, "RGB", rgb),
        (rgb[:, :, ::-1], "BGR", rgb),
        (np.ascontiguousarray(rgb[:, :, ::-1]), "BGR", rgb),
        (rgba, "RGBA", rgba),
        (rgba[:, :, [2, 1, 0, 3]], "BGRA", rgba),
        (grey, None, grey),
        (grey[:, :, np.newaxis], "grey", grey),
        (rgb[::-1, ::-1], "RGB", np.ascontiguousarray(rgb[::-1, ::-1])),
    ):
        expected, expected_geometry = preprocessor.with_geometry(png(file))
        tensor, geometry = preprocessor.with_geometry(PixelArray(array, colour))  # type: ignore[arg-type]
        assert geometry == expected_geometry
        assert near(tensor, expected, steps, preprocessing), (colour, array.shape)
        assert tensor.flags.c_contiguous
    assert np.array_equal(rgb, before)


def test_an_image_is_not_changed_and_its_new_orientation_counts() -> None:
    with Image.open(EXAMPLES / "awkward" / "exif_rotated.jpg") as image:
        upright = ImageOps.exif_transpose(image)
        follows = Preprocessor(Input(steps=(Decode(exif_orientation=True),)))
        stored = Preprocessor(Input(steps=(Decode(),)))
        before = np.asarray(image).copy(), image.mode, image.size
        assert equal(follows(image), follows(upright))
        assert equal(follows(image), stored(upright))
        assert not equal(stored(image), follows(image))
        assert (np.array_equal(np.asarray(image), before[0]), image.mode, image.size) == (True, *before[1:])
    turned = Image.fromarray(photo())
    turned.getexif()[0x0112] = 6
    assert equal(follows(turned), follows(Image.fromarray(np.ascontiguousarray(np.rot90(photo(), -1)))))
    turned.info["exif"] = b"Exif\0\0no exif at all"
    assert equal(follows(turned), photo())


@pytest.mark.parametrize(
    ("array", "colour", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "RGB", "an array of float32; expected uint8"),
        (np.zeros((4, 4, 3), bool), "RGB", "an array of bool"),
        (np.zeros((4, 4, 3), np.uint8), None, "an array of 3 channels, whose order is not known"),
        (np.zeros((4, 4, 4), np.uint8), None, "an array of 4 channels, whose order is not known"),
        (np.zeros((4, 4, 3), np.uint8), "RGBA", "3 channels, but colour = 'RGBA'"),
        (np.zeros((4, 4), np.uint8), "BGR", "1 channels, but colour = 'BGR'"),
        (np.zeros((4, 4, 3), np.uint8), "rgb", "colour = 'rgb'"),
        (np.zeros((3, 40, 40), np.uint8), "RGB", "of shape \\(3, 40, 40\\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "RGB", "of shape \\(2, 4, 4, 3\\)"),
        (np.zeros(12, np.uint8), None, "of shape \\(12,\\)"),
        (np.zeros((0, 4, 3), np.uint8), "RGB", "no pixels"),
        (np.broadcast_to(np.uint8(0), (9000, 9000)), None, "81.0 megapixels; the limit is 50"),
    ],
)
def test_an_array_of_another_kind_is_refused(predictor: Predictor, array: Any, colour: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        predictor.predict(array, colour=colour)
    rows = [*predictor.predict_many([array], colour=colour)]
    assert [row.answer for row in rows] == [None]


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((4, 4, 3), np.float64), "(array * 255)"),
        (np.zeros((4, 4), bool), "astype('uint8') * 255"),
        (np.zeros((4, 4), np.uint16), "(array >> 8)"),
        (np.zeros((4, 4, 4), np.uint8), "colour='RGBA'"),
    ],
)
def test_what_to_do_with_an_array_suits_it(predictor: Predictor, array: Any, hint: str) -> None:
    with pytest.raises(ImageError) as refused:
        predictor.predict(array)
    assert hint in refused.value.hint


def test_a_large_or_broken_image_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ImageError, match=r"81\.0 megapixels"):
        predictor.predict(Image.new("1", (9000, 9000)))
    data = (EXAMPLES / "photos" / "owl.jpg").read_bytes()
    with Image.open(io.BytesIO(data[: len(data) // 2])) as image, pytest.raises(ImageError, match="truncated"):
        predictor.predict(image)
    with pytest.raises(ImageError, match="32-bit samples"):
        predictor.predict(Image.new("F", (4, 4)))


def test_every_kind_is_answered_alike(predictor: Predictor, tmp_path: Path) -> None:
    rgb = photo()
    data = png(rgb)
    path = tmp_path / "owl.png"
    path.write_bytes(data)
    expected = predictor.predict(path).row()
    with path.open("rb") as file, Image.open(path) as image:
        kinds: list[Any] = [str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), file, image]
        assert [predictor.predict(kind).row() for kind in kinds] == [expected] * 7
        assert not file.closed
        file.seek(0)
        kinds[4] = io.BytesIO(data)
        rows = [*predictor.predict_many([*kinds, rgb, PixelArray(rgb[:, :, ::-1], "BGR")], colour="RGB")]
    assert predictor.predict(rgb, colour="RGB").row() == expected
    assert predictor.predict(rgb[:, :, ::-1], colour="BGR").row() == expected
    assert predictor.predict(rgb, colour="BGR").row() != expected
    assert [row.error for row in rows] == [None] * 9
    scores = [row.answer.row()["scores"] for row in rows if row.answer is not None]
    assert scores == [pytest.approx(expected["scores"], abs=1e-6)] * 9
    height, width, _ = rgb.shape
    assert [row.path for row in rows] == [
        str(path),
        *[f"<{len(data)} bytes>"] * 3,
        "<an object of type BytesIO>",
        str(path),
        f"<image of {width}x{height}>",
        *[f"<array of {height}x{width}x3>"] * 2,
    ]


def test_a_bad_picture_among_good_ones_is_a_row(predictor: Predictor, tmp_path: Path) -> None:
    closed = io.BytesIO(png(photo()))
    closed.close()
    given: list[Any] = [png(photo()), None, 3, closed, io.StringIO("text"), tmp_path, photo(), png(photo())]
    given[5:5] = ["", "https://localhost/a.jpg", "file:///a.jpg"]
    rows = [*predictor.predict_many(given)]
    assert [row.error is None for row in rows] == [True, *[False] * 9, True]
    assert [str(row.error).partition(",")[0] for row in rows[5:8]] == [
        "the path is empty",
        "an address (https://…)",
        "an address (file://…)",
    ]
    assert "NoneType as a picture; expected a path" in str(rows[1].error)
    assert "can't read the file" in str(rows[3].error)
    assert "gives an object of type str; expected bytes" in str(rows[4].error)
    with pytest.raises(InputError, match="object of type int as a picture"):
        predictor.predict(3)  # type: ignore[arg-type]


def test_a_file_is_read_from_where_it_stands_and_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO(b"12345")
    file.seek(2)
    assert source(file) == b"345"
    monkeypatch.setattr("plimsoll.inference.pictures.MAX_FILE_BYTES", 3)
    assert source(io.BytesIO(b"12345")) == b"1234"  # more than the limit, so that it is refused, but not all of it
    assert name_of(object()) == "<an object of type object>"  # type: ignore[arg-type]


def test_frames_of_a_file_are_answered_and_an_image_is_the_frame_at_which_it_stands(tmp_path: Path) -> None:
    spec = SPEC.replace('step = "decode"', 'step = "decode"\nframes = "all"') + 'positive = "a"\n'
    with Predictor(ResolvedModel(small_model(tmp_path / "small", spec))) as predictor:
        red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
        red.save(tmp_path / "two.gif", save_all=True, append_images=[blue])
        with Image.open(tmp_path / "two.gif") as image:
            first = predictor.predict(image).row()
            image.seek(1)
            assert predictor.predict(image).row() != first
            (row,) = predictor.predict_many([image])
        assert (row.frame, row.frames) == (0, 1)
