"""Networks whose picture has no axis for pictures get one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from plimsoll import importers
from plimsoll.backends import conversion
from plimsoll.core.target import Target
from plimsoll.errors import SpecError
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.spec import Spec
from plimsoll.spec.files import validate
from plimsoll.tasks.classify import Classification


def contract(**output: str) -> Spec:
    steps = [
        {"step": "decode"},
        {"step": "resize", "width": 8, "height": 6},
        {"step": "scale", "divisor": 255},
        {"step": "layout", "order": "NCHW"},
    ]
    labels = {"task": "classify", "labels": ["red", "green", "blue"], "activation": "softmax"}
    return validate({"name": "means", "input": {"steps": steps}, "output": {**labels, **output}})


@pytest.mark.parametrize("opset", [11, 18])
def test_a_picture_without_a_batch_axis_is_taken_as_it_is(
    opset: int, tmp_path: Path, example_photos: list[Path]
) -> None:
    """As torchvision exports its detectors. The means of the channels are computed twice, once in a subgraph."""
    mean = helper.make_node("ReduceMean", ["picture"], ["inner"], keepdims=0, axes=[1, 2])
    if opset == 18:
        mean = helper.make_node("ReduceMean", ["picture", "pixels"], ["inner"], keepdims=0)
    means = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [3])
    branch = helper.make_graph([mean], "branch", [], [means])
    constants = [
        onnx.numpy_helper.from_array(np.array(True), "always"),
        onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "pixels"),
    ]
    graph = helper.make_graph(
        [helper.make_node("If", ["always"], ["scores"], then_branch=branch, else_branch=branch)],
        "means",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [3, 6, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [3])],
        constants,
    )
    file = tmp_path / "means.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), file)
    model = importers.read(file, contract(batch_axis="none"))
    assert model.source == file
    with Predictor(ResolvedModel(model)) as predictor:
        tensor = predictor.preprocessor(example_photos[0])
        answer = predictor.predict(example_photos[0])
    target = Target("openvino" if opset == 18 else "onnxruntime")
    (tmp_path / "built").mkdir()
    built = conversion.build(model, target, tmp_path / "built", pictures=example_photos[:1])
    assert built.source == file
    expected = np.exp(tensor.mean(axis=(1, 2)))
    assert isinstance(answer, Classification)
    np.testing.assert_allclose(list(answer.scores.values()), expected / expected.sum(), rtol=1e-5)
    with pytest.raises(SpecError, match="batch_axis"):
        importers.read(file, contract())
