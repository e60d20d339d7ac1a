"""Products with a stored matrix as the layers that they are: onnx2tf writes them as products of two matrices, of which
int8 knows one scale, with the bias as an addition of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_BUILTIN = schema.BuiltinOperator
_KEEPS_AXES = 5
"""The first version of FULLY_CONNECTED that keeps the axes of what it reads."""


def write_layers(model: Any) -> None:
    """Turn each BATCH_MATMUL with a stored matrix, and an addition behind it of a stored row, into FULLY_CONNECTED."""
    for graph in model.subgraphs:
        outputs = set(graph.outputs)
        for operator in list(graph.operators):
            weights = _stored_matrix(model, graph, operator)
            if weights is None:
                continue
            addition, bias = _addition(model, graph, operator, outputs)
            index = _add_matrix(model, graph, operator, np.ascontiguousarray(weights.T))
            operator.opcodeIndex = _code(model)
            operator.inputs = np.array([operator.inputs[0], index, bias], np.int32)
            operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            operator.builtinOptions = schema.FullyConnectedOptionsT()
            operator.builtinOptions.keepNumDims = True
            if addition is not None:
                operator.outputs = addition.outputs
                operator.builtinOptions.fusedActivationFunction = addition.builtinOptions.fusedActivationFunction
                graph.operators.remove(addition)


def _stored_matrix(model: Any, graph: Any, operator: Any) -> Any:
    """Return the matrix [inputs, outputs] that a product multiplies with; None for anything else."""
    if model.operatorCodes[operator.opcodeIndex].builtinCode != _BUILTIN.BATCH_MATMUL or operator.builtinOptions.adjX:
        return None
    matrix = _stored(model, graph, operator.inputs[1])
    if matrix is None or matrix.ndim != 2:
        return None
    return matrix.T if operator.builtinOptions.adjY else matrix


def _addition(model: Any, graph: Any, operator: Any, outputs: set[int]) -> tuple[Any, int]:
    """Return the addition of a bias that alone reads a product, and the bias's index; None and -1 without one."""
    (product,) = operator.outputs
    readers = [reader for reader in graph.operators if product in list(reader.inputs)]
    if len(readers) != 1 or product in outputs:
        return None, -1
    (reader,) = readers
    if model.operatorCodes[reader.opcodeIndex].builtinCode != _BUILTIN.ADD:
        return None, -1
    (other,) = [index for index in reader.inputs if index != product] or [product]
    row = _stored(model, graph, other)
    size = int(graph.tensors[product].shape[-1])
    same = list(graph.tensors[reader.outputs[0]].shape) == list(graph.tensors[product].shape)
    if row is None or not same or row.size != size or row.shape[-1:] != (size,):
        return None, -1
    return reader, _add_tensor(model, graph, row.reshape(size), f"{_name(graph, product)}_bias")


def _stored(model: Any, graph: Any, index: int) -> Any:
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
        return None
    return np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)


def _add_matrix(model: Any, graph: Any, operator: Any, matrix: Any) -> int:
    return _add_tensor(model, graph, matrix, f"{_name(graph, operator.outputs[0])}_weights")


def _add_tensor(model: Any, graph: Any, values: Any, name: str) -> int:
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor.name, tensor.shape, tensor.type = name.encode(), list(values.shape), schema.TensorType.FLOAT32
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _name(graph: Any, index: int) -> str:
    return str(graph.tensors[index].name.decode())


def _code(model: Any) -> int:
    """Return the index of the layer's code, added where it is missing."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == _BUILTIN.FULLY_CONNECTED and code.version >= _KEEPS_AXES:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _BUILTIN.FULLY_CONNECTED
    code.version = _KEEPS_AXES
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
