"""A network that takes a picture twice: whole, and its middle in more detail and in grey; and the Spec that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plimsoll.core.model import Model
from plimsoll.spec.files import loads

SPEC = """
name = "two_views"
[input]
tensor = "whole"
[[input.steps]]
step = "decode"
[[input.steps]]
step = "resize"
width = 16
height = 12
[[input.steps]]
step = "scale"
divisor = 255.0
[[input.steps]]
step = "layout"
order = "NCHW"
[[input.extra]]
tensor = "middle"
source = "picture"
[[input.extra.steps]]
step = "decode"
colour = "grey"
[[input.extra.steps]]
step = "resize"
width = 40
height = 40
[[input.extra.steps]]
step = "crop"
width = 20
height = 24
[output]
task = "classify"
labels = ["a", "b", "c"]
"""


def two_views(path: Path, *, opset: int = 17, batch: int | str = "N") -> Model:
    """Write the network: float32 `whole` [N, 3, 12, 16] and uint8 `middle` [N, 24, 20, 1] to three scores."""
    random = np.random.default_rng(7)
    constants = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w0", (4, 3, 3, 3)), ("w1", (4, 1, 5, 5)), ("w2", (8, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["whole", "w0"], ["a0"], "conv_whole"),
        helper.make_node("Relu", ["a0"], ["a1"]),
        helper.make_node("GlobalAveragePool", ["a1"], ["a2"]),
        helper.make_node("Cast", ["middle"], ["m0"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["m0"], ["m1"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["m1", "per_level"], ["m2"]),
        helper.make_node("Conv", ["m2", "w1"], ["b0"], "conv_middle"),
        helper.make_node("Relu", ["b0"], ["b1"]),
        helper.make_node("GlobalAveragePool", ["b1"], ["b2"]),
        helper.make_node("Concat", ["a2", "b2"], ["c0"], axis=1),
        helper.make_node("Flatten", ["c0"], ["c1"]),
        helper.make_node("MatMul", ["c1", "w2"], ["c2"]),
        helper.make_node("Softmax", ["c2"], ["scores"], axis=1),
    ]
    constants.append(numpy_helper.from_array(np.float32(1 / 255), "per_level"))
    inputs = [
        helper.make_tensor_value_info("middle", TensorProto.UINT8, [batch, 24, 20, 1]),
        helper.make_tensor_value_info("whole", TensorProto.FLOAT, [batch, 3, 12, 16]),
    ]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph(nodes, "two_views", inputs, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return Model(path, "onnx", loads(SPEC))
