"""The same objects, written as each family of detectors writes them, by formulas of their own; read back they are the
same again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.errors import ModelError, SpecError
from plimsoll.preprocessing import ImageGeometry
from plimsoll.spec.files import dumps, loads, validate
from plimsoll.tasks import decoder
from plimsoll.tasks.detect import Detection, DetectTask

Array = NDArray[Any]
LABELS = ["cat", "dog", "bird"]
WIDTH, HEIGHT = 96, 64
BOXES = np.array([[10, 12, 40, 30], [50, 8, 90, 60], [5, 40, 25, 62]], np.float64)
"""x0, y0, x1, y1 of three objects: a bird, a cat, a dog."""
OBJECTS = [2, 0, 1]
SCORES = [0.9, 0.8, 0.6]
GEOMETRY = ImageGeometry(WIDTH, HEIGHT, WIDTH, HEIGHT, (1.0, 1.0), (0.0, 0.0), (0.0, 0.0, WIDTH, HEIGHT))
Family = Callable[[], tuple[dict[str, Any], dict[str, Array]]]


def task(**output: Any) -> DetectTask:
    steps = [{"step": "decode"}, {"step": "resize", "width": WIDTH, "height": HEIGHT}]
    spec = validate({"name": "it", "input": {"steps": steps}, "output": {"task": "detect", "labels": LABELS, **output}})
    assert loads(dumps(spec)) == spec
    detect = decoder(spec)
    assert isinstance(detect, DetectTask)
    return detect


def read_back(answer: Detection) -> list[tuple[str, float, list[float]]]:
    return [(box.label, round(box.score, 3), [round(side, 2) for side in box.box]) for box in answer.boxes]


EXPECTED = [
    (LABELS[label], score, list(map(float, box))) for label, score, box in zip(OBJECTS, SCORES, BOXES, strict=True)
]


def centre(boxes: Array) -> Array:
    """Return cx, cy, w, h."""
    return np.stack(
        [
            (boxes[:, 0] + boxes[:, 2]) / 2,
            (boxes[:, 1] + boxes[:, 3]) / 2,
            boxes[:, 2] - boxes[:, 0],
            boxes[:, 3] - boxes[:, 1],
        ],
        axis=1,
    )


def label_scores(columns: int = 3, shift: int = 0) -> Array:
    scores = np.full((3, columns), 0.01)
    for row, (label, score) in enumerate(zip(OBJECTS, SCORES, strict=True)):
        scores[row, label + shift] = score
    return scores


def logits(scores: Array) -> Array:
    return np.asarray(np.log(scores / (1 - scores)))


def nowhere(rows: Array, count: int, fill: float = 0.0) -> Array:
    """Return `[1, 3 + count, …]`: the rows among others that hold nothing."""
    empty = np.full((count, rows.shape[1]), fill)
    among = np.concatenate([empty[: count // 2], rows, empty[count // 2 :]])
    return np.asarray(among[np.newaxis], np.float32)


FRACTIONS = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])


def caffe_ssd() -> tuple[dict[str, Any], dict[str, Array]]:
    """Corner priors of PriorBox; offsets cx, cy, w, h with variances 0.1, 0.1, 0.2, 0.2; softmax with the background
    first."""
    priors = np.array([[0.1, 0.1, 0.5, 0.6], [0.4, 0.1, 0.9, 0.9], [0.0, 0.5, 0.3, 1.0]])
    own, prior = centre(BOXES / FRACTIONS), centre(priors)
    offsets = np.concatenate(
        [(own[:, :2] - prior[:, :2]) / prior[:, 2:] / 0.1, np.log(own[:, 2:] / prior[:, 2:]) / 0.2], axis=1
    )
    shares = label_scores(4, 1)
    shares[:, 0] = 1 - shares[:, 1:].sum(axis=1)
    spec = {
        "head": "ssd",
        "box_format": "xywh",
        "anchor_format": "xyxy",
        "anchors": priors.tolist(),
        "variances": [0.1, 0.1, 0.2, 0.2],
        "normalized": True,
        "activation": "softmax",
        "tensors": ["loc", "conf"],
    }
    return spec, {"conf": np.log(shares)[np.newaxis].astype(np.float32), "loc": offsets[np.newaxis].astype(np.float32)}


def yolox() -> tuple[dict[str, Any], dict[str, Array]]:
    """Offsets from the cells of the grids with strides 8, 16 and 32, row by row."""
    cells = [(x, y, stride) for stride in (8, 16, 32) for y in range(HEIGHT // stride) for x in range(WIDTH // stride)]
    raw = np.zeros((1, len(cells), 8), np.float32)
    scores = label_scores()
    for row, (cx, cy, w, h) in enumerate(centre(BOXES)):
        at = [index for index, (x, y, stride) in enumerate(cells) if stride == (8, 16, 32)[row]][row]
        x, y, stride = cells[at]
        raw[0, at] = [cx / stride - x, cy / stride - y, np.log(w / stride), np.log(h / stride), 1.0, *scores[row]]
    return {"head": "yolox"}, {"output": raw}


def decoded_yolox() -> tuple[dict[str, Any], dict[str, Array]]:
    rows = np.concatenate([centre(BOXES), np.ones((3, 1)), label_scores()], axis=1)
    return {"head": "yolov5"}, {"output": nowhere(rows, 6)}


def yolov4() -> tuple[dict[str, Any], dict[str, Array]]:
    """Corners as fractions `[N, boxes, 1, 4]`, and scores."""
    boxes = nowhere(BOXES / FRACTIONS, 4)[:, :, np.newaxis]
    return {"head": "boxes", "normalized": True}, {"boxes": boxes, "confs": nowhere(label_scores(), 4)}


def ultraface() -> tuple[dict[str, Any], dict[str, Array]]:
    """Scores with the background first, before the boxes."""
    spec = {"head": "boxes", "normalized": True, "background": "first", "tensors": ["boxes", "scores"]}
    return spec, {"scores": nowhere(label_scores(4, 1), 4), "boxes": nowhere(BOXES / FRACTIONS, 4)}


def detr() -> tuple[dict[str, Any], dict[str, Array]]:
    """Logits with "no object" last, boxes as centre and size in fractions; nothing to suppress."""
    shares = label_scores(4)
    shares[:, 3] = 1 - shares[:, :3].sum(axis=1)
    empty = nowhere(np.log(shares), 5)
    empty[0, :2, 3] = empty[0, -3:, 3] = 20
    spec = {
        "head": "boxes",
        "box_format": "xywh",
        "normalized": True,
        "activation": "softmax",
        "background": "last",
        "iou": 1.0,
        "tensors": ["pred_boxes", "pred_logits"],
    }
    return spec, {"pred_logits": empty, "pred_boxes": nowhere(centre(BOXES / FRACTIONS), 5)}


def deformable_detr() -> tuple[dict[str, Any], dict[str, Array]]:
    spec = {"head": "boxes", "box_format": "xywh", "normalized": True, "activation": "sigmoid", "iou": 1.0}
    return spec, {"boxes": nowhere(centre(BOXES / FRACTIONS), 5), "logits": nowhere(logits(label_scores()), 5, -9.0)}


def for_non_max_suppression() -> tuple[dict[str, Any], dict[str, Array]]:
    """Corners y0, x0, y1, x1 and scores `[N, labels, boxes]`, as ONNX's NonMaxSuppression takes them."""
    scores = nowhere(label_scores(), 4)
    return {"head": "boxes", "box_format": "yxyx"}, {
        "boxes": nowhere(BOXES[:, [1, 0, 3, 2]], 4),
        "scores": np.ascontiguousarray(scores.transpose(0, 2, 1)),
    }


