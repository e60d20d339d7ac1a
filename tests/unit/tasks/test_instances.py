"""Objects with a mask of their own (Mask R-CNN) and turned boxes, from the network to the proof."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from helpers.answer_networks import SIDE, constant, draw, network, node, saved, spec_of
from plimsoll.bundle import Bundle
from plimsoll.bundle.golden import verify
from plimsoll.bundle.packing import pack
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import ModelError, SpecError
from plimsoll.inference.drawing.overlay import draw as draw_answer
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.metrics.boxes import box_overlaps
from plimsoll.preprocessing import ImageGeometry
from plimsoll.prove import prove
from plimsoll.prove.annotations import TrueBox
from plimsoll.prove.boxes import BoxComparer
from plimsoll.spec import Spec
from plimsoll.spec.files import validate
from plimsoll.tasks import decoder
from plimsoll.tasks.detect import Box, Detection

Array = NDArray[Any]
GEOMETRY = ImageGeometry(96, 80, SIDE, SIDE, (2.0, 80 / SIDE), (0.0, 0.0), (0.0, 0.0, 96.0, 80.0))
TORCHVISION = {
    "head": "boxes",
    "tensors": ["boxes", "scores", "labels"],
    "masks": "masks",
    "background": "first",
    "batch_axis": "none",
}


def spec(**output: Any) -> Spec:
    return spec_of("detect", **output)


def mask_rcnn() -> onnx.ModelProto:
    """The network of coloured rectangles with the outputs of torchvision's Mask R-CNN: `boxes` [n, 4], `labels` [n],
    from 1, `scores` [n], `masks` [n, 1, 28, 28], for as many objects as there are."""
    model = network("detect")
    graph = model.graph
    constants = {
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "sizes": np.array([2, 2, 2], np.int64),
        "half": 0.5,
        "least": 0.05,
        "one_label": np.array(1, np.int64),
        "batches": np.zeros(2, np.int64),
        "each": np.eye(2)[:, :, np.newaxis, np.newaxis],
        "flat": np.array([-1], np.int64),
    }
    graph.initializer.extend(constant(name, value) for name, value in constants.items())
    graph.node.extend(
        [
            node("Squeeze", ["head", "first"], "columns"),
            node("Transpose", ["columns"], "rows_of_boxes", perm=[1, 0]),
            helper.make_node("Split", ["rows_of_boxes", "sizes"], ["centres", "spans", "shares"], axis=1),
            node("Mul", ["spans", "half"], "halves"),
            node("Sub", ["centres", "halves"], "upper"),
            node("Add", ["centres", "halves"], "lower"),
            node("Concat", ["upper", "lower"], "all_boxes", axis=1),
            node("ReduceMax", ["shares", "second"], "all_scores", keepdims=0),
            node("ArgMax", ["shares"], "numbers", axis=1, keepdims=0),
            node("Add", ["numbers", "one_label"], "all_labels"),
            node(
                "RoiAlign", ["heat", "all_boxes", "batches"], "all_planes",
                output_height=28, output_width=28, sampling_ratio=2, coordinate_transformation_mode="half_pixel",
            ),
            node("Mul", ["all_planes", "each"], "own_planes"),
            node("ReduceSum", ["own_planes", "second"], "all_masks", keepdims=1),
            node("Greater", ["all_scores", "least"], "reaching"),
            node("NonZero", ["reaching"], "indices"),
            node("Reshape", ["indices", "flat"], "chosen"),
        ]
    )  # fmt: skip
    del graph.output[:]
    shapes = {"boxes": [4], "labels": [], "scores": [], "masks": [1, 28, 28]}
    for name, shape in shapes.items():
        kind = TensorProto.INT64 if name == "labels" else TensorProto.FLOAT
        graph.node.append(node("Gather", [f"all_{name}", "chosen"], f"found_{name}", axis=0))
        graph.output.append(helper.make_tensor_value_info(f"found_{name}", kind, ["n", *shape]))
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    named = {"tensors": ["found_boxes", "found_scores", "found_labels"], "masks": "found_masks"}
    return saved(mask_rcnn(), tmp_path_factory.mktemp("network") / "rcnn.onnx", spec(**{**TORCHVISION, **named}))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("drawn"), 24)


def test_a_network_with_boxes_and_masks_works_from_the_picture_to_the_bundle(
    model: Model, pictures: list[Path], tmp_path: Path
) -> None:
    with Predictor(ResolvedModel(model)) as predictor:
        answers = [predictor.predict(path) for path in pictures]
    shared = union = 0
    for path, answer in zip(pictures, answers, strict=True):
        red, green, blue = np.moveaxis(np.asarray(Image.open(path)).astype(int), 2, 0)
        assert isinstance(answer, Detection)
        for box in answer.boxes:
            pixels = (red - green - blue > 80) if box.label == "red" else (blue - green - red > 80)
            assert box.mask is not None
            own = box.mask.pixels()
            shared, union = shared + int((own & pixels).sum()), union + int((own | pixels).sum())
    assert shared / union > 0.85, "masks lie on what was drawn"
    proof = prove(ResolvedModel(model), ResolvedModel(model), pictures)
    assert {"mean IoU of masks", "recall of the reference's boxes"} <= {check.name for check in proof.checks}
    assert proof.comparison is not None
    assert proof.comparison.evidence()["mask_iou"][0].value == 1.0
    out = pack(model, Target("onnxruntime"), tmp_path / "bundle", images=pictures[:3])
    with Bundle.open(out) as bundle:
        assert verify(bundle).passed


def pasted(mask: Array, box: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Detectron2's `_do_paste_mask`, pixel by pixel: bilinear between the cells' centres, 0 outside of them."""
    height, width = size
    rows, columns = mask.shape
    padded = np.pad(mask, 1)
    pixels = np.zeros(size, bool)
    for y in range(height):
        for x in range(width):
            u = (x + 0.5 - box[0]) / (box[2] - box[0]) * columns + 0.5
            v = (y + 0.5 - box[1]) / (box[3] - box[1]) * rows + 0.5
            if not (0 <= u < columns + 1 and 0 <= v < rows + 1):
                continue
            i, j, du, dv = int(v), int(u), u - int(u), v - int(v)
            cells = padded[i : i + 2, j : j + 2]
            pixels[y, x] = (np.array([1 - dv, dv]) @ cells @ np.array([1 - du, du])) > 0.5
    return pixels


