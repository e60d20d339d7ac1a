"""Make a quantized TFLite network a float one: each stored integer becomes the value that it stands for, and nothing is
rounded on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from plimsoll_job import RefusedError
from tensorflow.lite.python import schema_py_generated as schema

_DTYPES = {
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}
_BETWEEN = (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE)


def dequantize(model: Any) -> None:
    """Change a model, as the schema's objects: its tensors are float32 wherever they were quantized, its ends too,
    under the same names."""
    for graph in model.subgraphs:
        changed = {index for index, tensor in enumerate(graph.tensors) if _scales(tensor).size}
        for index in changed:
            _make_float(model, graph.tensors[index])
        _leave_out_steps(model, graph, changed)


def _scales(tensor: Any) -> Any:
    """Return the scales of a tensor, one or one a channel; none where its numbers mean themselves."""
    scale = tensor.quantization.scale if tensor.quantization is not None else None
    return (
        np.zeros(0, np.float32)
        if scale is None or tensor.type == schema.TensorType.FLOAT32
        else np.asarray(scale, np.float32)
    )


def _make_float(model: Any, tensor: Any) -> None:
    if tensor.type not in _DTYPES:
        raise RefusedError(
            f"its tensor {_text(tensor.name)!r} is quantized to a type that can't be converted",
            "Run the file as it is, with the runtime litert.",
        )
    data = model.buffers[tensor.buffer].data
    if data is not None and len(data):
        quantization = tensor.quantization
        values = np.frombuffer(bytes(data), _DTYPES[tensor.type]).reshape(tensor.shape).astype(np.float32)
        shape = [1] * values.ndim
        if len(quantization.scale) > 1:
            shape[quantization.quantizedDimension] = -1
        zeros = np.zeros(1) if quantization.zeroPoint is None else quantization.zeroPoint
        real = (values - np.asarray(zeros, np.float32).reshape(shape)) * _scales(tensor).reshape(shape)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(real.astype(np.float32).tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None


def _leave_out_steps(model: Any, graph: Any, changed: set[int]) -> None:
    """Leave out the operators between floats and integers, and let whoever read what they gave read what they took."""
    same: dict[int, int] = {}
    operators = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        source, target = operator.inputs[0], operator.outputs[0]
        if (
            code in _BETWEEN
            and (source in changed or target in changed)
            and not (source in graph.inputs and target in graph.outputs)
        ):
            source = same.get(source, source)
            same[target] = source
            if target in graph.outputs:
                _swap_names(graph, source, target)
        else:
            operators.append(operator)
    graph.operators = operators
    for operator in operators:
        if hasattr(operator.builtinOptions, "asymmetricQuantizeInputs"):
            operator.builtinOptions.asymmetricQuantizeInputs = False  # It had the kernel quantize what it reads.
        operator.inputs = [same.get(index, index) for index in operator.inputs]
    graph.outputs = [same.get(index, index) for index in graph.outputs]


def _swap_names(graph: Any, source: int, target: int) -> None:
    inner, outer = graph.tensors[source], graph.tensors[target]
    inner.name, outer.name = outer.name, inner.name


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