def yolov10() -> tuple[dict[str, Any], dict[str, Array]]:
    rows = np.column_stack([BOXES, SCORES, OBJECTS])
    return {"head": "rows"}, {"output0": nowhere(rows, 10)}


def end_to_end_with_picture() -> tuple[dict[str, Any], dict[str, Array]]:
    """YOLOv7's `[n, 7]`, as the runner gives it for one picture."""
    rows = np.column_stack([np.zeros(3), BOXES, OBJECTS, SCORES])
    columns = ["picture", "x0", "y0", "x1", "y1", "label", "score"]
    return {"head": "rows", "columns": columns}, {"output": rows[np.newaxis].astype(np.float32)}


def detection_output() -> tuple[dict[str, Any], dict[str, Array]]:
    """Caffe's and OpenVINO's `[1, 1, boxes, 7]`: the rest is filled up with -1; labels count the background."""
    rows = np.column_stack([np.zeros(3), np.array(OBJECTS) + 1, SCORES, BOXES / FRACTIONS])
    columns = ["picture", "label", "score", "x0", "y0", "x1", "y1"]
    spec = {"head": "rows", "columns": columns, "normalized": True, "background": "first"}
    return spec, {"detection_out": nowhere(rows, 20, -1.0)[np.newaxis]}


def paddle() -> tuple[dict[str, Any], dict[str, Array]]:
    rows = np.column_stack([OBJECTS, SCORES, BOXES])
    spec = {"head": "rows", "columns": ["label", "score", "x0", "y0", "x1", "y1"], "tensors": ["out"]}
    return spec, {"out": nowhere(rows, 3, -1.0), "num": np.array([3], np.int32)}


