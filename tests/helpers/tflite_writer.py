"""Small TFLite files, written with the schema's own objects, and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

Kind = Literal["float32", "int8", "uint8", "dynamic", "custom", "select", "recurrent", "random", "counter", "once"]
Array = NDArray[np.float32]

WEIGHTS: Array = np.random.default_rng(5).normal(size=(4, 12)).astype(np.float32)
STEPS = {"picture": (0.01, 10), "scores": (0.06, -5)}
"""Scale and zero point of the quantized ends; those of uint8 lie 128 higher."""
_WEIGHT_SCALE = float(np.abs(WEIGHTS).max()) / 127


def pictures(count: int) -> Array:
    """`[count, 2, 2, 3]` in -1 … 1."""
    return np.random.default_rng(count).uniform(-1, 1, (count, 2, 2, 3)).astype(np.float32)


def expected(batch: Array) -> Array:
    """scores `[N, 4]` = picture x weights."""
    return np.asarray(batch.reshape(len(batch), 12) @ WEIGHTS.T)


def network(path: Path, kind: Kind = "float32", batch: int = 1) -> Path:
    """Write picture `[batch, 2, 2, 3]` → scores `[batch, 4]`; -1 for a free batch.

    `int8` and `uint8`: all of it is, its ends too. `dynamic`: the weights are int8. `custom`, `select`: an operator
    follows that LiteRT has not. `recurrent`: a unit follows that adds its state, which is its last output. `random`: a
    random number is drawn, `counter`: a resource is assigned to, `once`: the same where the network is prepared.
    """
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    files = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils")
    graph, model = schema.SubGraphT(), schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    weights = _tensor(schema, model, "weights", [4, 12], "int8" if kind == "dynamic" else kind, _stored(kind))
    if kind in ("int8", "uint8", "dynamic"):
        weights.quantization = _quantization(schema, _WEIGHT_SCALE, 128 if kind == "uint8" else 0)
    picture = _tensor(schema, model, "picture", [batch, 2, 2, 3], kind)
    scores = _tensor(schema, model, "scores", [batch, 4], kind)
    graph.tensors, graph.inputs, graph.outputs = [picture, weights, scores], [0], [2]
    graph.operators = [_operator(schema, model, schema.BuiltinOperator.FULLY_CONNECTED, [0, 1, -1], [2])]
    options = graph.operators[0]
    options.builtinOptionsType, options.builtinOptions = (
        schema.BuiltinOptions.FullyConnectedOptions,
        schema.FullyConnectedOptionsT(),
    )
    if kind in ("custom", "select"):
        graph.tensors.append(_tensor(schema, model, "stranger", [batch, 4], "float32"))
        graph.operators.append(
            _operator(
                schema,
                model,
                schema.BuiltinOperator.CUSTOM,
                [2],
                [3],
                "Frobnicate" if kind == "custom" else "FlexBetainc",
            )
        )
        graph.outputs = [3]
    model.subgraphs = [graph]
    if kind == "recurrent":
        _add_recurrent(schema, model, graph)
    elif kind in ("random", "counter", "once"):
        _add_unsteady(schema, model, graph, kind)
    path.write_bytes(bytes(files.convert_object_to_bytearray(model)))
    return path


def _add_recurrent(schema: Any, model: Any, graph: Any) -> None:
    identity, zero = np.eye(4, dtype=np.float32), np.zeros(4, np.float32)
    state = _tensor(schema, model, "state", [1, 4], "float32")
    state.isVariable = True
    stored = [
        _tensor(schema, model, name, list(values.shape), "float32", values)
        for name, values in (("scale", identity), ("feedback", identity), ("bias", zero))
    ]
    first = len(graph.tensors)
    graph.tensors += [*stored, state, _tensor(schema, model, "sum", [1, 4], "float32")]
    reads = [2, first, first + 1, first + 2, first + 3]
    operator = _operator(schema, model, schema.BuiltinOperator.RNN, reads, [first + 4])
    model.operatorCodes[-1].version = 1
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.RNNOptions, schema.RNNOptionsT()
    graph.operators.append(operator)
    graph.outputs = [first + 4]


def _add_unsteady(schema: Any, model: Any, graph: Any, kind: Kind) -> None:
    """Add operators that are read, and never run."""
    codes = schema.BuiltinOperator
    if kind == "random":
        graph.operators.append(_operator(schema, model, codes.RANDOM_UNIFORM, [1], [2]))
        return
    assigned = _operator(schema, model, codes.ASSIGN_VARIABLE, [0, 1], [])
    if kind == "counter":
        graph.operators.append(assigned)
        return
    prepare = _operator(schema, model, codes.CALL_ONCE, [], [])
    prepare.builtinOptionsType, prepare.builtinOptions = (
        schema.BuiltinOptions.CallOnceOptions,
        schema.CallOnceOptionsT(),
    )
    prepare.builtinOptions.initSubgraphIndex = 1
    graph.operators.append(prepare)
    inner = schema.SubGraphT()
    inner.tensors, inner.inputs, inner.outputs, inner.operators = graph.tensors, [], [], [assigned]
    model.subgraphs.append(inner)


def _stored(kind: Kind) -> NDArray[Any]:
    steps: NDArray[Any] = np.rint(WEIGHTS / _WEIGHT_SCALE)
    if kind == "uint8":
        return (steps + 128).astype(np.uint8)
    return steps.astype(np.int8) if kind in ("int8", "dynamic") else WEIGHTS


def _tensor(schema: Any, model: Any, name: str, shape: list[int], kind: str, values: NDArray[Any] | None = None) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.shapeSignature, tensor.buffer = (
        name.encode(),
        [abs(size) for size in shape],
        shape,
        0,
    )
    tensor.type = {"int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8}.get(
        kind, schema.TensorType.FLOAT32
    )
    if values is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    elif name in STEPS and kind in ("int8", "uint8"):
        scale, zero = STEPS[name]
        tensor.quantization = _quantization(schema, scale, zero + (128 if kind == "uint8" else 0))
    return tensor


def _quantization(schema: Any, scale: float, zero: int) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = [scale], [zero]
    return quantization


def _operator(schema: Any, model: Any, code: int, inputs: list[int], outputs: list[int], custom: str = "") -> Any:
    entry, operator = schema.OperatorCodeT(), schema.OperatorT()
    entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
    entry.version, entry.customCode = (4, None) if not custom else (1, custom.encode())
    model.operatorCodes = [*(model.operatorCodes or []), entry]
    operator.opcodeIndex, operator.inputs, operator.outputs = len(model.operatorCodes) - 1, inputs, outputs
    return operator
