"""Where an input's pixels lie in the picture: against pictures whose every pixel says where it is."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from plimsoll.errors import ImageError
from plimsoll.preprocessing import ImageGeometry, Preprocessor
from plimsoll.preprocessing.preprocessor import geometry_of
from plimsoll.spec import Input

WIDTH, HEIGHT = 252, 180


def preprocessor(*steps: dict[str, Any], preprocessing: Any = "reference", **decode: Any) -> Preprocessor:
    return Preprocessor(Input.model_validate({"steps": [{"step": "decode", **decode}, *steps]}), preprocessing)


def encoded(image: Image.Image, orientation: int = 1, format_: str = "PNG") -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(file, format_, exif=exif) if orientation > 1 else image.save(file, format_)
    return file.getvalue()


def ramp() -> Image.Image:
    """A picture whose red is the column and whose green is the row."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, :, 0] = np.arange(WIDTH)
    pixels[:, :, 1] = np.arange(HEIGHT)[:, np.newaxis]
    return Image.fromarray(pixels)


def differences(processor: Preprocessor) -> NDArray[np.float64]:
    """Return how far the input's pixels are from where the view says that they come from, in picture pixels: x and y.

    The outer tenth is left out: there, kernels reach over the border.
    """
    tensor, geometry = processor.with_geometry(encoded(ramp()))
    height, width = tensor.shape[:2]
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    centres = geometry.points(np.stack([columns, rows], axis=-1, dtype=np.float64) + 0.5)
    inner = (np.abs(centres[:, :, 0] / WIDTH - 0.5) < 0.4) & (np.abs(centres[:, :, 1] / HEIGHT - 0.5) < 0.4)
    assert inner.sum() > 100
    return np.asarray((tensor[:, :, :2].astype(np.float64) + 0.5 - centres)[inner])


