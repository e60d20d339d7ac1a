"""Small networks to quantize, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target

Array = NDArray[Any]
FLOAT = onnx.TensorProto.FLOAT
node = helper.make_node


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    shapes: Sequence[Sequence[int | str | None]],
    constants: Mapping[str, Array],
    opset: int = 13,
) -> Model:
    """Write a network with the input `x` and the output `y` of these shapes."""
    x, y = (helper.make_tensor_value_info(name, FLOAT, list(shape)) for name, shape in zip("xy", shapes, strict=True))
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "small", [x], [y], stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return Model(path, "onnx")


def weights(rng: np.random.Generator, *shape: int) -> Array:
    """Weights that keep the size of what they multiply."""
    return np.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])), np.float32)


def residual(path: Path, *, opset: int = 13, channels: int = 8, size: int = 16) -> Model:
    """A small ResNet: a picture [N, size, size, 3] to scores [N, 4].

    A 7×7 first convolution with stride 2, a residual block, a second one that begins with two 1×1 convolutions with
    stride 2, an average, a product and a softmax.
    """
    rng = np.random.default_rng(3)
    c = channels
    constants = {
        "w0": weights(rng, c, 3, 7, 7),
        "b0": weights(rng, c, 1)[:, 0],
        "w1": weights(rng, c, c, 3, 3),
        "b1": weights(rng, c, 1)[:, 0],
        "w2": weights(rng, c, c, 1, 1),
        "w3": weights(rng, 2 * c, c, 1, 1),
        "b3": weights(rng, 2 * c, 1)[:, 0],
        "w4": weights(rng, 2 * c, c, 1, 1),
        "w5": weights(rng, 2 * c, 4).astype(np.float32),
        "b5": np.zeros(4, np.float32),
    }
    nodes = [
        node("Transpose", ["x"], ["picture"], "layout", perm=[0, 3, 1, 2]),
        node("Conv", ["picture", "w0", "b0"], ["c0"], "conv0", pads=[3, 3, 3, 3], strides=[2, 2]),
        node("Relu", ["c0"], ["r0"], "relu0"),
        node("Conv", ["r0", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "conv2"),
        node("Add", ["c2", "r0"], ["sum0"], "add0"),
        node("Relu", ["sum0"], ["r2"], "relu2"),
        node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3", strides=[2, 2]),
        node("Conv", ["r2", "w4"], ["c4"], "conv4", strides=[2, 2]),
        node("Add", ["c3", "c4"], ["sum1"], "add1"),
        node("Relu", ["sum1"], ["r3"], "relu3"),
        node("GlobalAveragePool", ["r3"], ["mean"], "average"),
        node("Flatten", ["mean"], ["flat"], "flatten"),
        node("Gemm", ["flat", "w5", "b5"], ["logits"], "fc"),
        node("Softmax", ["logits"], ["y"], "softmax", axis=1),
    ]
    return save(path, nodes, [["N", size, size, 3], ["N", 4]], constants, opset)


def pictures(count: int = 12, size: int = 16, seed: int = 0) -> Array:
    """Smooth random pictures [count, size, size, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, size // 4, size // 4, 3))
    return np.asarray(
        coarse.repeat(4, axis=1).repeat(4, axis=2) + 0.2 * rng.normal(size=(count, size, size, 3)), np.float32
    )


def run(model: Model, batch: Array, target: str = "onnxruntime:cpu:float32") -> Array:
    """Return the only output."""
    with Runner.open(model, Target.parse(target)) as runner:
        (output,) = runner.infer(batch).values()
    return output


def operators(model: Model) -> list[str]:
    """Return the kinds of a network's operators."""
    return [node.op_type for node in onnx.load(model.path).graph.node]


def stored(model: Model) -> dict[str, Array]:
    """Return the tensors in the file."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(model.path).graph.initializer}
