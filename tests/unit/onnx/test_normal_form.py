"""The normal form of ONNX: whatever way a network is written, it comes out in one way and computes the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from plimsoll.core.deviation import deviation
from plimsoll.errors import ModelError
from plimsoll.importers import read
from plimsoll.onnx import load, normal_form, padding, structure
from plimsoll.onnx.normal_form import original
from plimsoll.spec.files import loads

SIDE = 12
Nodes = list[Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test writes its forms into a cache of its own."""
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path_factory.mktemp("cache")))


def tensor(name: str, *shape: int, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.random.default_rng(len(name)).normal(0, 0.4, shape).astype(dtype), name)


def numbers(name: str, values: Sequence[Any] | float, dtype: Any = np.int64) -> Any:
    return numpy_helper.from_array(np.array(values, dtype), name)


def model(nodes: Sequence[Any], stored: Sequence[Any] = (), opset: int = 13, **more: Any) -> ModelProto:
    """A network from `x` [N, 3, 12, 12] to `y`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    inferred = helper.make_model(
        helper.make_graph(list(nodes), "g", inputs, [helper.make_empty_tensor_value_info("y")], list(stored)),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    shapes = onnx.shape_inference.infer_shapes(inferred).graph.output[0]
    outputs = [shapes if shapes.type.tensor_type.HasField("shape") else outputs[0]]
    if not outputs[0].type.tensor_type.HasField("shape"):
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * int(more.pop("rank", 4)))]
    more.pop("rank", None)
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(stored))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=more.pop("ir", 7))


def answers(path: Path) -> list[NDArray[Any]]:
    settings_ = onnxruntime.SessionOptions()
    settings_.log_severity_level = 4
    settings_.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), settings_, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {"x": PICTURE})]


PICTURE = np.random.default_rng(7).uniform(-1, 1, (3, 3, SIDE, SIDE)).astype(np.float32)


def normalized(path: Path, proto: ModelProto, truth: list[NDArray[Any]] | None = None) -> ModelProto:
    """Read a network, require that its normal form answers as the file does (or `truth`), and return it."""
    path.write_bytes(proto.SerializeToString())
    result = read(path)
    for before, after in zip(truth or answers(path), answers(result.path), strict=True):
        assert deviation(before, after).snr_db > 100
    form = onnx.load(result.path)
    onnx.checker.check_model(form, full_check=True)
    assert [value.name for value in form.graph.input] == ["x"]
    assert all(structure.is_sorted(graph) for graph in structure.graphs(form))
    assert not form.functions
    assert "Constant" not in {node.op_type for node in load.messages(form, "NodeProto")}
    assert load.opset(form) >= 13
    again = read(result.path)
    assert again is result or again.path == result.path  # A normal form's normal form is itself.
    return form


# --- layers, as (nodes, stored tensors) that take `a` and make `b` ------------------------------------------

Layer = Callable[[str, str, int], tuple[Nodes, list[Any]]]


def conv(padding: str, stride: int, kernel: int, dilation: int = 1) -> Layer:
    def layer(a: str, b: str, _: int) -> tuple[Nodes, list[Any]]:
        how = {"strides": [stride] * 2, "dilations": [dilation] * 2, "auto_pad": padding}
        return [helper.make_node("Conv", [a, f"{b}w"], [b], **how)], [tensor(f"{b}w", 3, 3, kernel, kernel)]

    return layer


def pool(kind: str, padding: str, stride: int, kernel: int) -> Layer:
    def layer(a: str, b: str, _: int) -> tuple[Nodes, list[Any]]:
        return [helper.make_node(kind, [a], [b], kernel_shape=[kernel] * 2, strides=[stride] * 2, auto_pad=padding)], []

    return layer


def transposed(**how: Any) -> Layer:
    def layer(a: str, b: str, _: int) -> tuple[Nodes, list[Any]]:
        return [helper.make_node("ConvTranspose", [a, f"{b}w"], [b], **how)], [tensor(f"{b}w", 3, 3, 3, 3)]

    return layer


def plain(kind: str, **how: Any) -> Layer:
    return lambda a, b, _: ([helper.make_node(kind, [a], [b], **how)], [])


def clip(a: str, b: str, opset: int) -> tuple[Nodes, list[Any]]:
    if opset < 11:
        return [helper.make_node("Clip", [a], [b], min=-0.5, max=0.75)], []
    bounds = [numbers(f"{b}min", -0.5, np.float32), numbers(f"{b}max", 0.75, np.float32)]
    return [helper.make_node("Clip", [a, f"{b}min", f"{b}max"], [b])], bounds


def computed_weight(a: str, b: str, _: int) -> tuple[Nodes, list[Any]]:
    nodes = [
        helper.make_node("Transpose", [f"{b}w"], [f"{b}t"], perm=[1, 0, 2, 3]),
        helper.make_node("Mul", [f"{b}t", f"{b}s"], [f"{b}m"]),
        helper.make_node("Conv", [a, f"{b}m"], [b]),
    ]
    return nodes, [tensor(f"{b}w", 3, 3, 1, 1), tensor(f"{b}s", 1)]


def half_weight(a: str, b: str, _: int) -> tuple[Nodes, list[Any]]:
    nodes = [helper.make_node("Cast", [f"{b}h"], [f"{b}f"], to=1), helper.make_node("Conv", [a, f"{b}f"], [b])]
    return nodes, [tensor(f"{b}h", 3, 3, 3, 3, dtype=np.float16)]


LAYERS: list[Layer] = [
    *(conv(padding, stride, kernel) for padding in ("SAME_UPPER", "SAME_LOWER") for stride, kernel in ((2, 4), (3, 2))),
    conv("VALID", 1, 2),
    *(pool("MaxPool", padding, 2, 3) for padding in ("SAME_UPPER", "SAME_LOWER")),
    pool("AveragePool", "SAME_LOWER", 2, 2),
    transposed(auto_pad="SAME_UPPER", strides=[2, 2]),
    transposed(output_shape=[23, 24], strides=[2, 2]),
    plain("Relu"),
    plain("Identity"),
    plain("Dropout"),
    plain("Cast", to=1),
    plain("Softmax", axis=1),
    plain("LogSoftmax", axis=2),
    plain("Hardmax", axis=1),
    clip,
    computed_weight,
    half_weight,
]


# --- ways to write the same network -------------------------------------------------------------------------


def shuffled(proto: ModelProto, _: Path) -> None:
    nodes = [structure.copy_of(node) for node in proto.graph.node]
    random.Random(len(nodes)).shuffle(nodes)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def listed(proto: ModelProto, _: Path) -> None:
    proto.ir_version = 3
    for stored in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(stored.name, stored.data_type, list(stored.dims)))


def as_constants(proto: ModelProto, _: Path) -> None:
    nodes = [helper.make_node("Constant", [], [stored.name], value=stored) for stored in proto.graph.initializer]
    nodes += [structure.copy_of(node) for node in proto.graph.node]
    del proto.graph.initializer[:]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def outside(proto: ModelProto, folder: Path) -> None:
    onnx.external_data_helper.convert_model_to_external_data(proto, location="w.bin", size_threshold=0)
    onnx.external_data_helper.write_external_data_tensors(proto, str(folder))


def stale(proto: ModelProto, _: Path) -> None:
    for node in proto.graph.node[:-1]:
        proto.graph.value_info.append(helper.make_tensor_value_info(node.output[0], 1, ["N", 5, 7]))


def in_a_function(proto: ModelProto, _: Path) -> None:
    """The last node becomes a local function."""
    last = structure.copy_of(proto.graph.node[-1])
    call = helper.make_node("Last", [name for name in last.input if name], [last.output[0]], domain="own")
    function = helper.make_function("own", "Last", list(call.input), list(call.output), [last], proto.opset_import)
    proto.graph.node.pop()
    proto.graph.node.append(call)
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.ir_version = 8


def untyped(proto: ModelProto, _: Path) -> None:
    proto.graph.output[0].ClearField("type")


WAYS: list[Callable[[ModelProto, Path], None]] = [
    *(shuffled, listed, as_constants, outside, stale, in_a_function, untyped)
]


@settings(max_examples=25)
@given(
    layers=st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4),
    opset=st.sampled_from([9, 11, 12, 13, 17]),
    way=st.sampled_from(WAYS),
)
def test_every_way_to_write_a_network_comes_out_in_one(
    tmp_path_factory: pytest.TempPathFactory, layers: list[Layer], opset: int, way: Callable[[ModelProto, Path], None]
) -> None:
    folder = tmp_path_factory.mktemp("network")
    nodes: Nodes = []
    stored: list[Any] = []
    value = "x"
    for index, layer in enumerate(layers):
        result = "y" if index == len(layers) - 1 else f"v{index}"
        more, tensors = layer(value, result, opset)
        nodes, stored, value = nodes + more, stored + tensors, result
    proto = model(nodes, stored, opset)
    plain = folder / "plain.onnx"
    plain.write_bytes(proto.SerializeToString())
    try:
        truth = answers(plain)
    except Exception:  # noqa: BLE001 - layers that don't fit one another
        assume(False)
    way(proto, folder)
    normalized(folder / "m.onnx", proto, truth)


LEAST = float(np.finfo(np.float32).min)
ROUND = [0, 0, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("pads", "value", "turned", "pool", "stays"),
    [
        (ROUND, -np.inf, True, {"strides": [2, 2]}, False),
        ([0, 0, 0, 1, 0, 0, 2, 1], LEAST, False, {"pads": [1, 0, 0, 1]}, False),
        (ROUND, 0.0, False, {}, True),
        (ROUND, np.inf, False, {}, True),
        ([0, 0, 3, 1, 0, 0, 1, 1], -np.inf, False, {}, True),
        ([0, 1, 1, 1, 0, 0, 1, 1], -np.inf, False, {}, True),
        (ROUND, -np.inf, False, {"ceil_mode": 1}, True),
    ],
)
def test_a_maximum_pads_with_minus_infinity_by_itself(
    tmp_path: Path, pads: list[int], value: float, turned: bool, pool: dict[str, Any], stays: bool
) -> None:
    turns = [
        helper.make_node("Transpose", ["padded"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["last"], ["first"], perm=[0, 3, 1, 2]),
    ]
    nodes = [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("Pad", ["size", "pads", "value"], ["padded"]),
        *(turns if turned else ()),
        helper.make_node("MaxPool", ["first" if turned else "padded"], ["y"], kernel_shape=[3, 3], **pool),
    ]
    proto = model(nodes, [numbers("pads", pads), numbers("value", value, np.float32)])
    file = tmp_path / "m.onnx"
    file.write_bytes(proto.SerializeToString())
    before = answers(file)
    form = read(file).path
    kinds = [node.op_type for node in onnx.load(form).graph.node]
    assert ("Pad" in kinds) == stays
    assert stays or kinds == ["Abs", "MaxPool"]
    for answer, expected in zip(answers(form), before, strict=True):
        np.testing.assert_array_equal(answer, expected)


def test_a_maximum_that_says_where_it_lies_keeps_its_padding() -> None:
    """Places are counted with the padding."""
    nodes = [
        helper.make_node("Pad", ["x", "pads", "value"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["largest", "y"], kernel_shape=[3, 3]),
    ]
    stored = [numbers("pads", ROUND), numbers("value", -np.inf, np.float32)]
    assert padding.infinite_pads(model(nodes, stored)) == {}
    del nodes[1].output[1]
    nodes[1].output[0] = "y"
    assert padding.infinite_pads(model(nodes, stored)) == {"y": ("x", [1, 1, 1, 1])}


def test_the_group_normalization_that_onnx_withdrew_is_written_out(tmp_path: Path) -> None:
    stored = [numbers("scale", [0.5, 2, 1], np.float32), numbers("bias", [0.1, 0, -3], np.float32)]
    node = helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=3, epsilon=1e-3)
    form = normalized(tmp_path / "m.onnx", model([node], stored, 18, ir=8))
    assert "GroupNormalization" not in {node.op_type for node in form.graph.node}


def test_operators_of_onnx_runtime_s_own_need_no_written_output_type(tmp_path: Path) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], opset=17)
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Gelu", "com.microsoft"
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    untyped(proto, tmp_path)
    assert load.dtype_of(normalized(tmp_path / "m.onnx", proto).graph.output[0]) == "float32"


def test_equal_files_of_other_names_both_have_their_form(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["i"]), helper.make_node("Add", ["i", "w"], ["y"])]
    proto = model(nodes, [tensor("w", 3, 12, 12)])
    for name in ("first.onnx", "second.onnx"):
        (tmp_path / name).write_bytes(proto.SerializeToString())
        assert read(tmp_path / name).path.is_file()


def test_a_form_of_which_only_the_folder_is_left_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(
        model([helper.make_node("Identity", ["x"], ["i"]), helper.make_node("Relu", ["i"], ["y"])]).SerializeToString()
    )
    form = read(path).path
    assert form != path
    form.unlink()
    assert read(path).path.is_file()


def kinds(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def test_a_constant_of_absurd_size_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, [numbers("size", [10**6, 10**6])]).SerializeToString())
    with pytest.raises(ModelError, match="makes a constant of 4,000,000,000,000 bytes"):
        read(path)
    # A merely large one stays as it is: the file must not grow a thousandfold.
    path.write_bytes(model(nodes, [numbers("size", [3000, 3000])]).SerializeToString())
    form = onnx.load(read(path).path)
    assert "ConstantOfShape" in kinds(form)
    assert form.ByteSize() < 2000


def test_a_branch_that_is_always_taken_replaces_its_condition(tmp_path: Path) -> None:
    out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    weight = numbers("w", 2.0, np.float32)
    taken = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["r"])], "taken", [], out, [weight])
    other = [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    never = helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "never", [], other)
    nodes = [
        helper.make_node("Shape", ["w3"], ["size"]),
        helper.make_node("Equal", ["size", "three"], ["condition"]),
        helper.make_node("Squeeze", ["condition"], ["single"]),
        helper.make_node("If", ["single"], ["y"], then_branch=taken, else_branch=never),
    ]
    form = normalized(tmp_path / "m.onnx", model(nodes, [tensor("w3", 3), numbers("three", [3])]))
    assert kinds(form) == ["Mul"]


def test_a_network_in_normal_form_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model([helper.make_node("Relu", ["x"], ["y"])]).SerializeToString())
    result = read(path)
    assert (result.path, result.parent) == (path, None)
    assert original(result) is result


def test_weights_that_are_large_stay_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plimsoll.onnx.load.MAX_INSIDE_BYTES", 0)
    proto = model(
        [helper.make_node("Identity", ["x"], ["i"]), helper.make_node("Add", ["i", "w"], ["y"])],
        [tensor("w", 3, 12, 12)],
    )
    outside(proto, tmp_path)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    result = read(path)
    assert result.path != path
    assert kinds(onnx.load(result.path)) == ["Add"]
    assert [file.name for file in result.files] in ([], ["w.bin"])
    np.testing.assert_array_equal(answers(result.path)[0], answers(path)[0])


def test_int4_weights_become_numbers_and_quantizers_stay(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.arange(-8, 1, dtype=np.int8).reshape(3, 3, 1, 1), "q")
    stored = [weights, numbers("s", 0.1, np.float32)]
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("Conv", ["x", "w"], ["y"])]
    assert kinds(normalized(tmp_path / "weights.onnx", model(nodes, stored))) == ["Conv"]
    zero = numbers("z", 0, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("Conv", ["xd", "w"], ["y"]),
    ]
    form = normalized(tmp_path / "pairs.onnx", model(nodes, [*stored, zero]))
    assert kinds(form).count("DequantizeLinear") == 2


SPEC = """
name = "shown"
[[input.steps]]
step = "decode"
[[input.steps]]
step = "resize"
width = 12
height = 12
[[input.steps]]
step = "layout"
order = "NCHW"
[[input.steps]]
step = "dtype"
to = "float32"
[output]
task = "tensor"
"""


def test_a_change_that_only_pictures_show_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random tensors have a mean of 0 or of 127; the planted change shows where it lies between."""

    def wrong(proto: ModelProto) -> ModelProto:
        last = next(node for node in proto.graph.node if "y" in node.output)
        last.output[0] = "right"
        proto.graph.initializer.extend(numbers(name, [value], np.float32) for name, value in (("a", 5), ("b", 115)))
        proto.graph.node.extend(
            [
                helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3]),
                helper.make_node("Sub", ["mean", "a"], ["over"]),
                helper.make_node("Sub", ["b", "mean"], ["under"]),
                helper.make_node("Relu", ["over"], ["over 5"]),
                helper.make_node("Relu", ["under"], ["under 115"]),
                helper.make_node("Mul", ["over 5", "under 115"], ["off"]),
                helper.make_node("Add", ["right", "off"], ["y"]),
            ]
        )
        return proto

    monkeypatch.setattr(normal_form, "_PASSES", (*normal_form._PASSES, wrong))
    proto = model(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Identity", ["c"], ["y"])],
        [tensor("w", 4, 3, 3, 3)],
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    between = {"x": np.full((1, 3, SIDE, SIDE), 60, np.float32)}
    expected = onnxruntime.InferenceSession(str(path)).run(None, between)[0]

    def answer(spec: str) -> NDArray[Any]:
        form = read(path, loads(spec) if spec else None)
        assert all(node.op_type != "Identity" for node in load.parse(form.path).proto.graph.node)
        return np.asarray(onnxruntime.InferenceSession(str(form.path)).run(None, between)[0])

    assert np.allclose(answer(SPEC), expected, rtol=1e-5)
    assert not np.allclose(answer(""), expected, rtol=1e-5), "the planted change shows nowhere"
