"""Whichever axis a network has for its pictures, and whatever it takes beside them: each picture gets its own answer,
or words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from helpers.axis_networks import T, bright_pixels, hidden_sequence, save, sequence, spec
from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import InputError, ModelError, SpecError
from plimsoll.importers.base import Conversion, Probe
from plimsoll.importers.conversion import finish
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.spec import Spec
from plimsoll.spec.files import dumps, loads

Array = NDArray[Any]


def pictures(count: int) -> Array:
    return np.random.default_rng(5).uniform(0, 255, (count, 4, T, 3)).astype(np.float32)


def opened(path: Path, contract: Spec | None) -> Runner:
    return Runner.open(Model(path, "onnx", contract), REFERENCE_TARGET)


@pytest.mark.parametrize("batch", ["N", 1, 4])
@pytest.mark.parametrize("count", [1, 3, T])
def test_the_axis_that_the_spec_names_comes_first(tmp_path: Path, batch: Any, count: int) -> None:
    path, given = sequence(tmp_path / "n.onnx", ["T", batch, 3], batch), pictures(count)
    with opened(path, spec('task = "tensor"\nbatch_axis = 1')) as runner:
        np.testing.assert_allclose(runner.infer(given)["y"], given.mean(axis=1), rtol=1e-5)
        assert runner.outputs[0].shape == (None if batch == "N" else batch, T, 3)


def test_a_table_says_it_for_each_output(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "rows"], ["first"], keepdims=0),
        helper.make_node("Transpose", ["first"], ["second"], perm=[1, 0, 2]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in ("first", "second")]
    path, given = save(tmp_path / "n.onnx", nodes, outputs), pictures(3)
    with opened(path, spec('task = "tensor"\nbatch_axis = { second = 1 }')) as runner:
        answers = runner.infer(given)
    np.testing.assert_array_equal(answers["first"], answers["second"])
    with pytest.raises(SpecError, match="the Spec's output is 'third'"):
        opened(path, spec('task = "tensor"\nbatch_axis = { third = 1 }'))


@pytest.mark.parametrize(
    ("shape", "batch", "axis"),
    [
        ([T, "N", 3], "N", "1"),
        (["T", "N", 3], "N", "1"),
        ([T, 1, 3], 1, "1"),
        ([T, 4, 3], 4, "1"),
    ],
)
def test_what_the_shapes_rule_out_is_refused_with_the_line_to_write(
    tmp_path: Path, shape: list[Any], batch: Any, axis: str
) -> None:
    path = sequence(tmp_path / "n.onnx", shape, batch)
    with pytest.raises(SpecError, match=r"the first axis of the output 'y'.*doesn't hold the pictures") as caught:
        importers.read(path, spec())
    assert f"Write batch_axis = {axis} under [output]" in (caught.value.hint or "")


@pytest.mark.parametrize("count", [1, 2, T])
def test_a_first_axis_that_nobody_described_is_seen_at_the_first_batch(tmp_path: Path, count: int) -> None:
    """With T pictures the sizes agree by chance; the answers would be other pictures'."""
    path = hidden_sequence(tmp_path / "n.onnx")
    with (
        opened(path, spec()) as runner,
        pytest.raises(ModelError, match=r"output 'y', float32 \[6, .*hold the pict") as caught,
    ):
        runner.infer(pictures(count))
    assert "Write batch_axis = " in caught.value.message


def test_without_an_axis_for_pictures_each_gets_a_call_of_its_own(tmp_path: Path) -> None:
    path, given = bright_pixels(tmp_path / "n.onnx"), pictures(3)
    contract = spec('task = "tensor"\nbatch_axis = "none"')
    with opened(path, contract) as runner:
        assert not runner.batches
        for picture in given:
            expected = np.argwhere(picture.mean(axis=2) > 128)
            np.testing.assert_array_equal(runner.infer(picture[np.newaxis])["y"][0][:, 1:], expected)
        assert runner.infer(np.repeat(given[:1], 3, axis=0))["y"].shape[0] == 3
        with pytest.raises(ModelError, match="another shape for each picture"):
            runner.infer(given)
    with opened(path, spec()) as runner, pytest.raises(ModelError, match="doesn't hold the pictures"):
        runner.infer(given)
    with pytest.raises(SpecError, match="one call takes 4 pictures, and the output 'y' has no axis for them"):
        opened(bright_pixels(tmp_path / "four.onnx", 4), contract)