@pytest.mark.parametrize("layout", ["one", "labels", "background", "plain", "input"])
def test_masks_are_pasted_into_their_boxes(layout: str) -> None:
    random = np.random.default_rng(3)
    boxes = np.array([[3.2, 4.1, 30.7, 20.9], [20, 10, 47.5, 46.2]], np.float32)
    own = random.random((2, 28, 28)).astype(np.float32)
    labels = np.array([2, 1])
    planes: Array = {"one": own[:, np.newaxis], "plain": own}.get(layout, own)
    if layout in ("labels", "background"):
        more = int(layout == "background")
        planes = random.random((2, 2 + more, 28, 28)).astype(np.float32)
        planes[[0, 1], labels - 1 + more] = own
    expected = [pasted(mask, box, (SIDE, SIDE)) for mask, box in zip(own, boxes, strict=True)]
    if layout == "input":
        planes = np.array(expected, np.float32)[:, np.newaxis]
    scores = np.array([0.9, 0.8], np.float32)
    outputs = {"boxes": boxes[None], "scores": scores[None], "labels": labels[None], "masks": planes[None]}
    for box, pixels in zip(decoder(spec(**TORCHVISION)).decode(outputs)[0].boxes, expected, strict=True):  # type: ignore[attr-defined]
        assert np.array_equal(box.mask.pixels(), pixels)
        assert box.label == ("blue" if box.score > 0.85 else "red")


def test_masks_of_tensorflow_come_beside_the_count() -> None:
    outputs = {
        "detection_boxes": np.array([[[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]]], np.float32),
        "detection_classes": np.array([[2, 1]], np.float32),
        "detection_scores": np.array([[0.9, 0.0]], np.float32),
        "num_detections": np.array([1], np.float32),
        "detection_masks": np.ones((1, 2, 33, 33), np.float32),
    }
    names = ["detection_boxes", "detection_classes", "detection_scores", "num_detections"]
    detect = decoder(spec(head="tflite_postprocess", tensors=names, masks="detection_masks", background="first"))
    (answer,) = detect.decode(outputs, None, [GEOMETRY])
    assert isinstance(answer, Detection)
    (box,) = answer.boxes
    assert (box.label, box.box) == ("blue", (48.0, 20.0, 96.0, 60.0))
    expected = np.zeros((80, 96), bool)
    expected[20:60, 48:96] = True
    assert box.mask is not None
    assert np.array_equal(box.mask.pixels(), expected)
    outputs["detection_masks"] = np.full((1, 2, 33, 33), 7.0, np.float32)
    with pytest.raises(ModelError, match="expected probabilities"):
        detect.decode(outputs, None, [GEOMETRY])
    with pytest.raises(ModelError, match="'detection_masks' is"):
        detect.decode({**outputs, "detection_masks": np.ones((1, 3, 33, 33), np.float32)}, None, [GEOMETRY])
    with pytest.raises(SpecError, match="masks: allowed only with"):
        spec(masks="detection_masks")


