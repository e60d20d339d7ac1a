"""Hostile ONNX files: weights outside the model's folder, damaged protobuf, functions that explode."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from plimsoll.core.model import Model
from plimsoll.errors import ModelError
from plimsoll.importers import read
from plimsoll.onnx.inspection import inspect
from plimsoll.onnx.normal_form import original

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
BYTES = 16


def external(location: str = "w.bin", **entries: str) -> Any:
    """A tensor of four float32 whose bytes lie in a file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def build(tensor: Any) -> Any:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model's folder, with a secret beside it."""
    (tmp_path / "secret.bin").write_bytes(b"s" * BYTES)
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def refusal(folder: Path, tensor: Any) -> str:
    path = folder / "m.onnx"
    path.write_bytes(build(tensor).SerializeToString())
    with pytest.raises(ModelError) as caught:
        read(path)
    assert (
        "the weights of 'w' are in" in caught.value.message
    )  # RequestError here, before onnx's own checks see the file.
    assert caught.value.hint
    return caught.value.message


def test_plain_weights_in_the_folder_are_read(folder: Path) -> None:
    """Else all the refusals below would prove nothing."""
    (folder / "deep").mkdir()
    (folder / "deep" / "w.bin").write_bytes(bytes(BYTES + 4))
    for location in ("deep/w.bin", "./deep/w.bin"):
        (folder / "m.onnx").write_bytes(build(external(location, offset="4", length=str(BYTES))).SerializeToString())
        assert original(read(folder / "m.onnx")).files == (folder / "deep" / "w.bin",)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("../secret.bin", "('..')"),
        ("deep/../../secret.bin", "('..')"),
        ("..\\secret.bin", "backslash"),
        ("\\\\server\\share\\w.bin", "backslash"),
        ("//server/share/w.bin", "absolute"),
        ("C:/secret.bin", "absolute"),
        ("c:secret.bin", "absolute"),
        ("w.bin\0.txt", "control character"),
        ("w\x1b[2J.bin", "control character"),
        ("*/_ORT_MEM_ADDR_/*", "star"),
        ("", "an empty location"),
        (".", "not a regular file"),
        ("missing.bin", "can't be read: No such file"),
        ("n" * 5000, "can't be read"),
    ],
    ids=[
        "parent", "parent inside", "backslash", "UNC", "UNC slashes", "drive", "drive relative",
        "NUL", "escape", "memory address", "empty", "folder", "missing", "long",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(folder: Path, location: str, reason: str) -> None:
    assert reason in refusal(folder, external(location))


def test_an_absolute_path_is_refused_even_to_a_file_in_the_folder(folder: Path) -> None:
    (folder / "w.bin").write_bytes(bytes(BYTES))
    assert "absolute" in refusal(folder, external(str(folder / "w.bin")))


@posix
@pytest.mark.parametrize(
    ("plant", "location", "reason"),
    [
        (lambda folder: (folder / "w.bin").symlink_to(folder.parent / "secret.bin"), "w.bin", "symbolic link"),
        (lambda folder: (folder / "deep").symlink_to(folder.parent), "deep/secret.bin", "symbolic link"),
        (
            lambda folder: ((folder / "a.bin").write_bytes(bytes(BYTES)), (folder / "w.bin").symlink_to("a.bin")),
            "w.bin",
            "symbolic link",
        ),
        (lambda folder: os.link(folder.parent / "secret.bin", folder / "w.bin"), "w.bin", "hard link"),
        (lambda folder: os.mkfifo(folder / "w.bin"), "w.bin", "not a regular file"),
        (lambda folder: (folder / "w.bin").mkdir(), "w.bin", "not a regular file"),
    ],
    ids=["linked file", "linked folder", "link inside", "hard link", "FIFO", "folder"],
)
def test_a_file_that_is_not_plain_is_refused(
    folder: Path, plant: Callable[[Path], Any], location: str, reason: str
) -> None:
    plant(folder)
    assert reason in refusal(folder, external(location))


@posix
def test_a_device_is_refused_as_model_and_as_weights(folder: Path) -> None:
    with pytest.raises(ModelError, match="not a regular file"):
        read_as_onnx(Path("/dev/zero"))
    os.mkfifo(folder / "m.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        read(folder / "m.onnx")
    (folder / "m.onnx").unlink()
    assert "absolute" in refusal(folder, external("/dev/zero"))


def read_as_onnx(path: Path) -> Model:
    from plimsoll.importers.onnx import IMPORTER

    return IMPORTER.read(path)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"offset": "20"}, "beyond its 16 bytes"),
        ({"offset": "8", "length": "16"}, "beyond its 16 bytes"),
        ({"length": "9223372036854775807"}, "beyond its 16 bytes"),
        ({"offset": "-4"}, "whole numbers"),
        ({"length": "-1"}, "whole numbers"),
        ({"length": "9" * 10_000}, "whole numbers"),
        ({"offset": "0x4"}, "whole numbers"),
        ({"offset": "٤"}, "whole numbers"),
        ({"offset": ""}, "whole numbers"),
    ],
    ids=[
        "offset beyond",
        "reaches beyond",
        "huge length",
        "negative offset",
        "negative length",
        "endless length",
        "hexadecimal",
        "other digits",
        "no digits",
    ],
)
def test_an_offset_or_length_outside_the_file_is_refused(folder: Path, entries: dict[str, str], reason: str) -> None:
    (folder / "w.bin").write_bytes(bytes(BYTES))
    assert reason in refusal(folder, external(**entries))


