"""Whether a Spec fits a network, and which input takes the picture: one answer, wherever it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.core.fit import check_fit, describe, only_input, picture_input, takes_picture
from plimsoll.core.model import Model, TensorInfo
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import SpecError
from plimsoll.export.triton.repository import export
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.preprocessing.folded import fold
from plimsoll.spec import Spec

PICTURE = TensorInfo("x", (None, 4, 5, 3), "float32")
SCORES = TensorInfo("y", (None, 2), "float32")


def spec(tensor: str | None = None, /, **output: Any) -> Spec:
    steps = [{"step": "decode"}, {"step": "resize", "width": 5, "height": 4}, {"step": "scale", "divisor": 255.0}]
    answer = {"task": "classify", "labels": ["a", "b"]} | output if "task" not in output else output
    given = {"tensor": tensor} if tensor else {}
    return Spec.model_validate({"name": "pets", "input": {"steps": steps, **given}, "output": answer})


def network(folder: Path, *, further: bool = True) -> Path:
    """Write y = mean of each channel of x (+ size), with the labels' two values; `size` is a further input."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "w"], ["scores"]),
        helper.make_node("Add", ["scores", "size"], ["y"])
        if further
        else helper.make_node("Identity", ["scores"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 5, 3])]
    inputs += [helper.make_tensor_value_info("size", TensorProto.FLOAT, ["N", 2])] if further else []
    graph = helper.make_graph(
        nodes,
        "network",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.ones((3, 2), np.float32), "w")],
    )
    path = folder / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("contract", "inputs", "outputs"),
    [
        (spec(), [PICTURE], [SCORES]),
        (spec("x", tensor="y"), [PICTURE, TensorInfo("z", (None, 1), "int64")], [SCORES, PICTURE]),
        (spec(), [TensorInfo("x", (1, None, None, 3), "float32")], [TensorInfo("y", (1, 2, 1, 1), "float32")]),
        (spec(), [PICTURE], [TensorInfo("y", (), "float32")]),
        (spec(), [PICTURE], [TensorInfo("y", (None, None), "float32")]),
    ],
    ids=["equal", "by name", "free sides and axes of one", "nothing known of the output", "free output"],
)
def test_a_spec_that_fits(contract: Spec, inputs: list[TensorInfo], outputs: list[TensorInfo]) -> None:
    check_fit(contract, inputs, outputs, "net")
    assert picture_input(contract, inputs, "net") is inputs[0]


@pytest.mark.parametrize(
    ("contract", "inputs", "outputs", "says", "hint"),
    [
        (spec(), [], [SCORES], "the network has 0 inputs", "tensor ="),
        (spec(), [PICTURE, SCORES], [SCORES], r"2 inputs \('x', 'y'\)", "tensor ="),
        (spec("z"), [PICTURE], [SCORES], "input is 'z'; the network's inputs are: 'x'", "under [input]"),
        (spec(tensor="z"), [PICTURE], [SCORES], "output is 'z'; the network's outputs are: 'y'", "under [output]"),
        (spec(), [SCORES], [SCORES], r"takes float32 \[\?, 2\]", "networks that take pictures"),
        (spec(), [TensorInfo("x", (None, 4, 5, 3), "uint8")], [SCORES], "takes uint8", "to = 'uint8'"),
        (
            spec(),
            [TensorInfo("x", (1, 3, 4, 5), "float32")],
            [SCORES],
            r"takes float32 \[1, 3, 4, 5\]",
            "order = 'NCHW'",
        ),
        (spec(), [TensorInfo("x", (1, 4, 6, 3), "float32")], [SCORES], r"\[1, 4, 6, 3\]", "resize and crop"),
        (spec(), [PICTURE], [TensorInfo("y", (None, 3), "float32")], "2 labels.*'y' gives", "Give 3 labels"),
        (spec(task="tensor", tensors=["p"]), [PICTURE], [SCORES], "output is 'p'", "under [output]"),
    ],
)
def test_a_spec_that_does_not_fit(
    contract: Spec, inputs: list[TensorInfo], outputs: list[TensorInfo], says: str, hint: str
) -> None:
    with pytest.raises(SpecError, match=f"^net and the Spec 'pets': .*{says}") as caught:
        check_fit(contract, inputs, outputs, "net")
    assert hint in caught.value.hint


