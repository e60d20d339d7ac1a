"""Cascades: objects are turned upright, cut out, and what the next network says of them is brought back."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from PIL import Image

from helpers.answer_networks import draw, network, saved, spec_of
from plimsoll import load
from plimsoll.benchmark import SystemUnderTest, footprint, profile
from plimsoll.errors import InputError, ModelError, SpecError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_spec import Crop, read_cascade
from plimsoll.inference.crops import Square, square_of
from plimsoll.inference.gestures import gesture_of, gestures_of
from plimsoll.inference.predictor import open_model
from plimsoll.preprocessing import PixelArray
from plimsoll.spec import files as spec_files
from plimsoll.tasks.detect import Detection
from plimsoll.tasks.landmarks import Points
from plimsoll.zoo import catalog

CASCADE = """
name = "corners"

[[stages]]
model = "detect.onnx"
spec = "detect.toml"

[[stages]]
model = "landmarks.onnx"
spec = "landmarks.toml"
presence = 0.0

[stages.crop]
scale = 1.6
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for task in ("detect", "landmarks"):
        spec = spec_of(task)
        saved(network(task), tmp_path / f"{task}.onnx", spec)
        (tmp_path / f"{task}.toml").write_text(spec_files.dumps(spec))
    (tmp_path / "cascade.toml").write_text(CASCADE)
    return tmp_path


def test_each_object_is_cut_out_and_its_points_come_back(folder: Path) -> None:
    pictures = draw(folder / "drawn", 3)
    with load(folder / "cascade.toml") as cascade, load(folder / "detect.onnx", spec=folder / "detect.toml") as alone:
        assert isinstance(cascade, CascadePredictor)
        with load(folder / "landmarks.onnx", spec=folder / "landmarks.toml") as second:
            for picture in pictures:
                answer, boxes = cascade.predict(picture), alone.predict(picture)
                assert isinstance(boxes, Detection)
                assert [box.label for box in answer.boxes] == [box.label for box in boxes.boxes]
                pixels = np.asarray(Image.open(picture).convert("RGB"))
                for box, plain in zip(answer.boxes, boxes.boxes, strict=True):
                    x0, y0, x1, y1 = plain.box
                    square = Square((x0 + x1) / 2, (y0 + y1) / 2, 1.6 * max(x1 - x0, y1 - y0), 0.0)
                    inside = second.predict(PixelArray(square.cut(pixels, 48, 48), "RGB"))
                    assert isinstance(inside, Points)
                    expected = square.to_picture(np.array(inside.points) / 48)
                    # The cascade's boxes are not clipped to the picture before they are cut out.
                    assert np.array(box.points) == pytest.approx(expected, abs=1.0)
        rows = [prediction.answer for prediction in cascade.predict_many([*pictures, folder / "none.png"])]
        assert [row is None for row in rows] == [False, False, False, True]


REFINED = """
[[stages]]
model = "landmarks.onnx"
spec = "landmarks.toml"
presence = 0.0
points = [3, 0, 1, 2]

[stages.crop]
scale = 0.9
"""


def test_a_further_stage_gives_points_anew(folder: Path) -> None:
    """The square lies around the centre of the named points, as large as the box around all, and the points come in the
    order in which they are named."""
    (picture,) = draw(folder / "drawn", 1)
    (folder / "refined.toml").write_text(CASCADE + REFINED)
    (folder / "whole.toml").write_text(CASCADE + REFINED.replace("points = [3, 0, 1, 2]", ""))
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    with (
        load(folder / "cascade.toml") as two,
        load(folder / "refined.toml") as three,
        load(folder / "whole.toml") as all_,
    ):
        before, refined, anew = (cascade.predict(picture) for cascade in (two, three, all_))
        assert isinstance(before, Detection)
        assert isinstance(refined, Detection)
        assert isinstance(anew, Detection)
        with load(folder / "landmarks.onnx", spec=folder / "landmarks.toml") as network:
            for first, second, third in zip(before.boxes, refined.boxes, anew.boxes, strict=True):
                points = np.array(first.points)
                middle, side = points.mean(axis=0), 0.9 * float(np.ptp(points, axis=0).max())
                square = Square(middle[0], middle[1], side, 0.0)
                inside = network.predict(PixelArray(square.cut(pixels, 48, 48), "RGB"))
                assert isinstance(inside, Points)
                expected = square.to_picture(np.array(inside.points) / 48)
                assert np.array(second.points)[[3, 0, 1, 2]] == pytest.approx(expected, abs=0.3)
                edges = (points.min(axis=0) + points.max(axis=0)) / 2
                whole = replace(square, x=edges[0], y=edges[1])
                inside = network.predict(PixelArray(whole.cut(pixels, 48, 48), "RGB"))
                assert isinstance(inside, Points)
                assert np.array(third.points) == pytest.approx(whole.to_picture(np.array(inside.points) / 48), abs=0.3)


