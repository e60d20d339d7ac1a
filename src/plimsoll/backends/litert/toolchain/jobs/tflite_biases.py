"""Biases that int32 holds: the quantizer clips what it can't.

A bias is stored in steps of `input scale × weight scale`. Where a channel's weights are next to nothing (training
drove them there, or a batch normalization's scale did), so are its steps, and of the constant that the channel gives
int32 holds nothing. Such a channel gets a weight scale in which its bias fits into half of int32's range; the other
half is the sum's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from tflite_names import write

_BUILTIN = schema.BuiltinOperator
_BIASED = (_BUILTIN.CONV_2D, _BUILTIN.DEPTHWISE_CONV_2D, _BUILTIN.FULLY_CONNECTED)
"""Operators that read a picture, weights and a bias."""
_HALF = 2.0**30
_TOP = 127


def make_room(quantized: Path, source: Path) -> None:
    """Write a quantized file again with the biases of the float file that it was made from, where they were clipped."""
    model, original = (flatbuffer_utils.read_model(str(path)) for path in (quantized, source))
    changed = False
    for graph, before in zip(model.subgraphs, original.subgraphs, strict=True):
        floats = {tensor.name: tensor for tensor in before.tensors}
        for operator in graph.operators:
            if model.operatorCodes[operator.opcodeIndex].builtinCode in _BIASED and len(operator.inputs) == 3:
                picture, weights, bias = (graph.tensors[index] for index in operator.inputs)
                exact = [_values(original, floats.get(tensor.name)) for tensor in (weights, bias)]
                if bias.type == schema.TensorType.INT32 and all(values is not None for values in exact):
                    changed |= _widen(model, (picture, weights, bias), *exact)
    if changed:
        write(model, quantized)


def _values(model: Any, tensor: Any) -> Any:
    """Return the float32 numbers that a tensor stores; None where it stores none."""
    if tensor is None or tensor.type != schema.TensorType.FLOAT32:
        return None
    data = model.buffers[tensor.buffer].data
    return None if data is None else np.frombuffer(bytes(data), np.float32).reshape(tensor.shape).astype(np.float64)


def _widen(model: Any, tensors: tuple[Any, Any, Any], weights: Any, bias: Any) -> bool:
    """Give the channels whose biases don't fit another scale; tells whether there were any."""
    picture, stored, stored_bias = tensors
    step = float(picture.quantization.scale[0])
    scales = np.array(stored.quantization.scale, np.float64)
    least = np.abs(bias) / (step * _HALF)
    if len(scales) != len(bias) or not (scales < least).any():
        return False
    scales = np.maximum(scales, least)
    axis = stored.quantization.quantizedDimension
    shape = [len(scales) if index == axis else 1 for index in range(weights.ndim)]
    rounded = np.clip(np.rint(weights / scales.reshape(shape)), -_TOP, _TOP).astype(np.int8)
    _store(model, stored, rounded, scales)
    _store(model, stored_bias, np.rint(bias / (step * scales)).astype(np.int32), step * scales)
    return True


def _store(model: Any, tensor: Any, values: Any, scales: Any) -> None:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    tensor.quantization.scale = scales.astype(np.float32)