SIZES = [(126, 90), (84, 36), (100, 77), (504, 360), (333, 201), (300, 60)]
SMOOTH = [
    *(
        {"convention": "opencv", "filter": filter_, "rounding": "none"}
        for filter_ in ("bilinear", "bicubic", "lanczos", "area")
    ),
    *(
        {"convention": "tensorflow", "filter": filter_, "rounding": "none", "coordinates": where}
        for filter_ in ("bilinear", "bicubic")
        for where in ("half_pixel", "align_corners", "asymmetric")
    ),
    *(
        {"convention": "tensorflow", "filter": filter_, "rounding": "none", "antialias": True}
        for filter_ in ("bilinear", "lanczos")
    ),
    {"convention": "tensorflow", "filter": "area", "rounding": "none"},
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", SMOOTH, ids=lambda case: "-".join(map(str, case.values())))
def test_every_convention_of_a_resize(resize: dict[str, Any], size: tuple[int, int]) -> None:
    offsets = differences(preprocessor({"step": "resize", "width": size[0], "height": size[1], **resize}))
    if resize["filter"] == "area" and (size[0] > WIDTH or size[1] > HEIGHT):
        assert np.abs(offsets).max() < 1, "an enlargement by area repeats pixels"
    else:
        assert np.abs(offsets.mean(axis=0)).max() < 0.02
        assert np.abs(offsets).max() < (0.05 if resize["filter"] == "bilinear" else 0.3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("filter_", ["bilinear", "bicubic", "lanczos", "area"])
def test_pillow_s_resize(filter_: str, size: tuple[int, int]) -> None:
    offsets = differences(preprocessor({"step": "resize", "width": size[0], "height": size[1], "filter": filter_}))
    assert np.abs(offsets).max() < (1.05 if filter_ == "area" else 0.6), "rounded to whole levels"


@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "resize",
    [
        {},
        {"convention": "opencv"},
        *({"convention": "tensorflow", "coordinates": case} for case in ("half_pixel", "align_corners", "asymmetric")),
    ],
)
def test_a_resize_to_the_nearest_pixel(resize: dict[str, Any], size: tuple[int, int], preprocessing: str) -> None:
    """Nearest takes whole pixels: within one of them, and right on the mean where the first of a whole number of pixels
    is taken."""
    step = {"step": "resize", "width": size[0], "height": size[1], "filter": "nearest", **resize}
    offsets = differences(preprocessor(step, preprocessing=preprocessing))
    assert np.abs(offsets).max() <= 1.0 + 1e-6
    if size in ((126, 90), (84, 36)) and (
        resize.get("convention") == "opencv" or resize.get("coordinates") == "asymmetric"
    ):
        np.testing.assert_allclose(offsets, 0.0, atol=1e-9)


EXACT = {"step": "resize", "convention": "opencv", "rounding": "none"}
CHAINS: list[list[dict[str, Any]]] = [
    [{**EXACT, "width": 126, "height": 90}],
    [{**EXACT, "fit": "short_edge", "size": 90}, {"step": "crop", "width": 60, "height": 64}],
    [{**EXACT, "fit": "letterbox", "width": 160, "height": 160}],
    [{**EXACT, "fit": "letterbox", "width": 160, "height": 160, "pad_position": "end"}],
    [{**EXACT, "fit": "letterbox", "width": 160, "height": 160, "stride": 32}],
    [{**EXACT, "fit": "letterbox", "width": 160, "height": 160, "pad_first": True}],
    [{**EXACT, "fit": "letterbox", "width": 160, "height": 96, "pad_first": True, "pad_position": "end"}],
    [{**EXACT, "fit": "letterbox", "width": 640, "height": 320, "enlarge": False}],
    [{"step": "crop", "width": 200, "height": 150, "x": 31, "y": 7}, {**EXACT, "width": 100, "height": 60}],
    [
        {"step": "resize", "width": 504, "height": 360, "convention": "opencv"},
        {"step": "crop", "width": 400, "height": 300},
        {"step": "jpeg", "quality": 100, "subsampling": "4:4:4"},
        {**EXACT, "fit": "letterbox", "width": 128, "height": 128},
        {"step": "crop", "width": 120, "height": 90, "x": 3, "y": 25},
    ],
]


@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
@pytest.mark.parametrize("chain", CHAINS)
def test_chains_of_steps(chain: list[dict[str, Any]], preprocessing: str) -> None:
    processor = preprocessor(*chain, preprocessing=preprocessing)
    offsets = differences(processor)
    assert np.abs(offsets).max() < (3 if len(chain) > 3 else 0.01), (
        "rounded to whole levels by the first resize, and by JPEG"
    )
    assert np.abs(offsets.mean(axis=0)).max() < (0.5 if len(chain) > 3 else 0.01)
    data = encoded(ramp())
    tensor, geometry = processor.with_geometry(data)
    np.testing.assert_array_equal(tensor, processor(data))
    assert tensor.shape[:2] == (geometry.input_height, geometry.input_width)


def test_a_letterbox_counts_its_rounded_sides() -> None:
    """427 / 640 x 500 = 333.6 becomes 334 pixels: along y one input pixel is 427 / 334 pixels, not 640 / 500."""
    letterbox = Input.model_validate(
        {"steps": [{"step": "decode"}, {"step": "resize", "fit": "letterbox", "width": 500, "height": 500}]}
    )
    geometry = geometry_of(letterbox, (640, 427))
    assert geometry.scale == (640 / 500, 427 / 334)
    np.testing.assert_allclose(geometry.boxes(np.array([[0.0, 83.0, 500.0, 417.0]])), [[0, 0, 640, 427]], atol=1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_orientations_lead_back_to_the_stored_pixels(orientation: int, format_: str) -> None:
    stored = ramp()
    data = encoded(stored, orientation, format_)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(stored, orientation))))
    processor = preprocessor(
        {"step": "resize", "fit": "letterbox", "width": 300, "height": 300, "enlarge": False}, exif_orientation=True
    )
    tensor, geometry = processor.with_geometry(data)
    assert (geometry.width, geometry.height, geometry.orientation) == (WIDTH, HEIGHT, orientation)
    assert geometry.upright_size == geometry.upright().upright_size == turned.size

    size = np.array(turned.size)
    left = (300 - size) // 2
    at = np.array([[10, 20], [100, 150], [179, 3]])
    expected = np.asarray(turned)[at[:, 1], at[:, 0], :2]  # What the turned picture shows there is where it is stored.
    np.testing.assert_allclose(geometry.points(at + left + 0.5), expected + 0.5)
    np.testing.assert_allclose(geometry.upright().points(at + left + 0.5), at + 0.5)
    np.testing.assert_array_equal(geometry.as_sent(np.asarray(turned)[:, :, 0]), np.asarray(stored)[:, :, 0])
    np.testing.assert_allclose(tensor[at[:, 1] + left[1], at[:, 0] + left[0], :2], expected, atol=12)


