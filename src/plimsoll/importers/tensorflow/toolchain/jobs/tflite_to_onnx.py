"""TFLite → ONNX in float32, by tf2onnx, with what the same network answers to a probe in TensorFlow Lite's interpreter.

A quantized file is made a float one first (`tflite_dequantize`), which answers the probe; how far the quantized one
lies off is measured beside that. So is how far the interpreter's two sets of kernels lie apart: nothing can be held to
more than that.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from plimsoll_job import RefusedError
from tensorflow.lite.tools import flatbuffer_utils
from tf2onnx import convert
from tflite_dequantize import dequantize

_OPSET = 17
_LAST_OLD_CODE = 127
"""Operators from here on are in the newer field only, as the schema has it."""
_CONTRASTS = (1.0, 4.0)
"""Each item of a probe spreads over another range."""

Tensors = dict[str, Any]


def run(request: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    model = flatbuffer_utils.read_model(str(inputs["model"]))
    for code in model.operatorCodes:  # Newer writers leave the older field out, and tf2onnx reads no other.
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        code.deprecatedBuiltinCode = min(code.builtinCode, _LAST_OLD_CODE)
    model.signatureDefs = []
    _refuse_sparse(model)
    plain = Path("plain.tflite").absolute()
    if request["quantized"]:
        dequantize(model)
    for buffer in model.buffers:
        if buffer.data is not None:  # What isn't an array would be packed byte by byte.
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    flatbuffer_utils.write_model(model, str(plain))
    interpreter = _interpreter(plain)
    feeds = _feeds(interpreter)
    answers = _answer(interpreter, feeds)
    again = _answer(_interpreter(plain, tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES), feeds)
    np.savez(
        out / "probe.npz",
        **{f"feed {name}": value for name, value in feeds.items()},
        **{f"answer {name}": value for name, value in answers.items()},
    )
    convert.from_tflite(str(plain), opset=_OPSET, output_path=str(out / "model.onnx"))
    _finish(out / "model.onnx", list(feeds))
    rounded = _answer(_interpreter(inputs["model"]), feeds) if request["quantized"] else answers
    apart = {
        name: float(np.abs(rounded[name].astype(np.float64) - value).max(initial=0))
        for name, value in answers.items()
        if value.dtype == np.float32
    }
    return {
        "framework": f"TensorFlow Lite {tf.__version__}",
        "rounding": apart,
        "spread": max(_relative(answers[name], again[name]) for name in answers),
    }


def _refuse_sparse(model: Any) -> None:
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.sparsity is not None:
                raise RefusedError(
                    "its weights are stored sparse, which tf2onnx can't read",
                    "Run the file as it is, with the runtime litert.",
                )


def _relative(reference: Any, other: Any) -> float:
    """Return how far two answers lie apart, relative to the larger of each value and their root mean square."""
    exact, actual = reference.astype(np.float64), other.astype(np.float64)
    floor = max(float(np.sqrt(np.mean(exact**2))), 1e-6) if exact.size else 1.0
    return float((np.abs(actual - exact) / np.maximum(np.abs(exact), floor)).max(initial=0))


def _interpreter(path: Path, kernels: Any = tf.lite.experimental.OpResolverType.AUTO) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It says that it will move to another package.
        interpreter = tf.lite.Interpreter(model_path=str(path), experimental_op_resolver_type=kernels)
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise RefusedError(
            f"TensorFlow Lite can't run it: {' '.join(str(error).split())[:300]}",
            "It needs operators that the runtime doesn't have.",
        ) from error
    return interpreter


def _feeds(interpreter: Any) -> Tensors:
    """Make the tensors of the probe; several items where the file takes one at a time, or any number."""
    random = np.random.default_rng(20261122)
    details = interpreter.get_input_details()
    items = len(_CONTRASTS) if all(len(detail["shape"]) and detail["shape"][0] == 1 for detail in details) else 1
    feeds = {}
    for detail in details:
        dtype, shape = detail["dtype"], detail["shape"]
        real = np.issubdtype(dtype, np.floating)
        pictures = [
            (
                random.uniform(-contrast, contrast, shape)
                if real
                else random.integers(0, 256 if dtype is np.uint8 else 100, shape)
            )
            for contrast in _CONTRASTS
        ]
        feeds[detail["name"]] = (
            np.concatenate(pictures[:items]).astype(dtype) if items > 1 else pictures[0].astype(dtype)
        )
    return feeds


def _answer(interpreter: Any, feeds: Tensors) -> Tensors:
    """Answer item after item, in real values: what a file takes and gives in integers is rounded and multiplied
    back."""
    details = interpreter.get_input_details()
    items = (
        len(next(iter(feeds.values())))
        if all(len(detail["shape"]) and detail["shape"][0] == 1 for detail in details)
        else 1
    )
    given: dict[str, list[Any]] = {}
    for item in range(items):
        for detail in details:
            value = feeds[detail["name"]]
            interpreter.set_tensor(detail["index"], _to_steps(value[item : item + 1] if items > 1 else value, detail))
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            given.setdefault(detail["name"], []).append(_to_values(interpreter.get_tensor(detail["index"]), detail))
    return {name: np.concatenate(values) if items > 1 else values[0] for name, values in given.items()}


def _to_steps(values: Any, detail: Tensors) -> Any:
    scale, zero = detail["quantization"]
    if not scale:
        return values
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(detail["dtype"])


def _to_values(steps: Any, detail: Tensors) -> Any:
    scale, zero = detail["quantization"]
    return (steps.astype(np.float32) - zero) * np.float32(scale) if scale else steps


def _finish(path: Path, inputs: list[str]) -> None:
    """Refuse what tf2onnx left as it was, having no ONNX operators for it; give the free batch axis one name."""
    proto = onnx.load(path)
    graph = proto.graph
    unknown = sorted(
        {
            node.op_type.removeprefix("TFL_")
            for node in graph.node
            if node.domain or not onnx.defs.has(node.op_type, _OPSET, "")
        }
    )
    if unknown:
        hint = "Run the file as it is, with the runtime litert, or export the network to ONNX with its own framework."
        raise RefusedError(f"tf2onnx has no ONNX for its operators {', '.join(unknown)}", hint)
    axes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)}
    free = [name for name, sizes in axes.items() if sizes and not sizes[0].HasField("dim_value")]
    for name in free if set(free) & set(inputs) else ():
        axes[name][0].dim_param = "N"
    onnx.save(proto, path)
