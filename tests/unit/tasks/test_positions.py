"""A white rectangle at known pixels of a real photograph, through the input steps, a real network and its decoder,
lands where it was drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.detection_networks import Rectangle, encoded, model, picture
from helpers.slow_predictor import pictures, slow
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.preprocessing import Preprocessing
from plimsoll.tasks.detect import Detection
from plimsoll.tasks.landmarks import Points
from plimsoll.tasks.segment import Segmentation

Open = Callable[..., Predictor]
SIZE = (512, 352)
RECTANGLE: Rectangle = (200, 104, 280, 224)
"""Off the middle, so that nothing mirrored or turned passes; its edges lie on those of the smaller pictures' pixels."""

EXACT: dict[str, list[dict[str, Any]]] = {
    "stretch": [{"step": "resize", "width": 256, "height": 88}],
    "short edge and crop": [
        {"step": "resize", "fit": "short_edge", "size": 176},
        {"step": "crop", "width": 160, "height": 160},
    ],
    "letterbox": [{"step": "resize", "fit": "letterbox", "width": 256, "height": 256}],
    "letterbox, padded at the end": [
        {"step": "resize", "fit": "letterbox", "width": 256, "height": 256, "pad_position": "end"}
    ],
    "letterbox to a stride": [{"step": "resize", "fit": "letterbox", "width": 256, "height": 256, "stride": 32}],
    "letterbox that doesn't enlarge": [
        {"step": "resize", "fit": "letterbox", "width": 640, "height": 640, "enlarge": False}
    ],
    "a height, padded on the right": [{"step": "resize", "fit": "height", "width": 320, "height": 176}],
    "opencv": [{"step": "resize", "width": 256, "height": 176, "convention": "opencv"}],
    "crop first": [
        {"step": "crop", "width": 400, "height": 300, "x": 40, "y": 24},
        {"step": "resize", "width": 200, "height": 150},
    ],
    "no resize": [],
}
HEADS = ["yolov5", "yolov8", "ssd", "tflite_postprocess"]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def make(
        form: str, steps: list[dict[str, Any]], preprocessing: Preprocessing = "reference", **decode: Any
    ) -> Predictor:
        return Predictor(
            ResolvedModel(model(tmp_path, form, [{"step": "decode", **decode}, *steps]), preprocessing=preprocessing),
            cores=1,
        )

    return make


def box(predictor: Predictor, data: bytes) -> tuple[float, float, float, float]:
    answer = predictor.predict(data)
    assert isinstance(answer, Detection)
    (box,) = answer.boxes
    assert box.label == "white"
    assert box.score == pytest.approx(1.0, abs=1e-4)
    return box.box