@pytest.mark.parametrize("format_", ["GIF", "BMP", "PNG", "TIFF"])
def test_formats_without_an_orientation(format_: str) -> None:
    processor = preprocessor(exif_orientation=True, formats=["gif", "bmp", "png", "tiff"])
    assert processor.with_geometry(encoded(ramp(), format_=format_))[1].orientation == 1


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_an_orientation_in_xmp_also_of_a_truncated_file(share: float) -> None:
    """Without EXIF, Pillow reads all of a PNG file before it says what its XMP tells."""
    told_by_xmp = PngInfo()
    told_by_xmp.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    file = io.BytesIO()
    ramp().save(file, "PNG", pnginfo=told_by_xmp)
    data = file.getvalue()[: int(share * len(file.getvalue()))]
    geometry = preprocessor(exif_orientation=True, truncated="fill").with_geometry(data)[1]
    assert (geometry.width, geometry.height, geometry.orientation) == (WIDTH, HEIGHT, 6)


def test_an_orientation_that_is_not_followed_changes_nothing() -> None:
    geometry = preprocessor().with_geometry(encoded(ramp(), 6))[1]
    assert (geometry.width, geometry.height, geometry.orientation) == (WIDTH, HEIGHT, 1)


def test_boxes_are_clipped_and_points_are_not() -> None:
    geometry = ImageGeometry(100, 50, 10, 10, (10.0, 5.0), (0.0, 0.0), (0.0, 0.0, 100.0, 50.0))
    np.testing.assert_allclose(geometry.boxes(np.array([[-1.0, 2.0, 11.0, 30.0]])), [[0, 10, 100, 50]])
    np.testing.assert_allclose(geometry.points(np.array([-1.0, 11.0])), [-10, 55])
    assert geometry.boxes(np.zeros((0, 4))).shape == (0, 4)


def test_what_was_cropped_away_has_no_place_in_the_input() -> None:
    processor = Input.model_validate(
        {
            "steps": [
                {"step": "decode"},
                {"step": "resize", "width": 50, "height": 40},
                {"step": "crop", "width": 20, "height": 20},
            ]
        }
    )
    geometry = geometry_of(processor, (100, 80))
    assert geometry.visible == (30, 20, 70, 60)
    x, y = geometry.pixel_centres()
    assert np.flatnonzero(~np.isnan(x)).tolist() == list(range(30, 70))
    assert np.flatnonzero(~np.isnan(y)).tolist() == list(range(20, 60))
    np.testing.assert_allclose(x[30:32], [0.25, 0.75])


def test_a_picture_that_the_steps_refuse() -> None:
    small = preprocessor(
        {"step": "resize", "fit": "short_edge", "size": 500}, {"step": "crop", "width": 600, "height": 600}
    )
    with pytest.raises(ImageError, match="does not fit"):
        small.with_geometry(encoded(ramp()))