def test_a_batch_size_that_a_reshape_holds_is_taken_one_by_one(tmp_path: Path) -> None:
    """The input says any number, and the network was exported with one."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "each"], ["means"], keepdims=0),
        helper.make_node("Constant", [], ["sizes"], value_ints=[1, 3]),
        helper.make_node("Reshape", ["means", "sizes"], ["y"]),
    ]
    path = save(tmp_path / "n.onnx", nodes, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])])
    given = pictures(3)
    with opened(path, spec()) as runner:
        np.testing.assert_allclose(runner.infer(given)["y"], given.mean(axis=(1, 2)), rtol=1e-5)
        np.testing.assert_allclose(runner.infer(given[:2])["y"], given[:2].mean(axis=(1, 2)), rtol=1e-5)


def test_a_number_without_axes_is_one_a_picture(tmp_path: Path) -> None:
    node = helper.make_node("ReduceMean", ["x", "pixels"], ["y"], keepdims=0)
    path, given = (
        save(tmp_path / "n.onnx", [node], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])]),
        pictures(3),
    )
    with opened(path, spec('task = "tensor"\nbatch_axis = "none"')) as runner:
        np.testing.assert_allclose(runner.infer(given)["y"], given.mean(axis=(1, 2, 3)), rtol=1e-5)
    with (
        opened(path, spec()) as runner,
        pytest.raises(ModelError, match="the output 'y', float32 \\[\\], doesn't hold"),
    ):
        runner.infer(given)


def test_an_output_that_nobody_reads_may_be_as_it_likes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "each"], ["scores"], keepdims=0),
        helper.make_node("ReduceMean", ["x", "pixels"], ["number"], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("scores", ["N", 3]), ("number", []))
    ]
    path, given = save(tmp_path / "n.onnx", nodes, outputs), pictures(3)
    with opened(
        path, spec('task = "classify"\ntensor = "scores"\nlabels = ["r", "g", "b"]\nactivation = "softmax"')
    ) as runner:
        np.testing.assert_allclose(runner.infer(given)["scores"], given.mean(axis=(1, 2)), rtol=1e-5)


def test_every_picture_of_a_stream_gets_its_own_answer(tmp_path: Path, example_photos: list[Path]) -> None:
    photos = example_photos[:5]
    for path, axis in (
        (bright_pixels(tmp_path / "a.onnx"), '"none"'),
        (sequence(tmp_path / "b.onnx", ["T", "N", 3]), "1"),
    ):
        contract = spec(f'task = "tensor"\nbatch_axis = {axis}')
        with Predictor(ResolvedModel(Model(path, "onnx", contract))) as predictor:
            alone = [predictor.predict(photo).row() for photo in photos]
            streamed = list(predictor.predict_many(photos, batch=4))
        assert [prediction.answer and prediction.answer.row() for prediction in streamed] == alone


def test_without_a_spec_outputs_stay_as_they_are_but_never_mix(tmp_path: Path) -> None:
    with opened(sequence(tmp_path / "n.onnx", ["T", "N", 3]), None) as runner:
        assert runner.infer(pictures(2))["y"].shape == (T, 2, 3)
    with opened(sequence(tmp_path / "one.onnx", [T, 1, 3], 1), None) as runner:
        assert runner.infer(pictures(1))["y"].shape == (T, 1, 3)
        with pytest.raises(ModelError, match="doesn't hold the pictures"):
            runner.infer(pictures(2))


FURTHER = """
[[input.extra]]
tensor = "size"
source = "input_size"
[[input.extra]]
tensor = "scale"
value = 2
[[input.extra]]
tensor = "training"
value = false
[[input.extra]]
tensor = "weights"
values = [1, 2, 3]
[[input.extra]]
tensor = "again"
source = "picture"
"""


def hungry(path: Path, batch: Any = "N") -> Path:
    """Write y = (mean colour x scale x weights + sum of size + mean of the picture again), or 0 in training."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "each"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "weights"], ["weighted"]),
        helper.make_node("Cast", ["size"], ["sides"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["sides", "rows"], ["sum"], keepdims=1),
        helper.make_node("Add", ["weighted", "sum"], ["sized"]),
        helper.make_node("ReduceMean", ["again", "each"], ["other"], keepdims=0),
        helper.make_node("Add", ["sized", "other"], ["full"]),
        helper.make_node("Sub", ["full", "full"], ["nothing"]),
        helper.make_node("Where", ["training", "nothing", "full"], ["y"]),
    ]
    more = [
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, [batch, 1]),
        helper.make_tensor_value_info("size", TensorProto.INT64, [batch, 2]),
        helper.make_tensor_value_info("training", TensorProto.BOOL, []),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, [3]),
        helper.make_tensor_value_info("again", TensorProto.FLOAT, [batch, 4, T, 3]),
    ]
    return save(path, nodes, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])], batch, more)