@pytest.mark.parametrize("steps", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
def test_a_box_lies_on_the_rectangle(
    opened: Open, example_photos: list[Path], steps: list[dict[str, Any]], preprocessing: Preprocessing
) -> None:
    with opened("yolov8", steps, preprocessing) as predictor:
        assert box(predictor, encoded(picture(example_photos[0], SIZE, RECTANGLE))) == pytest.approx(
            RECTANGLE, abs=1e-6
        )


@pytest.mark.parametrize("head", HEADS)
def test_every_head(opened: Open, example_photos: list[Path], head: str) -> None:
    with opened(head, EXACT["letterbox"]) as predictor:
        assert box(predictor, encoded(picture(example_photos[1], SIZE, RECTANGLE))) == pytest.approx(
            RECTANGLE, abs=1e-3
        )


@pytest.mark.parametrize("index", range(2, 10))
def test_photographs_of_any_size(opened: Open, example_photos: list[Path], index: int) -> None:
    """No edge lies on a pixel's of the input: one of the input's pixels is as near as it gets, and with an enlarged
    picture one of the picture's."""
    with Image.open(example_photos[index]) as photo:
        size = photo.size
    rectangle = (size[0] // 3 + 5, size[1] // 4 + 3, size[0] // 3 + 92, size[1] // 4 + 71)
    data = encoded(picture(example_photos[index], size, rectangle), "JPEG")
    for side in (320, 640):
        with opened("yolov8", [{"step": "resize", "fit": "letterbox", "width": side, "height": side}]) as predictor:
            assert box(predictor, data) == pytest.approx(rectangle, abs=max(1.0, max(size) / side))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["short edge and crop", "letterbox, padded at the end"])
@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
def test_orientations(
    opened: Open, example_photos: list[Path], orientation: int, kind: str, preprocessing: Preprocessing
) -> None:
    """Boxes, points and masks lie over the picture as it was sent; `upright` gives them over the picture as it
    is shown."""
    image = picture(example_photos[2], SIZE, RECTANGLE)
    data = encoded(image, "JPEG", orientation)
    steps, decode = EXACT[kind], {"exif_orientation": True}
    with opened("yolov8", steps, preprocessing, **decode) as predictor:
        assert box(predictor, data) == pytest.approx(RECTANGLE, abs=1e-6)
        tensor, geometry = predictor.prepare(data)
        assert geometry is not None
        (shown,) = predictor.task.decode(
            predictor.runner("latency").infer(tensor[np.newaxis]), geometries=[geometry.upright()]
        )
    assert isinstance(shown, Detection)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).min(axis=2) > 200
    rows, columns = np.flatnonzero(turned.any(axis=1)), np.flatnonzero(turned.any(axis=0))
    assert shown.boxes[0].box == pytest.approx((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), abs=1e-6)

    with opened("landmarks", steps, preprocessing, **decode) as predictor:
        answer = predictor.predict(data)
    assert isinstance(answer, Points)
    first, last = np.array(answer.points)
    assert sorted([first[0], last[0]]) == pytest.approx(RECTANGLE[::2], abs=1e-6)
    assert sorted([first[1], last[1]]) == pytest.approx(RECTANGLE[1::2], abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "orientation"),
    [
        ("stretch", 1),
        ("stretch", 3),
        *((kind, turned) for kind in ("letterbox", "short edge and crop") for turned in (1, 3, 6, 7)),
    ],
)
def test_masks(opened: Open, example_photos: list[Path], kind: str, orientation: int) -> None:
    with opened("segment", EXACT[kind], exif_orientation=True) as predictor:
        answer = predictor.predict(encoded(picture(example_photos[3], SIZE, RECTANGLE), "JPEG", orientation))
    assert isinstance(answer, Segmentation)
    pixels = answer.pixels()
    assert pixels.shape == SIZE[::-1]
    x0, y0, x1, y1 = RECTANGLE
    drawn = np.zeros(pixels.shape, bool)
    drawn[y0:y1, x0:x1] = True
    assert ((pixels == 1) != drawn).sum() <= 4, "interpolation may round the four corners by a pixel"
    assert set(np.unique(pixels[~drawn]).tolist()) == ({0, 65_535} if "crop" in kind else {0})
    if "crop" in kind:
        across, down = (pixels == 65_535).all(axis=0), (pixels == 65_535).all(axis=1)
        assert (across.sum(), down.sum()) == (512 - 320, 352 - 320), "the crop sees 320 x 320 of the picture's pixels"


def test_streams_tell_every_picture_its_own_place(opened: Open, example_photos: list[Path], tmp_path: Path) -> None:
    """Pictures of different sizes in one batch: each box in its own picture's pixels."""
    drawn, paths = [], []
    for index, photo in enumerate(example_photos[:7]):
        size = (512 + 64 * index, 320 + 32 * (index % 3))
        rectangle = (64 + 32 * index, 96, 224 + 32 * index, 192)
        path = tmp_path / f"{index}.png"
        path.write_bytes(encoded(picture(photo, size, rectangle)))
        drawn.append(rectangle)
        paths.append(path)
    with opened("yolov8", [{"step": "resize", "fit": "letterbox", "width": 448, "height": 448}]) as predictor:
        answers = [result.answer for result in predictor.predict_many(paths, batch=3)]
    for answer, rectangle, path in zip(answers, drawn, paths, strict=True):
        assert isinstance(answer, Detection)
        with Image.open(path) as image:
            assert answer.boxes[0].box == pytest.approx(rectangle, abs=max(1.0, image.width / 448))


def test_a_picture_without_a_rectangle(opened: Open, example_photos: list[Path]) -> None:
    with opened("yolov8", EXACT["letterbox"]) as predictor:
        answer = predictor.predict(encoded(picture(example_photos[0], SIZE, RECTANGLE).point(lambda level: level // 3)))
    assert isinstance(answer, Detection)
    assert answer.row() == {"boxes": []}


def test_classification_looks_at_no_picture_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no positions are asked for, none are worked out."""
    with slow(tmp_path) as predictor:
        monkeypatch.setattr("plimsoll.preprocessing.preprocessor.geometry_of", None)
        assert all(result.error is None for result in predictor.predict_many(pictures(tmp_path)))
        assert predictor.prepare(Path(pictures(tmp_path)[0]))[1] is None
