"""Reading ONNX files, fitting a Spec to them, raising the opset, inferring shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from plimsoll import zoo
from plimsoll.core.model import Model
from plimsoll.errors import BuildError, ModelError, SpecError
from plimsoll.importers import read
from plimsoll.importers.onnx import IMPORTER
from plimsoll.onnx.load import infer_shapes, shape_of
from plimsoll.onnx.normal_form import original
from plimsoll.onnx.opset import raise_opset
from plimsoll.spec import Spec

onnxruntime.set_default_logger_severity(4)
WHITE = np.random.default_rng(7).random((2, 3, 4, 5), np.float32)


def save(
    path: Path,
    nodes: Sequence[Any],
    *,
    opset: int = 12,
    stored: Sequence[Any] = (),
    takes: Sequence[Any] = ("N", 3, 4, 5),
    gives: Sequence[Any] = ("N", "C", "H", "W"),
    more_inputs: Sequence[str] = (),
) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(takes)) for name in ("x", *more_inputs)]
    graph = helper.make_graph(
        list(nodes), "g", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(gives))], list(stored)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def run(path: Path, x: NDArray[np.float32], name: str = "x") -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {name: x})[0])


def spec(
    *,
    layout: str | None = None,
    dtype: str | None = None,
    size: int | None = 224,
    labels: Sequence[str] = ("cat", "dog"),
    **tensors: str,
) -> Spec:
    steps: list[dict[str, Any]] = [{"step": "decode"}]
    steps += [{"step": "resize", "width": size, "height": size}] if size else []
    steps += [{"step": "layout", "order": layout}] if layout else []
    steps += [{"step": "dtype", "to": dtype}] if dtype else []
    picture = {"steps": steps} | ({"tensor": tensors["input"]} if "input" in tensors else {})
    answer = {"task": "classify", "labels": list(labels)} | (
        {"tensor": tensors["output"]} if "output" in tensors else {}
    )
    return Spec.model_validate({"name": "pets", "input": picture, "output": answer})


def classifier(path: Path, *, takes: Sequence[Any] = ("N", 3, 224, 224), labels: int = 2) -> Path:
    weights = numpy_helper.from_array(np.ones((3, labels), np.float32), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    return save(path, nodes, stored=[weights], takes=takes, gives=("N", labels))


# --- reading -----------------------------------------------------------------------------------------------


def test_a_trained_network_is_read_with_its_spec(nsfw_model_path: Path) -> None:
    contract = zoo.card("open_nsfw").spec
    model = read(nsfw_model_path, contract)
    assert model.parent == Model(nsfw_model_path, "onnx", contract)
    assert (model.spec, model.path.name, model.files) == (contract, nsfw_model_path.name, ())
    assert IMPORTER.suffixes == (".onnx",)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.unlink(missing_ok=True), "No such file"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: path.write_bytes(b"<html>404</html>"), "not an ONNX file"),
    ],
    ids=["missing", "folder", "empty", "not protobuf"],
)
def test_what_is_not_a_model_is_refused_in_words(tmp_path: Path, make: Any, says: str) -> None:
    path = tmp_path / "m.onnx"
    make(path)
    with pytest.raises(ModelError, match=says) as caught:
        read(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_graph_that_cannot_be_computed_is_refused_with_the_checkers_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not a valid ONNX model: .*topologically sorted") as caught:
        read(save(tmp_path / "m.onnx", [helper.make_node("Relu", ["nowhere"], ["y"])]))
    assert "\n" not in caught.value.message
    weights = numpy_helper.from_array(np.ones((4, 99, 3, 3), np.float32), "w")
    with pytest.raises(ModelError, match=r"not a valid ONNX model: .*Transpose"):  # Only the full check sees this one.
        read(save(tmp_path / "m.onnx", [helper.make_node("Transpose", ["w"], ["y"], perm=[0, 1])], stored=[weights]))


def test_external_weights_belong_to_the_model(tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx")
    proto = onnx.load(path)
    onnx.save_model(
        proto, path, save_as_external_data=True, all_tensors_to_one_file=True, location="deep.bin", size_threshold=0
    )
    model = original(read(path))
    assert model.files == (tmp_path / "deep.bin",)
    assert model.size == path.stat().st_size + 3 * 2 * 4


# --- fitting a Spec ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contract", "takes"),
    [
        (spec(layout="NCHW", dtype="float32"), ("N", 3, 224, 224)),
        (spec(layout="NCHW", dtype="float32", input="x", output="y"), (1, 3, "H", "W")),
        (spec(layout="NCHW", dtype="float32", size=None), ("N", 3, 224, 224)),
    ],
    ids=["equal", "free sides in the model", "free sides in the Spec"],
)
def test_a_fitting_spec_is_accepted(tmp_path: Path, contract: Spec, takes: Sequence[Any]) -> None:
    assert read(classifier(tmp_path / "m.onnx", takes=takes), contract).spec == contract


@pytest.mark.parametrize(
    ("contract", "says", "hint"),
    [
        (
            spec(dtype="float32"),
            "the input steps make float32 [224, 224, 3], the network's input 'x' takes float32 [N, 3, 224, 224]",
            "Add a layout step with order = 'NCHW'",
        ),
        (
            spec(layout="NCHW"),
            "the input steps make uint8 [3, 224, 224], the network's input 'x' takes float32 [N, 3, 224, 224]",
            "dtype step with to = 'float32'",
        ),
        (spec(layout="NCHW", dtype="float32", size=256), "[3, 256, 256]", "Set the sizes of the resize"),
        (
            spec(layout="NCHW", dtype="float32", input="pixels"),
            "the Spec's input is 'pixels'; the network's inputs are: 'x'",
            "Correct `tensor` under [input]",
        ),
        (
            spec(layout="NCHW", dtype="float32", output="prob"),
            "the Spec's output is 'prob'; the network's outputs are: 'y'",
            "Correct `tensor` under [output]",
        ),
        (
            spec(layout="NCHW", dtype="float32", labels=("a", "b", "c")),
            "3 labels, the network's output 'y' gives float32 [N, 2]",
            "Give 2 labels",
        ),
    ],
    ids=["layout", "dtype", "size", "input name", "output name", "labels"],
)
def test_a_spec_for_another_network_is_refused(tmp_path: Path, contract: Spec, says: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(classifier(tmp_path / "m.onnx"), contract)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_an_input_that_is_not_a_picture_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], takes=("N", 2), gives=("N", 2))
    with pytest.raises(SpecError, match=r"takes float32 \[N, 2\]") as caught:
        read(path, spec(dtype="float32"))
    assert "networks that take pictures" in caught.value.hint


def test_several_inputs_need_a_name_and_stored_ones_do_not_count(tmp_path: Path) -> None:
    add = [helper.make_node("Add", ["x", "z"], ["y"])]
    shape = (1, 3, 4, 5)
    with pytest.raises(SpecError, match="the network has 2 inputs \\('x', 'z'\\)"):
        read(save(tmp_path / "m.onnx", add, takes=shape, gives=shape, more_inputs=["z"]), spec(size=None))
    stored = numpy_helper.from_array(np.zeros(shape, np.float32), "z")
    path = save(tmp_path / "m.onnx", add, takes=shape, gives=shape, more_inputs=["z"], stored=[stored])
    with pytest.raises(
        SpecError, match="the network's input 'x' takes"
    ):  # So the only input to feed was found without a name.
        read(path, spec(size=None))


# --- raising the opset -------------------------------------------------------------------------------------


def test_a_trained_network_computes_the_same_at_opset_13(nsfw_model_path: Path, tmp_path: Path) -> None:
    model = Model(nsfw_model_path, "onnx", zoo.card("open_nsfw").spec)
    raised = raise_opset(model, tmp_path)
    assert (raised.parent, raised.spec, raised.format, raised.path.parent) == (model, model.spec, "onnx", tmp_path)
    proto = onnx.load(raised.path)
    assert [(tensor.domain, tensor.version) for tensor in proto.opset_import] == [("", 13)]
    pictures = np.random.default_rng(3).uniform(-123, 151, (4, 224, 224, 3)).astype(np.float32)
    before, after = run(model.path, pictures, "input:0"), run(raised.path, pictures, "input:0")
    assert np.ptp(before) > 0.5
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)
    assert raise_opset(raised, tmp_path) is raised


SCALES = {
    scale: [numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "s")] for scale in (0.5, 1.5, 2.0)
}  # fmt: skip


@pytest.mark.parametrize(
    ("opset", "nodes", "stored"),
    [
        (11, [helper.make_node("Softmax", ["x"], ["y"], axis=1)], []),
        (9, [helper.make_node("LogSoftmax", ["x"], ["y"], axis=2)], []),
        (12, [helper.make_node("Hardmax", ["x"], ["y"], axis=1)], []),
        (
            12,
            [
                helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3]),
                helper.make_node("Softmax", ["m"], ["y"], axis=1),
            ],
            [],
        ),
        (9, [helper.make_node("Upsample", ["x", "s"], ["y"], mode="linear")], SCALES[2.0]),
        (9, [helper.make_node("Upsample", ["x", "s"], ["y"], mode="nearest")], SCALES[1.5]),
        (10, [helper.make_node("Resize", ["x", "s"], ["y"], mode="linear")], SCALES[0.5]),
        (10, [helper.make_node("Resize", ["x", "s"], ["y"], mode="nearest")], SCALES[1.5]),
        (9, [helper.make_node("Clip", ["x"], ["y"], min=0.25, max=0.5)], []),
        (9, [helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 0, 0, 0, 0, 2], value=2.0)], []),
        (11, [helper.make_node("ReduceSum", ["x"], ["r"], axes=[2]), helper.make_node("Softmax", ["r"], ["y"])], []),
    ],
    ids=[
        "softmax",
        "log softmax",
        "hardmax",
        "softmax of pooled values",
        "upsample linear",
        "upsample nearest",
        "resize linear",
        "resize nearest",
        "clip",
        "pad",
        "sum",
    ],
)
def test_what_changed_its_meaning_between_opsets_keeps_it(
    tmp_path: Path, opset: int, nodes: Sequence[Any], stored: Sequence[Any]
) -> None:
    model = Model(save(tmp_path / "m.onnx", nodes, opset=opset, stored=stored), "onnx")
    raised = raise_opset(model, tmp_path)
    np.testing.assert_allclose(run(raised.path, WHITE), run(model.path, WHITE), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("opset", "node", "stored"),
    [
        (10, helper.make_node("Resize", ["x", "s"], ["y"], mode="nearest", name="pick"), SCALES[0.5]),
    ],
    ids=["resize"],
)
def test_what_the_converter_would_change_is_refused_by_name(
    tmp_path: Path, opset: int, node: Any, stored: Sequence[Any]
) -> None:
    model = Model(save(tmp_path / "m.onnx", [node], opset=opset, stored=stored), "onnx")
    with pytest.raises(BuildError, match=f"would change what {node.op_type} \\('pick'\\) computes"):
        raise_opset(model, tmp_path)
    assert list(tmp_path.iterdir()) == [model.path]


def test_what_the_converter_cannot_do_names_the_operator(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Softmax", ["r"], ["y"])]
    model = Model(save(tmp_path / "m.onnx", nodes), "onnx")
    with pytest.raises(BuildError, match="opset from 12 to 99") as caught:
        raise_opset(model, tmp_path, 99)
    assert "Export the model again with opset 99" in caught.value.hint
    # The reference for an operator that later opsets no longer have.
    model = Model(
        save(tmp_path / "m.onnx", [helper.make_node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0])], opset=7),
        "onnx",
    )
    proto = onnx.load(raise_opset(model, tmp_path).path)
    assert "Resize" in {node.op_type for node in proto.graph.node}


def test_functions_and_external_weights_come_along(tmp_path: Path) -> None:
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 12)]
    )
    weights = numpy_helper.from_array(np.full((3, 1, 1), 5, np.float32), "w")
    nodes = [helper.make_node("Twice", ["x"], ["t"], domain="own"), helper.make_node("Mul", ["t", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, stored=[weights])
    proto = onnx.load(path)
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save_model(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = original(read(path))
    assert model.files == (tmp_path / "w.bin",)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    raised = raise_opset(model, folder)
    assert raised.files == ()
    np.testing.assert_array_equal(run(raised.path, WHITE), WHITE * 10)


# --- inferring shapes --------------------------------------------------------------------------------------


def test_shapes_of_a_trained_network_are_all_known_for_one_picture(nsfw_model_path: Path) -> None:
    graph = infer_shapes(read(nsfw_model_path), batch=1).graph
    shapes = {tensor.name: shape_of(tensor) for tensor in (*graph.input, *graph.value_info, *graph.output)}
    assert len(shapes) == len(graph.node) + 1
    assert all(isinstance(size, int) for shape in shapes.values() for size in shape or (None,))
    assert (shapes["input:0"], shapes["pool/AvgPool:0"], shapes["outputs"]) == (
        (1, 224, 224, 3),
        (1, 1024, 1, 1),
        (1, 2),
    )


def test_without_a_batch_the_first_axis_stays_free(tmp_path: Path) -> None:
    model = read(classifier(tmp_path / "m.onnx"))
    assert shape_of(infer_shapes(model).graph.value_info[0]) == ("N", 3, 1, 1)
    assert shape_of(infer_shapes(model, batch=8).graph.value_info[0]) == (8, 3, 1, 1)


def test_free_sides_take_the_specs_size(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("GlobalMaxPool", ["r"], ["y"])],
        takes=("N", 3, "H", "W"),
    )
    contract = spec(layout="NCHW", dtype="float32").model_copy(
        update={"output": Spec.model_validate(_tensor_task()).output}
    )
    assert shape_of(infer_shapes(read(path, contract), batch=1).graph.value_info[0]) == (1, 3, 224, 224)
    assert shape_of(infer_shapes(read(path), batch=1).graph.value_info[0]) == (1, 3, "H", "W")


def _tensor_task() -> dict[str, Any]:
    return {"name": "t", "input": {"steps": [{"step": "decode"}]}, "output": {"task": "tensor"}}
