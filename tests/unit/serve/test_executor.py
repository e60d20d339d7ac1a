"""A worker's batches, whatever axis the network has for its pictures: each request gets its own answer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save
from PIL import Image

from helpers.axis_networks import bright_pixels, sequence, spec
from helpers.brightness_network import brightness, steps
from plimsoll.core.model import Model
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.serve.executor import MAX_FRAMES, ModelExecutor, PictureItem, TensorItem
from plimsoll.spec import Input, Spec
from plimsoll.spec.spec import Classify
from plimsoll.spec.steps import Decode


@pytest.mark.parametrize(
    ("write", "axis"), [(bright_pixels, '"none"'), (lambda path: sequence(path, ["T", "N", 3]), "1")]
)
def test_pictures_and_tensors_of_one_batch(
    tmp_path: Path, example_photos: list[Path], write: Callable[[Path], Path], axis: str
) -> None:
    model = Model(write(tmp_path / "network.onnx"), "onnx", spec(f'task = "tensor"\nbatch_axis = {axis}'))
    photos = example_photos[:3]
    with Predictor(ResolvedModel(model)) as predictor:
        tensors = [predictor.prepare(photo)[0] for photo in photos]
        expected = [predictor.predict(photo).row() for photo in photos]
    executor = ModelExecutor(ResolvedModel(model), 1, {})
    try:
        executor.warm_up(2)
        items = [
            PictureItem(prepared=executor.prepare(photo.read_bytes()), raw=number == 1)
            for number, photo in enumerate(photos)
        ]
        executor.run_pictures(items)
        assert [item.row for item in items if not item.raw] == [expected[0], expected[2]]
        assert items[1].outputs is not None
        assert items[1].outputs["y"][0].tolist() == expected[1]["outputs"]["y"]
        fed = [TensorItem(feeds={"x": tensor[np.newaxis]}) for tensor in tensors]
        executor.run_tensors(fed)
        assert [item.outputs and item.outputs["y"][0].tolist() for item in fed] == [
            row["outputs"]["y"] for row in expected
        ]
        if axis == '"none"':
            together = TensorItem(feeds={"x": np.stack(tensors)})
            executor.run_tensors([together])
            assert together.problem is not None
            assert "another shape for each picture" in together.problem.message
    finally:
        executor.close()


def test_a_file_of_several_frames_is_answered_by_its_worst_within_the_service_s_limit(tmp_path: Path) -> None:
    def animation(*levels: int) -> bytes:
        stream = io.BytesIO()
        frames = [Image.new("L", (24, 16), level) for level in levels]
        frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=50)
        return stream.getvalue()

    answers = Spec(
        name="brightness",
        input=Input(steps=(Decode(frames="all"), *steps()[1:])),
        output=Classify(labels=("dark", "bright"), positive="bright"),
    )
    executor = ModelExecutor(ResolvedModel(brightness(tmp_path / "brightness.onnx", answers)), 1, {})
    files = [animation(10, 200, 30), animation(200), animation(*range(5, 5 + MAX_FRAMES + 1)), animation(10, 200, 30)]
    try:
        items = [PictureItem(prepared=executor.prepare(data), raw=number == 3) for number, data in enumerate(files)]
        executor.run_pictures(items)
    finally:
        executor.close()
    worst, still, too_many, raw = items
    assert worst.row is not None
    assert still.row is not None
    assert (worst.row["frame"], worst.row["frames"]) == (1, 3)
    assert worst.row["score"] == still.row["score"]
    assert too_many.problem is not None
    assert f"more than {MAX_FRAMES} frames" in too_many.problem.message
    assert raw.problem is not None
    assert "no outputs in common" in raw.problem.message


def test_a_network_that_answers_nan_is_no_fault_of_the_caller_s(tmp_path: Path) -> None:
    file = tmp_path / "nan.onnx"
    nan = helper.make_tensor("nan", TensorProto.FLOAT, [1, 2], [float("nan")] * 2)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
        helper.make_node("Add", ["column", "nan"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 6, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "nan", [x], [y], [nan, axis])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    classify = spec('task = "classify"\nlabels = ["a", "b"]')
    executor = ModelExecutor(ResolvedModel(Model(file, "onnx", classify)), 1, {})
    picture = io.BytesIO()
    Image.new("RGB", (6, 4)).save(picture, "PNG")
    try:
        item = PictureItem(prepared=executor.prepare(picture.getvalue()))
        executor.run_pictures([item])
    finally:
        executor.close()
    assert item.problem is not None
    assert (item.problem.kind, item.problem.status) == ("failed", 500)
