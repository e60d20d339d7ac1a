"""What the proofs are about: a network that tells dark pictures from bright ones, and a budget."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plimsoll.core.budget import Budget
from plimsoll.core.model import Model
from plimsoll.spec import Input, Spec
from plimsoll.spec.spec import Classify
from plimsoll.spec.steps import Step

BUDGET = Budget.parse("flips=40%,mean_deviation=0.02")
"""What a dozen photos can prove."""


@cache
def steps() -> tuple[Step, ...]:
    return Input.model_validate(
        {"steps": [{"step": "decode"}, {"step": "resize", "width": 8, "height": 8}, {"step": "dtype", "to": "float32"}]}
    ).steps


def brightness(path: Path, spec: Spec, least: float = -1.0, output: str = "scores") -> Model:
    """[dark, bright] by the mean level; what is not above `least` becomes NaN."""
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["level"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["level", "least"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),
        helper.make_node("Mul", ["root", "none"], ["nothing"]),
        helper.make_node("Add", ["level", "nothing"], ["kept"]),
        helper.make_node("Unsqueeze", ["kept", "axis"], ["column"]),
        helper.make_node("Gemm", ["column", "weights", "offset"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [output], axis=-1),
    ]
    values = {
        "least": np.array(least),
        "none": np.array(0.0),
        "weights": np.array([[-0.02, 0.02]]),
        "offset": np.array([2.0, -2.0]),
    }
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 8, 8, 3])
    scores = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph(nodes, "brightness", [picture], [scores], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return Model(path, "onnx", spec)


def classify(**more: Any) -> Spec:
    return Spec(name="brightness", input=Input(steps=steps()), output=Classify(labels=("dark", "bright"), **more))
