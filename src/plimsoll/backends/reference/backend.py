"""ONNX's own evaluator in NumPy: slow, simple, and authoritative on what a graph means. For tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.base import AvailableTarget, Backend, CalibrationData, ThreadPlan
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, TensorInfo, Tensors
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, RunError


class Reference(Backend):
    """ONNX's reference evaluator."""

    name = "reference"
    title = "ONNX's reference evaluator"
    deployable = False

    def targets(self) -> tuple[AvailableTarget, ...]:
        return (AvailableTarget(Target("reference", "cpu", "float32")),)

    def build(self, model: Model, target: Target, folder: Path, calibration: CalibrationData | None = None) -> Model:
        del target, folder, calibration
        if model.format != "onnx":
            raise BuildError(
                f"{model.source}: the reference evaluator reads ONNX files, this one is {model.format}",
                "Give the ONNX network that it was made from, or convert it: `plimsoll import MODEL --out NAME.onnx`.",
            )
        return model

    def load(self, model: Model, target: Target, options: Any, plan: ThreadPlan) -> ReferenceSession:
        del options, plan
        self.check(target)
        with translate(BuildError, f"the reference evaluator can't load {model.source.name}"):
            onnx = require("onnx", "pip install onnx")
            evaluator = require("onnx.reference", "pip install onnx").ReferenceEvaluator
            proto = onnx.load(str(model.path))
            require("onnx.checker", "pip install onnx").check_model(proto)
            return ReferenceSession(evaluator(proto), proto.graph, onnx.helper.tensor_dtype_to_np_dtype)


class ReferenceSession:
    """ONNX's own evaluator, one call at a time."""

    concurrent = False

    def __init__(self, evaluator: Any, graph: Any, numpy_dtype: Any) -> None:
        self._evaluator = evaluator
        constants = {value.name for value in graph.initializer}
        self.inputs = tuple(_info(value, numpy_dtype) for value in graph.input if value.name not in constants)
        self.outputs = tuple(_info(value, numpy_dtype) for value in graph.output)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        with translate(RunError, "the reference evaluator failed"):
            values = self._evaluator.run(None, dict(feeds))
        return {info.name: np.asarray(value) for info, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        self._evaluator = None


def _info(value: Any, numpy_dtype: Any) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in tensor.shape.dim
    )
    return TensorInfo(value.name, shape, str(np.dtype(numpy_dtype(tensor.elem_type))))


BACKEND = Reference()
