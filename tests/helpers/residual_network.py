"""Small networks with what runtimes quantize: convolutions, sums, poolings and a product; written by hand, weights at
random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from plimsoll.core.model import Model

Floats = NDArray[np.float32]
SIDE = 16


def residual(path: Path, *, name: str = "picture", small: float = 1.0) -> Model:
    """Make `picture` [N, 16, 16, 3] in 0…1 to `scores` [N, 5]: a padded pooling, a depthwise convolution and a sum with
    a Relu among it.

    The first convolution's weights are multiplied by `small`, and its result divided by it.
    """
    random = np.random.default_rng(3)
    constants: dict[str, NDArray[np.generic]] = {"small": np.array(1 / small, np.float32)}

    def weights(label: str, *shape: int, factor: float = 1.0) -> list[str]:
        fan = int(np.prod(shape[1:]))
        constants[f"{label}/w"] = (random.normal(size=shape) * np.sqrt(2 / fan) * factor).astype(np.float32)
        constants[f"{label}/b"] = (random.normal(size=shape[0]) * 0.1 * factor).astype(np.float32)
        return [f"{label}/w", f"{label}/b"]

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], output, **attributes)

    nodes = [
        node("Transpose", [name], "planes", perm=[0, 3, 1, 2]),
        node("Conv", ["planes", *weights("first", 16, 3, 3, 3, factor=small)], "first", pads=[1, 1, 1, 1]),
        node("Mul", ["first", "small"], "first_scaled"),
        node("Relu", ["first_scaled"], "first_relu"),
        node("MaxPool", ["first_relu"], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["pooled", *weights("left", 16, 1, 3, 3)], "left", pads=[1, 1, 1, 1], group=16),
        node("Relu", ["left"], "left_relu"),
        node("Conv", ["left_relu", *weights("right", 16, 16, 1, 1)], "right"),
        node("Add", ["right", "pooled"], "sum"),
        node("Relu", ["sum"], "sum_relu"),
        node("Conv", ["sum_relu", *weights("last", 32, 16, 3, 3)], "last", pads=[1, 1, 1, 1]),
        node("Relu", ["last"], "last_relu"),
        node("GlobalAveragePool", ["last_relu"], "average"),
        node("Flatten", ["average"], "flat"),
        node("Gemm", ["flat", *weights("head", 5, 32)], "logits", transB=1),
        node("Softmax", ["logits"], "scores", axis=1),
    ]
    if small == 1.0:
        nodes = [item for item in nodes if item.op_type != "Mul"]
        nodes[2].input[0] = "first"
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", SIDE, SIDE, 3]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5]),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        infos[:1],
        infos[1:],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return Model(path, "onnx")


def pictures(count: int, seed: int = 5) -> Floats:
    """Return pictures [count, 16, 16, 3] in 0…1, smooth and each of another colour."""
    random = np.random.default_rng(seed)
    coarse = random.random((count, 4, 4, 3), np.float32)
    return np.ascontiguousarray(
        coarse.repeat(4, axis=1).repeat(4, axis=2) * random.random((count, 1, 1, 3), np.float32)
    )