def gaussian_iou(first: Array, second: Array) -> float:
    """Ultralytics' `probiou` of x, y, w, h and angle."""

    def covariance(box: Array) -> Array:
        turn = np.array([[math.cos(box[4]), -math.sin(box[4])], [math.sin(box[4]), math.cos(box[4])]])
        return np.asarray(turn @ np.diag([box[2] ** 2 / 12, box[3] ** 2 / 12]) @ turn.T)

    own, other = covariance(first), covariance(second)
    mean, apart = (own + other) / 2, first[:2] - second[:2]
    distance = apart @ np.linalg.inv(mean) @ apart / 8
    distance += math.log(np.linalg.det(mean) / math.sqrt(np.linalg.det(own) * np.linalg.det(other))) / 2
    return 1 - math.sqrt(1 - math.exp(-distance))


def test_turned_boxes_are_suppressed_by_their_probabilistic_iou() -> None:
    random = np.random.default_rng(1)
    count = 150
    rows = np.column_stack(
        [
            random.uniform(8, 40, (count, 2)),
            random.uniform(4, 20, (count, 2)),
            random.uniform(0.1, 1, (count, 2)),
            random.uniform(-0.7, 2.3, count),
        ]
    ).astype(np.float32)
    order = np.argsort(-rows[:, 4:6].max(axis=1), kind="stable")
    boxes = rows[order][:, [0, 1, 2, 3, 6]].astype(np.float64)
    labels = rows[order, 4:6].argmax(axis=1)
    staying = [
        j
        for j in range(count)
        if rows[order[j], 4:6].max() >= 0.25
        and not any(labels[i] == labels[j] and gaussian_iou(boxes[i], boxes[j]) > 0.45 for i in range(j))
    ]
    (answer,) = decoder(spec(oriented=True)).decode({"y": rows.T[np.newaxis]})
    assert isinstance(answer, Detection)
    assert 20 < len(staying) < count - 20
    assert len(answer.boxes) == len(staying)
    for box, at in zip(answer.boxes, staying, strict=True):
        x, y, width, height, angle = boxes[at]
        along = np.array([math.cos(angle), math.sin(angle)]) * width / 2
        across = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
        corners = np.array([x, y]) + np.array([along + across, along - across, -along - across, across - along])
        assert np.array(box.corners) == pytest.approx(corners, abs=1e-4)
        assert box.box == pytest.approx([*corners.min(axis=0), *corners.max(axis=0)], abs=1e-4)


def turned(angle: float) -> Box:
    row = np.array([24, 24, 30, 10, 0.9, 0.0, angle], np.float32)
    (answer,) = decoder(spec(oriented=True)).decode({"y": row[np.newaxis, :, np.newaxis]}, None, [GEOMETRY])
    assert isinstance(answer, Detection)
    return answer.boxes[0]


