"""A network in bfloat16, for TensorRT 11, which computes in the types that the network has."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.onnx import graph, load, structure

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_FLOAT, _FLOAT16, _BFLOAT16 = 1, 10, 16
"""Members of ONNX's TensorProto.DataType."""

_KEEP_FLOAT32 = (
    "Softmax",
    "LogSoftmax",
    "ReduceSum",
    "ReduceSumSquare",
    "ReduceL2",
    "ReduceLogSumExp",
    "Exp",
    "Pow",
    "CumSum",
    "InstanceNormalization",
)
"""Operators whose long sums would lose too many of bfloat16's 8 bits."""


def converted(model: Model, folder: Path) -> Path:
    """Write the network with weights and arithmetic in bfloat16, but for a few operators, into `folder`; inputs and
    outputs stay float32.

    The casts are placed by ONNX Runtime's float16 converter; then float16 is renamed, and each weight rounded from its
    float32 value. Raises BuildError.
    """
    half = require("onnxruntime.transformers.float16", "pip install onnxruntime")
    proto = graph.load(model)
    _store_constants(proto)
    exact = {
        tensor.name: graph.array(tensor)
        for tensor in load.messages(proto, "TensorProto")
        if tensor.data_type == _FLOAT and tensor.name
    }
    with translate(BuildError, f"{model.source}: can't be converted to bfloat16"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what float16 can't hold is rounded from its float32 value below
        converted = half.convert_float_to_float16(
            proto, keep_io_types=True, op_block_list=[*half.DEFAULT_OP_BLOCK_LIST, *_KEEP_FLOAT32]
        )
        structure.sort(converted.graph)
        _rename(converted, exact)
        path = folder / f"{model.path.stem}.bfloat16.onnx"
        graph.save(converted, path)
    return path


def _store_constants(proto: ModelProto) -> None:
    """Store what Constant operators hold among the weights, where it has a name."""
    nodes = []
    for node in proto.graph.node:
        value = graph.attribute(node, "value") if node.op_type == "Constant" else None
        if value is None:
            nodes.append(type(node).FromString(node.SerializeToString()))
        else:
            proto.graph.initializer.add().CopyFrom(value)
            proto.graph.initializer[-1].name = node.output[0]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _rename(proto: ModelProto, exact: dict[str, Any]) -> None:
    """Make bfloat16 of all that is float16."""
    for tensor in load.messages(proto, "TensorProto"):
        if tensor.data_type == _FLOAT16:
            _round(tensor, exact)
    for value in load.messages(proto, "Tensor"):  # TypeProto.Tensor: inputs, outputs and what lies between
        if value.elem_type == _FLOAT16:
            value.elem_type = _BFLOAT16
    for node in load.messages(proto, "NodeProto"):
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT16:
                attribute.i = _BFLOAT16


def _round(tensor: TensorProto, exact: dict[str, Any]) -> None:
    """Store a tensor anew in bfloat16, from its float32 values where they are known."""
    from onnx import helper, numpy_helper

    dtype = helper.tensor_dtype_to_np_dtype(_BFLOAT16)
    values = exact.get(tensor.name)
    rounded = (graph.array(tensor) if values is None else values).astype(dtype)
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(rounded, name))
