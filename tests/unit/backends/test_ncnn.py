"""ncnn: weights in fewer bits written by us, tensors found by their values, damaged files said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from helpers.residual_network import pictures, residual
from helpers.toolchain_required import require
from plimsoll import backends, quantize
from plimsoll.backends.base import CalibrationData, ThreadPlan
from plimsoll.backends.ncnn.conversion import convert, ranges_of, table_of
from plimsoll.backends.ncnn.network import NcnnNetwork
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError
from plimsoll.preprocessing import Preprocessor
from plimsoll.zoo import card

pytest.importorskip("ncnn")

Floats = NDArray[np.float32]
NCNN = backends.get("ncnn")
FLOAT = Target("onnxruntime")
PARAM = """7767517
3 3
Input in0 0 1 in0
InnerProduct head 1 1 in0 mid 0=2 1=1 2=6
Softmax soft 1 1 mid out0 0=0 1=1
"""


@pytest.fixture(autouse=True)
def pnnx() -> None:
    require("pnnx")


def answers(model: Model, target: Target, tensors: Floats) -> Floats:
    with Runner.open(model, target, plan=ThreadPlan(1, 1)) as runner:
        return np.asarray(next(iter(runner.infer(tensors).values())), np.float32)


def test_float16_keeps_subnormal_weights(tmp_path: Path) -> None:
    """Weights of 2e-6 are subnormal in float16; pnnx itself flushes them to zero, and the scores with them."""
    model = residual(tmp_path / "net.onnx", small=1e-5)
    target = Target("ncnn", "cpu", "float16")
    built = NCNN.build(model, target, tmp_path)
    tensors = pictures(10)
    np.testing.assert_allclose(answers(built, target, tensors), answers(model, FLOAT, tensors), atol=2e-3)


def test_weights_beyond_float16_stay_float32(tmp_path: Path) -> None:
    model = residual(tmp_path / "net.onnx", small=1e6)
    target = Target("ncnn", "cpu", "float16")
    tensors = pictures(10)
    np.testing.assert_allclose(
        answers(NCNN.build(model, target, tmp_path), target, tensors), answers(model, FLOAT, tensors), atol=2e-3
    )


def test_int8_by_our_ranges(tmp_path: Path) -> None:
    model = residual(tmp_path / "net.onnx")
    ranges = quantize.calibrate(model, [pictures(50)], "minmax").ranges
    target = Target("ncnn", "cpu", "int8")
    built = NCNN.build(model, target, tmp_path, CalibrationData("minmax", pictures(50), ranges))
    text = built.path.read_text()
    assert text.count(" 8=2") == 3, "three convolutions, but not the head"
    assert text.count(" 8=1") == 1, "the depthwise convolution"
    judged = pictures(50, seed=6)
    np.testing.assert_allclose(answers(built, target, judged), answers(model, FLOAT, judged), atol=0.02)


def test_open_nsfw_is_no_worse_than_the_facts(
    tmp_path: Path, nsfw_model_path: Path, example_photos: list[Path]
) -> None:
    model = Model(nsfw_model_path, "onnx", card("open_nsfw").spec)
    preprocessor = Preprocessor(model.require_spec().input)
    tensors = np.stack([preprocessor(photo) for photo in example_photos[:24]])
    expected = answers(model, FLOAT, tensors)
    ranges = quantize.calibrate(model, [tensors[::2]], "percentile").ranges
    for precision, deviation, size in (("float32", 2.6e-5, 23.6e6), ("float16", 1e-3, 11.9e6), ("int8", 0.04, 6.1e6)):
        target = Target("ncnn", "cpu", precision)
        (tmp_path / precision).mkdir()
        built = NCNN.build(model, target, tmp_path / precision, CalibrationData("percentile", tensors, ranges))
        assert built.size < size
        np.testing.assert_allclose(answers(built, target, tensors), expected, atol=deviation)


def test_bytes_are_taken_where_the_network_casts_them(tmp_path: Path) -> None:
    model = residual(tmp_path / "net.onnx")
    proto = onnx.load(model.path)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    proto.graph.node[0].input[0] = "floats"
    proto.graph.node.insert(0, onnx.helper.make_node("Cast", ["picture"], ["floats"], to=onnx.TensorProto.FLOAT))
    onnx.save(proto, model.path)
    bytes_ = np.random.default_rng(2).integers(0, 3, (4, 16, 16, 3)).astype(np.uint8)
    target = Target("ncnn")
    with Runner.open(NCNN.build(model, target, tmp_path), target) as runner, Runner.open(model, FLOAT) as reference:
        assert runner.inputs[0].dtype == "uint8"
        np.testing.assert_allclose(runner.infer(bytes_)["scores"], reference.infer(bytes_)["scores"], atol=1e-5)


def test_a_table_finds_its_tensors_again(tmp_path: Path) -> None:
    model = residual(tmp_path / "net.onnx")
    ranges = quantize.calibrate(model, [pictures(20)], "minmax").ranges
    converted = convert(model, tmp_path)
    table = table_of(converted, ranges, pictures(1))
    again = ranges_of(converted, table)
    assert set(again) == {"picture", "first_relu", "left_relu", "sum_relu"}
    for name, (low, high) in again.items():
        assert high == -low == pytest.approx(max(-ranges[name][0], ranges[name][1]), rel=1e-6)


def test_ranges_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="none of the tensors"):
        NCNN.build(
            residual(tmp_path / "net.onnx"),
            Target("ncnn", "cpu", "int8"),
            tmp_path,
            CalibrationData("minmax", pictures(1), {"other": (0, 1)}),
        )


def test_a_batch_inside_the_network_is_refused(tmp_path: Path) -> None:
    """A Reshape to a fixed batch of three can't be converted for a batch of one."""
    value = onnx.helper.make_tensor_value_info
    shape = onnx.numpy_helper.from_array(np.array([3, 12], np.int64), "shape")
    node = onnx.helper.make_node("Reshape", ["x", "shape"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [3, 3, 4])], [value("y", 1, [3, 12])], [shape])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8),
        tmp_path / "net.onnx",
    )
    with pytest.raises(BuildError):
        NCNN.build(Model(tmp_path / "net.onnx", "onnx"), Target("ncnn"), tmp_path)


