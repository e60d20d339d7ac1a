"""What outputs mean is told in the page as it is in Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from helpers.javascript import HAS_NODE, SITE, node
from plimsoll.errors import ModelError
from plimsoll.preprocessing.preprocessor import geometry_of
from plimsoll.spec import Input, Spec
from plimsoll.spec.spec import Classify, Detect, Output, Tensors, Text
from plimsoll.tasks.base import decoder
from plimsoll.tasks.classify import ClassifyTask
from plimsoll.tasks.tensor import TensorTask

pytestmark = pytest.mark.skipif(not HAS_NODE, reason="Node.js is not installed")

BANDS = [{"label": "safe", "below": 0.2}, {"label": "review", "below": 0.8}, {"label": "not safe"}]


Case = tuple[Output, dict[str, np.ndarray[Any, Any]], float | None]
Picture = tuple[Input, int, int, int]
"""Input steps, and an upright picture's width, height and the orientation that was followed."""


def answers(cases: Sequence[Case], folder: Path, pictures: Sequence[Picture] | None = None) -> list[dict[str, Any]]:
    request = [
        [
            output.model_dump(mode="json"),
            {
                name: {
                    "data": _numbers(value.view(np.uint16) if value.dtype == np.float16 else value),
                    "dims": value.shape,
                    "type": value.dtype.name,
                }
                for name, value in outputs.items()
            },
            threshold,
            None if picture is None else [picture[0].model_dump(mode="json"), *picture[1:]],
        ]
        for (output, outputs, threshold), picture in zip(
            cases, pictures if pictures is not None else repeat(None, len(cases)), strict=True
        )
    ]
    (folder / "request.json").write_text(json.dumps(request))
    result: list[dict[str, Any]] = node("web_answers.mjs", str(folder / "request.json"), str(SITE / "answer.js"))
    return result


def _numbers(values: np.ndarray[Any, Any]) -> list[float]:
    """Return values as JSON has them: what is beyond float32 becomes infinite there."""
    return [1e39 if number != number else number for number in values.ravel().tolist()]


def test_classifications_have_pythons_rows(tmp_path: Path) -> None:
    chance = np.random.default_rng(5)
    outputs = [
        Classify(labels=("a", "b", "c", "d")),
        Classify(labels=("a", "b", "c", "d"), threshold=0.4),
        Classify(labels=("a", "b", "c", "d"), positive="c", activation="softmax"),
        Classify(labels=("a", "b", "c", "d"), positive="b", activation="sigmoid", threshold=0.7, bands=BANDS),
        Classify(labels=("only",), positive="only", activation="sigmoid"),
        Classify(labels=("a", "b"), positive="b"),
    ]
    cases: list[Case] = [
        (output, {"scores": value}, threshold)
        for output in outputs
        for value in [
            *chance.normal(size=(6, 1, len(output.labels))).astype(np.float32),
            *np.full((2, 1, len(output.labels)), [[[0.25]], [[0.5]]], np.float32),
        ]
        for threshold in (None, 0.25)
    ]
    for (output, given, threshold), actual in zip(cases, answers(cases, tmp_path), strict=True):
        assert isinstance(output, Classify)
        expected = ClassifyTask(output).decode(given, threshold)[0]
        assert actual["row"]["label"] == expected.label
        assert list(actual["row"]["scores"]) == list(expected.scores)
        assert actual["row"]["scores"] == pytest.approx(dict(expected.scores), abs=1e-7)
        assert actual["row"]["score"] == pytest.approx(expected.score, abs=1e-7)
        assert actual["band"] == expected.band
        if output.activation == "none":
            assert actual["row"] == expected.row()


def test_what_is_not_a_score_is_refused(tmp_path: Path) -> None:
    output = Classify(labels=("a", "b"))
    few, none = answers(
        [
            (output, {"s": np.zeros((1, 3), np.float32)}, None),
            (output, {"s": np.zeros((1, 2)), "t": np.zeros((1, 2))}, None),
        ],
        tmp_path,
    )
    assert "3 scores" in few["error"]
    assert "s, t" in none["error"]