def test_turned_boxes_are_compared_as_polygons_and_drawn() -> None:
    straight, quarter = turned(0.0), turned(math.pi / 2)
    assert straight.box == pytest.approx((18, 80 / 48 * 19, 78, 80 / 48 * 29))
    # A cross of 60 x 16.67 and 20 x 50 pixels.
    crossing = 20 * 80 / 48 * 10
    union = 60 * 80 / 48 * 10 + 20 * 50 - crossing
    assert box_overlaps([straight], [quarter])[0, 0] == pytest.approx(crossing / union)
    first, second = turned(0.7), turned(0.7 + math.pi)
    assert box_overlaps([first], [second])[0, 0] == pytest.approx(1.0), "half a turn changes nothing"
    assert first.row()["corners"][0] == [round(value, 2) for value in first.corners[0]]
    other = turned(-0.7)
    grid = np.stack(np.meshgrid(np.arange(0.05, 96, 0.1), np.arange(0.05, 80, 0.1)), axis=2)
    inside = [np.all([_left_of(grid, box.corners, side) for side in range(4)], axis=0) for box in (first, other)]
    counted = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
    assert box_overlaps([first], [other])[0, 0] == pytest.approx(counted, abs=0.01)
    canvas = np.zeros((80, 96, 3), np.uint8)
    draw_answer(canvas, Detection((first,)))
    along = np.linspace(np.array(first.corners[0]), np.array(first.corners[1]), 20)[3:-3]
    assert (canvas[along[:, 1].astype(int), along[:, 0].astype(int)].max(axis=1) > 0).mean() > 0.8


def _left_of(grid: Array, corners: Any, side: int) -> NDArray[np.bool_]:
    start, end = np.array(corners[side]), np.array(corners[(side + 1) % 4])
    cross = (end - start)[0] * (grid[..., 1] - start[1]) - (end - start)[1] * (grid[..., 0] - start[0])
    centre = np.mean(corners, axis=0)
    sign = (end - start)[0] * (centre[1] - start[1]) - (end - start)[1] * (centre[0] - start[0])
    return np.asarray(cross * sign > 0)


def test_an_angle_excludes_points_and_masks() -> None:
    for output in ({"points": 3}, {"prototypes": "planes"}, {"suppression": "blend"}):
        with pytest.raises(SpecError, match="oriented goes without"):
            spec(oriented=True, **output)
    with pytest.raises(SpecError, match="oriented: allowed only with"):
        validate({**spec().model_dump(), "output": {**spec().output.model_dump(), "head": "boxes", "oriented": True}})


def test_turned_boxes_have_a_map_of_their_polygons() -> None:
    pytest.importorskip("pycocotools")
    truths = []
    for angle in (0.3, 0.9):
        box = turned(angle)
        outline = tuple(value for corner in box.corners for value in corner)
        truths.append((TrueBox("red", box.box, outline=(outline,)),))
    comparer = BoxComparer(*[spec(oriented=True).output] * 2, labelled=True)  # type: ignore[arg-type]
    right = [Detection((turned(angle),)) for angle in (0.3, 0.9)]
    wrong = [Detection((turned(-angle),)) for angle in (0.3, 0.9)]  # The same upright box around them.
    measured = [comparer.measure(*pair) for pair in zip(right, wrong, strict=True)]
    changes = {change.name: change for change in comparer.comparison(measured, 0, truths).changes}
    assert [changes["map"].reference, changes["map"].other] == pytest.approx([1, 1])
    assert changes["mask_map"].reference == pytest.approx(1)
    assert changes["mask_map"].other == 0


def test_fractions_are_turned_in_pixels() -> None:
    random = np.random.default_rng(4)
    rows = np.column_stack(
        [random.uniform(10, 40, (60, 2)), random.uniform(3, 20, (60, 2)), random.random((60, 2)), random.random(60)]
    ).astype(np.float32)
    wide = spec(oriented=True).model_dump()
    steps = [*wide["input"]["steps"]]
    steps[1] |= {"width": 96}
    wide["input"]["steps"] = steps
    answers = []
    for normalized in (False, True):
        scaled = rows / np.array([96, SIDE, 96, SIDE, 1, 1, 1] if normalized else [1] * 7, np.float32)
        wide["output"]["normalized"] = normalized
        answers.append(decoder(validate(wide)).decode({"y": scaled.T[np.newaxis]})[0].row()["boxes"])
    assert len(answers[0]) > 5
    assert [box["corners"] for box in answers[0]] == [
        [pytest.approx(point, abs=0.02) for point in box["corners"]] for box in answers[1]
    ]


def test_a_picture_without_objects_has_no_masks() -> None:
    outputs: dict[str, Array] = {
        "boxes": np.zeros((1, 0, 4), np.float32),
        "scores": np.zeros((1, 0), np.float32),
        "labels": np.zeros((1, 0), np.int64),
        "masks": np.zeros((1, 0, 1, 28, 28), np.float32),
    }
    assert decoder(spec(**TORCHVISION)).decode(outputs, None, [GEOMETRY])[0].row() == {"boxes": []}
