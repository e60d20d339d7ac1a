"""The heads against their authors' procedures, written down here once more; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from plimsoll.errors import ModelError, SpecError
from plimsoll.preprocessing import ImageGeometry
from plimsoll.spec import Spec
from plimsoll.spec.files import validate
from plimsoll.tasks import decoder
from plimsoll.tasks.detect import Detection, DetectTask, decode_boxes

Array = NDArray[Any]
LABELS = ["cat", "dog", "bird"]
Found = list[tuple[str, float, list[float]]]
GEOMETRY = ImageGeometry(1280, 720, 640, 640, (2.0, 2.0), (0.0, -280.0), (0.0, 0.0, 1280.0, 720.0))
"""1280 x 720 in a letterbox of 640 x 640: 140 pixels of padding above and below."""


def spec(head: str, **output: Any) -> Spec:
    return validate(
        {
            "name": "it",
            "input": {"steps": [{"step": "decode"}]},
            "output": {"task": "detect", "head": head, "labels": LABELS, **output},
        }
    )


def task(head: str, **output: Any) -> DetectTask:
    detect = decoder(spec(head, **output))
    assert isinstance(detect, DetectTask)
    return detect


def listed(answer: Any) -> Found:
    assert isinstance(answer, Detection)
    return [(box.label, box.score, list(box.box)) for box in answer.boxes]


def same(boxes: Found, expected: Found) -> None:
    assert [box[0] for box in boxes] == [box[0] for box in expected]
    for box, expected_box in zip(boxes, expected, strict=True):
        assert box[1] == pytest.approx(expected_box[1], rel=1e-5)
        assert box[2] == pytest.approx(expected_box[2], abs=1e-2)


def ultralytics(prediction: Array, confidence: float, iou: float, most: int, *, objectness: bool) -> Found:
    """Ultralytics' `non_max_suppression` for one picture `[boxes, 4 (+ 1) + classes]`, with its classes set 7680 pixels
    apart."""
    rows = prediction[prediction[:, 4] > confidence].copy() if objectness else prediction.copy()
    scores = rows[:, 5:] * rows[:, 4:5] if objectness else rows[:, 4:]
    boxes = np.empty((len(rows), 4))
    boxes[:, 0], boxes[:, 1] = rows[:, 0] - rows[:, 2] / 2, rows[:, 1] - rows[:, 3] / 2
    boxes[:, 2], boxes[:, 3] = rows[:, 0] + rows[:, 2] / 2, rows[:, 1] + rows[:, 3] / 2
    confidences, classes = scores.max(1), scores.argmax(1)
    passed = confidences > confidence
    boxes, confidences, classes = boxes[passed], confidences[passed], classes[passed]
    order = confidences.argsort()[::-1]
    boxes, confidences, classes = boxes[order], confidences[order], classes[order]
    apart = boxes + classes[:, None] * 7680.0
    chosen: list[int] = []
    for index in range(len(apart)):
        corners = [np.maximum(apart[index, :2], apart[other, :2]) for other in chosen]
        ends = [np.minimum(apart[index, 2:], apart[other, 2:]) for other in chosen]
        shared = [np.prod(np.clip(end - start, 0, None)) for start, end in zip(corners, ends, strict=True)]
        own = np.prod(apart[index, 2:] - apart[index, :2])
        others = [np.prod(apart[other, 2:] - apart[other, :2]) for other in chosen]
        if all(box / (own + other - box) <= iou for box, other in zip(shared, others, strict=True)):
            chosen.append(index)
    return [(LABELS[classes[index]], float(confidences[index]), boxes[index].tolist()) for index in chosen[:most]]


def predictions(seed: int, boxes: int = 200) -> Array:
    """`[2, boxes, 5 + classes]` in which a dozen objects are found by many boxes each, among many boxes of nothing."""
    rng = np.random.default_rng(seed)
    objects = np.concatenate([rng.uniform(60, 580, (12, 2)), rng.uniform(30, 160, (12, 2))], axis=1)
    out = np.empty((2, boxes, 8))
    for picture in out:
        picture[:, :4] = objects[rng.integers(0, 12, boxes)] + rng.normal(0, 8, (boxes, 4))
        picture[:, 4:] = rng.beta(1, 3, (boxes, 4))
    return out.astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("confidence", "iou", "most"), [(0.25, 0.45, 300), (0.05, 0.6, 300), (0.1, 0.3, 7)])
def test_yolov5_is_ultralytics_procedure(seed: int, confidence: float, iou: float, most: int) -> None:
    batch = predictions(seed)
    answers = task("yolov5", confidence=confidence, iou=iou, max_boxes=most).decode({"output0": batch})
    for answer, picture in zip(answers, batch, strict=True):
        expected = ultralytics(picture.astype(np.float64), confidence, iou, most, objectness=True)
        assert expected
        same(listed(answer), expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("confidence", "iou", "most"), [(0.25, 0.45, 300), (0.05, 0.6, 300), (0.1, 0.3, 7)])
def test_yolov8_is_ultralytics_procedure(seed: int, confidence: float, iou: float, most: int) -> None:
    batch = np.delete(predictions(seed), 4, axis=2)
    answers = task("yolov8", confidence=confidence, iou=iou, max_boxes=most).decode(
        {"output0": np.ascontiguousarray(batch.transpose(0, 2, 1))}
    )
    for answer, picture in zip(answers, batch, strict=True):
        same(listed(answer), ultralytics(picture.astype(np.float64), confidence, iou, most, objectness=False))


def test_the_caller_s_threshold_replaces_the_spec_s() -> None:
    batch = predictions(1)
    detector = task("yolov5", confidence=0.9)
    assert len(detector.decode({"x": batch}, 0.1)[0].boxes) > len(detector.decode({"x": batch})[0].boxes)
    assert detector.threshold == 0.9
    exact = np.array([[[10, 10, 4, 4, 1, 0.5, 0, 0]]], np.float32)
    assert len(task("yolov5", confidence=0.5).decode({"x": exact})[0].boxes) == 1, "from the threshold on"


def test_half_precision_is_read_as_well() -> None:
    batch = predictions(2)[:, :50]
    boxes = task("yolov5").decode({"x": batch.astype(np.float16)})[0].boxes
    assert boxes
    assert boxes[0].score == pytest.approx(task("yolov5").decode({"x": batch})[0].boxes[0].score, abs=0.01)


def test_boxes_come_into_the_picture_and_are_clipped_to_it() -> None:
    rows = [
        [320, 320, 100, 50, 0.9],
        [10, 145, 40, 30, 0.8],
        [320, 50, 60, 60, 0.7],
    ]  # in the middle; over the corner; in the padding
    raw = np.zeros((1, 7, 3), np.float32)
    raw[0, :4], raw[0, 5] = np.array(rows).T[:4], np.array(rows).T[4]
    for normalized, scale in ((False, 1), (True, 640)):
        given_ = raw.copy()
        given_[0, :4] /= scale
        answer = task("yolov8", normalized=normalized).decode({"x": given_}, geometries=[GEOMETRY])[0]
        assert answer.row() == {
            "boxes": [
                {"label": "dog", "score": 0.9, "box": [540.0, 310.0, 740.0, 410.0]},
                {"label": "dog", "score": 0.8, "box": [0.0, 0.0, 60.0, 40.0]},
            ]
        }
    assert answer.row(1)["boxes"][0]["score"] == 0.9
    assert len(answer.row(1)["boxes"]) == 1
    assert answer.brief() == "2 boxes: 2 dog 0.90"
    assert list(answer.readings()) == ["dog", "dog"]


def test_a_second_suppression_looks_across_labels() -> None:
    """What the first has removed stays away: the second looks at what is left, and the count is of the end."""
    rows = np.array(
        [
            [100, 100, 40, 40, 0.9, 0.0, 0.0],
            [102, 100, 40, 40, 0.0, 0.8, 0.0],
            [120, 100, 40, 40, 0.0, 0.7, 0.0],
            [300, 100, 40, 40, 0, 0, 0.3],
        ],
        np.float32,
    )
    raw = {"x": np.ascontiguousarray(rows.T[np.newaxis])}

    def labels(**output: Any) -> list[str]:
        return [box.label for box in task("yolov8", iou=0.3, **output).decode(raw)[0].boxes]

    assert labels() == ["cat", "dog", "bird"]
    assert labels(class_agnostic_iou=0.7) == ["cat", "bird"]
    assert labels(class_agnostic_iou=0.95) == ["cat", "dog", "bird"]
    assert labels(class_agnostic_iou=0.7, max_boxes=2) == ["cat", "bird"]
    assert labels(max_boxes=2) == ["cat", "dog"]


# SSD


def encode(box: Array, anchor: Array) -> Array:
    """TensorFlow's FasterRcnnBoxCoder.encode, one box (y0, x0, y1, x1) and one anchor (centre y, centre x, h, w)."""
    y, x, h, w = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    return np.array(
        [
            (y - anchor[0]) / anchor[2] * 10,
            (x - anchor[1]) / anchor[3] * 10,
            np.log(h / anchor[2]) * 5,
            np.log(w / anchor[3]) * 5,
        ]
    )


