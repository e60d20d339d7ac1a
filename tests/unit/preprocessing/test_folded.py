"""Folding: the folded network answers as its parent behind its own steps, to 1e-4, for every kind of step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.foldable_networks import convolution, spec
from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import ModelError, SpecError
from plimsoll.inference.predictor import open_model
from plimsoll.onnx import load
from plimsoll.onnx.form import form_of
from plimsoll.onnx.opset import raise_opset
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.folded import fold

RESIZE: dict[str, Any] = {"step": "resize", "width": 40, "height": 32}
BGR: dict[str, Any] = {"step": "channels", "order": "BGR"}
MEAN: dict[str, Any] = {"step": "mean", "values": [104.0, 117.0, 123.0]}
IMAGENET: list[dict[str, Any]] = [
    {"step": "scale", "divisor": 255.0},
    {"step": "mean", "values": [0.485, 0.456, 0.406]},
    {"step": "std", "values": [0.229, 0.224, 0.225]},
]
NCHW: dict[str, Any] = {"step": "layout", "order": "NCHW"}
LETTERBOX: dict[str, Any] = {"step": "resize", "fit": "letterbox", "width": 64, "height": 64, "stride": 16}


def to(dtype: str) -> dict[str, Any]:
    return {"step": "dtype", "to": dtype}


STEPS: dict[str, list[dict[str, Any]]] = {
    "caffe": [RESIZE, BGR, MEAN],
    "caffe, planes": [RESIZE, BGR, MEAN, NCHW],
    "imagenet": [RESIZE, *IMAGENET, NCHW],
    "imagenet, turned after it": [RESIZE, *IMAGENET, BGR, NCHW],
    "planes before the mean": [RESIZE, NCHW, *IMAGENET],
    "minus one to one": [RESIZE, {"step": "scale", "divisor": 127.5}, {"step": "mean", "values": [1.0]}],
    "negative factor": [RESIZE, {"step": "scale", "factor": -0.01}, NCHW],
    "only turned": [RESIZE, BGR, to("float32")],
    "turned before the crop": [RESIZE, BGR, {"step": "crop", "width": 24, "height": 20}, MEAN],
    "float16": [RESIZE, MEAN, to("float16")],
    "float16 in between": [
        RESIZE,
        {"step": "scale", "divisor": 255.0},
        to("float16"),
        {"step": "mean", "values": [0.5]},
        NCHW,
    ],
    "uint8, turned": [RESIZE, BGR, NCHW],
    "rounded to uint8": [RESIZE, {"step": "scale", "factor": 1.7}, {"step": "mean", "values": [9.5]}, to("uint8")],
}


def outputs(model: Model, photos: list[Path]) -> list[dict[str, Any]]:
    preprocessor = Preprocessor(model.require_spec().input)
    with Runner.open(model, Target("onnxruntime", "cpu", form_of(model.path))) as runner:
        return [runner.infer(preprocessor(photo)[np.newaxis]) for photo in photos]


def assert_folds(model: Model, photos: list[Path], folder: Path) -> Model:
    """Fold, and return the child after comparing its answers with the parent's."""
    before = model.path.read_bytes()
    folded = fold(model, folder)
    assert model.path.read_bytes() == before
    contract = folded.require_spec()
    assert {step.step for step in contract.input.steps} <= {"decode", "resize", "jpeg", "crop"}
    assert contract.output == model.require_spec().output
    assert contract.input.tensor_spec.dtype == "uint8"
    importers.read(folded.path, contract)  # Spec and graph fit one another.
    for mine, its in zip(outputs(model, photos), outputs(folded, photos), strict=True):
        assert mine.keys() == its.keys()
        for name, value in mine.items():
            np.testing.assert_allclose(its[name], value, atol=1e-4, rtol=1e-5)
    return folded


def operators(model: Model) -> list[str]:
    return [node.op_type for node in onnx.load(model.path).graph.node]


@pytest.mark.parametrize("front", ["", "pad", "grey pad", "same"])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_every_kind_of_step(
    steps: list[dict[str, Any]], front: str, tmp_path: Path, example_photos: list[Path]
) -> None:
    (tmp_path / "out").mkdir()
    assert_folds(convolution(tmp_path, spec(*steps), front=front), example_photos[:2], tmp_path / "out")


def test_grey(tmp_path: Path, example_photos: list[Path]) -> None:
    contract = spec(RESIZE, {"step": "scale", "divisor": 255.0}, {"step": "mean", "values": [0.5]})
    grey = contract.model_copy(
        update={
            "input": contract.input.model_validate(
                {"steps": [{"step": "decode", "colour": "grey"}, *contract.input.model_dump()["steps"][1:]]}
            )
        }
    )
    folded = assert_folds(convolution(tmp_path, grey), example_photos[:2], tmp_path)
    assert folded.require_spec().input.tensor_spec.channels == 1


