"""Small networks and Specs to fold, with random weights: `[N, 4]` features behind a padded convolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plimsoll.core.model import Model
from plimsoll.spec import Input, Spec
from plimsoll.spec.spec import Tensors

DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def spec(*steps: dict[str, Any], tensor: str | None = None) -> Spec:
    return Spec(
        name="small",
        input=Input.model_validate({"steps": [{"step": "decode"}, *steps], "tensor": tensor}),
        output=Tensors(),
    )


def convolution(
    folder: Path,
    contract: Spec,
    *,
    name: str = "input",
    opset: int = 13,
    ir: int = 8,
    front: str = "",
    free: bool = False,
) -> Model:
    """A convolution with padding over what the Spec makes, a ReLU and the mean; `front` puts an operator before it.

    `front`: "pad" (explicit zeros), "grey pad" (explicit 9), "both" (the input is read twice), "same" (an Identity).
    """
    form = contract.input.tensor_spec
    sizes: list[Any] = ["N", *(None if free else size for size in form.shape[:-1]), form.channels]
    if form.layout == "NCHW":
        sizes = ["N", form.channels, *([None, None] if free else form.shape[1:])]
    generator = np.random.default_rng(3)
    weights = (generator.normal(size=(4, form.channels, 3, 3)) / 30).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.ones(4, np.float32), "bias")]
    nodes = []
    value = name
    if form.dtype != "float32":
        nodes.append(helper.make_node("Cast", [value], ["floats"], to=TensorProto.FLOAT))
        value = "floats"
    if form.layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [value], ["planes"], perm=[0, 3, 1, 2]))
        value = "planes"
    pads = [1, 1, 1, 1]
    if front in {"pad", "grey pad"}:
        constants += [
            numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "pads"),
            numpy_helper.from_array(np.array(9 if front == "grey pad" else 0, np.float32), "level"),
        ]
        nodes.append(helper.make_node("Pad", [value, "pads", "level"], ["padded"]))
        value, pads = "padded", [0, 0, 0, 0]
    if front == "same":
        nodes.append(helper.make_node("Identity", [value], ["same"]))
        value = "same"
    nodes += [
        helper.make_node("Conv", [value, "weights", "bias"], ["convolved"], pads=pads),
        helper.make_node("Relu", ["convolved"], ["rectified"]),
        helper.make_node("GlobalAveragePool", ["rectified"], ["pooled"]),
    ]
    outputs = [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["N", 4, 1, 1])]
    if front == "both":
        nodes.append(helper.make_node("ReduceMax", [name], ["brightest"], axes=[1, 2, 3]))
        outputs.append(helper.make_tensor_value_info("brightest", DTYPES[form.dtype], ["N", 1, 1, 1]))
    inputs = [helper.make_tensor_value_info(name, DTYPES[form.dtype], sizes)]
    if ir < 4:
        inputs += [
            helper.make_tensor_value_info(constant.name, constant.data_type, list(constant.dims))
            for constant in constants
        ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    path = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir), path)
    return Model(path, "onnx", contract)