def files(folder: Path, text: str = PARAM, numbers: int = 8) -> tuple[Path, Path]:
    (folder / "net.param").write_text(text)
    (folder / "net.bin").write_bytes(bytes(4) + np.arange(numbers, dtype="<f4").tobytes())
    return folder / "net.param", folder / "net.bin"


def test_a_network_is_written_as_it_was_read(tmp_path: Path) -> None:
    read = NcnnNetwork.read(*files(tmp_path))
    read.write(tmp_path / "again.param", tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "net.bin").read_bytes()
    again = NcnnNetwork.read(tmp_path / "again.param", tmp_path / "again.bin")
    assert [(layer.kind, layer.name, layer.inputs, layer.outputs, layer.parameters) for layer in again.layers] == [
        (layer.kind, layer.name, layer.inputs, layer.outputs, layer.parameters) for layer in read.layers
    ]


@pytest.mark.parametrize(
    ("text", "numbers", "message"),
    [
        ("", 8, "7767517"),
        ("7767517\n", 8, "can't be read"),
        (PARAM.replace("2=6", "2=600"), 8, "beyond the file"),
        (PARAM.replace("2=6", "2=-6"), 8, "beyond the file"),
        (PARAM.replace("2=6", "2=six"), 8, "can't be read"),
        (PARAM.replace("InnerProduct", "LSTM"), 8, "LSTM"),
        (PARAM, 9, "4 bytes"),
        (PARAM, 3, "beyond the file"),
    ],
    ids=["empty", "headless", "long", "negative", "text", "unknown", "rest", "short"],
)
def test_a_damaged_network_is_build_failed(tmp_path: Path, text: str, numbers: int, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        NcnnNetwork.read(*files(tmp_path, text, numbers))


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    built = NCNN.build(residual(tmp_path / "net.onnx"), Target("ncnn"), tmp_path)
    with pytest.raises(BuildError, match=r"\.bin"):
        NCNN.load(Model(built.path, "ncnn", files=built.files[1:]), Target("ncnn"), None, ThreadPlan(1, 1))