def test_free_height_and_width(tmp_path: Path, example_photos: list[Path]) -> None:
    model = convolution(tmp_path, spec(LETTERBOX, BGR, *IMAGENET, NCHW), free=True)
    folded = assert_folds(model, example_photos[:6], tmp_path)
    (picture,) = load.inputs(onnx.load(folded.path).graph)
    assert load.shape_of(picture) == ("N", None, None, 3)


def test_open_nsfw(tmp_path: Path, nsfw_model_path: Path, example_photos: list[Path]) -> None:
    del nsfw_model_path
    model = open_model("open_nsfw").model
    folded = assert_folds(model, example_photos[:12], tmp_path)
    proto, parent = onnx.load(folded.path), onnx.load(model.path)
    assert (proto.ir_version, proto.opset_import) == (parent.ir_version, parent.opset_import)
    assert [node.op_type for node in proto.graph.node[:5]] == ["Transpose", "Cast", "Sub", "Conv", "Relu"]
    assert folded.parent == model
    raised = raise_opset(folded, tmp_path, 13)
    np.testing.assert_allclose(
        outputs(raised, example_photos[:1])[0]["outputs"], outputs(model, example_photos[:1])[0]["outputs"], atol=1e-4
    )


def test_fast_preprocessing_takes_the_folded_spec(tmp_path: Path, example_photos: list[Path]) -> None:
    folded = fold(convolution(tmp_path, spec(RESIZE, BGR, MEAN)), tmp_path)
    fast, reference = (
        Preprocessor(folded.require_spec().input, preprocessing)(example_photos[0])
        for preprocessing in ("fast", "reference")
    )
    assert (fast.shape, str(fast.dtype)) == ((32, 40, 3), "uint8")
    assert np.abs(fast.astype(int) - reference).mean() < 8


def test_order_and_factors_cost_nothing_where_a_convolution_follows(tmp_path: Path) -> None:
    assert operators(fold(convolution(tmp_path, spec(RESIZE, BGR, *IMAGENET, NCHW)), tmp_path))[:4] == [
        "Transpose",
        "Cast",
        "Sub",
        "Conv",
    ]
    blocked = operators(fold(convolution(tmp_path, spec(RESIZE, BGR, *IMAGENET, NCHW), front="grey pad"), tmp_path))
    assert blocked[:6] == ["Transpose", "Gather", "Cast", "Sub", "Mul", "Pad"]


def test_an_input_that_is_read_twice_keeps_its_name_and_weights(tmp_path: Path, example_photos: list[Path]) -> None:
    model = convolution(tmp_path, spec(RESIZE, BGR, MEAN, NCHW), front="both", opset=12)
    folded = assert_folds(model, example_photos[:2], tmp_path)
    weights = [
        next(tensor for tensor in onnx.load(each.path).graph.initializer if tensor.name == "weights")
        for each in (model, folded)
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "steps", [[RESIZE, BGR, MEAN], [RESIZE, {"step": "mean", "values": [9.0]}]], ids=["into the weights", "before them"]
)
def test_an_input_called_picture(steps: list[dict[str, Any]], tmp_path: Path, example_photos: list[Path]) -> None:
    assert_folds(convolution(tmp_path, spec(*steps, tensor="picture"), name="picture"), example_photos[:1], tmp_path)


def test_an_old_file_in_which_stored_values_are_inputs(tmp_path: Path, example_photos: list[Path]) -> None:
    folded = assert_folds(
        convolution(tmp_path, spec(RESIZE, BGR, MEAN), ir=3, opset=9, name="data"), example_photos[:1], tmp_path
    )
    assert onnx.load(folded.path).ir_version == 3


def test_external_weights_move_into_the_file(tmp_path: Path, example_photos: list[Path]) -> None:
    model = convolution(tmp_path, spec(RESIZE, BGR, MEAN))
    onnx.save_model(
        onnx.load(model.path), model.path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (tmp_path / "out").mkdir()
    assert_folds(model, example_photos[:1], tmp_path / "out")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([RESIZE], "nothing to fold"),
        (
            [RESIZE, {"step": "scale", "divisor": 255.0}, {"step": "crop", "width": 8, "height": 8}],
            "'crop' works on pixels after 'scale'",
        ),
        ([{**RESIZE, "convention": "opencv", "rounding": "none"}, MEAN], "after 'resize' the values are float32"),
    ],
)
def test_what_does_not_fold_is_refused_with_the_steps_left_outside(
    steps: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        fold(convolution(tmp_path, spec(*steps)), tmp_path)
    assert all(step["step"] in caught.value.message for step in steps)


def test_a_model_without_spec_or_of_another_format_is_refused(tmp_path: Path) -> None:
    model = convolution(tmp_path, spec(RESIZE, MEAN))
    with pytest.raises(ModelError, match="no Spec"):
        fold(Model(model.path, "onnx"), tmp_path)
    with pytest.raises(ModelError, match="it is tflite"):
        fold(Model(model.path, "tflite", model.spec), tmp_path)
    with pytest.raises(SpecError, match="the network's inputs are: 'input'"):
        fold(Model(model.path, "onnx", spec(RESIZE, MEAN, tensor="other")), tmp_path)
