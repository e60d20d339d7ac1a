"""What follows a convolution value by value is simplified, and answers the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers import networks_to_quantize as networks
from helpers.networks_to_quantize import node
from plimsoll import quantize
from plimsoll.core.model import Model
from plimsoll.onnx.graph import Graph
from plimsoll.quantize.pointwise import simplify, unsaturated

RNG = np.random.default_rng(3)
NUMBERS: dict[str, Any] = {
    "half": np.array([0.5], np.float32),
    "three": np.float32(3),
    "zero": np.float32(0),
    "six": np.float32(6),
    "five": np.float32(5),
    "sixth": np.float32(1 / 6),
    "channels": RNG.normal(size=(1, 4, 1, 1)).astype(np.float32),
    "row": RNG.normal(size=4).astype(np.float32),
}


def network(between: list[onnx.NodeProto], folder: Path, *, bias: bool = True) -> Model:
    constants = {"w0": networks.weights(RNG, 4, 3, 3, 3), "b0": networks.weights(RNG, 4), "w1": np.ones((2, 4, 1, 1))}
    constants = {name: np.asarray(value, np.float32) for name, value in {**constants, **NUMBERS}.items()}
    first = node("Conv", ["x", "w0", *(["b0"] if bias else [])], ["c"], "first", pads=[1, 1, 1, 1])
    nodes = [first, *between, node("Conv", ["a", "w1"], ["y"], "last")]
    return networks.save(folder / "net.onnx", nodes, [["N", 3, 4, 4], ["N", 2, 4, 4]], constants)


def simplified(model: Model) -> tuple[Model, list[str]]:
    proto = onnx.load(model.path)
    simplify(Graph(proto))
    path = model.path.with_name("simple.onnx")
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return Model(path, "onnx"), [operator.op_type for operator in proto.graph.node]


def hard_swish(end: onnx.NodeProto, most: str = "six") -> list[onnx.NodeProto]:
    return [
        node("Add", ["c", "three"], ["c3"]),
        node("Clip", ["c3", "zero", most], ["gate"]),
        node("Mul", ["c", "gate"], ["product"]),
        end,
    ]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("between", "operators"),
    [
        ([node("Mul", ["c", "half"], ["m"]), node("Add", ["channels", "m"], ["a"])], ["Conv", "Conv"]),
        ([node("Div", ["c", "channels"], ["m"]), node("Sub", ["m", "half"], ["a"])], ["Conv", "Conv"]),
        ([node("Sub", ["half", "c"], ["a"])], ["Conv", "Sub", "Conv"]),
        ([node("Mul", ["c", "row"], ["a"])], ["Conv", "Mul", "Conv"]),
        ([node("Mul", ["c", "c"], ["a"])], ["Conv", "Mul", "Conv"]),
        (hard_swish(node("Div", ["product", "six"], ["a"])), ["Conv", "HardSigmoid", "Mul", "Conv"]),
        (hard_swish(node("Mul", ["product", "sixth"], ["a"])), ["Conv", "HardSigmoid", "Mul", "Conv"]),
        (hard_swish(node("Div", ["product", "five"], ["a"])), ["Conv", "Add", "Clip", "Mul", "Div", "Conv"]),
        (hard_swish(node("Div", ["product", "six"], ["a"]), "five"), ["Conv", "Add", "Clip", "Mul", "Div", "Conv"]),
    ],
)
def test_fewer_operators_with_the_same_answers(
    between: list[onnx.NodeProto], operators: list[str], bias: bool, tmp_path: Path
) -> None:
    model = network(between, tmp_path, bias=bias)
    simple, kinds = simplified(model)
    assert kinds == operators
    picture = RNG.normal(0, 4, (2, 3, 4, 4)).astype(np.float32)
    expected = networks.run(model, picture)
    np.testing.assert_allclose(networks.run(simple, picture), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


SILU = [node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["a"])]
GATE = [node("HardSigmoid", ["c"], ["s"], alpha=0.25, beta=0.5), node("Mul", ["c", "s"], ["a"])]


@pytest.mark.parametrize(
    ("between", "limits"),
    [
        (SILU, (-8, np.inf)),
        (GATE, (-2, np.inf)),
        ([node("HardSigmoid", ["c"], ["a"], alpha=0.25, beta=0.25)], (-1, 3)),
        ([node("Sigmoid", ["c"], ["a"])], (-8, 8)),
        ([node("Sigmoid", ["c"], ["s"]), node("Add", ["c", "s"], ["a"])], (-np.inf, np.inf)),
        ([node("Relu", ["c"], ["a"])], (-np.inf, np.inf)),
    ],
)
def test_the_range_that_an_activation_sees(
    between: list[onnx.NodeProto], limits: tuple[float, float], tmp_path: Path
) -> None:
    assert unsaturated(Graph(onnx.load(network(between, tmp_path).path)), "c") == limits


def test_steps_are_for_values_that_an_activation_tells_apart(tmp_path: Path) -> None:
    model = network(hard_swish(node("Div", ["product", "six"], ["a"])), tmp_path)
    picture = RNG.normal(0, 20, (4, 3, 4, 4)).astype(np.float32)
    table = quantize.calibrate(model, [picture], "minmax")
    low, high = table.ranges["c"]
    assert low < -10
    options = quantize.StaticOptions(float_heads=False, activations="uint8", symmetry="never", weight_bits=8)
    stored = networks.stored(quantize.static(model, table, tmp_path, options))
    assert stored["c/q/scale"] == pytest.approx((high + 3) / 255, rel=1e-5)