def test_a_second_location_is_refused(folder: Path) -> None:
    (folder / "w.bin").write_bytes(bytes(BYTES))
    tensor = external()
    tensor.external_data.add(key="location", value="../secret.bin")
    assert "duplicate key" in refusal(folder, tensor)


def _in_attribute(tensor: Any) -> Any:
    return helper.make_node("Constant", [], ["k"], value=tensor)


def _in_subgraph(tensor: Any) -> Any:
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])], [tensor])
    return helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)


def _hide(model: Any, where: str, tensor: Any) -> None:
    graph = model.graph
    if where == "attribute":
        graph.node.append(_in_attribute(tensor))
    elif where == "subgraph":
        graph.node.append(_in_subgraph(tensor))
    elif where == "subgraph of a subgraph":
        inner = helper.make_graph([_in_subgraph(tensor)], "i", [], [])
        graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))
    elif where == "sparse":
        graph.sparse_initializer.add(values=tensor, dims=[4])
    elif where == "function":
        model.functions.append(
            helper.make_function("own", "F", ["a"], ["k"], [_in_attribute(tensor)], [helper.make_opsetid("", 17)])
        )
    else:
        model.training_info.add().algorithm.initializer.append(tensor)


@pytest.mark.parametrize("where", ["attribute", "subgraph", "subgraph of a subgraph", "sparse", "function", "training"])
@pytest.mark.parametrize("marked", [True, False], ids=["external", "entries alone"])
def test_a_path_outside_is_found_wherever_it_hides(folder: Path, where: str, marked: bool) -> None:
    tensor = external("../secret.bin")
    if not marked:
        tensor.ClearField("data_location")
    model = build(numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    _hide(model, where, tensor)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"the weights of 'w' are in '\.\./secret\.bin'"):
        read(folder / "m.onnx")


