"""Comments pass behind people and never touch each other; a sprite follows its anchor; a puppet does what the face
does."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.clips import numbered, numbered_clip, require_av
from plimsoll.errors import InputError
from plimsoll.inference.drawing.avatar import AvatarLayer, load_puppet, require_points
from plimsoll.inference.drawing.canvas import Canvas
from plimsoll.inference.drawing.comments import Comment, CommentLayer, read_comments
from plimsoll.inference.drawing.effects import EffectLayer
from plimsoll.inference.drawing.face import Face, head_pose, read_face
from plimsoll.tasks.detect import Box, Detection
from plimsoll.tasks.landmarks import Points
from plimsoll.tasks.segment import NO_LABEL, LabelMap, Segmentation

HEIGHT, WIDTH = 320, 640
NOBODY = Segmentation(("person",), LabelMap.of(np.full((HEIGHT, WIDTH), NO_LABEL, np.uint16)))


def blank(level: int = 0) -> Canvas:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def person(left: int, right: int) -> Segmentation:
    labels = np.full((HEIGHT, WIDTH), NO_LABEL, np.uint16)
    labels[:, left:right] = 0
    return Segmentation(("person",), LabelMap.of(labels))


XML = """<?xml version="1.0" encoding="UTF-8"?><i><chatserver>x</chatserver>
<d p="2.5,1,25,16711680,1500000000,0,a,1">second</d><d p="1,5,18,255,0,0,0,0">first &amp; above</d>
<d p="3,7,25,255,0,0,0,0">[0,0,"advanced"]</d><d p="x,1">broken</d><d p="4,1,25,1">  </d></i>"""


def test_comments_of_both_formats(tmp_path: Path) -> None:
    xml, lines = tmp_path / "c.xml", tmp_path / "c.txt"
    xml.write_text(XML, encoding="utf-8")
    assert read_comments(xml) == [
        Comment(1.0, "first & above", (0, 0, 255), 5, 18),
        Comment(2.5, "second", (255, 0, 0), 1, 25),
    ]
    lines.write_text("\ufeff1:02 later\n12.5 Hello \u202e there\nno time\n1:00:00, an hour\n", encoding="utf-8")
    assert [(each.time, each.words.partition(" ")[0]) for each in read_comments(lines)] == [
        (12.5, "Hello"),
        (62.0, "later"),
        (3600.0, "an"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no comment here",
        b"<i><d p='1,1,25,255'>x</i>",
        b'<!DOCTYPE i [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><i><d p="1,1,25,255">&b;</d></i>',
        b"\xff\xfe\x00",
    ],
)
def test_comments_that_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.xml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_comments(path)


def test_comments_pass_behind_people() -> None:
    """Nothing is drawn over a person; what is drawn beside is the same as without her."""
    comments = [Comment(0.1 * index, "MMMMMMMM", (255, 255, 255)) for index in range(12)]
    alone, behind = blank(), blank()
    for at in np.arange(0, 4, 0.2):
        alone[:], behind[:] = 0, 0
        if at == 0:
            first, second = CommentLayer(comments), CommentLayer(comments)
        first.paint(alone, NOBODY, float(at))
        second.paint(behind, person(300, 420), float(at))
    assert alone[:, 320:400].any(), "they would pass there"
    assert not behind[:, 310:410].any()
    assert np.array_equal(alone[:, 440:], behind[:, 440:])
    assert (np.abs(alone[:, 420:440].astype(int) - behind[:, 420:440]) > 0).any(), "the edge is feathered"


def test_comments_never_touch_each_other() -> None:
    """However many come at once: each pixel belongs to one comment, told by its colour."""
    random = np.random.default_rng(0)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    comments = [
        Comment(float(at), "W" * int(random.integers(1, 30)), colours[index % 3])
        for index, at in enumerate(sorted(random.uniform(0, 6, 120)))
    ]
    layer = CommentLayer(comments)
    for at in np.arange(0, 10, 0.1):
        layer.paint(blank(), NOBODY, float(at))
        shown = layer.shown_at(float(at), WIDTH)
        for line in {line for line, _, _ in shown}:
            spans = sorted((left, right) for other, left, right in shown if other == line)
            assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def sprite_file(folder: Path) -> Path:
    path = folder / "sprite.png"
    Image.new("RGBA", (40, 20), (0, 255, 0, 255)).save(path)
    return path


def green(canvas: Canvas) -> tuple[float, float]:
    rows, columns = np.nonzero(canvas[:, :, 1] > 200)
    return float(columns.mean()), float(rows.mean())


def test_a_sprite_follows_its_gesture_and_fades(tmp_path: Path) -> None:
    effect = EffectLayer.parse(f"{sprite_file(tmp_path)}=pinch*0.5")
    nothing = Detection((Box("open", 0.9, (0.0, 0.0, 50.0, 50.0)),))
    for index in range(30):
        left = 100.0 + 5 * index
        answer = Detection((Box("pinch", 0.9, (left, 100.0, left + 80, 180.0)),))
        canvas = effect.paint(blank(), answer, index / 25)
    assert green(canvas) == pytest.approx((left + 40, 140), abs=15)
    levels = [int(effect.paint(blank(), nothing, (30 + index) / 25)[:, :, 1].max()) for index in range(10)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 150
    assert levels[-1] == 0


def test_a_sprite_at_a_point_of_a_picture(tmp_path: Path) -> None:
    effect = EffectLayer.parse(f"{sprite_file(tmp_path)}=2")
    points = Points(((100.0, 100.0), (200.0, 100.0), (150.0, 200.0)), None)
    assert green(effect.paint(blank(), points, None)) == pytest.approx((150, 200), abs=2)
    assert not effect.paint(blank(), Points((), 0.0), None).any()


@pytest.mark.parametrize("value", ["a.png", "=x", "a.png=", "a.png=x*0", "a.png=x*y", "missing.png=x"])
def test_sprites_that_are_refused(value: str) -> None:
    with pytest.raises(InputError):
        EffectLayer.parse(value)


MODEL = np.array(
    [(0, 0, 0), (0, 63.6, 12.5), (-43.3, -32.7, 26), (43.3, -32.7, 26), (-28.9, 28.9, 24.1), (28.9, 28.9, 24.1)]
)


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the picture of the model's six points, turned, half a metre in front of a camera of 640 x 480."""
    cy, sy, cp, sp, cr, sr = (f(angle) for angle in (yaw, pitch, roll) for f in (np.cos, np.sin))
    around_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    around_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    points = MODEL @ (around_z @ around_y @ around_x).T + (30, -20, 600)
    return np.asarray(points[:, :2] / points[:, 2:] * 640 + (320, 240))


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (0.5, 0, 0), (-0.4, 0, 0), (0, 0.3, 0), (0, 0, -0.35)])
def test_the_head_s_pose(yaw: float, pitch: float, roll: float) -> None:
    """One turn at a time; to the picture's right, downwards and clockwise count as positive."""
    pytest.importorskip("cv2", reason="needs OpenCV (the extra `fast`)")
    assert head_pose(turned(yaw, pitch, roll), 640, 480) == pytest.approx((yaw, pitch, roll), abs=0.02)
    tip, eyes = turned(yaw, 0, 0)[0], turned(yaw, 0, 0)[2:4].mean(axis=0)
    assert yaw == 0 or np.sign(tip[0] - eyes[0]) == np.sign(yaw), "the nose points where the head looks"