def test_raw_tensors_have_pythons_rows(tmp_path: Path) -> None:
    given = {"a": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "b": np.array([[0.5]], np.float32)}
    whole, chosen = answers([(Tensors(), given, None), (Tensors(tensors=("b",)), given, None)], tmp_path)
    assert whole["row"] == TensorTask(Tensors()).decode(given)[0].row()
    assert chosen["row"] == {"outputs": {"b": [0.5]}}


STEPS: list[list[dict[str, Any]]] = [
    [{"step": "resize", "width": 64, "height": 48}],
    [{"step": "resize", "width": 64, "height": 64, "fit": "letterbox", "filter": "bilinear", "convention": "opencv"}],
    [
        {"step": "resize", "size": 72, "fit": "short_edge", "filter": "bilinear"},
        {"step": "crop", "width": 64, "height": 64},
    ],
]
PICTURES = [
    (Input.model_validate({"steps": [{"step": "decode"}, *steps]}), 90, 61, turn)
    for steps in STEPS
    for turn in (1, 6, 2, 8)
]


def boxes(chance: np.random.Generator, count: int, order: str = "xywh", by: float = 1.0) -> np.ndarray[Any, Any]:
    """Draw boxes `[1, count, 4]` in clusters, so that some overlap."""
    centres = np.repeat(chance.uniform(8, 56, (count // 4, 2)), 4, axis=0) + chance.normal(0, 1.5, (count, 2))
    sizes = np.repeat(chance.uniform(6, 30, (count // 4, 2)), 4, axis=0) * chance.uniform(0.9, 1.1, (count, 2))
    numbers = np.concatenate([centres, sizes], axis=1)
    if order in ("xyxy", "yxyx"):
        numbers = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    if order.startswith("yx"):
        numbers = numbers[:, [1, 0, 3, 2]]
    return (numbers * by).astype(np.float32)[np.newaxis]


def scores(chance: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    return (chance.uniform(0, 1, shape) ** 3).astype(np.float32)


def heads(chance: np.random.Generator) -> dict[str, tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]]:
    """Return a Spec's output and a network's outputs for each way in which boxes are written."""
    rows = 40
    xywh, shares, sure = boxes(chance, rows), scores(chance, 1, rows, 3), scores(chance, 1, rows, 1)
    points = chance.uniform(0, 64, (1, rows, 6)).astype(np.float32)
    masks = chance.normal(size=(1, rows, 4)).astype(np.float32)
    planes = chance.normal(size=(1, 4, 12, 16)).astype(np.float32)
    fractions = boxes(chance, rows, "yxyx", 1 / 64)
    cells = [64, 16, 4]  # of strides 8, 16 and 32 in 64 x 64 pixels
    grid = sum(cells)
    anchors = [[0.1 + 0.02 * at, 0.9 - 0.02 * at, 0.2 + 0.01 * at, 0.3] for at in range(rows)]
    offsets = chance.normal(0, 1, (1, rows, 4)).astype(np.float32)
    chosen = np.array([[0, 1, 3], [0, 2, 9], [0, 0, 11], [-1, -1, -1]], np.int64)

    def cat(*parts: np.ndarray[Any, Any], axis: int = 2) -> dict[str, np.ndarray[Any, Any]]:
        return {"out": np.concatenate(parts, axis=axis)}

    def ssd(**more: Any) -> dict[str, Any]:
        return {"head": "ssd", "anchors": anchors, "normalized": True, "activation": "sigmoid", **more}

    several = {"several_labels": True, "class_agnostic_iou": 0.7, "confidence": 0.1}
    yolov8 = cat(xywh, shares)["out"].transpose(0, 2, 1)
    return {
        "yolov5": ({"head": "yolov5", "confidence": 0.05}, cat(xywh, sure, shares)),
        "yolov5, several labels": ({"head": "yolov5", **several, "confidence": 0.02}, cat(xywh, sure, shares)),
        "yolov5, fractions": ({"head": "yolov5", "normalized": True, "confidence": 0.05}, cat(xywh / 64, sure, shares)),
        "yolov8": ({"head": "yolov8"}, {"out": yolov8}),
        "yolov8, float16": ({"head": "yolov8"}, {"out": yolov8.astype(np.float16)}),
        "yolov8, blended": ({"head": "yolov8", "suppression": "blend", "max_boxes": 5}, {"out": yolov8}),
        "yolov8, pose": (
            {"head": "yolov8", "points": 2},
            {"out": np.concatenate([xywh, shares, points], axis=2).transpose(0, 2, 1)},
        ),
        "yolov8, masks": (
            {"head": "yolov8", "tensors": ["out"], "prototypes": "planes", "coefficients": 4},
            {"out": np.concatenate([xywh, shares, masks], axis=2).transpose(0, 2, 1), "planes": planes},
        ),
        "yolox": (
            {"head": "yolox", "confidence": 0.05},
            cat(chance.normal(0, 0.8, (1, grid, 4)).astype(np.float32), scores(chance, 1, grid, 4)),
        ),
        "rows": (
            {"head": "rows"},
            cat(boxes(chance, rows, "xyxy"), sure, chance.integers(0, 3, (1, rows, 1)).astype(np.float32)),
        ),
        "rows, scores and background": (
            {"head": "rows", "columns": ["-", "x", "y", "w", "h", "scores"], "background": "last"},
            cat(sure, xywh, scores(chance, 1, rows, 4)),
        ),
        "ssd": (
            ssd(tensors=["boxes", "scores"], background="first", confidence=0.5),
            {"boxes": offsets, "scores": chance.normal(0, 2, (1, rows, 4)).astype(np.float32)},
        ),
        "ssd, softmax, Caffe": (
            ssd(variances=[0.1, 0.1, 0.2, 0.2], box_format="xywh", anchor_format="xyxy", activation="softmax"),
            {"scores": chance.normal(0, 2, (1, rows, 3)).astype(np.float32), "boxes": offsets},
        ),
        "ssd, MediaPipe": (
            {
                "head": "ssd", "anchor_grid": [[8, 2], [16, 6]], "normalized": True, "box_coder": "linear", "points": 2,
                "variances": [64, 64, 64, 64], "box_format": "xywh", "suppression": "blend", "activation": "sigmoid",
            },
            {
                "boxes": chance.normal(12, 4, (1, 224, 8)).astype(np.float32),
                "scores": chance.normal(-2, 2, (1, 224, 3)).astype(np.float32),
            },
        ),
        "boxes": (
            {"head": "boxes", "tensors": ["scores", "boxes"][::-1]},
            {"boxes": boxes(chance, rows, "xyxy"), "scores": shares.transpose(0, 2, 1)},
        ),
        "boxes, labels": (
            {"head": "boxes", "tensors": ["boxes", "scores", "labels"], "background": "first"},
            {
                "boxes": boxes(chance, rows, "xyxy"), "scores": sure[..., 0],
                "labels": chance.integers(0, 4, (1, rows)).astype(np.int64),
            },
        ),
        "selected": (
            {"head": "selected", "tensors": ["boxes", "scores", "chosen"], "confidence": 0.01},
            {"boxes": boxes(chance, rows, "yxyx"), "scores": shares.transpose(0, 2, 1), "chosen": chosen},
        ),
        "tflite_postprocess": (
            {"head": "tflite_postprocess", "tensors": ["boxes", "labels", "scores", "count"]},
            {
                "boxes": fractions, "labels": chance.integers(0, 3, (1, rows)).astype(np.float32),
                "scores": sure[..., 0], "count": np.array([30], np.float32),
            },
        ),
        "nanodet": (
            {"head": "nanodet", "strides": [8, 16, 32]},
            cat(scores(chance, 1, grid, 3), chance.normal(0, 2, (1, grid, 32)).astype(np.float32)),
        ),
        "nanodet, an output a grid": (
            {"head": "nanodet", "activation": "sigmoid", "cell_offset": 0},
            {
                name: values
                for at, count in enumerate(cells)
                for name, values in (
                    (f"scores{at}", chance.normal(-3, 2, (1, count, 3)).astype(np.float32)),
                    (f"sides{at}", chance.normal(0, 2, (1, count, 32)).astype(np.float32)),
                )
            },
        ),
        "yunet": (
            {"head": "yunet", "points": 2},
            {
                f"{kind}{at}": (
                    scores(chance, 1, count, width) if width in (1, 3) else chance.normal(0, 1, (1, count, width))
                ).astype(np.float32)
                for kind, width in (("classes", 3), ("sure", 1), ("boxes", 4), ("points", 4))
                for at, count in enumerate(cells)
            },
        ),
    }  # fmt: skip


HEADS = tuple(heads(np.random.default_rng(0)))
SQUARE = [picture for picture in PICTURES if picture[0].tensor_spec.height == 64]


def decoded(output: Output, outputs: dict[str, np.ndarray[Any, Any]], threshold: float | None, picture: Picture) -> Any:
    input_, width, height, turn = picture
    spec = Spec(name="x", input=input_, output=output)
    return decoder(spec).decode(outputs, threshold, [geometry_of(input_, (width, height), turn)])[0].row()


def require_alike(actual: Any, expected: Any, where: str) -> None:
    """Compare rows: positions to a hundredth of a pixel, scores to their sixth digit, run lengths by their pixels."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected), where
        for key in expected:
            require_alike(actual[key], expected[key], f"{where}, {key}")
    elif (isinstance(expected, list) and "counts" in where) or ("rle" in where and isinstance(expected, list)):
        first, second = (np.repeat(np.arange(len(runs)) % 2, runs) for runs in (actual, expected))
        assert len(first) == len(second), where
        assert int((first != second).sum()) <= 1, where
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for at, (value, other) in enumerate(zip(actual, expected, strict=True)):
            require_alike(value, other, f"{where} {at}")
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, abs=1e-6 if "score" in where else 0.011), where
    else:
        assert actual == expected, where


def test_detections_have_pythons_rows(tmp_path: Path) -> None:
    cases: list[Case] = []
    pictures = []
    names = []
    for seed in range(4):
        for number, (name, (spec, outputs)) in enumerate(heads(np.random.default_rng(seed)).items()):
            detector = Detect.model_validate({"labels": ["a", "b", "c"], **spec})
            cases.append((detector, outputs, 0.3 if seed == 3 else None))
            pictures.append(SQUARE[(number + seed) % len(SQUARE)])
            names.append(f"{name} ({seed})")
    count = 0
    for name, (output, outputs, threshold), picture, actual in zip(
        names, cases, pictures, answers(cases, tmp_path, pictures), strict=True
    ):
        expected = decoded(output, outputs, threshold, picture)
        assert "error" not in actual, f"{name}: {actual}"
        require_alike(actual["row"], expected, name)
        count += len(expected["boxes"])
    assert count > 400


def test_landmarks_and_masks_have_pythons_rows(tmp_path: Path) -> None:
    chance = np.random.default_rng(9)
    listed: list[tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]], float | None]] = []
    cut = {"task": "landmarks", "columns": ["y", "x", "visibility", "-"], "normalized": True, "activation": "sigmoid"}
    deep = {"task": "landmarks", "points": 6, "dimensions": 3, "tensor": "out", "presence": "sure"}
    for _ in PICTURES:
        planes = chance.normal(size=(1, 3, 8, 10)).astype(np.float32)
        last = np.ascontiguousarray(planes[:, :2].transpose(0, 2, 3, 1))
        points = (64 * chance.uniform(size=(1, 1, 1, 18))).astype(np.float32)
        sure = np.abs(chance.normal(size=(1, 1))).astype(np.float32)
        whole = chance.integers(0, 3, (1, 1, 8, 10)).astype(np.int64)
        listed += [
            ({**cut, "points": 5}, {"out": chance.uniform(-0.1, 1.1, (1, 5, 4)).astype(np.float32)}, None),
            (deep, {"out": points, "sure": sure}, 0.5),
            ({"task": "segment", "labels": ["a", "b", "c"]}, {"out": planes}, None),
            ({"task": "segment", "labels": ["a", "b"], "layout": "NHWC"}, {"out": last}, None),
            ({"task": "segment", "labels": ["person"], "activation": "sigmoid"}, {"out": planes[:, :1]}, 0.4),
            ({"task": "segment", "labels": ["off", "on"]}, {"out": np.abs(planes[:, 0])}, None),
            ({"task": "segment", "labels": ["a", "b", "c"]}, {"out": whole}, None),
        ]
    pictures = [picture for picture in PICTURES for _ in range(7)]
    adapter: TypeAdapter[Output] = TypeAdapter(Output)
    cases = [(adapter.validate_python(output), outputs, threshold) for output, outputs, threshold in listed]
    for number, (case, picture, actual) in enumerate(
        zip(cases, pictures, answers(cases, tmp_path, pictures), strict=True)
    ):
        assert "error" not in actual, (number, actual)
        require_alike(actual["row"], decoded(*case, picture), f"case {number % 7}")


def test_texts_have_pythons_rows(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    listed: list[tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]], float | None]] = []
    for _ in range(4):
        logits = (4 * chance.normal(size=(1, 12, 5))).astype(np.float32)
        shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
        listed += [
            ({"space": True, "activation": "softmax"}, {"out": logits}, None),
            ({"space": True, "blank": "last", "score": "probability"}, {"out": shares}, None),
            ({"space": True, "activation": "softmax"}, {"out": np.ascontiguousarray(logits.transpose(0, 2, 1))}, None),
            ({"space": True}, {"out": shares}, 0.99),
            ({}, {"out": chance.integers(0, 4, (1, 12))}, None),
        ]
    outputs = [Text.model_validate({"task": "text", "alphabet": ["a", "b", "é"], **output}) for output, _, _ in listed]
    cases: list[Case] = [
        (output, values, threshold) for output, (_, values, threshold) in zip(outputs, listed, strict=True)
    ]
    pictures = PICTURES[:1] * len(cases)
    for number, (case, actual) in enumerate(zip(cases, answers(cases, tmp_path, pictures), strict=True)):
        assert "error" not in actual, (number, actual)
        require_alike(actual["row"], decoded(*case, pictures[0]), f"case {number % 5}")


def test_outputs_of_another_shape_are_refused_as_in_python(tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]] = [
        ({"head": "yolov5"}, {"out": np.zeros((1, 4, 7), np.float32)}),
        ({"head": "yolov8"}, {"out": np.full((1, 7, 4), np.nan, np.float32)}),
        ({"head": "yolov8"}, {"out": np.full((1, 7, 4), 7.0, np.float32)}),
        ({"head": "rows"}, {"out": np.array([[[0, 0, 9, 9, 0.9, 3]]], np.float32)}),
        ({"head": "boxes"}, {"a": np.zeros((1, 2, 4)), "b": np.zeros((1, 2, 4)), "c": np.zeros((1, 2))}),
        ({"head": "boxes"}, {"a": np.zeros((1, 3, 4)), "b": np.zeros((1, 3, 3))}),
        ({"head": "nanodet"}, {"out": np.zeros((1, 83, 35), np.float32)}),
    ]
    cases: list[Case] = [
        (Detect.model_validate({"labels": ["a", "b", "c"], **output}), outputs, None) for output, outputs in refused
    ]
    for output, outputs, threshold in cases:
        with pytest.raises(ModelError):
            decoded(output, outputs, threshold, SQUARE[0])
    assert all("error" in answer for answer in answers(cases, tmp_path, SQUARE[:1] * len(cases)))
