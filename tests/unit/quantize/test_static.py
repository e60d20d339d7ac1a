"""Static int8: what is in the file, and what both runtimes make of it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import Array, node
from plimsoll import quantize, zoo
from plimsoll.core.foreign import require
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, InputError
from plimsoll.preprocessing import Preprocessor
from plimsoll.quantize import StaticOptions
from plimsoll.quantize.parameters import ActivationType
from plimsoll.system import host

RUNTIMES = [
    "onnxruntime",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"),
    ),
]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return networks.residual(tmp_path / "net.onnx")


def quantize_by(
    model: Model, folder: Path, options: StaticOptions | None = None, method: str = "minmax", batch: Array | None = None
) -> Model:
    table = quantize.calibrate(model, [networks.pictures() if batch is None else batch], method)
    return quantize.static(model, table, folder, options)


def kernels(model: Model, folder: Path, batch: Array) -> list[str]:
    """Return the kernels that ONNX Runtime runs, from its profile."""
    runtime = require("onnxruntime", "")
    settings = runtime.SessionOptions()
    settings.enable_profiling = True
    settings.log_severity_level = 4
    settings.profile_file_prefix = str(folder / "profile")
    session = runtime.InferenceSession(str(model.path), settings, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: batch})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [
        event["args"]["op_name"]
        for event in events
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
    ]


def openvino_types(model: Model, batch: Array) -> list[tuple[str, str]]:
    """Return (kind, type of the kernel) of each layer that OpenVINO runs."""
    runtime = require("openvino", "")
    compiled = runtime.Core().compile_model(
        str(model.path), "CPU", {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()
    request.infer({0: batch})
    executed = runtime.ProfilingInfo.Status.EXECUTED
    return [(profile.node_type, profile.exec_type) for profile in request.profiling_info if profile.status == executed]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("method", list(quantize.METHODS))
def test_answers_stay_within_two_hundredths(model: Model, tmp_path: Path, runtime: str, method: str) -> None:
    target = Target(runtime, "cpu", "int8")
    quantized = quantize_by(model, tmp_path, StaticOptions.for_target(target), method)
    batch = networks.pictures(seed=1)
    difference = np.abs(networks.run(quantized, batch, str(target)) - networks.run(model, batch))
    assert 0 < difference.max() < 0.02
    assert quantized.parent == model


def test_every_convolution_runs_in_int8_in_onnx_runtime(model: Model, tmp_path: Path) -> None:
    operators = kernels(quantize_by(model, tmp_path), tmp_path, networks.pictures(1))
    assert operators.count("QLinearConv") == 5
    assert operators.count("QLinearAdd") == 2
    assert "Conv" not in operators
    assert "FusedConv" not in operators
    assert "Relu" not in operators
    assert operators.count("Softmax") == 1


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_every_convolution_runs_in_int8_in_openvino(model: Model, tmp_path: Path) -> None:
    quantized = quantize_by(model, tmp_path, StaticOptions.for_target(Target("openvino", "cpu", "int8")))
    convolutions = [kind for layer, kind in openvino_types(quantized, networks.pictures(1)) if layer == "Convolution"]
    assert len(convolutions) == 5
    assert all(kind.endswith("_I8") for kind in convolutions)


def test_inputs_outputs_and_the_head_stay_in_float(model: Model, tmp_path: Path) -> None:
    graph = onnx.load(quantize_by(model, tmp_path).path).graph
    assert [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)] == [1, 1]
    makers = {name: node for node in graph.node for name in node.output}
    head = next(node for node in graph.node if node.op_type == "Gemm")
    assert head.input[1] == "w5"
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    assert makers[softmax.input[0]].op_type == "Gemm"


def test_weights_have_a_scale_for_each_channel_and_biases_the_product_of_scales(model: Model, tmp_path: Path) -> None:
    quantized = quantize_by(
        model,
        tmp_path,
        StaticOptions(weights="minmax", space_to_depth=False, activations="uint8", weight_bits=8, correct_bias=False),
    )
    original, stored = networks.stored(model), networks.stored(quantized)
    graph = onnx.load(quantized.path).graph
    dequantizers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    conv = next(node for node in graph.node if node.name == "conv1")
    values, scales, zeros = (stored[name] for name in dequantizers[conv.input[1]].input)
    np.testing.assert_allclose(scales, np.abs(original["w1"]).max(axis=(1, 2, 3)) / 127, rtol=1e-6)
    assert values.dtype == np.int8
    assert not zeros.any()
    bias = dequantizers[conv.input[2]]
    np.testing.assert_allclose(stored[bias.input[1]], scales * stored[dequantizers[conv.input[0]].input[1]], rtol=1e-6)
    assert stored[bias.input[0]].dtype == np.int32
    np.testing.assert_allclose(
        stored[bias.input[0]] * stored[bias.input[1]].astype(float),
        original["b1"],
        atol=0.51 * stored[bias.input[1]].max(),
    )


def test_zero_points_of_what_comes_out_of_a_relu_are_the_least_integer(model: Model, tmp_path: Path) -> None:
    kinds: tuple[tuple[ActivationType, int], ...] = (("uint8", 0), ("int8", -128))
    for dtype, least in kinds:
        quantized = quantize_by(model, tmp_path, StaticOptions(activations=dtype))
        graph, stored = onnx.load(quantized.path).graph, networks.stored(quantized)
        pairs = {node.input[0]: stored[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}
        assert {name: int(pairs[name]) for name in ("r0", "r1", "r2", "r3")} == dict.fromkeys(
            ("r0", "r1", "r2", "r3"), least
        )
        assert str(pairs["r0"].dtype) == dtype


def test_int8_activations_answer_as_uint8_ones_do(model: Model, tmp_path: Path) -> None:
    batch = networks.pictures(seed=1)
    answers = []
    kinds: tuple[ActivationType, ...] = ("uint8", "int8")
    for dtype in kinds:
        quantized = quantize_by(model, tmp_path, StaticOptions(activations=dtype, weight_bits=8))
        answers.append(networks.run(quantized, batch, "onnxruntime:cpu:int8"))
    np.testing.assert_allclose(answers[0], answers[1], atol=2e-3)


@pytest.mark.parametrize(
    ("size", "kernel", "pad"), [(16, 7, 3), (16, 3, 1), (20, 5, 2), (12, 6, 2), (8, 2, 0), (16, 3, 0), (10, 4, 1)]
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_deeper_first_convolution_is_exact(tmp_path: Path, size: int, kernel: int, pad: int, layout: str) -> None:
    rng = np.random.default_rng(kernel)
    constants = {"w": networks.weights(rng, 8, 3, kernel, kernel), "v": networks.weights(rng, 2, 8, 1, 1)}
    nodes = [
        node("Conv", ["picture" if layout == "NHWC" else "x", "w"], ["c"], "first", pads=[pad] * 4, strides=[2, 2]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["y"], "head"),
    ]
    shape = [size, size, 3]
    if layout == "NHWC":
        nodes.insert(0, node("Transpose", ["x"], ["picture"], perm=[0, 3, 1, 2]))
    else:
        shape = [3, size, size]
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", *shape], ["N", 2, "h", "w"]], constants)
    batch = rng.normal(size=(3, *shape)).astype(np.float32)
    deep = quantize_by(model, tmp_path, StaticOptions(), batch=batch)
    (tmp_path / "plain").mkdir()
    plain = quantize_by(model, tmp_path / "plain", StaticOptions(space_to_depth=False), batch=batch)
    assert ("Split" in networks.operators(deep)) == (size % 2 == 0)
    assert "Split" not in networks.operators(plain)
    np.testing.assert_array_equal(
        networks.run(deep, batch, "onnxruntime:cpu:int8"), networks.run(plain, batch, "onnxruntime:cpu:int8")
    )


@pytest.mark.parametrize("average", ["GlobalAveragePool", "AveragePool"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_average_before_the_head_is_not_rounded_to_eight_bits(tmp_path: Path, runtime: str, average: str) -> None:
    nodes = [node("Conv", ["x", "one"], ["c"], "c"), node("Conv", ["c", "one"], ["d"], "d")]
    nodes += [
        node(average, ["d"], ["mean"], "average", **({"kernel_shape": [4, 4]} if average == "AveragePool" else {}))
    ]
    nodes += [node("Reshape", ["mean", "flat"], ["row"], "flat"), node("Gemm", ["row", "head"], ["y"], "head")]
    constants = {
        "one": np.eye(8, dtype=np.float32)[:, :, None, None],
        "flat": np.array([0, 8]),
        "head": np.eye(8, dtype=np.float32),
    }
    network = networks.save(tmp_path / "net.onnx", nodes, [["N", 8, 4, 4], ["N", 8]], constants)
    target = Target(runtime, "cpu", "int8")
    table = quantize.Calibration(ranges=dict.fromkeys("xcd", (0.0, 255.0)))
    quantized = quantize.static(network, table, tmp_path, StaticOptions.for_target(target))
    values = np.random.default_rng(0).integers(0, 256, (1, 8, 4, 4)).astype(np.float32)
    answers = networks.run(quantized, values, str(target))
    # Whole numbers are on the grid; their averages are sixteenths.
    assert np.abs(answers - values.mean(axis=(2, 3))).max() < 0.01
    assert np.abs(answers - np.rint(answers)).max() > 0.1


def test_operators_to_keep_stay_in_float_and_unknown_ones_are_named(model: Model, tmp_path: Path) -> None:
    quantized = quantize_by(model, tmp_path, StaticOptions(keep_float=("conv1",)))
    conv = next(node for node in onnx.load(quantized.path).graph.node if node.name == "conv1")
    assert conv.input[1] == "w1"
    assert kernels(quantized, tmp_path, networks.pictures(1)).count("QLinearConv") == 4
    with pytest.raises(BuildError, match="unknown operators in keep_float: 'conv9'"):
        quantize_by(model, tmp_path, StaticOptions(keep_float=("conv9",)))
    with pytest.raises(BuildError, match="nothing in it to quantize"):
        quantize_by(model, tmp_path, StaticOptions(operators=("Concat",)))
    with pytest.raises(InputError, match="can't be quantized: Softmax"):
        StaticOptions(operators=("Softmax",))


@pytest.mark.parametrize("value", [0.0, -3.0, 5.0], ids=["zeros", "negative", "positive"])
@pytest.mark.parametrize("method", list(quantize.METHODS))
def test_constant_activations_survive(tmp_path: Path, value: float, method: str) -> None:
    """A first convolution whose weights are zero: all its outputs are its bias."""
    rng = np.random.default_rng(0)
    constants = {
        "w": np.zeros((4, 3, 3, 3), np.float32),
        "b": np.full(4, value, np.float32),
        "v": networks.weights(rng, 4, 4, 1, 1),
    }
    constants |= {"u": networks.weights(rng, 2, 4, 1, 1)}
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]),
        node("Conv", ["c", "v"], ["d"]),
        node("Relu", ["d"], ["r"]),
        node("Conv", ["r", "u"], ["y"]),
    ]
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 6, 6], ["N", 2, 4, 4]], constants)
    batch = np.ones((2, 3, 6, 6), np.float32)
    quantized = quantize_by(model, tmp_path, method=method, batch=batch)
    expected = networks.run(model, batch)
    np.testing.assert_allclose(networks.run(quantized, batch, "onnxruntime:cpu:int8"), expected, atol=0.05)


def test_the_processor_decides_about_types_and_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(architecture: str, sets: tuple[str, ...]) -> tuple[str | None, int | None]:
        monkeypatch.setattr("platform.machine", lambda: architecture)
        monkeypatch.setattr(host, "instruction_sets", lambda: sets)
        chosen = StaticOptions().resolved()
        return chosen.activations, chosen.weight_bits

    assert resolved("x86_64", ("avx2", "avx512f", "avx512_vnni")) == ("uint8", 8)
    assert resolved("x86_64", ("avx2", "avx_vnni")) == ("uint8", 8)
    assert resolved("x86_64", ("avx2", "avx512f")) == ("uint8", 7)
    assert resolved("AMD64", ()) == ("uint8", 8)
    assert resolved("aarch64", ("asimd", "asimddp")) == ("int8", 8)
    assert resolved("arm64", ()) == ("int8", 8)


def test_seven_bits_reach_the_file(model: Model, tmp_path: Path) -> None:
    stored = networks.stored(quantize_by(model, tmp_path, StaticOptions(weight_bits=7)))
    assert max(int(np.abs(value.astype(int)).max()) for value in stored.values() if value.dtype == np.int8) == 63


def test_concatenations_shuffles_and_pools_stay_in_int8(tmp_path: Path) -> None:
    """Two branches, joined; channels shuffled as ShuffleNet does; pooled."""
    rng = np.random.default_rng(0)
    constants = {
        "a": networks.weights(rng, 8, 3, 3, 3),
        "b": networks.weights(rng, 8, 8, 1, 1),
        "c": networks.weights(rng, 8, 8, 3, 3),
        "e": networks.weights(rng, 8, 16, 1, 1),
        "h": networks.weights(rng, 8, 3).astype(np.float32),
        "split": np.array([0, 2, 8, 14, 14], np.int64),
        "join": np.array([0, 16, 14, 14], np.int64),
    }
    nodes = [
        node("Conv", ["x", "a"], ["t0"], "stem"),
        node("Relu", ["t0"], ["t1"]),
        node("Conv", ["t1", "b"], ["t2"], "left"),
        node("Conv", ["t1", "c"], ["t3"], "right", pads=[1, 1, 1, 1]),
        node("Concat", ["t2", "t3"], ["t4"], "join", axis=1),
        node("Reshape", ["t4", "split"], ["t5"]),
        node("Transpose", ["t5"], ["t6"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["t6", "join"], ["t7"]),
        node("MaxPool", ["t7"], ["t8"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["t8", "e"], ["t9"], "mix"),
        node("Relu", ["t9"], ["t10"]),
        node("GlobalAveragePool", ["t10"], ["t11"]),
        node("Flatten", ["t11"], ["t12"]),
        node("MatMul", ["t12", "h"], ["y"], "head"),
    ]
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 16, 16], ["N", 3]], constants)
    batch = rng.normal(size=(8, 3, 16, 16)).astype(np.float32)
    quantized = quantize_by(model, tmp_path, batch=batch)
    operators = kernels(quantized, tmp_path, batch[:1])
    assert operators.count("QLinearConv") == 4
    assert "Conv" not in operators
    np.testing.assert_allclose(
        networks.run(quantized, batch, "onnxruntime:cpu:int8"), networks.run(model, batch), atol=0.05
    )


def test_a_head_that_is_a_convolution_stays_in_float_unless_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {"a": networks.weights(rng, 8, 3, 3, 3), "b": networks.weights(rng, 4, 8, 1, 1)}
    nodes = [
        node("Conv", ["x", "a"], ["c"], "body"),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "b"], ["y"], "head"),
    ]
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 8, 8], ["N", 4, 6, 6]], constants)
    batch = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
    heads = [
        next(
            node
            for node in onnx.load(
                quantize_by(model, tmp_path, StaticOptions(float_heads=in_float), batch=batch).path
            ).graph.node
            if node.name == "head"
        )
        for in_float in (True, False)
    ]
    assert heads[0].input[1] == "b"
    assert heads[1].input[1] != "b"


def test_weights_that_no_file_holds_are_quantized_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = networks.residual(tmp_path / "net.onnx", channels=32)
    table = quantize.calibrate(whole, [networks.pictures()], "minmax")
    (tmp_path / "whole").mkdir()
    expected = quantize.static(whole, table, tmp_path / "whole")
    monkeypatch.setattr("plimsoll.onnx.load.MAX_INSIDE_BYTES", 10_000)
    apart = tmp_path / "apart.onnx"
    onnx.save_model(
        onnx.load(whole.path), apart, save_as_external_data=True, location="apart.data", size_threshold=1024
    )
    large = Model(apart, "onnx", None, files=(tmp_path / "apart.data",))
    table = quantize.calibrate(large, [networks.pictures()], "minmax")
    quantized = quantize.static(large, table, tmp_path)
    assert [file.name for file in quantized.files] == ["apart.int8.onnx.weights"]
    assert quantized.path.stat().st_size < 10_000
    np.testing.assert_array_equal(
        networks.run(quantized, networks.pictures(seed=1)), networks.run(expected, networks.pictures(seed=1))
    )


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {"a": networks.weights(rng, 3, 3, 3, 3), "b": networks.weights(rng, 4, 3, 1, 1)}
    nodes = [
        node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "a"], ["d"], pads=[1, 1, 1, 1]),
        node("Relu", ["d"], ["s"]),
        node("Conv", ["s", "b"], ["y"]),
    ]
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 3, 8, 8], ["N", 4, 8, 8]], constants)
    quantized = quantize_by(model, tmp_path, batch=rng.normal(size=(4, 3, 8, 8)).astype(np.float32))
    assert sum(value.dtype == np.int8 and value.ndim == 4 for value in networks.stored(quantized).values()) == 1


@pytest.fixture(scope="module")
def tensors(example_photos: list[Path]) -> Array:
    preprocessor = Preprocessor(zoo.card("open_nsfw").spec.input)
    return np.stack([preprocessor(photo) for photo in example_photos[:24]])


@pytest.fixture(scope="module")
def nsfw(nsfw_model_path: Path) -> Model:
    return Model(nsfw_model_path, "onnx", zoo.card("open_nsfw").spec)


@pytest.fixture(scope="module")
def nsfw_table(nsfw: Model, tensors: Array) -> quantize.Calibration:
    return quantize.calibrate(nsfw, [tensors[:16]], "percentile")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_open_nsfw_keeps_its_scores_in_a_quarter_of_the_size(
    nsfw: Model, nsfw_table: quantize.Calibration, tensors: Array, tmp_path: Path, runtime: str
) -> None:
    target = Target(runtime, "cpu", "int8")
    quantized = quantize.static(nsfw, nsfw_table, tmp_path, StaticOptions.for_target(target))
    judged = tensors[16:]
    difference = np.abs(networks.run(quantized, judged, str(target)) - networks.run(nsfw, judged))
    assert difference.max() < 0.1
    assert difference.mean() < 0.01
    assert quantized.size < nsfw.size / 3.7
    assert quantized.spec == nsfw.spec


def test_open_nsfw_runs_all_convolutions_in_int8(
    nsfw: Model, nsfw_table: quantize.Calibration, tensors: Array, tmp_path: Path
) -> None:
    quantized = quantize.static(nsfw, nsfw_table, tmp_path)
    operators = kernels(quantized, tmp_path, tensors[:1])
    assert operators.count("QLinearConv") == 53
    assert operators.count("QLinearAdd") == 16
    assert operators.count("Split") == 1
    assert not {"Conv", "FusedConv", "Relu", "MaxPool"} & set(
        operators
    )  # MaxPool in NCHW is 30 times slower than NhwcMaxPool.


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_open_nsfw_runs_all_convolutions_in_int8_in_openvino(
    nsfw: Model, nsfw_table: quantize.Calibration, tensors: Array, tmp_path: Path
) -> None:
    quantized = quantize.static(nsfw, nsfw_table, tmp_path, StaticOptions.for_target(Target("openvino", "cpu", "int8")))
    layers = openvino_types(quantized, tensors[:1])
    assert [kind.rpartition("_")[2] for layer, kind in layers if layer == "Convolution"] == ["I8"] * 53
    assert {kind.rpartition("_")[2] for layer, kind in layers if layer in ("MaxPool", "Transpose")} == {"I8"}


def test_options_for_a_target_can_be_changed(model: Model, tmp_path: Path) -> None:
    quantized = quantize_by(
        model, tmp_path, replace(StaticOptions.for_target(Target("openvino", "cpu", "int8")), bias="int32")
    )
    assert any(
        numpy_helper.to_array(tensor).dtype == np.int32 for tensor in onnx.load(quantized.path).graph.initializer
    )