def face_points(eyes: float, mouth: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return 68 points of a face that looks ahead, with eyes and mouth as high as that, in pixels."""
    points = np.full((68, 2), (320.0, 240.0))
    pose = turned(0, 0, 0)
    points[[30, 8, 36, 45, 48, 54]] = pose
    for outer, inner, first in ((pose[2], pose[2] + (40, 0), 37), (pose[3] - (40, 0), pose[3], 43)):
        corners = (first - 1, first + 2)
        points[list(corners)] = outer, inner
        for at, side in ((first, -1), (first + 1, -1), (first + 3, 1), (first + 4, 1)):
            points[at] = (outer + inner) / 2 + (0, side * eyes / 2)
    points[[60, 64]] = pose[4], pose[5]
    middle = (pose[4] + pose[5]) / 2
    points[62], points[66] = middle - np.array([0, mouth / 2]), middle + np.array([0, mouth / 2])
    return points


def test_eyes_and_mouth() -> None:
    pytest.importorskip("cv2", reason="needs OpenCV (the extra `fast`)")
    shut, open_ = read_face(face_points(2, 0), 640, 480), read_face(face_points(14, 60), 640, 480)
    assert shut.eyes == (0, 0)
    assert shut.mouth == 0
    assert min(open_.eyes) == 1
    assert open_.mouth == 1
    assert Face.of_values(open_.values()) == open_


def test_the_puppet_does_what_the_face_does() -> None:
    layer = AvatarLayer(load_puppet(None))
    ahead = Face(0, 0, 0, (1, 1), 0, (0.5, 0.5), 0.5)
    shapes = {
        "turned": Face(0.6, 0, 0, (1, 1), 0, (0.5, 0.5), 0.5),
        "tilted": Face(0, 0, 0.5, (1, 1), 0, (0.5, 0.5), 0.5),
        "speaking": Face(0, 0, 0, (1, 1), 1, (0.5, 0.5), 0.5),
        "winking": Face(0, 0, 0, (0, 1), 0, (0.5, 0.5), 0.5),
    }
    drawn = {name: layer.puppet(face, 200) for name, face in {"ahead": ahead, **shapes}.items()}
    base = drawn["ahead"].astype(int)
    changed = {
        name: np.argwhere(np.abs(drawn[name].astype(int) - base).sum(axis=2) > 60) for name in ("speaking", "winking")
    }
    height, width = base.shape[:2]
    assert changed["speaking"][:, 0].min() > 0.55 * height, "the lower half alone"
    assert changed["winking"][:, 1].max() < 0.5 * width, "the left eye alone"
    assert drawn["turned"].shape[1] < width
    assert not np.array_equal(drawn["tilted"], drawn["ahead"])


def test_the_puppet_is_drawn_over_the_second_clip(tmp_path: Path) -> None:
    """Its frames are those of the moment, from the beginning again after its end."""
    pytest.importorskip("cv2", reason="needs OpenCV (the extra `fast`)")
    require_av()
    from helpers.clips import number_of

    over = numbered_clip(tmp_path / "over.mp4", 10)
    layer = AvatarLayer(load_puppet(None), str(over))
    answer = Points(tuple(map(tuple, face_points(14, 0).tolist())), None)
    numbers = []
    for index in range(15):
        canvas = layer.paint(blank(), answer, index / 25)
        numbers.append(number_of(canvas))
        assert canvas.shape == numbered(0).shape
    assert numbers[:9] == [*range(9)]
    assert set(numbers[10:]) <= {*range(6)}


def test_puppets_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no face\.png"):
        load_puppet(tmp_path)
    Image.new("RGBA", (300, 300), (9, 8, 7, 255)).save(tmp_path / "face.png")
    layer = AvatarLayer(load_puppet(tmp_path))
    sprite = layer.puppet(Face(0, 0, 0, (1, 1), 1, (0.5, 0.5), 0.5), 100)
    assert tuple(sprite[75, 75]) == (9, 8, 7, 255)
    for points in (None, 21):
        with pytest.raises(InputError):
            require_points(points)