def test_the_only_input_or_the_one_that_the_spec_names_takes_the_picture() -> None:
    assert takes_picture(spec(), "x", 1)
    assert takes_picture(spec("x"), "x", 2)
    assert not takes_picture(spec("x"), "z", 2)
    assert not takes_picture(spec(), "x", 2)
    assert not takes_picture(None, "x", 1)


def test_a_tensor_in_words() -> None:
    assert describe("float32", ("N", 4, None)) == "float32 [N, 4, ?]"
    assert describe("int8", None) == "int8 of any shape"


def test_a_network_that_needs_more_than_a_picture() -> None:
    inputs = [TensorInfo("size", (None, 2), "float32"), PICTURE]
    assert picture_input(spec("x"), inputs, "net") is PICTURE
    with pytest.raises(SpecError, match="more than a picture: it also takes 'size'"):
        only_input(spec("x"), inputs, "net")


PLACES: dict[str, Callable[[Model, Path], object]] = {
    "fold": fold,
    "triton": lambda model, folder: export(model, REFERENCE_TARGET, folder / "out"),
    "predict_many": lambda model, folder: list(
        Predictor(ResolvedModel(model)).predict_many([str(folder / "missing.png")])
    ),
}


@pytest.mark.parametrize("where", PLACES)
def test_what_feeds_pictures_alone_says_so_once(tmp_path: Path, where: str) -> None:
    model = importers.read(network(tmp_path), spec("x"))
    with pytest.raises(SpecError, match="more than a picture: it also takes 'size'"):
        PLACES[where](model, tmp_path)


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        (spec("z"), "the Spec's input is 'z'"),
        (spec(tensor="z"), "the Spec's output is 'z'"),
        (spec(labels=["a", "b", "c"]), "3 labels"),
    ],
)
def test_a_reader_and_a_runner_say_the_same(tmp_path: Path, contract: Spec, says: str) -> None:
    path = network(tmp_path, further=False)
    messages = []
    for attempt in (importers.read, lambda path, spec: Runner.open(Model(path, "onnx", spec), REFERENCE_TARGET)):
        with pytest.raises(SpecError, match=says) as caught:
            attempt(path, contract)
        messages.append(caught.value.message.partition(" and the Spec ")[2])
    assert messages[0].replace("[N, ", "[?, ") == messages[1]


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((None, 20, 4), True),
        ((None, 4, 20), True),
        ((None, 20, 5), False),
        ((None, None, 3), False),
        ((None, None, 4), True),
        ((None, 20, 30), False),
        ((None, 20), True),
        ((), True),
    ],
)
def test_an_alphabet_that_is_a_symbol_too_long_or_too_short_is_seen(shape: tuple[int | None, ...], fits: bool) -> None:
    contract = spec(task="text", alphabet="abc")
    if fits:
        check_fit(contract, [PICTURE], [TensorInfo("y", shape, "float32")], "net")
        return
    with pytest.raises(SpecError, match="the alphabet has 3 symbols, with the blank 4") as caught:
        check_fit(contract, [PICTURE], [TensorInfo("y", shape, "float32")], "net")
    assert "space = true" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("second", "fits"),
    [
        (TensorInfo("z", (None, 4, 5, 3), "float32"), True),
        (TensorInfo("z", (None, None, None, 3), "float32"), True),
        (TensorInfo("z", (None, 2, 3, 3), "float32"), False),
        (TensorInfo("z", (None, 4, 5, 3), "uint8"), False),
        (TensorInfo("z", (None, 3), "float32"), False),
    ],
)
def test_a_second_picture_is_the_first_once_more(second: TensorInfo, fits: bool) -> None:
    data = spec().model_dump(mode="json")
    data["input"]["extra"] = [{"tensor": "z", "source": "picture"}]
    contract = Spec.model_validate(data)
    if fits:
        check_fit(contract, [PICTURE, second], [SCORES], "net")
        return
    with pytest.raises(SpecError, match="gives the input 'z' the tensor of 'x', float32"):
        check_fit(contract, [PICTURE, second], [SCORES], "net")
