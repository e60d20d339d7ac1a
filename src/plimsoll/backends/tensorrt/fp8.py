"""A network in fp8 (E4M3): Q/DQ around the convolutions and products whose ranges are known, for GPUs from Ada on.

One scale for each tensor, weights too, as TensorRT's fp8 kernels take them: the largest absolute value becomes 448,
E4M3's largest (P. Micikevicius and others, "FP8 Formats for Deep Learning", arXiv 2209.05433).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LARGEST = 448.0
"""E4M3's largest number."""

_COMPUTING = ("Conv", "Gemm", "MatMul")
_OPSET = 19
"""The first whose QuantizeLinear knows fp8."""
_E4M3 = 17
"""TensorProto.DataType.FLOAT8E4M3FN."""


def quantized(model: Model, ranges: Mapping[str, tuple[float, float]], folder: Path) -> Path:
    """Write the network with Q/DQ in E4M3 into `folder` and return its path.

    `ranges` gives the range of what each operator reads; operators without one stay as they are. Raises BuildError
    where none has one.
    """
    from onnx import version_converter

    proto = graph.load(model)
    with translate(BuildError, f"{model.source}: can't be quantized to fp8"):
        if next(opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx")) < _OPSET:
            proto = version_converter.convert_version(proto, _OPSET)
    work = _Quantizing(proto)
    done = [work.visit(node, ranges) for node in list(proto.graph.node)]
    if not any(done):
        raise BuildError(
            f"{model.source}: none of its operators reads a tensor that the calibration has a range for",
            "Calibrate this very network.",
        )
    work.finish()
    path = folder / f"{model.path.stem}.fp8.onnx"
    graph.save(proto, path)
    return path


class _Quantizing:
    def __init__(self, proto: ModelProto) -> None:
        self._graph = proto.graph
        self._stored = {initializer.name: initializer for initializer in proto.graph.initializer}
        self._before: dict[int, list[NodeProto]] = {}
        self._dequantized: dict[str, str] = {}

    def visit(self, node: NodeProto, ranges: Mapping[str, tuple[float, float]]) -> bool:
        """Let a convolution or product read quantized tensors; tells whether it does now."""
        if node.op_type not in _COMPUTING or node.input[0] not in ranges or node.input[1] not in self._stored:
            return False
        weights = graph.array(self._stored[node.input[1]])
        largest = (max(map(abs, ranges[node.input[0]])), float(np.abs(weights).max(initial=0.0)))
        for index in range(2):
            node.input[index] = self._pair(node, node.input[index], largest[index])
        return True

    def _pair(self, node: NodeProto, name: str, largest: float) -> str:
        """Return a tensor's name behind its quantization and dequantization, which are made where they aren't there
        yet."""
        from onnx import helper

        if name not in self._dequantized:
            scale = self._constant(f"{name}/fp8_scale", np.array(largest / LARGEST if largest > 0 else 1.0, np.float32))
            zero = f"{name}/fp8_zero"
            self._graph.initializer.append(helper.make_tensor(zero, _E4M3, [], [0.0]))
            between, after = f"{name}/fp8", f"{name}/from_fp8"
            self._before.setdefault(id(node), []).extend(
                [
                    helper.make_node("QuantizeLinear", [name, scale, zero], [between], name=between),
                    helper.make_node("DequantizeLinear", [between, scale, zero], [after], name=after),
                ]
            )
            self._dequantized[name] = after
        return self._dequantized[name]

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def finish(self) -> None:
        """Put the new operators before those that read them."""
        nodes = [inserted for node in self._graph.node for inserted in (*self._before.get(id(node), []), node)]
        copies = [type(inserted).FromString(inserted.SerializeToString()) for inserted in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
