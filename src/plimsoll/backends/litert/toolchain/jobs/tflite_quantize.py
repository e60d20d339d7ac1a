"""A float TFLite file → float16, dynamic, int8 or int16x8, by ai-edge-quantizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import qtyping, quantizer
from tflite_biases import make_room
from tflite_float import float_operators
from tflite_names import rename, sign, write

_OPS = qtyping.TFLOperationName
_ACTIVATION_BITS = {"int8": 8, "int16x8": 16}
_ROOM = {"int8": 1.0, "int16x8": 2.0}
"""By how much a range is widened: of 16 bits, one may well be spent on values beyond those of the calibration."""
_LEAST = -1e30
_SKIP = quantizer.AlgorithmName.NO_QUANTIZE
_FLOAT16 = qtyping.OpQuantizationConfig(
    weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
    compute_precision=qtyping.ComputePrecision.FLOAT,
    explicit_dequantize=True,
)

Ranges = dict[str, dict[str, Any]]


def run(request: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    source = Path("float.tflite").absolute()
    _write_plain(inputs["model"], source)
    interpreter = Interpreter(str(source))
    taken = [detail["name"] for detail in interpreter.get_input_details()]
    given = [detail["name"] for detail in interpreter.get_output_details()]
    plan = quantizer.Quantizer(str(source))
    ranges: Ranges | None = None
    if request["precision"] == "float16":
        plan.update_quantization_recipe(".*", _OPS.ALL_SUPPORTED, _FLOAT16, quantizer.AlgorithmName.FLOAT_CASTING)
    elif request["precision"] == "dynamic":
        plan.add_dynamic_config(".*", _OPS.ALL_SUPPORTED, 8)
    else:
        bits = _ACTIVATION_BITS[request["precision"]]
        _plan_integers(plan, bits, given, request["io"] == "float32")
        special = float_operators(source, request["ranges"], bits, float_ends=request["io"] == "float32")
        _keep_in_float(plan, special.exact)
        if special.last:
            plan.add_dynamic_config(_scopes(special.last), _OPS.ALL_SUPPORTED, 8)
        room = _ROOM[request["precision"]]
        ranges = {
            name: _range(max(low * room, special.least.get(name, low * room)), high * room)
            for name, (low, high) in request["ranges"].items()
        }
        _bound_padding(source, ranges)
    work = quantizer.Quantizer(str(source), plan.get_quantization_recipe())
    done = work.quantize(ranges, enable_progress_report=False)
    written = Path("quantized.tflite").absolute()
    written.write_bytes(done.quantized_model)
    if request["precision"] == "int8":  # A bias of int16x8 has 64 bits.
        make_room(written, source)
    rename(written, out / "network.tflite", taken, given, f"PLIMSOLL_{request['precision']}")
    return {}


def _write_plain(source: Path, target: Path) -> None:
    """Write the file again as the quantizer needs it.

    It goes by the signature. Additions and subtractions are to take any scale in int16; powers of two alone are their
    default.
    """
    model = flatbuffer_utils.read_model(str(source))
    for graph in model.subgraphs:
        for operator in graph.operators:
            if hasattr(operator.builtinOptions, "potScaleInt16"):
                operator.builtinOptions.potScaleInt16 = False
    sign(model)
    write(model, target)


def _plan_integers(plan: quantizer.Quantizer, bits: int, outputs: list[str], float_io: bool) -> None:
    plan.add_static_config(".*", _OPS.ALL_SUPPORTED, bits, 8)
    # With a scale a channel, a product with a stored matrix comes out as nonsense (seen in 0.10: every score the same).
    plan.add_static_config(".*", _OPS.BATCH_MATMUL, bits, 8, qtyping.QuantGranularity.TENSORWISE)
    if not float_io:
        return
    for end in (_OPS.INPUT, _OPS.OUTPUT):
        plan.update_quantization_recipe(".*", end, algorithm_key=_SKIP)
    _keep_in_float(plan, outputs, _OPS.SOFTMAX, _OPS.LOGISTIC)  # Scores would have steps of 1/256.


def _keep_in_float(plan: quantizer.Quantizer, outputs: list[str], *kinds: str) -> None:
    """Leave the operators that give these tensors in float, or those of these kinds among them."""
    for kind in kinds or (_OPS.ALL_SUPPORTED,):
        if outputs:
            plan.update_quantization_recipe(_scopes(outputs), kind, algorithm_key=_SKIP)


def _scopes(outputs: list[str]) -> str:
    """Return the pattern of the operators that give these tensors; one with several is called by all, `a;b;`."""
    return f"^(({'|'.join(map(re.escape, outputs))});?)+$"


def _bound_padding(path: Path, ranges: Ranges) -> None:
    """Let what pads a maximum be the least value of what is padded.

    It is the least float32 of all, which would stretch the integers' steps to 1e36.
    """
    model = flatbuffer_utils.read_model(str(path))
    for graph in model.subgraphs:
        for operator in graph.operators:
            if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.PADV2:
                continue
            source, _, value = (graph.tensors[index] for index in operator.inputs)
            stored = model.buffers[value.buffer].data
            name = source.name.decode()
            if stored is None or name not in ranges or np.frombuffer(bytes(stored), np.float32)[0] > _LEAST:
                continue
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(ranges[name]["min"], np.float32).ravel()[:1].tobytes(), np.uint8)
            value.buffer = len(model.buffers)
            model.buffers.append(buffer)
            ranges[graph.tensors[operator.outputs[0]].name.decode()] = ranges[name]
    write(model, path)


def _range(low: float, high: float) -> dict[str, Any]:
    return {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