@pytest.mark.parametrize("batch", ["N", 1, 2])
def test_further_inputs_get_what_the_spec_says(tmp_path: Path, batch: Any) -> None:
    path, given = hungry(tmp_path / "n.onnx", batch), pictures(3)
    contract = spec(further=FURTHER)
    assert loads(dumps(contract)) == contract
    mean = given.mean(axis=(1, 2))
    with opened(path, contract) as runner:
        assert [tensor.name for tensor in runner.inputs] == ["x"]
        np.testing.assert_allclose(runner.infer(given)["y"], mean * 2 * [1, 2, 3] + (4 + T) + mean, rtol=1e-5)


@pytest.mark.parametrize("batch", ["N", 1, 2])
def test_they_become_constants_where_the_network_enters(tmp_path: Path, batch: Any) -> None:
    path, given, contract = hungry(tmp_path / "n.onnx", batch), pictures(3), spec(further=FURTHER)
    model = importers.read(path, contract)
    assert [value.name for value in onnx.load(model.path).graph.input] == ["x"]
    assert model.source == path
    mean = given.mean(axis=(1, 2))
    for target in ("onnxruntime:cpu:float32", "openvino:cpu:float32"):
        with Runner.open(model, Target.parse(target)) as runner:
            answers = runner.infer(given)["y"]
        np.testing.assert_allclose(answers, mean * 2 * [1, 2, 3] + (4 + T) + mean, rtol=1e-4)
    assert importers.reread(model).path == model.path


def test_an_import_is_compared_with_the_framework_s_answers_to_all_inputs(tmp_path: Path) -> None:
    path, given = hungry(tmp_path / "n.onnx"), pictures(2)
    further: dict[str, Array] = {
        "size": np.array([[9, 9]] * 2, np.int64),
        "scale": np.full((2, 1), 3, np.float32),
        "training": np.array(False),
        "weights": np.ones(3, np.float32),
    }
    feeds = {"x": given, "again": given, **further}
    answers = {"y": given.mean(axis=(1, 2)) * 4 + 18}
    imported = finish("a framework's file", Conversion(path, Probe("it", feeds, answers)), spec(further=FURTHER))
    assert imported.parity is not None
    assert imported.parity.holds
    assert [value.name for value in onnx.load(imported.model.path).graph.input] == ["x"]


def test_the_size_of_pictures_that_have_none_of_their_own_is_fed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "each"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "size"], ["sized"]),
        helper.make_node("ReduceSum", ["sized", "rows"], ["y"], keepdims=1),
    ]
    more = [helper.make_tensor_value_info("size", TensorProto.FLOAT, ["N", 1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])]
    path = save(tmp_path / "n.onnx", nodes, outputs, "N", more)
    proto = onnx.load(path)
    for axis in (1, 2):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side {axis}"
    proto.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 2
    proto.graph.node[2].input[0] = "size"
    proto.graph.node[1].input[1] = "mean"
    onnx.save(proto, path)
    contract = loads(
        'name = "free"\n[[input.steps]]\nstep = "decode"\n[[input.steps]]\nstep = "dtype"\nto = "float32"\n'
        '[[input.extra]]\ntensor = "size"\nsource = "input_size"\n[output]\ntask = "tensor"\n'
    )
    model = importers.read(path, contract)
    with Runner.open(model, REFERENCE_TARGET) as runner:
        assert runner.infer(np.zeros((2, 9, 5, 3), np.float32))["y"].tolist() == [[14.0], [14.0]]


def test_what_a_network_needs_more_is_refused_with_the_lines_to_write(tmp_path: Path) -> None:
    path = hungry(tmp_path / "n.onnx")
    lacking = spec(further=FURTHER.replace('"training"', '"mode"'))
    with pytest.raises(SpecError, match="the network has no input 'mode'; its inputs are: 'x', 'scale'"):
        importers.read(path, lacking)
    with (
        Predictor(
            ResolvedModel(
                Model(path, "onnx", spec(further=FURTHER.partition('[[input.extra]]\ntensor = "training')[0]))
            )
        ) as predictor,
        pytest.raises(SpecError, match="doesn't say which one it means"),
    ):
        predictor.runner("latency")
    with pytest.raises(
        SpecError, match=r"\[\[input.extra\]\] 'weights': \[2\] values for the network's input, float32 \[3\]"
    ):
        opened(path, spec(further=FURTHER.replace("[1, 2, 3]", "[1, 2]"))).infer(pictures(1))
    with opened(path, None) as runner, pytest.raises(InputError, match="expected 'x', 'scale', 'size'"):
        runner.infer(pictures(1))
