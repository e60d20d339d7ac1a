"""Heads with a box in each cell of several grids, MediaPipe's anchors, and what ONNX's NonMaxSuppression chose: against
their authors' procedures, written down here once more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.errors import ModelError, SpecError
from plimsoll.preprocessing import ImageGeometry
from plimsoll.spec.files import validate
from plimsoll.tasks import decoder
from plimsoll.tasks.detect import Box, DetectTask

Array = NDArray[Any]
SIDE = 64
GEOMETRY = ImageGeometry(128, 128, SIDE, SIDE, (2.0, 2.0), (0.0, 0.0), (0.0, 0.0, 128.0, 128.0))


def task(head: str, labels: tuple[str, ...] = ("cat", "dog"), **output: Any) -> DetectTask:
    steps = [{"step": "decode"}, {"step": "resize", "width": SIDE, "height": SIDE}]
    settings = {"task": "detect", "head": head, "labels": list(labels), **output}
    detect = decoder(validate({"name": "it", "input": {"steps": steps}, "output": settings}))
    assert isinstance(detect, DetectTask)
    return detect


def boxes(detect: DetectTask, outputs: dict[str, Array]) -> tuple[Box, ...]:
    return detect.decode(outputs, None, [GEOMETRY])[0].boxes


def nanodet_outputs() -> dict[str, Array]:
    random = np.random.default_rng(0)
    outputs = {}
    for stride in (8, 16, 32):
        count = (SIDE // stride) ** 2
        outputs[f"scores{stride}"] = np.zeros((1, count, 2), np.float32)
        outputs[f"sides{stride}"] = random.normal(0, 3, (1, count, 4 * 8)).astype(np.float32)
    return outputs


@pytest.mark.parametrize("offset", [0.5, 0.0])
def test_nanodet_sums_up_distributions_of_distances(offset: float) -> None:
    outputs = nanodet_outputs()
    outputs["scores16"][0, 6, 1] = 0.9  # 4 x 4 cells: column 2, row 1.
    (box,) = boxes(task("nanodet", cell_offset=offset), outputs)
    expected = []
    for side in range(4):
        bins = outputs["sides16"][0, 6, 8 * side : 8 * side + 8]
        powers = [math.exp(value) for value in bins]
        expected.append(16 * sum(at * power for at, power in enumerate(powers)) / sum(powers))
    x, y = (2 + offset) * 16, (1 + offset) * 16
    corners = np.array([x - expected[0], y - expected[1], x + expected[2], y + expected[3]]) * 2
    assert box.label == "dog"
    assert box.score == pytest.approx(0.9)
    assert box.box == pytest.approx(np.clip(corners, 0, 128), abs=1e-3)


def test_nanodet_in_one_output_is_the_same() -> None:
    outputs = nanodet_outputs()
    outputs["scores8"][0, 20, 0] = outputs["scores32"][0, 3, 1] = 0.8
    rows = [np.concatenate([outputs[f"scores{s}"], outputs[f"sides{s}"]], axis=2) for s in (8, 16, 32)]
    assert boxes(task("nanodet"), outputs) == boxes(task("nanodet"), {"output": np.concatenate(rows, axis=1)})


def test_yunet_multiplies_class_and_objectness_and_has_points() -> None:
    random = np.random.default_rng(1)
    outputs: dict[str, Array] = {}
    for kind, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            values = random.uniform(0, 0.3, (1, (SIDE // stride) ** 2, columns))
            outputs[f"{kind}_{stride}"] = values.astype(np.float32)
    outputs["cls_8"][0, 19, 0], outputs["obj_8"][0, 19, 0] = 0.9, 0.8  # 8 x 8 cells: column 3, row 2.
    (box,) = boxes(task("yunet", ("face",), points=5, confidence=0.6), outputs)
    dx, dy, width, height = outputs["bbox_8"][0, 19].astype(float)
    centre, size = np.array([(3 + dx) * 8, (2 + dy) * 8]), np.exp([width, height]) * 8
    assert box.score == pytest.approx(math.sqrt(0.72), abs=1e-4)
    assert box.box == pytest.approx([*(2 * (centre - size / 2)), *(2 * (centre + size / 2))], abs=1e-3)
    expected = 2 * 8 * (outputs["kps_8"][0, 19].reshape(5, 2) + np.array([3, 2]))
    assert np.array(box.points) == pytest.approx(expected, abs=1e-3)


def test_mediapipes_anchors_and_points_and_the_mean_of_boxes_that_overlap() -> None:
    anchors = 8 * 8 * 2 + 4 * 4 * 6
    raw, logits = np.zeros((1, anchors, 16), np.float32), np.full((1, anchors, 1), -9.0, np.float32)
    detect = task(
        "ssd",
        ("face",),
        normalized=True,
        anchor_grid=[[8, 2], [16, 6]],
        box_coder="linear",
        box_format="xywh",
        variances=[64.0] * 4,
        activation="sigmoid",
        points=6,
        confidence=0.5,
        iou=0.3,
        suppression="blend",
    )
    first = 2 * (8 * 3 + 4)  # The first anchor of column 4, row 3 at stride 8: its centre is at 36, 28.
    for index, shift, logit in ((first, 0.0, 3.0), (first + 1, 4.0, 0.0)):
        raw[0, index] = [shift, 0, 32, 32, *(np.arange(12) - 6)]
        raw[0, index, 4::2] += shift
        logits[0, index] = logit
    (box,) = boxes(detect, {"regressors": raw, "scores": logits})
    weights = np.array([1 / (1 + math.exp(-3)), 0.5])
    shift = 4 * weights[1] / weights.sum()
    x, y = 36 + shift, 28.0
    assert box.score == pytest.approx(weights[0], abs=1e-5)
    assert box.box == pytest.approx([2 * (x - 16), 2 * (y - 16), 2 * (x + 16), 2 * (y + 16)], abs=1e-3)
    assert box.points[0] == pytest.approx([2 * (x - 6), 2 * (y - 5)], abs=1e-3)
    with pytest.raises(ModelError, match="the Spec has 224 anchors"):
        boxes(detect, {"regressors": raw[:, :9], "scores": logits[:, :9]})


def test_what_onnx_chose_is_looked_up_by_picture_label_and_box() -> None:
    places = np.array([[[0, 0, 10, 20], [5, 5, 15, 25], [30, 30, 60, 60]]], np.float32)
    scores = np.array([[[0.9, 0.8, 0.1], [0.2, 0.1, 0.7]]], np.float32)
    chosen = np.array([[0, 0, 0], [0, 1, 2], [-1, -1, -1]], np.int64)
    detect = task("selected", tensors=["boxes", "scores", "chosen"])
    answer = boxes(detect, {"boxes": places, "scores": scores, "chosen": chosen})
    assert [box.label for box in answer] == ["cat", "dog"]
    assert [box.score for box in answer] == pytest.approx([0.9, 0.7])
    assert answer[0].box == pytest.approx((0, 0, 40, 20))
    with pytest.raises(ModelError, match="the network chose"):
        boxes(detect, {"boxes": places, "scores": scores, "chosen": np.array([[0, 5, 0]])})


def test_a_box_may_count_for_several_labels() -> None:
    raw = np.array([[[32.0], [32.0], [20.0], [20.0], [0.9], [0.6]]], np.float32)
    assert [box.label for box in boxes(task("yolov8"), {"y": raw})] == ["cat"]
    assert [box.label for box in boxes(task("yolov8", several_labels=True), {"y": raw})] == ["cat", "dog"]


def test_a_pose_has_points_with_how_sure_the_network_is_of_each() -> None:
    columns = [32, 32, 20, 20, 0.9, 30, 31, 0.7, 40, 41, 0.2]
    (box,) = boxes(task("yolov8", ("person",), points=2), {"y": np.array(columns, np.float32).reshape(1, -1, 1)})
    assert np.array(box.points) == pytest.approx(np.array([[60, 62, 0.7], [80, 82, 0.2]]), abs=1e-4)
    assert box.row()["points"][0] == [60.0, 62.0, pytest.approx(0.7)]


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_mask_is_the_weighted_prototypes_cut_to_its_box(orientation: int) -> None:
    planes = np.zeros((1, 2, 16, 16), np.float32)
    planes[0, 0, :, :] = -1.0
    planes[0, 1, 4:12, 4:12] = 2.0  # Input pixels 16 to 48.
    columns = np.array([24, 32, 32, 64, 0.9, 1.0, 1.0], np.float32).reshape(1, -1, 1)  # x from 8 to 40.
    detect = task("yolov8", ("thing",), prototypes="planes", coefficients=2)
    geometry = ImageGeometry(128, 128, SIDE, SIDE, (2.0, 2.0), (0.0, 0.0), (0.0, 0.0, 128.0, 128.0), orientation)
    (box,) = detect.decode({"y": columns, "planes": planes}, None, [geometry])[0].boxes
    assert box.mask is not None
    pixels = box.mask.pixels()
    upright = np.zeros((128, 128), bool)
    upright[32:96, 32:80] = True
    expected = np.asarray(geometry.as_sent(upright), bool)
    different = pixels != expected
    assert different.mean() < 0.02
    assert pixels.sum() == box.mask.area
    assert not pixels[~np.asarray(geometry.as_sent(_columns_before(80)), bool)].any()
    assert sum(box.row()["mask"]["counts"]) == 128 * 128 or box.mask.counts[-1] > 0
    assert box.mask.iou(box.mask) == 1.0


def _columns_before(x: int) -> Array:
    inside = np.zeros((128, 128), bool)
    inside[:, :x] = True
    return inside


def test_what_does_not_fit_is_refused_in_words() -> None:
    outputs = nanodet_outputs()
    with pytest.raises(ModelError, match="reads scores"):
        boxes(task("nanodet", ("cat",)), outputs)
    with pytest.raises(ModelError, match="at stride 4"):
        boxes(task("nanodet", strides=[4, 16, 32]), outputs)
    with pytest.raises(SpecError, match="points: allowed only with"):
        task("rows", points=3)
    with pytest.raises(SpecError, match="normalized = true"):
        task("ssd", anchor_grid=[[8, 2]])
    with pytest.raises(ModelError, match="prototypes are"):
        boxes(
            task("yolov8", ("thing",), prototypes="p", coefficients=2),
            {"y": np.zeros((1, 7, 4), np.float32), "p": np.zeros((1, 3, 8, 8), np.float32)},
        )
