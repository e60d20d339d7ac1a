"""The form of an ONNX file is told from its bytes, whoever wrote it, and without importing onnx."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from helpers.contract_networks import network, save
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError
from plimsoll.onnx.form import OnnxForm, form_of, require_form

X, Y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xy")


def graph_of(path: Path, *nodes: onnx.NodeProto, **constants: NDArray[np.generic]) -> Path:
    return save(
        path, list(nodes), [X], [Y], [numpy_helper.from_array(value, name) for name, value in constants.items()]
    ).path


@pytest.mark.parametrize("form", ["float32", "float16", "qdq", "dynamic"])
def test_the_form_of_a_small_network(tmp_path: Path, form: OnnxForm) -> None:
    assert form_of(network(tmp_path / "net.onnx", form=form).path) == form


def test_the_form_of_a_real_network(nsfw_model_path: Path) -> None:
    assert form_of(nsfw_model_path) == "float32"


def test_weights_in_constant_nodes_count(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.ones(2, np.float16))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=value),
        helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT),
    ]
    assert form_of(graph_of(tmp_path / "m.onnx", *nodes)) == "float16"


def test_a_float16_input_counts(tmp_path: Path) -> None:
    half = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", 2]) for name in "xy"]
    assert (
        form_of(save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], half[:1], half[1:], []).path)
        == "float16"
    )


def test_a_ten_that_means_no_type_does_not_count(tmp_path: Path) -> None:
    """10 is float16's number; here it is an axis and a size."""
    node = helper.make_node("LRN", ["x"], ["y"], size=10)
    path = save(
        tmp_path / "m.onnx", [node], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [10, 10, 10, 10])], [Y], []
    ).path
    assert form_of(path) == "float32"


def test_weights_that_are_only_stored_in_int8_compute_in_float32(tmp_path: Path) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("Add", ["x", "w"], ["y"])]
    assert form_of(graph_of(tmp_path / "m.onnx", *nodes, q=np.ones(2, np.int8), s=np.array(1, np.float32))) == "float32"


def test_quantizing_within_a_branch_or_a_function_counts(tmp_path: Path) -> None:
    constants: dict[str, NDArray[np.generic]] = {"s": np.array(1, np.float32), "z": np.array(0, np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    branch = helper.make_graph(nodes, "branch", [], [Y])
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    assert form_of(graph_of(tmp_path / "branch.onnx", chosen, **constants, c=np.array(True))) == "qdq"
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Round", ["x", "s", "z"], ["y"], nodes, opsets)
    call = helper.make_node("Round", ["x", "s", "z"], ["y"], domain="own")
    graph = helper.make_graph(
        [call], "g", [X], [Y], [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function]), tmp_path / "function.onnx")
    assert form_of(tmp_path / "function.onnx") == "qdq"


def test_what_does_not_fit_is_reported_with_what_to_do(tmp_path: Path) -> None:
    model = network(tmp_path / "net.onnx", form="qdq")
    with pytest.raises(
        BuildError, match=r"net\.onnx: onnxruntime:cpu:float32 needs .*; this one has QuantizeLinear"
    ) as caught:
        require_form(model, Target("onnxruntime"), "float32")
    assert "onnxruntime:cpu:int8" in caught.value.hint
    with pytest.raises(BuildError, match="one is tflite"):
        require_form(Model(model.path, "tflite"), Target("onnxruntime"), "float32")


def test_no_damage_gets_through_as_another_error(tmp_path: Path) -> None:
    whole = network(tmp_path / "net.onnx", form="qdq").path.read_bytes()
    file = tmp_path / "damaged.onnx"
    chance = random.Random(0)
    answers: set[str] = set()
    for index in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[index] = chance.randrange(256)
        for content in (bytes(damaged), whole[:index]):
            file.write_bytes(content)
            try:
                answers.add(form_of(file))
            except BuildError as error:
                answers.add(error.message.partition(":")[0])
    assert answers - {"float32", "float16", "dynamic"} == {"qdq", str(file)}


def wrapped(field: int, content: bytes) -> bytes:
    """A protobuf field that holds these bytes, its length in three of seven bits each."""
    size = len(content)
    return bytes([field << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content


@pytest.mark.parametrize("kind", ["missing", "folder", "endless"])
def test_what_is_not_a_file_or_has_no_end_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.onnx"
    if kind == "folder":
        path.mkdir()
    if kind == "endless":
        content = b""
        for _ in range(200):  # graph { node { attribute { g: graph …
            for field in (1, 5, 6):
                content = wrapped(field, content)
        path.write_bytes(wrapped(7, content))
    with pytest.raises(BuildError, match=r"m\.onnx: can't be read"):
        form_of(path)


def test_it_needs_no_onnx(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx").path
    code = (
        f"import sys; from pathlib import Path; from plimsoll.onnx.form import form_of; form_of(Path({str(path)!r}));"
        " assert 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