@given(st.integers(0, 2**32 - 1))
def test_the_box_coder_undoes_its_encoding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    anchors = np.concatenate([rng.uniform(0, 1, (6, 2)), rng.uniform(0.05, 0.9, (6, 2))], axis=1)
    corners = rng.uniform(0, 0.5, (6, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.01, 0.5, (6, 2))], axis=1)
    locations = np.array([encode(*pair) for pair in zip(boxes, anchors, strict=True)])
    np.testing.assert_allclose(decode_boxes(locations, anchors, (10, 10, 5, 5)), boxes[:, [1, 0, 3, 2]], atol=1e-12)


def test_the_box_coder_by_hand() -> None:
    boxes = decode_boxes(np.array([[1.0, -2.0, 5 * np.log(2), 0.0]]), np.array([[0.5, 0.4, 0.2, 0.1]]), (10, 10, 5, 5))
    np.testing.assert_allclose(boxes, [[0.38 - 0.05, 0.52 - 0.2, 0.38 + 0.05, 0.52 + 0.2]])
    caffe = decode_boxes(np.array([[1.0, -2.0, 0.0, 0.0]]), np.array([[0.5, 0.4, 0.2, 0.1]]), (10, 10, 5, 5))
    np.testing.assert_allclose(
        (caffe[0, :2] + caffe[0, 2:]) / 2, [0.4 - 0.1 * 2 * 0.1, 0.5 + 0.1 * 1 * 0.2]
    )  # variance x t x size


