"""Targets are named runtime:device:precision."""

from __future__ import annotations

import pytest

from plimsoll import Target
from plimsoll.errors import TargetError


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("onnxruntime", "onnxruntime:cpu:float32"),
        ("openvino:gpu", "openvino:gpu:float32"),
        (" tensorrt:gpu:int8 ", "tensorrt:gpu:int8"),
    ],
)
def test_a_target_is_read_and_written(text: str, full: str) -> None:
    assert str(Target.parse(text)) == full
    assert Target.parse(full) == Target.parse(text)


@pytest.mark.parametrize("text", ["", "a:b:c:d", "onnxruntime:cpu:int3", "Onnx Runtime", "onnxruntime::int8", "../x"])
def test_what_is_not_a_target_is_reported(text: str) -> None:
    with pytest.raises(TargetError) as caught:
        Target.parse(text)
    assert "onnxruntime:cpu:float32" in caught.value.hint


def test_an_unknown_precision_names_those_there_are() -> None:
    with pytest.raises(TargetError, match=r"'int3', expected one of float32, float16"):
        Target("onnxruntime", "cpu", "int3")
