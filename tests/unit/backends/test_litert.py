"""What is LiteRT's own: quantized ends, files that come as they are, conversions that are checked, metadata that
MediaPipe Tasks reads."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from helpers import generated_networks
from helpers.tflite_writer import STEPS, Kind, expected, network, pictures
from helpers.toolchain_required import program, require
from plimsoll import backends, quantize, zoo
from plimsoll.backends.base import CalibrationData, ThreadPlan
from plimsoll.backends.litert import tflite_file
from plimsoll.backends.runner import Runner
from plimsoll.core.deviation import deviation
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, RunError, TargetError
from plimsoll.preprocessing import Preprocessor, folded
from plimsoll.spec import Input, Spec
from plimsoll.spec.spec import Classify, Tensors

pytest.importorskip("ai_edge_litert")
from plimsoll.backends.litert import LiteRtOptions, conversion, export

LITERT = backends.get("litert")
PICTURE: list[dict[str, Any]] = [{"step": "decode"}, {"step": "resize", "width": 2, "height": 2}]
LABELS = ("ant", "bee", "cat", "dog")
Array = NDArray[np.float32]


def target(precision: str) -> Target:
    return Target("litert", "cpu", precision)


def classifier(path: Path, kind: Kind, *steps: dict[str, Any], **output: Any) -> Model:
    spec = Spec(
        name="small",
        input=Input.model_validate({"steps": [*PICTURE, *steps]}),
        output=Classify(labels=LABELS, **output),
    )
    return Model(network(path, kind), "tflite", spec)


# Files as they come.


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantized_ends_are_float32_outside(tmp_path: Path, kind: Kind) -> None:
    batch = pictures(5)
    with Runner.open(Model(network(tmp_path / "net.tflite", kind), "tflite"), target("int8")) as runner:
        (taken,), (given,) = runner.inputs, runner.outputs
        scores = runner.infer(batch)["scores"]
    assert (taken.name, taken.shape, taken.dtype) == ("picture", (1, 2, 2, 3), "float32")
    assert (given.name, given.shape, given.dtype) == ("scores", (1, 4), "float32")
    np.testing.assert_allclose(scores, expected(batch), atol=STEPS["scores"][0] * 1.5)
    np.testing.assert_allclose(scores / STEPS["scores"][0], np.rint(scores / STEPS["scores"][0]), atol=1e-3)


def test_what_quantized_ends_cannot_hold_is_clipped_or_refused(tmp_path: Path) -> None:
    scale, zero = STEPS["picture"]
    with Runner.open(Model(network(tmp_path / "net.tflite", "int8"), "tflite"), target("int8")) as runner:
        far, edge = np.full((1, 2, 2, 3), 1e6, np.float32), np.full((1, 2, 2, 3), (127 - zero) * scale, np.float32)
        np.testing.assert_array_equal(runner.infer(far)["scores"], runner.infer(edge)["scores"])
        with pytest.raises(RunError, match="not a number"):
            runner.infer(np.full((1, 2, 2, 3), np.nan, np.float32))


def test_a_free_batch_is_computed_at_once(tmp_path: Path) -> None:
    with Runner.open(Model(network(tmp_path / "net.tflite", batch=-1), "tflite"), target("float32")) as runner:
        assert runner.inputs[0].shape == (None, 2, 2, 3)
        for count in (3, 1, 5, 5):
            np.testing.assert_allclose(runner.infer(pictures(count))["scores"], expected(pictures(count)), atol=1e-5)
        assert runner.timing.calls == 4


def test_its_own_kernels_compute_the_same(tmp_path: Path) -> None:
    with Runner.open(
        Model(network(tmp_path / "net.tflite"), "tflite"),
        target("float32"),
        options={"xnnpack": "false", "threads": "2"},
    ) as runner:
        np.testing.assert_allclose(runner.infer(pictures(2))["scores"], expected(pictures(2)), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "message"), [("custom", "custom operators Frobnicate"), ("select", r"\(Select\) operators Betainc")]
)
def test_operators_that_it_lacks_are_named(tmp_path: Path, kind: Kind, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        Runner.open(Model(network(tmp_path / "net.tflite", kind), "tflite"), target("float32"))


def test_a_state_is_forgotten_before_every_picture(tmp_path: Path) -> None:
    batch = pictures(6)
    plan = ThreadPlan(2, 1)
    with Runner.open(
        Model(network(tmp_path / "net.tflite", "recurrent"), "tflite"), target("float32"), plan=plan
    ) as runner:
        for order in (slice(None), slice(None, None, -1), slice(None)):
            np.testing.assert_allclose(runner.infer(batch[order])["sum"], expected(batch[order]), atol=1e-5)


@pytest.mark.parametrize(("kind", "operator"), [("random", "RANDOM_UNIFORM"), ("counter", "ASSIGN_VARIABLE")])
def test_a_network_that_answers_otherwise_each_time_is_refused(tmp_path: Path, kind: Kind, operator: str) -> None:
    with pytest.raises(BuildError, match=f"the same picture differently each time: {operator}"):
        Runner.open(Model(network(tmp_path / "net.tflite", kind), "tflite"), target("float32"))


def test_a_quantized_file_passes_untouched_to_its_own_target_alone(tmp_path: Path) -> None:
    model = Model(network(tmp_path / "net.tflite", "int8"), "tflite")
    assert LITERT.build(model, target("int8"), tmp_path) is model
    with pytest.raises(BuildError, match="this one is int8") as caught:
        LITERT.build(model, target("float16"), tmp_path)
    assert "litert:cpu:int8" in caught.value.hint


def test_integers_need_calibration_pictures(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="needs calibration pictures"):
        LITERT.build(Model(network(tmp_path / "net.tflite"), "tflite"), target("int8"), tmp_path)


def test_an_unknown_kind_of_ends_is_refused() -> None:
    with pytest.raises(TargetError, match="io"):
        LITERT.read_options({"io": "int4"})


# Conversions.


def test_a_float_file_is_quantized_with_integer_ends_where_that_is_wanted(tmp_path: Path) -> None:
    require("onnx2tf")
    calibrated = CalibrationData("minmax", pictures(64))
    model = Model(network(tmp_path / "net.tflite"), "tflite")
    built = LITERT.configured(LiteRtOptions(io="integer")).build(model, target("int8"), tmp_path, calibrated)
    file = tflite_file.read_file(built.path)
    assert [tensor.dtype for tensor in (*file.inputs, *file.outputs)] == ["int8", "int8"]
    with Runner.open(built, target("int8")) as runner:
        assert runner.inputs[0].dtype == "float32"
        np.testing.assert_allclose(runner.infer(pictures(4))["scores"], expected(pictures(4)), atol=0.15)


def test_ranges_of_plimsolls_calibrators_are_used(tmp_path: Path) -> None:
    require("onnx2tf")
    model = Model(network(tmp_path / "net.tflite"), "tflite")
    narrow = CalibrationData("percentile", pictures(64), {"picture": (-0.25, 0.25), "scores": (-1.0, 1.0)})
    integers = LITERT.configured(LiteRtOptions(io="integer"))
    with Runner.open(integers.build(model, target("int8"), tmp_path, narrow), target("int8")) as runner:
        scores = runner.infer(pictures(64))["scores"]
    assert np.abs(scores).max() <= 1.01
    assert np.abs(expected(pictures(64))).max() > 3


def test_the_last_layer_clips_nothing_where_outputs_are_float32(tmp_path: Path) -> None:
    """What lies beyond every calibration picture was clipped, boxes and scores shared 256 steps."""
    require("onnx2tf")
    model = Model(network(tmp_path / "net.tflite"), "tflite")
    calibrated = CalibrationData("minmax", pictures(8) / 10)
    with Runner.open(LITERT.build(model, target("int8"), tmp_path, calibrated), target("int8")) as runner:
        np.testing.assert_allclose(runner.infer(pictures(4))["scores"], expected(pictures(4)), atol=0.15)


def convolutional(path: Path, sides: tuple[int | str, int | str] = (9, 9), end: str = "sigmoid") -> Model:
    """NCHW: a padded strided convolution, a pool that rounds up, a residual; `end`: a sigmoid, the convolution itself,
    or a mean and a Gemm."""
    random = np.random.default_rng(2)
    weights = {
        "w1": random.normal(size=(4, 3, 3, 3)) / 5,
        "w2": random.normal(size=(4, 4, 3, 3)) / 6,
        "b1": random.normal(size=4),
        "w3": random.normal(size=(2, 4)),
    }
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Conv", ["in:0", "w1", "b1"], ["a:0"], pads=[1, 0, 0, 1], strides=[2, 2]),
        helper.make_node("MaxPool", ["a:0"], ["b"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["d"]),
    ]
    last = {
        "sigmoid": [helper.make_node("Sigmoid", ["d"], ["out:0"])],
        "convolution": [helper.make_node("Conv", ["d", "w2"], ["out:0"], pads=[1, 1, 1, 1])],
        "gemm": [
            helper.make_node("ReduceMean", ["d"], ["m"], axes=[2, 3], keepdims=0),
            helper.make_node("Gemm", ["m", "w3"], ["out:0"], transB=1),
        ],
    }[end]
    shapes: dict[str, list[int | str]] = {
        "in:0": ["N", 3, *sides],
        "out:0": ["N", 2] if end == "gemm" else ["N", 4, "h", "w"],
    }
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph([*nodes, *last], "small", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return Model(path, "onnx")


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 1e-5), ("float16", 1e-3), ("dynamic", 0.01), ("int8", 0.03), ("int16x8", 0.01)],
)
def test_channels_stay_first_and_names_stay_as_they_were(tmp_path: Path, precision: str, tolerance: float) -> None:
    require("onnx2tf")
    model = convolutional(tmp_path / "net.onnx")
    batch = np.random.default_rng(4).uniform(-1, 1, (6, 3, 9, 9)).astype(np.float32)
    with Runner.open(model, Target("onnxruntime")) as runner:
        reference = runner.infer(batch)["out:0"]
    built = LITERT.build(
        model, target(precision), tmp_path, CalibrationData("minmax", batch) if "int" in precision else None
    )
    assert built.parent is model
    assert {file.name for file in tmp_path.iterdir()} == {"net.onnx", built.path.name}
    with Runner.open(built, target(precision)) as runner:
        assert runner.inputs[0].name == "in:0"
        assert runner.inputs[0].shape == (1, 3, 9, 9)
        np.testing.assert_allclose(runner.infer(batch)["out:0"], reference, atol=tolerance)


@pytest.mark.parametrize("end", ["convolution", "gemm"])
def test_whatever_ends_a_network_it_gives_what_onnx_gives(tmp_path: Path, end: str) -> None:
    """onnx2tf turned a last convolution's channels to the end, and had no operator for a Gemm behind a mean whose shape
    was not written down."""
    require("onnx2tf")
    model = convolutional(tmp_path / "net.onnx", end=end)
    batch = np.random.default_rng(4).uniform(-1, 1, (2, 3, 9, 9)).astype(np.float32)
    with Runner.open(model, Target("onnxruntime")) as runner:
        reference = runner.infer(batch)["out:0"]
    with Runner.open(LITERT.build(model, target("float32"), tmp_path), target("float32")) as runner:
        np.testing.assert_allclose(runner.infer(batch)["out:0"], reference, atol=1e-5)


@pytest.mark.parametrize(
    ("follows", "attributes"), [(["Relu", "Mul"], {}), (["HardSigmoid"], {"alpha": 1 / 6}), (["Sigmoid", "Mul"], {})]
)
def test_a_range_holds_for_the_tensor_that_has_these_values(
    tmp_path: Path, follows: list[str], attributes: dict[str, float]
) -> None:
    """The converter fuses what follows a convolution, and the result got the range of the value before."""
    require("onnx2tf")
    random = np.random.default_rng(8)
    stored = [
        numpy_helper.from_array((random.normal(size=(4, 3, 3, 3)) * 2).astype(np.float32), "w"),
        numpy_helper.from_array(random.normal(size=(5, 4, 3, 3)).astype(np.float32), "v"),
        numpy_helper.from_array(np.float32(0.02), "small"),
    ]
    nodes = [helper.make_node("Conv", ["x", "w"], ["0"], pads=[1, 1, 1, 1])]
    for index, operator in enumerate(follows):
        more = ["small"] if operator == "Mul" else []
        nodes.append(helper.make_node(operator, [str(index), *more], [str(index + 1)], **attributes))
    nodes.append(helper.make_node("Conv", [str(len(follows)), "v"], ["y"], pads=[1, 1, 1, 1]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 8, 8])
        for name, channels in (("x", 3), ("y", 5))
    ]
    graph = helper.make_graph(nodes, "fused", ends[:1], ends[1:], stored)
    model = Model(tmp_path / "net.onnx", "onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model.path)
    batch = random.uniform(-1, 1, (8, 3, 8, 8)).astype(np.float32)
    with Runner.open(model, Target("onnxruntime")) as runner:
        reference = runner.infer(batch)["y"]
    calibrated = quantize.observe(model, iter([batch])).calibration("minmax")
    built = LITERT.build(model, target("int8"), tmp_path, CalibrationData("minmax", batch, calibrated.ranges))
    with Runner.open(built, target("int8")) as runner:
        assert deviation(reference, runner.infer(batch)["y"]).snr_db > 30


@pytest.mark.parametrize(
    ("part", "precision", "decibels"),
    [
        ("split", "float32", 100),
        ("elu", "float32", 100),
        ("softplus", "float32", 100),
        ("layer_norm", "int8", 25),
        ("attention", "int8", 20),
        ("mish", "int8", 25),
    ],
)
def test_parts_of_networks_that_were_wrong_or_refused(
    tmp_path: Path, example_photos: list[Path], part: str, precision: str, decibels: float
) -> None:
    """Split: a free size was said behind it; Elu: its alpha was lost; Softplus: infinite from 89 on. In int8, a
    variance near zero was refused, and a softmax over 400 tokens came out as zeros."""
    require("onnx2tf")
    model = generated_networks.Case.named(f"conv3x3-{part}-none").write(tmp_path / "net.onnx")
    assert model is not None
    preprocessor = Preprocessor(generated_networks.SPEC.input)
    batch = np.stack([preprocessor(photo) for photo in example_photos[:12]])
    with Runner.open(model, Target("onnxruntime")) as runner:
        (reference,) = runner.infer(batch[8:]).values()
    calibrated = None
    if precision == "int8":
        ranges = quantize.observe(model, iter([batch[:8]])).calibration("minmax").ranges
        calibrated = CalibrationData("minmax", batch[:8], ranges)
    with Runner.open(LITERT.build(model, target(precision), tmp_path, calibrated), target(precision)) as runner:
        (answer,) = runner.infer(batch[8:]).values()
    assert deviation(reference, answer).snr_db > decibels


def test_a_stored_token_and_a_fixed_batch_of_four_survive_int8(tmp_path: Path) -> None:
    """The quantizer failed where a class token is joined, and calibration fed one picture at a time."""
    require("onnx2tf")
    random = np.random.default_rng(9)
    stored = [
        numpy_helper.from_array(random.normal(size=(4, 1, 6)).astype(np.float32), "token"),
        numpy_helper.from_array(random.normal(size=(6, 6)).astype(np.float32), "w"),
        numpy_helper.from_array(random.normal(size=6).astype(np.float32), "b"),
    ]
    nodes = [
        helper.make_node("Concat", ["token", "x"], ["tokens"], axis=1),
        helper.make_node("MatMul", ["tokens", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["above"]),
        helper.make_node("MatMul", ["above", "w"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, count, 6]) for name, count in (("x", 5), ("y", 6))
    ]
    graph = helper.make_graph(nodes, "token", ends[:1], ends[1:], stored)
    model = Model(tmp_path / "net.onnx", "onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model.path)
    batch = random.uniform(-1, 1, (10, 5, 6)).astype(np.float32)
    with Runner.open(model, Target("onnxruntime")) as runner:
        reference = runner.infer(batch)["y"]
    built = LITERT.build(model, target("int8"), tmp_path, CalibrationData("minmax", batch))
    with Runner.open(built, target("int8")) as runner:
        assert runner.inputs[0].shape == (4, 5, 6)
        assert deviation(reference, runner.infer(batch)["y"]).snr_db > 35


def test_a_product_with_a_stored_matrix_survives_int8(tmp_path: Path) -> None:
    """The quantizer gave it a scale a channel, with which the runtime computes nonsense."""
    require("onnx2tf")
    random = np.random.default_rng(6)
    weights = (random.normal(size=(16, 5)) * [0.01, 0.1, 1, 3, 10]).astype(np.float32)
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 5]),
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "small",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "net.onnx"
    )
    batch = random.uniform(-1, 1, (16, 3, 16)).astype(np.float32)
    with Runner.open(
        LITERT.build(Model(tmp_path / "net.onnx", "onnx"), target("int8"), tmp_path, CalibrationData("minmax", batch)),
        target("int8"),
    ) as runner:
        np.testing.assert_allclose(runner.infer(batch)["y"], batch @ weights, atol=0.02 * np.abs(batch @ weights).max())


def recurrent(path: Path, kind: str, direction: str, output: int) -> Model:
    """x `[1, 3, 6, 4]`, six steps of 12 values → y: the output at every step (0), the last state (1), the cell (2)."""
    random = np.random.default_rng(3)
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    weights = {
        "w": random.normal(size=(directions, gates * 5, 12)),
        "r": random.normal(size=(directions, gates * 5, 5)),
        "b": random.normal(size=(directions, gates * 10)),
    }
    stored = [numpy_helper.from_array((value / 3).astype(np.float32), name) for name, value in weights.items()]
    stored.append(numpy_helper.from_array(np.array([1, 6, 12], np.int64), "steps"))
    names = [name if index == output else "" for index, name in enumerate(("all", "last", "cell"))][: output + 1]
    nodes = [
        helper.make_node("Reshape", ["x", "steps"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["sequence"], perm=[1, 0, 2]),
        helper.make_node(kind, ["sequence", "w", "r", "b"], names, hidden_size=5, direction=direction),
        helper.make_node("Flatten", [names[output]], ["y"], axis=0),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, (1 if output else 6) * directions * 5]),
    ]
    graph = helper.make_graph(nodes, "recurrent", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Model(path, "onnx")


@pytest.mark.parametrize(
    ("kind", "direction", "output"),
    [("LSTM", "bidirectional", 0), ("LSTM", "forward", 1), ("GRU", "reverse", 1), ("RNN", "bidirectional", 1)],
)
def test_recurrent_networks_answer_each_picture_by_itself(
    tmp_path: Path, kind: str, direction: str, output: int
) -> None:
    """onnx2tf took the last state for the sequence, or read it from a variable, from which XNNPACK read the picture
    before."""
    require("onnx2tf")
    model = recurrent(tmp_path / "net.onnx", kind, direction, output)
    batch = np.random.default_rng(4).uniform(-1, 1, (4, 3, 6, 4)).astype(np.float32)
    with Runner.open(model, Target("onnxruntime")) as runner:
        reference = runner.infer(batch)["y"]
    with Runner.open(LITERT.build(model, target("float32"), tmp_path), target("float32")) as runner:
        np.testing.assert_allclose(runner.infer(batch)["y"], reference, atol=1e-5)
        np.testing.assert_allclose(runner.infer(batch[::-1].copy())["y"][::-1], reference, atol=1e-5)


def test_a_cell_state_that_is_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="can't return its cell state"):
        LITERT.build(recurrent(tmp_path / "net.onnx", "LSTM", "forward", 2), target("float32"), tmp_path)


def test_a_free_side_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"fixed sizes; the input 'in:0'.*'width'"):
        LITERT.build(convolutional(tmp_path / "net.onnx", (9, "width")), target("float32"), tmp_path)


def test_an_operator_without_a_counterpart_is_named(tmp_path: Path) -> None:
    require("onnx2tf")
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Unique", ["r"], ["y"])]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M"]),
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "net.onnx"
    )
    with pytest.raises(BuildError, match="no substitute, for UNIQUE"):
        LITERT.build(Model(tmp_path / "net.onnx", "onnx"), target("float32"), tmp_path)


def test_a_converter_that_computes_something_else_is_caught(tmp_path: Path) -> None:
    """The other network differs in the order of its pixels alone, as one does whose layout was mixed up."""
    weights = numpy_helper.from_array(np.ascontiguousarray(network_weights()[:, ::-1]), "w")
    nodes = [
        helper.make_node("Flatten", ["picture"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["scores"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 2, 2, 3]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4]),
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "net.onnx"
    )
    with pytest.raises(BuildError, match="onnx2tf changes what the network computes: its output 'scores'"):
        conversion._check_answers(
            Model(tmp_path / "net.onnx", "onnx"), tmp_path / "net.onnx", network(tmp_path / "net.tflite")
        )


def network_weights() -> Array:
    from helpers.tflite_writer import WEIGHTS

    return WEIGHTS


@pytest.mark.parametrize(
    ("precision", "megabytes", "deviation"),
    [("float32", 23.6, 1e-5), ("float16", 11.9, 5e-4), ("dynamic", 6.2, 0.01), ("int8", 6.4, 0.03)],
)
def test_open_nsfw_in_every_precision(
    tmp_path: Path,
    nsfw_model_path: Path,
    example_photos: list[Path],
    precision: str,
    megabytes: float,
    deviation: float,
) -> None:
    """Sizes and score differences as docs/on-device.md has them, with some room."""
    require("onnx2tf")
    model = Model(nsfw_model_path, "onnx", zoo.card("open_nsfw").spec)
    preprocessor = Preprocessor(model.require_spec().input, "reference")
    batch = np.stack([preprocessor(photo) for photo in example_photos[::2]])
    calibrated = CalibrationData("minmax", batch[::2]) if precision == "int8" else None
    with Runner.open(model, Target("onnxruntime")) as runner:
        reference = runner.infer(batch[1::2])["outputs"]
    built = LITERT.build(model, target(precision), tmp_path, calibrated)
    assert built.size < megabytes * 1e6
    with Runner.open(built, target(precision)) as runner:
        np.testing.assert_allclose(runner.infer(batch[1::2])["outputs"], reference, atol=deviation)


# Metadata.


def test_metadata_say_how_to_prepare_a_picture_and_what_scores_mean(tmp_path: Path) -> None:
    model = classifier(
        tmp_path / "net.tflite",
        "float32",
        {"step": "scale", "divisor": 127.5},
        {"step": "mean", "values": [1.0, 1.0, 1.0]},
    )
    notes = export(model, tmp_path / "out.tflite")
    assert "resizes pictures in its own way" in notes[0]
    assert tflite_file.read_file(tmp_path / "out.tflite").metadata == ("TFLITE_METADATA",)
    with zipfile.ZipFile(io.BytesIO((tmp_path / "out.tflite").read_bytes())) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(LABELS)
    with Runner.open(Model(tmp_path / "out.tflite", "tflite"), target("float32")) as runner:
        np.testing.assert_allclose(runner.infer(pictures(2))["scores"], expected(pictures(2)), atol=1e-5)


def test_metadata_are_replaced_and_not_added_twice(tmp_path: Path) -> None:
    model = classifier(tmp_path / "net.tflite", "float32", {"step": "scale", "divisor": 255})
    export(model, tmp_path / "once.tflite")
    export(Model(tmp_path / "once.tflite", "tflite", model.spec), tmp_path / "twice.tflite")
    assert (tmp_path / "once.tflite").read_bytes() == (tmp_path / "twice.tflite").read_bytes()


@pytest.mark.parametrize(
    ("kind", "steps", "output", "message"),
    [
        ("float32", [{"step": "channels", "order": "BGR"}, {"step": "scale", "divisor": 255}], {}, "takes BGR"),
        ("float32", [{"step": "mean", "values": [1.0, 2.0, 3.0]}], {}, "'mean' has a value a channel"),
        ("float32", [{"step": "scale", "divisor": 255}], {"activation": "softmax"}, "need a softmax"),
        ("int8", [{"step": "scale", "divisor": 255}], {}, "takes int8"),
        ("uint8", [{"step": "scale", "divisor": 255}], {}, "change their values"),
    ],
    ids=["bgr", "per channel", "softmax", "int8", "uint8"],
)
def test_what_metadata_have_no_words_for_is_reported_and_the_file_stays_as_it_is(
    tmp_path: Path, kind: Kind, steps: list[dict[str, Any]], output: dict[str, Any], message: str
) -> None:
    model = classifier(tmp_path / "net.tflite", kind, *steps, **output)
    (note,) = export(model, tmp_path / "out.tflite")
    assert message in note
    assert (tmp_path / "out.tflite").read_bytes() == model.path.read_bytes()


def test_bytes_that_stand_for_what_the_steps_make_are_reported(tmp_path: Path) -> None:
    scale, zero = STEPS["picture"]
    steps: list[dict[str, Any]] = [{"step": "mean", "values": [zero + 128.0]}, {"step": "std", "values": [1 / scale]}]
    export(classifier(tmp_path / "net.tflite", "uint8", *steps), tmp_path / "out.tflite")
    assert tflite_file.read_file(tmp_path / "out.tflite").metadata == ("TFLITE_METADATA",)


def test_other_tasks_get_no_metadata(tmp_path: Path) -> None:
    spec = Spec(name="small", input=Input.model_validate({"steps": PICTURE}), output=Tensors())
    (note,) = export(Model(network(tmp_path / "net.tflite"), "tflite", spec), tmp_path / "out.tflite")
    assert "task is 'tensor'" in note


def test_mediapipe_tasks_scores_prepared_pictures_as_onnx_does(
    tmp_path: Path, nsfw_model_path: Path, example_photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third-party client itself, in its own environment; see tests/toolchains."""
    monkeypatch.setenv("PLIMSOLL_TOOLCHAINS", str(Path(__file__).resolve().parents[2] / "toolchains"))
    require("mediapipe")
    require("onnx2tf")
    model = folded.fold(Model(nsfw_model_path, "onnx", zoo.card("open_nsfw").spec), tmp_path)
    preprocessor = Preprocessor(model.require_spec().input, "reference")
    batch = np.stack([preprocessor(photo) for photo in example_photos[:20]])
    with Runner.open(model, Target("onnxruntime")) as runner:
        reference = runner.infer(batch)["outputs"]
    export(LITERT.build(model, target("float32"), tmp_path), tmp_path / "out.tflite")
    np.save(tmp_path / "pictures.npy", batch)
    program(
        "mediapipe",
        "mediapipe_classify.py",
        tmp_path / "out.tflite",
        tmp_path / "pictures.npy",
        "sfw,nsfw",
        tmp_path / "scores.npy",
    )
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), reference, atol=1e-5)