ANCHORS = [[0.25, 0.25, 0.2, 0.2], [0.5, 0.5, 0.2, 0.4], [0.75, 0.75, 0.2, 0.2]]
PROBABILITIES = np.array([[[0.1, 0.0, 0.9, 0.0], [0.9, 0.05, 0.05, 0.0], [0.2, 0.8, 0.0, 0.0]]], np.float32)
"""Background, cat, dog, bird for each of three anchors."""


@pytest.mark.parametrize(
    ("background", "activation"),
    [(True, "none"), (True, "softmax"), (True, "sigmoid"), (False, "none"), (False, "sigmoid")],
)
@pytest.mark.parametrize("named", [True, False])
def test_ssd(background: bool, activation: str, named: bool) -> None:
    scores = PROBABILITIES if background else PROBABILITIES[:, :, 1:]
    given_ = {
        "none": scores,
        "softmax": np.log(np.maximum(scores, 1e-9)),
        "sigmoid": np.log(np.maximum(scores, 1e-9) / np.maximum(1 - scores, 1e-9)),
    }[activation]
    outputs = {"scores": given_.astype(np.float32), "boxes": np.zeros((1, 3, 1, 4), np.float32)}
    detector = task(
        "ssd",
        anchors=ANCHORS,
        normalized=True,
        activation=activation,
        label_axis=2,  # there are as many anchors as labels
        **({"tensors": ["boxes", "scores"]} if named else {}),
    )
    if background and not named:
        with pytest.raises(ModelError, match="which one has the locations"):
            detector.decode(outputs, geometries=[GEOMETRY])
        return
    answer = detector.decode(outputs, geometries=[GEOMETRY])[0]
    same(listed(answer), [("dog", 0.9, [192, 0, 448, 168]), ("cat", 0.8, [832, 552, 1088, 720])])


def test_ssd_takes_the_offsets_of_each_anchor() -> None:
    boxes = np.array([[0.1, 0.1, 0.5, 0.3], [0.4, 0.4, 0.6, 0.6], [0.6, 0.5, 0.9, 1.0]])
    locations = np.array([[encode(*pair) for pair in zip(boxes, np.array(ANCHORS), strict=True)]], np.float32)
    detector = task(
        "ssd", anchors=[[value * 640 for value in anchor] for anchor in ANCHORS], tensors=["boxes", "scores"]
    )
    answer = detector.decode({"boxes": locations, "scores": PROBABILITIES})[0]
    same(listed(answer), [("dog", 0.9, [64, 64, 192, 320]), ("cat", 0.8, [320, 384, 640, 576])])


