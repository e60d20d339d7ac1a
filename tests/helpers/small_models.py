"""Small real networks behind a Spec: pictures of 6 x 5 pixels to four scores, or to one number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from helpers.contract_networks import network, save
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.spec.files import loads

HERE = Target("onnxruntime")
SPEC = """
name = "small"
[[input.steps]]
step = "decode"
[[input.steps]]
step = "resize"
width = 6
height = 5
[[input.steps]]
step = "scale"
divisor = 255.0
[output]
task = "classify"
labels = ["a", "b", "c", "d"]
"""
TENSOR_SPEC = SPEC.partition("[output]")[0] + '[output]\ntask = "tensor"\n'
"""The same input steps before a network whose outputs are only tensors."""


def small_model(folder: Path, spec: str = SPEC, **form: Any) -> Model:
    """Write `network` as small.onnx into the folder, which is made where it isn't there; `form` goes to `network`."""
    folder.mkdir(exist_ok=True)
    return Model(network(folder / "small.onnx", **form).path, "onnx", loads(spec))


def brightness(path: Path) -> Model:
    """Write a network that gives one number for each picture, its mean: an output without axes but the batch's."""
    nodes = [helper.make_node("ReduceMean", ["picture", "axes"], ["brightness"], keepdims=0)]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 5, 6, 3])
    output = helper.make_tensor_value_info("brightness", TensorProto.FLOAT, ["N"])
    axes = numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes")
    return Model(save(path, nodes, [picture], [output], [axes]).path, "onnx", loads(TENSOR_SPEC))
