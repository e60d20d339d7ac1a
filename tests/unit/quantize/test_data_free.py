"""float16 and dynamic int8."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import node
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.errors import BuildError


@pytest.mark.parametrize(
    ("verb", "target", "bound"), [(quantize.float16, "float16", 2e-3), (quantize.dynamic, "dynamic", 2e-2)]
)
def test_answers_stay_close_and_inputs_and_outputs_float32(
    tmp_path: Path, verb: object, target: str, bound: float, caplog: pytest.LogCaptureFixture
) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    with caplog.at_level(logging.WARNING):
        smaller: Model = verb(model, tmp_path)  # type: ignore[operator]
    assert not caplog.records
    onnx.checker.check_model(str(smaller.path), full_check=True)
    graph = onnx.load(smaller.path).graph
    assert [tensor.type.tensor_type.elem_type for tensor in (*graph.input, *graph.output)] == [1, 1]
    batch = networks.pictures()
    difference = np.abs(networks.run(smaller, batch, f"onnxruntime:cpu:{target}") - networks.run(model, batch)).max()
    assert 0 < difference < bound
    assert smaller.parent == model


def test_dynamic_leaves_convolutions_unless_told(tmp_path: Path) -> None:
    model = networks.residual(tmp_path / "net.onnx")
    assert networks.operators(quantize.dynamic(model, tmp_path)).count("Conv") == 5
    operators = networks.operators(quantize.dynamic(model, tmp_path, convolutions=True))
    assert operators.count("ConvInteger") == 5
    assert "Conv" not in operators


def test_dynamic_says_where_there_is_no_product(tmp_path: Path) -> None:
    constants = {"a": np.ones((2, 3, 1, 1), np.float32)}
    model = networks.save(
        tmp_path / "net.onnx", [node("Conv", ["x", "a"], ["y"])], [["N", 3, 4, 4], ["N", 2, 4, 4]], constants
    )
    with pytest.raises(BuildError, match="no matrix product"):
        quantize.dynamic(model, tmp_path)


def test_float16_halves_open_nsfw(nsfw_model_path: Path, tmp_path: Path) -> None:
    model = Model(nsfw_model_path, "onnx")
    half = quantize.float16(model, tmp_path)
    assert half.size < 0.51 * model.size
    batch = np.random.default_rng(0).uniform(-120, 150, size=(1, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(
        networks.run(half, batch, "onnxruntime:cpu:float16"), networks.run(model, batch), atol=5e-3
    )


def test_weights_beyond_float16_are_named(tmp_path: Path) -> None:
    constants = {"big": np.array([[70_000.0, 1.0]], np.float32).T.copy()}
    model = networks.save(tmp_path / "net.onnx", [node("MatMul", ["x", "big"], ["y"])], [["N", 2], ["N", 1]], constants)
    with pytest.raises(BuildError, match=r"beyond float16's ±65504: 'big' \(up to 7e\+04\)"):
        quantize.float16(model, tmp_path)


def test_sums_that_overflow_float16_stay_in_float32(tmp_path: Path) -> None:
    nodes = [node("ReduceSum", ["x", "axes"], ["s"]), node("Mul", ["s", "small"], ["y"])]
    constants: dict[str, networks.Array] = {"axes": np.array([1], np.int64), "small": np.array(1e-3, np.float32)}
    model = networks.save(tmp_path / "net.onnx", nodes, [["N", 4], ["N", 1]], constants)
    batch = np.full((1, 4), 30_000, np.float32)
    np.testing.assert_allclose(
        networks.run(quantize.float16(model, tmp_path), batch, "onnxruntime:cpu:float16"), [[120.0]], rtol=1e-2
    )