# TFLite_Detection_PostProcess


def postprocessed() -> dict[str, Array]:
    return {
        "boxes": np.array(
            [[[0.25, 0.25, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.75, 1.0], [9, 9, np.nan, 9]]], np.float32
        ),
        "classes": np.array([[0, 2, 1, 77]], np.float32),
        "scores": np.array([[0.6, 0.9, 0.1, 5.0]], np.float32),
        "count": np.array([3], np.float32),
    }


def test_tflite_postprocess_counts_its_boxes() -> None:
    """Whatever stands behind those that it counts is not looked at; its coordinates are fractions whatever the Spec
    says."""
    answer = task("tflite_postprocess").decode(postprocessed(), geometries=[GEOMETRY])[0]
    box = [320.0, 40.0, 640.0, 360.0]
    assert answer.row()["boxes"] == [
        {"label": "bird", "score": 0.9, "box": box},
        {"label": "cat", "score": 0.6, "box": box},
    ]
    assert (
        len(task("tflite_postprocess", class_agnostic_iou=0.5).decode(postprocessed(), geometries=[GEOMETRY])[0].boxes)
        == 1
    )
    assert (
        len(
            task("tflite_postprocess", confidence=0.05, max_boxes=1)
            .decode(postprocessed(), geometries=[GEOMETRY])[0]
            .boxes
        )
        == 1
    )
    reordered = dict(reversed(postprocessed().items()))
    named = task("tflite_postprocess", tensors=["boxes", "classes", "scores", "count"])
    assert named.decode(reordered, geometries=[GEOMETRY])[0] == answer
    nothing = {**postprocessed(), "count": np.array([[0.0]], np.float32)}
    assert task("tflite_postprocess").decode(nothing, geometries=[GEOMETRY])[0].brief() == "no boxes"


# What is refused

YOLOV5 = np.full((1, 6, 8), 0.5, np.float32)
YOLOV8 = np.full((1, 7, 6), 0.5, np.float32)
SSD = {"boxes": np.zeros((1, 3, 4), np.float32), "scores": PROBABILITIES}
SSD_SPEC = {"anchors": ANCHORS, "tensors": ["boxes", "scores"]}


def changed(outputs: dict[str, Array], name: str, value: Any, at: tuple[int, ...] | None = None) -> dict[str, Array]:
    new = {key: array.copy() for key, array in outputs.items()}
    if at is None:
        new[name] = value
    else:
        new[name][at] = value
    return new