def network() -> Any:
    """A small network of the usual parts."""
    random_ = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(random_.random(shape, np.float32), name)
        for name, shape in {"w": (4, 3, 3, 3), "b": (4,), "g": (16, 2)}.items()
    ]  # fmt: skip
    stored.append(numpy_helper.from_array(np.array([-1, 2]), "s"))
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["l"]),
        helper.make_node("Reshape", ["l", "s"], ["q"]),
        helper.make_node("Softmax", ["q"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)


def look(path: Path, data: bytes) -> bool:
    """Read and inspect a file; tell whether both worked. Anything but a ModelError fails the test."""
    path.write_bytes(data)
    try:
        inspect(read(path))
    except ModelError:
        return False
    return True


def mutated(data: bytes, random_: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(random_.choice([1, 1, 2, 4])):
        index = random_.randrange(len(out))
        match random_.randrange(4):
            case 0:
                out[index] ^= 1 << random_.randrange(8)
            case 1:
                out[index] = random_.randrange(256)
            case 2:
                del out[index : index + random_.randrange(1, 9)]
            case _:
                out[index:index] = random_.randbytes(random_.randrange(1, 9))
    return bytes(out)


def test_two_hundred_mutations_are_read_or_refused(tmp_path: Path) -> None:
    data = network().SerializeToString()
    assert look(tmp_path / "m.onnx", data)
    random_ = random.Random(20)
    answers = []
    for _ in range(200):
        started = time.monotonic()
        answers.append(look(tmp_path / "m.onnx", mutated(data, random_)))
        assert time.monotonic() - started < 60
    assert 10 < sum(answers) < 190  # Mutations that all fail, or none, would try nothing.


def test_every_truncation_is_read_or_refused(tmp_path: Path) -> None:
    data = network().SerializeToString()
    answers = [look(tmp_path / "m.onnx", data[:length]) for length in range(0, len(data), 7)]
    assert not any(answers)


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    random_ = random.Random(3)
    assert not any(look(tmp_path / "m.onnx", random_.randbytes(random_.randrange(1, 2000))) for _ in range(200))


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    data = network().SerializeToString()
    assert data.count(b"Softmax") == 1
    (tmp_path / "m.onnx").write_bytes(data.replace(b"Softmax", b"Soft\xffax"))
    with pytest.raises(ModelError, match="op_type is not UTF-8 text"):
        read(tmp_path / "m.onnx")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    def sized(field: int, body: bytes) -> bytes:
        length, size = len(body), b""
        while length >= 128:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([field << 3 | 2]) + size + bytes([length]) + body

    body = b""
    for _ in range(5_000):  # GraphProto.node.attribute.g, without end
        body = sized(1, sized(5, sized(6, body)))
    assert not look(tmp_path / "m.onnx", sized(7, body))


def functions(count: int, calls: Sequence[int]) -> Any:
    """A model whose functions each call `calls` others: by how many places further on."""
    model = ModelProto()
    model.CopyFrom(build(numpy_helper.from_array(np.zeros(4, np.float32), "w")))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for index in range(count):
        names = ["a", *(f"t{number}" for number in range(len(calls) - 1)), "z"]
        nodes = [
            helper.make_node("Relu", [before], [after])
            if index + step >= count
            else helper.make_node(f"F{index + step}", [before], [after], domain="own")
            for step, before, after in zip(calls, names, names[1:], strict=False)
        ]
        model.functions.append(helper.make_function("own", f"F{index}", ["a"], ["z"], nodes, opsets))
    model.graph.node[0].CopyFrom(helper.make_node("F0", ["x"], ["y"], domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def test_functions_are_read(tmp_path: Path) -> None:
    assert look(tmp_path / "m.onnx", functions(5, [1, 1]).SerializeToString())


@pytest.mark.parametrize(
    ("count", "calls", "says"),
    [(28, [1, 1], "expand to"), (500, [1], "deep"), (3, [0], "in a circle")],
    ids=["doubling", "deep", "circle"],
)
def test_functions_that_explode_are_refused(tmp_path: Path, count: int, calls: Sequence[int], says: str) -> None:
    (tmp_path / "m.onnx").write_bytes(functions(count, calls).SerializeToString())
    with pytest.raises(ModelError, match=says):
        read(tmp_path / "m.onnx")
