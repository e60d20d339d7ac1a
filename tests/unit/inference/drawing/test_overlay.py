"""What is drawn lies where the answer says, in any order of channels, and never outside of the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plimsoll.errors import InputError
from plimsoll.inference.drawing.canvas import Canvas, canvas_of, colour_of, paste, read_picture, read_sprite, text
from plimsoll.inference.drawing.overlay import draw
from plimsoll.inference.video.tracking import TrackedBox
from plimsoll.preprocessing import PixelArray
from plimsoll.tasks import Answer
from plimsoll.tasks.classify import Classification
from plimsoll.tasks.detect import Box, Detection
from plimsoll.tasks.detect.masks import BoxMask
from plimsoll.tasks.landmarks import Points
from plimsoll.tasks.segment import LabelMap, Segmentation


def blank() -> Canvas:
    return np.zeros((200, 300, 3), np.uint8)


def test_a_box_has_an_outline_and_its_label_above() -> None:
    canvas = blank()
    draw(canvas, Detection((Box("cat", 0.9, (100.0, 80.0, 180.0, 160.0)),)))
    assert canvas[80, 100:180].any(axis=1).all(), "its upper edge"
    assert canvas[100:150, 110:170].sum() == 0, "nothing inside"
    assert canvas[70:79, 101:115].any(), "its label"
    assert canvas[161:].sum() == 0
    assert canvas[:, 181:].sum() == 0


def test_a_track_keeps_its_colour_and_shows_its_number() -> None:
    first, second = blank(), blank()
    draw(first, Detection((TrackedBox("cat", 0.9, (100.0, 80.0, 180.0, 160.0), track=7),)))
    draw(second, Detection((TrackedBox("cat", 0.6, (100.0, 80.0, 180.0, 160.0), track=7),)))
    assert tuple(first[159, 140]) == tuple(second[159, 140]) == colour_of(7)
    assert len({colour_of(number) for number in range(64)}) == 64


def test_bgr_frames_are_drawn_in_the_same_colours() -> None:
    rgb, bgr = blank(), blank()
    answer = Detection((Box("cat", 0.9, (100.0, 80.0, 180.0, 160.0)),))
    draw(canvas_of(PixelArray(rgb, "RGB")), answer)
    draw(canvas_of(PixelArray(bgr, "BGR")), answer)
    assert np.array_equal(rgb, bgr[:, :, ::-1])


def test_points_and_masks() -> None:
    canvas = blank()
    draw(canvas, Points(((50.0, 60.0), (200.0, 60.0), (200.0, 150.0), (900.0, -5.0)), None))
    assert all(canvas[y, x].any() for x, y in ((50, 60), (200, 60), (200, 150)))
    labels = np.zeros((200, 300), np.uint16)
    labels[100:, 150:] = 1
    canvas = blank() + 100
    draw(canvas, Segmentation(("background", "person"), LabelMap.of(labels)))
    assert (canvas[150, 200] != 100).any()
    assert (canvas[90, 200] == 100).all()


@pytest.mark.parametrize(
    "answer",
    [
        Detection((Box("cat\x1b[31m" * 20, 0.9, (-50.0, -50.0, 500.0, 500.0)),)),
        Detection((Box("a", 0.9, (299.0, 0.0, 299.4, 0.2)),)),
        Points((), 0.1),
        Points(((5.0, 5.0),), None),
        Classification("猫", 0.7, {"猫": 0.7}),
    ],
    ids=["beyond the picture", "tiny", "no points", "one point", "a line"],
)
def test_odd_answers_are_drawn_without_harm(answer: Answer) -> None:
    canvas = blank()
    draw(canvas, answer)
    assert canvas.shape == (200, 300, 3)


def test_sprites_are_cut_at_the_borders_and_mixed_by_their_alpha() -> None:
    canvas = blank()
    sprite = np.full((20, 20, 4), 200, np.uint8)
    sprite[:, :, 3] = 128
    for left, top in ((-10, -10), (290, 190), (-50, 0), (500, 500)):
        paste(canvas, sprite, left, top)
    assert canvas[5, 5, 0] == canvas[195, 295, 0] == pytest.approx(100, abs=1)
    assert canvas[11:189, 11:289].sum() == 0
    half = np.zeros((200, 300), np.uint8)
    half[:, 150:] = 255
    paste(canvas, sprite, 140, 100, half)
    assert canvas[110, 145].sum() == 0
    assert canvas[110, 155].sum() > 0


def test_text_has_its_colour_and_its_background() -> None:
    line = text("Ab", 20, (255, 255, 255), (10, 20, 30))
    assert tuple(line[0, 0]) == (10, 20, 30, 255)
    assert line[:, :, 0].max() == 255
    assert text("Ab", 20, (255, 255, 255))[0, 0, 3] == 0


def test_pictures_that_cannot_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "sprite.png"
    Image.new("RGBA", (4, 3), (1, 2, 3, 4)).save(path)
    assert read_sprite(path).shape == (3, 4, 4)
    assert read_picture(path).flags.writeable
    (tmp_path / "no.png").write_bytes(b"no picture")
    for name in ("no.png", "missing.png"):
        with pytest.raises(InputError):
            read_sprite(tmp_path / name)


def test_points_and_masks_in_boxes() -> None:
    canvas = blank() + 100
    mask = BoxMask.of(np.ones((40, 40), bool), 120, 100, (200, 300))
    draw(canvas, Detection((Box("cat", 0.9, (100.0, 80.0, 180.0, 160.0), ((170.0, 150.0),), mask),)))
    assert (canvas[120, 140] != 100).any()
    assert (canvas[90, 110] == 100).all()
    assert (canvas[150, 170] != 100).any()
