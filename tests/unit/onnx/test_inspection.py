"""What `inspect` finds, against counts made independently."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from plimsoll.core.model import Model
from plimsoll.errors import ModelError
from plimsoll.importers import read
from plimsoll.onnx.inspection import Inspection, inspect
from plimsoll.onnx.load import Value


def weights(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


DOUBLE = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")


def look(
    path: Path,
    nodes: Sequence[Any],
    stored: Sequence[Any] = (),
    takes: Sequence[Any] = ("N", 3, 32, 32),
    gives: int = 4,
    opset: int = 17,
) -> Inspection:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d"][:gives])
    graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(takes))], [output], list(stored)
    )
    domains = {"", *(node.domain for node in nodes)}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, opset if not domain else 1) for domain in sorted(domains)],
        ir_version=8,
    )
    path.write_bytes(model.SerializeToString())
    return inspect(read(path))


def test_a_trained_network(nsfw_model_path: Path) -> None:
    actual = inspect(read(nsfw_model_path))
    assert actual.inputs == (Value("input:0", "float32", ("unk__653", 224, 224, 3)),)
    assert actual.outputs == (Value("outputs", "float32", ("unk__654", 2)),)
    assert (actual.opsets, actual.ir_version, actual.producer) == ({"ai.onnx": 9}, 4, "tf2onnx 1.8.4")
    assert list(actual.operators.items())[:3] == [("Conv", 53), ("Relu", 49), ("Add", 17)]
    assert actual.bytes == nsfw_model_path.stat().st_size
    assert actual.uncounted == {}


def test_the_arithmetic_of_a_trained_network_by_running_it(nsfw_model_path: Path) -> None:
    """Count products from the sizes that the activations really have when it runs, and the weights as they are
    stored."""
    proto = onnx.load(nsfw_model_path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    products = [node for node in proto.graph.node if node.op_type in {"Conv", "MatMul"}]
    proto.graph.output.extend(
        helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in products
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = dict(
        zip(
            [tensor.name for tensor in session.get_outputs()],
            session.run(None, {"input:0": np.zeros((1, 224, 224, 3), np.float32)}),
            strict=True,
        )
    )
    # Each weight of a convolution is used once for each place of its output map; each of a matrix product once.
    macs = sum(
        stored[node.input[1]].size * (math.prod(outputs[node.output[0]].shape[2:]) if node.op_type == "Conv" else 1)
        for node in products
    )
    actual = inspect(read(nsfw_model_path))
    assert actual.macs == macs
    assert macs == pytest.approx(1.07e9, rel=0.01)
    assert 2.0 * macs < actual.flops < 2.02 * macs
    assert actual.parameters == sum(weight.size for weight in stored.values())
    assert actual.parameter_bytes == {
        "float32": sum(weight.nbytes for weight in stored.values() if weight.dtype == np.float32),
        "int64": 48,
    }


def test_a_small_network_by_hand(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["c2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["l"], transB=1),
        helper.make_node("Softmax", ["l"], ["y"]),
    ]
    stored = [
        weights("w1", 8, 3, 3, 3),
        weights("b1", 8),
        weights("w2", 8, 1, 3, 3),
        weights("w3", 10, 8),
        weights("b3", 10),
    ]
    actual = look(tmp_path / "m.onnx", nodes, stored, gives=2)
    conv1 = 16 * 16 * 8 * (3 * 3 * 3)
    depthwise = 16 * 16 * 8 * (3 * 3)
    gemm = 10 * 8
    assert actual.macs == conv1 + depthwise + gemm
    simple = (
        (16 * 16 * 8) + (16 * 16 * 8) + (8 * 8 * 8 * 4) + (8 * 8 * 8) + 10 + 5 * 10
    )  # bias, ReLU, max, mean, bias, softmax
    assert actual.flops == 2 * actual.macs + simple
    assert actual.parameters == 8 * 27 + 8 + 8 * 9 + 80 + 10
    assert actual.uncounted == {}


@pytest.mark.parametrize(
    ("nodes", "stored", "macs", "others"),
    [
        ([helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], [weights("w", 3, 5, 2, 2)],
            32 * 32 * 3 * 5 * 4, 0),
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights("w", 32, 7)], 3 * 32 * 32 * 7, 0),
        ([helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")], [DOUBLE], 0, 0),
        ([helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear")], [DOUBLE], 0, 3 * 64 * 64 * 8),
        ([helper.make_node("BatchNormalization", ["x", "w", "w", "w", "w"], ["y"])], [weights("w", 3)], 0,
            2 * 3 * 32 * 32),
    ],
    ids=["ConvTranspose", "MatMul", "nearest", "linear", "BatchNormalization"],
)  # fmt: skip
def test_each_kind_of_arithmetic(
    tmp_path: Path, nodes: Sequence[Any], stored: Sequence[Any], macs: int, others: int
) -> None:
    actual = look(tmp_path / "m.onnx", nodes, stored)
    assert (actual.macs, actual.flops, actual.uncounted) == (macs, 2 * macs + others, {})


def test_what_cannot_be_counted_is_listed_and_never_silently_nothing(tmp_path: Path) -> None:
    actual = look(
        tmp_path / "m.onnx", [helper.make_node("LRN", ["x"], ["l"], size=3), helper.make_node("Relu", ["l"], ["y"])]
    )
    assert actual.uncounted == {"LRN": 1}
    assert actual.flops == 3 * 32 * 32
    free = look(
        tmp_path / "m.onnx",
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        [weights("w", 4, 3, 3, 3)],
        takes=("N", 3, "H", "W"),
    )
    assert (free.macs, free.flops, free.uncounted) == (0, 0, {"Conv": 1, "Relu": 1})
    own = look(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"], domain="com.example")])
    assert own.uncounted == own.operators == {"com.example.Relu": 1}


def test_the_arithmetic_inside_functions_is_counted(tmp_path: Path) -> None:
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    look(tmp_path / "m.onnx", [helper.make_node("Twice", ["x"], ["y"], domain="own")])
    proto = onnx.load(tmp_path / "m.onnx")
    proto.functions.append(function)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    actual = inspect(read(tmp_path / "m.onnx"))
    assert (actual.flops, actual.uncounted) == (3 * 32 * 32, {})


def test_parameters_of_narrow_dtypes_and_constants_are_counted(tmp_path: Path) -> None:
    four_bits = helper.make_tensor("q", TensorProto.INT4, [5], [1, 2, 3, 4, 5])
    constant = helper.make_node("Constant", [], ["k"], value=weights("k", 3, 1, 1))
    actual = look(tmp_path / "m.onnx", [constant, helper.make_node("Mul", ["x", "k"], ["y"])], [four_bits], opset=21)
    assert actual.parameter_counts == {"int4": 5, "float32": 3}
    assert actual.parameter_bytes == {"float32": 12, "int4": 3}
    assert actual.parameters == 8


def test_external_files_and_json(tmp_path: Path) -> None:
    look(tmp_path / "m.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], [weights("w", 4, 3, 3, 3)])
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.save_model(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    actual = inspect(read(tmp_path / "m.onnx"))
    assert actual.external_files == ("w.bin",)
    assert actual.bytes == (tmp_path / "m.onnx").stat().st_size + 4 * 27 * 4
    assert actual.macs == 30 * 30 * 4 * 27
    plain = json.loads(json.dumps(actual.to_dict()))
    assert plain["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 3, 32, 32]}]
    assert plain["operators"] == {"Conv": 1}


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this one is tflite"):
        inspect(Model(tmp_path / "m.tflite", "tflite"))