BAD: list[tuple[str, dict[str, Any], dict[str, Array], str]] = [
    ("yolov5", {}, {"x": YOLOV5[:, :, :7]}, r"\[1, 6, 7\]; head 'yolov5' reads \[N, boxes, 8\] \(5 \+ 3 labels\)"),
    ("yolov5", {}, {"x": YOLOV5[0]}, r"\[6, 8\]; head 'yolov5' reads"),
    ("yolov8", {}, {"x": YOLOV8.transpose(0, 2, 1)}, r"\[1, 6, 7\]; head 'yolov8' reads \[N, 7, boxes\]"),
    ("yolov8", {}, {"x": YOLOV8, "y": YOLOV8}, "reads 1 output; the network has x, y; the Spec names none"),
    ("yolov8", {"tensors": ["z"]}, {"x": YOLOV8}, "the network has x; the Spec names z"),
    ("yolov8", {}, {"x": YOLOV8 * 20}, "from 10 to 10; expected probabilities"),
    *(
        ("yolov5", {}, {"x": np.where(np.arange(8) == column, bad, YOLOV5)}, "non-finite")
        for column in (0, 4, 6)
        for bad in (np.nan, np.inf, -np.inf)
    ),
    *(
        ("yolov8", {}, {"x": np.where(np.arange(7)[:, None] == row, bad, YOLOV8)}, "non-finite")
        for row in (1, 5)
        for bad in (np.nan, np.inf)
    ),
    ("ssd", {**SSD_SPEC, "anchors": ANCHORS[:2]}, SSD, "3 locations, the Spec has 2 anchors"),
    (
        "ssd",
        SSD_SPEC,
        changed(SSD, "scores", PROBABILITIES[:, :, :2]),
        r"\[1, 3, 2\]; head 'ssd' reads \[N, 3, 3 or 4\]",
    ),
    (
        "ssd",
        SSD_SPEC,
        changed(SSD, "boxes", np.zeros((1, 3, 5), np.float32)),
        r"\[1, 3, 5\]; head 'ssd' reads \[N, anchors, 4\]",
    ),
    (
        "ssd",
        {"anchors": ANCHORS},
        {"a": np.zeros((1, 3, 4), np.float32), "b": np.zeros((1, 3, 4), np.float32)},
        "which one has the locations",
    ),
    ("ssd", {"anchors": ANCHORS}, {"a": PROBABILITIES}, "reads 2 outputs; the network has a"),
    ("ssd", SSD_SPEC, changed(SSD, "scores", -7.0, (0, 0, 0)), "from -7 to 0.9; expected probabilities"),
    ("ssd", SSD_SPEC, changed(SSD, "boxes", np.nan, (0, 0, 0)), "non-finite locations in the network's output: nan"),
    ("ssd", SSD_SPEC, changed(SSD, "boxes", 1e6, (0, 0, 2)), "non-finite box sizes"),
    ("ssd", SSD_SPEC, changed(SSD, "scores", np.inf, (0, 0, 0)), "non-finite scores in the network's output: inf"),
    (
        "tflite_postprocess",
        {},
        changed(postprocessed(), "count", np.array([5.0])),
        "counts 5 boxes, but its outputs hold 4",
    ),
    ("tflite_postprocess", {}, changed(postprocessed(), "count", np.array([1.5])), "counts 1.5 boxes"),
    ("tflite_postprocess", {}, changed(postprocessed(), "count", np.array([np.nan])), "non-finite counts"),
    ("tflite_postprocess", {}, changed(postprocessed(), "count", np.array([4.0])), "non-finite boxes"),
    (
        "tflite_postprocess",
        {},
        changed(postprocessed(), "classes", 3.0, (0, 0)),
        r"labels from 2 to 3, the Spec has 3 \(0 to 2\)",
    ),
    ("tflite_postprocess", {}, changed(postprocessed(), "classes", 0.5, (0, 0)), "labels from 0.5 to 2"),
    (
        "tflite_postprocess",
        {},
        changed(postprocessed(), "scores", 7.0, (0, 0)),
        "from 0.1 to 7; expected probabilities",
    ),
    ("tflite_postprocess", {}, changed(postprocessed(), "boxes", np.inf, (0, 0, 0)), "non-finite boxes"),
    (
        "tflite_postprocess",
        {},
        dict(reversed(postprocessed().items())),
        r"are \[1\]; \[1, 4\]; \[1, 4\]; \[1, 4, 4\]; head 'tflite_postprocess' reads boxes",
    ),
]


@pytest.mark.parametrize(("head", "output", "outputs", "words"), BAD)
def test_outputs_that_do_not_fit_are_refused_in_words(
    head: str, output: dict[str, Any], outputs: dict[str, Array], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        task(head, **output).decode(outputs)
    assert caught.value.hint


@pytest.mark.parametrize("head", ["yolov5", "yolov8"])
def test_no_boxes_at_all(head: str) -> None:
    empty = np.zeros((2, 0, 8) if head == "yolov5" else (2, 7, 0), np.float32)
    assert [box.boxes for box in task(head).decode({"x": empty}, geometries=[GEOMETRY, GEOMETRY])] == [(), ()]


def test_an_ssd_needs_anchors() -> None:
    with pytest.raises(SpecError, match="needs anchors; the Spec has none"):
        decoder(spec("ssd"))
    with pytest.raises(SpecError, match=r"'a\.npy' was not read"):
        decoder(spec("ssd", anchors_file="a.npy"))
    for wrong in ({"anchors": ANCHORS}, {"anchors_file": "a.npy"}, {"activation": "sigmoid"}):
        with pytest.raises(SpecError, match=r"only with head = 'ssd'( or '\w+')*, but head is 'yolov8'"):
            spec("yolov8", **wrong)
    with pytest.raises(SpecError, match="give either anchors, anchors_file or anchor_grid"):
        spec("ssd", anchors=ANCHORS, anchors_file="a.npy")
    with pytest.raises(SpecError, match="greater than 0"):
        spec("ssd", anchors=ANCHORS, variances=[0, 10, 5, 5])