def constant_network(path: Path, values: NDArray[np.float32]) -> None:
    """Store a network that answers every picture with the same values `[1, …]`."""
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Reshape", ["zero", "shape"], ["zeros"]),
        helper.make_node("Add", ["zeros", "values"], ["answer"]),
    ]
    shape = np.array([-1, 1, 1], np.int64)
    constants = {"values": values, "nothing": np.float32(0), "shape": shape}
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *extents])
        for name, extents in (("picture", (3, 48, 48)), ("answer", values.shape[1:]))
    ]
    initializers = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "constant", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def boxes_at(centres: NDArray[np.float64], size: float) -> NDArray[np.float32]:
    """Return what the detector would say of red squares `[N, 2]` in its input of 48 x 48 pixels."""
    rows = np.zeros((1, 6, len(centres)), np.float32)
    rows[0, :2], rows[0, 2:4], rows[0, 4] = centres.T, size, 0.9
    return rows


@pytest.mark.parametrize("preprocessing", ["reference", "fast"])
def test_any_number_of_objects_of_any_size_anywhere(folder: Path, preprocessing: Literal["reference", "fast"]) -> None:
    """None, 200, one that is a fraction of a pixel, one that is half outside; and of one beyond the picture nothing."""
    (picture,) = draw(folder / "drawn", 1)
    random = np.random.default_rng(0)
    spec = spec_of("detect", iou=1.0, class_agnostic_iou=1.0, max_boxes=300)
    (folder / "detect.toml").write_text(spec_files.dumps(spec))
    for centres, size, count in (
        (random.uniform(4, 44, (200, 2)), 6.0, 200),
        (np.array([[24.0, 24.0]]), 0.02, 1),
        (np.array([[0.0, 48.0]]), 30.0, 1),
        (np.array([[900.0, 900.0]]), 30.0, 0),
        (np.array([[24.0, 24.0]]), 0.0, 0),
    ):
        constant_network(folder / "detect.onnx", boxes_at(centres, size))
        with load(folder / "cascade.toml", preprocessing=preprocessing) as cascade:
            answer = cascade.predict(picture)
        assert isinstance(answer, Detection)
        assert len(answer.boxes) == count
        assert all(np.isfinite(np.array(box.points)).all() for box in answer.boxes)