def torchvision() -> tuple[dict[str, Any], dict[str, Array]]:
    """Boxes, labels and scores of one picture; label 0 is the background."""
    spec = {"head": "boxes", "background": "first", "tensors": ["boxes", "scores", "labels"]}
    return spec, {
        "boxes": BOXES[np.newaxis].astype(np.float32),
        "labels": np.array([OBJECTS]) + 1,
        "scores": np.array([SCORES], np.float32),
    }


def rows_with_scores() -> tuple[dict[str, Any], dict[str, Array]]:
    """A column that nobody needs, size before centre, the background last."""
    scores = label_scores(4)
    own = centre(BOXES)
    rows = np.column_stack([own[:, 2:], scores, np.full(3, 7), own[:, :2]])
    spec = {"head": "rows", "columns": ["w", "h", "scores", "-", "x", "y"], "background": "last"}
    return spec, {"output": nowhere(rows, 6)}


FAMILIES: list[Family] = [
    caffe_ssd,
    yolox,
    decoded_yolox,
    yolov4,
    ultraface,
    detr,
    deformable_detr,
    for_non_max_suppression,
    yolov10,
    end_to_end_with_picture,
    detection_output,
    paddle,
    torchvision,
    rows_with_scores,
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("geometries", [[GEOMETRY], None])
def test_every_family_s_boxes_are_read_back(family: Family, geometries: list[ImageGeometry] | None) -> None:
    spec, outputs = family()
    detect = task(confidence=0.3, **spec)
    [answer] = detect.decode(outputs, geometries=geometries)
    scale = FRACTIONS if spec.get("normalized") and geometries is None else np.ones(4)
    assert [box[:2] for box in read_back(answer)] == [box[:2] for box in EXPECTED]
    for box, expected in zip(answer.boxes, BOXES, strict=True):
        np.testing.assert_allclose(np.array(box.box) * scale, expected, atol=2e-3)


@pytest.mark.parametrize("label_axis", [1, 2])
def test_as_many_boxes_as_labels_are_read_by_the_spec_alone(label_axis: int) -> None:
    """Either reading gives boxes with scores between 0 and 1: three of them, under other labels."""
    scores = label_scores()[np.newaxis].astype(np.float32)
    outputs = {
        "boxes": BOXES[np.newaxis].astype(np.float32),
        "scores": scores if label_axis == 2 else np.ascontiguousarray(scores.transpose(0, 2, 1)),
    }
    detect = task(head="boxes", confidence=0.3, label_axis=label_axis)
    assert read_back(detect.decode(outputs, geometries=[GEOMETRY])[0]) == EXPECTED
    np.testing.assert_array_equal(detect.columns(outputs)["scores, score of 'bird'"], scores[:, :, 2])
    with pytest.raises(ModelError, match="as many boxes as labels: which axis"):
        task(head="boxes", confidence=0.3).decode(outputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_column_is_compared_apart(family: Family) -> None:
    spec, outputs = family()
    columns = task(**spec).columns(outputs)
    assert all(len(values) == 1 for values in columns.values())
    assert sum(values.size for values in columns.values()) == sum(values.size for values in outputs.values())
    coordinates = [name for name in columns if name.rpartition(", ")[2] in {"x", "y", "w", "h", "x0", "y0", "x1", "y1"}]
    assert len(coordinates) == 4
    if "labels" not in outputs and "label" not in spec.get("columns", ("label",) if spec["head"] == "rows" else ()):
        assert sum("score of '" in name for name in columns) == 3


def test_a_square_input_s_grids_need_no_size() -> None:
    raw = np.zeros((1, 84 * 64, 8), np.float32)
    spec = loads(
        'name = "it"\n[[input.steps]]\nstep = "decode"\n[output]\ntask = "detect"\nhead = "yolox"\n'
        'labels = ["a", "b", "c"]'
    )
    raw[0, 1, :6] = [0.5, 0.5, 0.0, 0.0, 1.0, 0.9]
    [answer] = decoder(spec).decode({"x": raw})
    assert isinstance(answer, Detection)
    assert answer.boxes[0].box == pytest.approx((8, 0, 16, 8))
    with pytest.raises(ModelError, match=r"gives 5,000 boxes; an input of .* has .* cells at strides 8, 16, 32"):
        decoder(spec).decode({"x": raw[:, :5000]})


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ({"head": "rows", "columns": ["x0", "y0", "x1", "score", "label"]}, "give x0, y0, x1 and y1, or x, y, w and h"),
        ({"head": "rows", "columns": ["x", "y", "w", "h"]}, "give scores, or score and label"),
        ({"head": "rows", "columns": ["x", "y", "w", "h", "score"]}, "score alone where there is one label"),
        ({"head": "rows", "columns": ["x", "y", "w", "h", "w", "scores"]}, "each may stand there once"),
        ({"head": "rows", "columns": ["x", "y", "w", "h", "objectness", "score", "label"]}, "objectness goes with"),
        ({"head": "yolov5", "columns": ["x", "y", "w", "h", "scores"]}, "columns: allowed only with head = 'rows'"),
        ({"head": "rows", "strides": [4]}, "strides: allowed only with head = 'yolox'"),
        ({"head": "ssd", "box_format": "xyxy"}, "offsets of centre and size"),
        ({"head": "rows", "box_format": "xyxy"}, "box_format: allowed only with"),
    ],
)
def test_keys_that_fit_no_head_are_refused(output: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        task(**output)


def test_outputs_that_are_not_what_the_spec_says_are_refused() -> None:
    rows = np.column_stack([np.zeros(3), BOXES, OBJECTS, SCORES])[np.newaxis]
    columns = ["picture", "x0", "y0", "x1", "y1", "label", "score"]
    for spec, outputs, says in (
        ({"head": "rows"}, {"x": rows}, r"reads \[N, boxes, 6\]"),
        ({"head": "rows", "columns": columns}, {"x": rows[0]}, r"is \[3, 7\]; head 'rows' reads \[N, boxes, 7\]"),
        ({"head": "rows", "columns": columns}, {"x": rows + np.eye(7)[0] * 4}, "says that it belongs to picture 4"),
        (
            {"head": "rows", "columns": columns},
            {"x": rows + np.eye(7)[5]},
            r"labels from 1 to 3, the Spec has 3 \(0",
        ),
        ({"head": "boxes"}, {"a": rows[:, :, :4], "b": rows[:, :, :2]}, r"reads \[N, 3, 3 or 4\]"),
        ({"head": "boxes"}, dict.fromkeys("abc", rows), "which of the outputs a, b, c has the boxes"),
        (
            {"head": "boxes", "label_axis": 2},
            {"a": rows[:, :, :4], "b": rows[:, :, :3]},
            "expected probabilities",
        ),
    ):
        with pytest.raises(ModelError, match=says):
            task(**spec).decode(outputs)


def test_a_label_of_background_is_no_object() -> None:
    spec, outputs = torchvision()
    outputs["labels"] = np.array([[0, 1, 2]])
    assert [box[0] for box in read_back(task(**spec).decode(outputs)[0])] == ["cat", "dog"]


def test_nothing_found_is_an_empty_answer() -> None:
    for shape in ((1, 0, 6), (2, 300, 6)):
        answers = task(head="rows").decode({"x": np.zeros(shape, np.float32)})
        assert [answer.boxes for answer in answers] == [()] * shape[0]


@pytest.mark.parametrize(
    ("output", "values"),
    [
        ({"task": "detect", "head": "yolov8", "labels": LABELS}, np.zeros((1, 7, 5), np.int8)),
        ({"task": "classify", "labels": LABELS, "activation": "softmax"}, np.array([[3, -7, 90]], np.int8)),
        ({"task": "landmarks", "points": 2}, np.zeros((1, 4), np.uint8)),
    ],
)
def test_integers_without_a_scale_are_no_answer(output: dict[str, Any], values: Array) -> None:
    steps = [{"step": "decode"}, {"step": "resize", "width": WIDTH, "height": HEIGHT}]
    spec = validate({"name": "it", "input": {"steps": steps}, "output": output})
    with pytest.raises(ModelError, match="without a scale and zero point"):
        decoder(spec).decode({"y": values})
