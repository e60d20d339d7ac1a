"""What libraries say of their failures reaches the user without the places in their source code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
from onnx import helper, numpy_helper

from plimsoll.core.foreign import reason_of, translate
from plimsoll.errors import RunError


def write(path: Path, kind: str, *stored: np.ndarray, ir_version: int = 8) -> Path:
    names = [f"stored{index}" for index in range(len(stored))]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *names], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 8, 8])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in zip(names, stored, strict=True)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)
    path.write_bytes(proto.SerializeToString())
    return path


def in_onnxruntime(path: Path) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros((1, 3, 8, 8), np.float32)})


def in_openvino(path: Path) -> None:
    openvino.Core().compile_model(str(path), "CPU")(np.zeros((1, 3, 8, 8), np.float32))


UNKNOWN: tuple[str, tuple[np.ndarray, ...], int] = "Foo", (), 8
RESHAPE = "Reshape", (np.array([7, -1]),), 8
FUTURE = "Relu", (), 30


@pytest.mark.parametrize(
    ("network", "run", "says"),
    [
        (UNKNOWN, in_onnxruntime, "Foo"),
        (RESHAPE, in_onnxruntime, "cannot be reshaped"),
        (FUTURE, in_onnxruntime, "Unsupported model IR version: 30"),
        (UNKNOWN, in_openvino, "Foo"),
        (RESHAPE, in_openvino, "conflicts with the reshape pattern"),
    ],
)
def test_the_reason_stays_and_the_source_code_goes(
    tmp_path: Path, network: tuple[str, tuple[np.ndarray, ...], int], run: Callable[[Path], None], says: str
) -> None:
    kind, stored, ir_version = network
    with pytest.raises(Exception, match=r".") as caught:
        run(write(tmp_path / "network.onnx", kind, *stored, ir_version=ir_version))
    reason = reason_of(caught.value)
    assert says in reason
    for noise in (".cc:", ".cpp:", ".h:", "Exception from", "[ONNXRuntimeError]", "RuntimeError", str(tmp_path), "::"):
        assert noise not in reason


def test_an_error_whose_class_says_something_keeps_it() -> None:
    with pytest.raises(RunError, match=r"^running: KeyError: 'scale'$"), translate(RunError, "running"):
        raise KeyError("scale")
    with pytest.raises(RunError, match=r"^running: RuntimeError$"), translate(RunError, "running"):
        raise RuntimeError