def test_a_stage_that_answers_nonsense_is_named(folder: Path) -> None:
    (picture,) = draw(folder / "drawn", 1)
    (folder / "landmarks.toml").write_text(spec_files.dumps(spec_of("landmarks", presence=None, tensor=None)))
    constant_network(folder / "landmarks.onnx", np.full((1, 4, 2), np.nan, np.float32))
    with load(folder / "cascade.toml") as cascade, pytest.raises(ModelError, match="stage 2, landmarks: non-finite"):
        cascade.predict(picture)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("points = [0, 1, 2, 4]", "of 4 points so far"),
        ("points = [0, 1]", "its network gives 4"),
        ("points = [0, 1, 2, 2]", "each once"),
    ],
)
def test_points_that_are_not_there_are_no_stage(lines: str, message: str, folder: Path) -> None:
    (folder / "refined.toml").write_text(CASCADE + REFINED.replace("points = [3, 0, 1, 2]", lines))
    with pytest.raises(SpecError) as caught:
        load(folder / "refined.toml")
    assert message in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_positions_are_those_of_the_picture_as_it_was_sent(orientation: int, folder: Path) -> None:
    (picture,) = draw(folder / "drawn", 1)
    upright = Image.open(picture)
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    upright.transpose(turn).save(file, "PNG", exif=exif)
    spec = spec_of("detect").model_dump(exclude_unset=True, mode="json")
    spec["input"]["steps"][0]["exif_orientation"] = True
    (folder / "detect.toml").write_text(spec_files.dumps(spec_files.validate(spec)))
    with load(folder / "cascade.toml") as cascade:
        plain, turned = cascade.predict(picture), cascade.predict(file.getvalue())
    assert isinstance(plain, Detection)
    assert isinstance(turned, Detection)
    width, height = upright.size
    for box, other in zip(plain.boxes, turned.boxes, strict=True):
        x, y = np.array(box.points)[:, :2].T
        expected = {3: (width - x, height - y), 6: (y, width - x), 8: (height - y, x)}[orientation]
        assert np.array(other.points)[:, :2] == pytest.approx(np.stack(expected, axis=1), abs=1e-6)


@given(st.floats(-3.1, 3.1), st.floats(0.5, 3), st.floats(-1, 1), st.floats(-1, 1))
def test_an_object_stands_upright_in_its_square(angle: float, scale: float, across: float, down: float) -> None:
    wrist = np.array([200.0, 150.0])
    finger = wrist + 40 * np.array([math.sin(angle), -math.cos(angle)])  # Turned clockwise from straight up.
    crop = Crop(scale=scale, shift=(across, down), upright=(0, 1), angle=90.0)
    square = square_of(crop, (170, 120, 230, 180), np.stack([wrist, finger]))
    assert square.side == pytest.approx(60 * scale)
    corners = square.to_picture(np.array([[0.5, 1.0], [0.5, 0.0]]))
    up = corners[1] - corners[0]
    assert up / np.linalg.norm(up) == pytest.approx((finger - wrist) / 40, abs=1e-6)
    moved = np.array([square.x - 200, square.y - 150])
    assert np.linalg.norm(moved) == pytest.approx(60 * math.hypot(across, down), abs=1e-6)


def test_a_square_is_cut_out_with_what_lies_beyond_the_picture() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = 200
    square = Square(30.0, 20.0, 80.0, 0.0)
    repeated, black = square.cut(pixels, 80, 80), square.cut(pixels, 80, 80, black=True)
    assert (repeated[:, 40:] == 200).all()
    assert (repeated[:, :40] == 0).all()
    assert (black[21:59, 41:68] == 200).all()
    assert not black[:19].any()
    assert not black[:, 71:].any()
    for fill in (False, True):
        fast = square.cut_fast(pixels, 80, 80, black=fill)
        assert np.abs(fast.astype(int) - square.cut(pixels, 80, 80, black=fill)).max() <= 1
    turned = Square(30.0, 20.0, 40.0, math.pi / 2).cut(pixels, 40, 40)
    assert turned[5, 20, 0] == 200  # Up in the crop is right in the picture.
    assert turned[35, 20, 0] == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CASCADE.replace("[stages.crop]\nscale = 1.6", ""), "need a crop"),
        (CASCADE.replace("scale = 1.6", "scale = 0"), "greater than 0"),
        ("name = 'x'", "stages"),
        ("[[", "not a TOML file"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, reason: str, folder: Path) -> None:
    (folder / "wrong.toml").write_text(text)
    with pytest.raises(SpecError, match=reason):
        read_cascade(folder / "wrong.toml")