def test_minus_infinity_that_pads_a_maximum_is_quantized(tmp_path: Path) -> None:
    """As TensorFlow.js writes it, and NanoDet has it: calibration refused it as not finite."""
    require("onnx2tf")
    random = np.random.default_rng(1)
    stored = {
        "first": (random.normal(size=(8, 3, 3, 3)) / 5).astype(np.float32),
        "last": (random.normal(size=(4, 8, 1, 1)) / 3).astype(np.float32),
        "fill": np.array(-np.inf, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    nodes = [
        helper.make_node("Conv", ["picture", "first"], ["planes"]),
        helper.make_node("Pad", ["planes", "pads", "fill"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["pooled"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Conv", ["pooled", "last"], ["scores"]),
    ]
    infos = [
        helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, 18, 18]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4, 8, 8]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "padded", infos[:1], infos[1:], constants)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model, tensors = Model(path, "onnx"), random.normal(size=(16, 3, 18, 18)).astype(np.float32)
    ranges = quantize.calibrate(model, [tensors], "minmax").ranges
    target = Target("litert", "cpu", "int8")
    built = backends.get("litert").build(model, target, tmp_path, CalibrationData("minmax", tensors, ranges))
    answers = []
    for source, where in ((model, Target("onnxruntime")), (built, target)):
        with Runner.open(source, where) as runner:
            answers.append(np.concatenate([next(iter(runner.infer(tensor[None]).values())) for tensor in tensors]))
    assert deviation(*answers).snr_db > 30