def test_networks_that_do_not_fit_are_refused(folder: Path) -> None:
    file = folder / "cascade.toml"
    for old, new, reason in (
        ("scale = 1.6", "upright = [0, 1]", "of 0 points so far"),
        ('name = "corners"', 'name = "corners"\nlabels = "gestures"', "gestures need the 21 points"),
        ("detect", "landmarks", "has to detect boxes"),
    ):
        file.write_text(CASCADE.replace(old, new))
        with pytest.raises(SpecError, match=reason):
            load(file)
    file.write_text(CASCADE)
    with pytest.raises(InputError, match="own Specs, targets"):
        load(file, target="onnxruntime:cpu:float32")


def test_all_of_its_networks_are_measured(folder: Path) -> None:
    pictures = draw(folder / "drawn", 2)
    with load(folder / "cascade.toml") as cascade:
        system = SystemUnderTest("corners", cascade)
        measured = profile(system, [str(picture) for picture in pictures], min_seconds=0.05)
        costs = footprint(system, pictures)
    sizes = [(folder / f"{task}.onnx").stat().st_size for task in ("detect", "landmarks")]
    assert costs.disk_bytes == sum(sizes)
    inferences = [stage.name for stage in measured.stages if stage.name.endswith(" inference")]
    assert inferences == [f"{network.spec.name} inference" for network in cascade.networks]


def test_the_zoos_cascades_name_networks_of_the_zoo() -> None:
    assert catalog.cascades() == ("face", "face_68", "hands")
    for name in catalog.cascades():
        for stage in read_cascade(catalog.cascade_file(name)).stages:
            assert stage.model in catalog.names()


def hand(
    *stretched: str, thumb: tuple[float, float] = (-0.9, -0.5)
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A right hand, seen from its back, fingers up; the palm is 1 long."""
    points = np.zeros((21, 2))
    names, roots = ("index", "middle", "ring", "little"), ((-0.25, -0.95), (0.0, -1.0), (0.2, -0.95), (0.4, -0.85))
    for number, (name, root) in enumerate(zip(names, roots, strict=True)):
        lengths = (0.0, 0.4, 0.65, 0.85) if name in stretched else (0.0, 0.25, 0.05, -0.2)
        for joint, length in enumerate(lengths):
            points[5 + 4 * number + joint] = [root[0], root[1] - length]
    tip = np.array(thumb if "thumb" in stretched else (-0.1, -0.75))
    for joint, share in enumerate((0.25, 0.5, 0.75, 1.0)):
        points[1 + joint] = share * tip
    return points


@pytest.mark.parametrize("turn", [0.0, 0.4])
@pytest.mark.parametrize(
    ("stretched", "gesture"),
    [
        (("thumb", "index", "middle", "ring", "little"), "open"),
        ((), "fist"),
        (("index",), "point"),
        (("index", "middle"), "victory"),
        (("index", "little"), "horns"),
        (("thumb", "little"), "call"),
        (("index", "middle", "ring"), "hand"),
    ],
)
def test_a_gesture_follows_from_the_fingers(stretched: tuple[str, ...], gesture: str, turn: float) -> None:
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    assert gesture_of(120 * hand(*stretched) @ rotation.T + 300) == gesture


def test_thumbs_pinches_and_hearts() -> None:
    sideways = np.array([[0.0, -1.0], [1.0, 0.0]])  # A fist on its side: the thumb is on top.
    up = hand("thumb") @ sideways
    assert {gesture_of(up), gesture_of(up * [1, -1])} == {"thumb up", "thumb down"}
    pinch = hand("index", "middle", "ring", "little")
    pinch[8] = [-0.45, -1.1]
    pinch[4] = [-0.5, -1.0]
    assert gesture_of(pinch) == "pinch"
    left = hand("index", "thumb")
    left[8], left[4] = [0.8, -1.5], [0.8, -0.4]
    right = left * [-1, 1] + [1.6, 0]
    assert gestures_of([left, right]) == ["heart", "heart"]
    assert gestures_of([left, right + np.array([5, 0])]) != ["heart", "heart"]


def test_what_takes_a_single_network_says_so_of_a_cascade() -> None:
    with pytest.raises(InputError, match="hands is a cascade of networks"):
        open_model("hands")
