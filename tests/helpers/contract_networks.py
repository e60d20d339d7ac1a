"""Small networks for the contract suite in each form, written out by hand, with what they compute stated in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from plimsoll.core.model import Model
from plimsoll.onnx.form import OnnxForm

Array = NDArray[np.float32]
WEIGHTS: Array = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)
_node = helper.make_node


def network(path: Path, batch: int | str = "N", form: OnnxForm = "float32") -> Model:
    """scores = softmax(mean over pixels of relu(picture - 0.5) x weights): picture [N, 5, 6, 3] to scores [N, 4].

    Inputs and outputs are float32 in every form. `float16`: all between them is. `qdq`: picture, means and weights (by
    row) are int8. `dynamic`: the means are, by their own range, and the weights.
    """
    float_ = np.float16 if form == "float16" else np.float32
    constants: dict[str, NDArray[np.generic]] = {"half": np.array(0.5, float_), "axes": np.array([1, 2], np.int64)}
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    taken, given = "picture", "logits"
    if form == "float16":
        before, taken = [_node("Cast", ["picture"], ["cast"], to=TensorProto.FLOAT16)], "cast"
        after, given = [_node("Cast", ["logits"], ["wide"], to=TensorProto.FLOAT)], "wide"
    if form == "qdq":
        before, taken = _quantized("picture", 1 / 255, constants), "picture_dq"
    nodes = [
        *before,
        _node("Sub", [taken, "half"], ["centred"]),
        _node("Relu", ["centred"], ["positive"]),
        _node("ReduceMean", ["positive", "axes"], ["means"], keepdims=0),
        *_product(form, constants),
        *after,
        _node("Softmax", [given], ["scores"], axis=-1),
    ]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, 5, 6, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 4])
    return save(
        path, nodes, [picture], [scores], [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )


def _product(form: OnnxForm, constants: dict[str, NDArray[np.generic]]) -> list[onnx.NodeProto]:
    """Compute logits = means x weights."""
    if form in ("float32", "float16"):
        constants["weights"] = WEIGHTS.astype(constants["half"].dtype)
        return [_node("Gemm", ["means", "weights"], ["logits"], transB=1)]
    if form == "qdq":
        scales = np.abs(WEIGHTS).max(axis=1) / np.float32(127)
        constants |= {
            "weights_q": np.rint(WEIGHTS / scales[:, np.newaxis]).astype(np.int8),
            "weights_scale": scales,
            "weights_zero": np.zeros(4, np.int8),
        }
        unpacked = _node("DequantizeLinear", ["weights_q", "weights_scale", "weights_zero"], ["weights"], axis=0)
        return [
            *_quantized("means", 0.5 / 255, constants),
            unpacked,
            _node("Gemm", ["means_dq", "weights"], ["logits"], transB=1),
        ]
    scale = np.abs(WEIGHTS).max() / np.float32(127)
    constants |= {"weights_q": np.rint(WEIGHTS.T / scale).astype(np.int8), "weights_scale": np.array(scale, np.float32)}
    return [
        _node("DynamicQuantizeLinear", ["means"], ["means_q", "means_scale", "means_zero"]),
        _node("MatMulInteger", ["means_q", "weights_q", "means_zero"], ["sums"]),
        _node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        _node("Mul", ["means_scale", "weights_scale"], ["both"]),
        _node("Mul", ["floats", "both"], ["logits"]),
    ]


def _quantized(
    name: str, scale: float, constants: dict[str, NDArray[np.generic]], zero: int = 0
) -> list[onnx.NodeProto]:
    """Pass a tensor through uint8: `name` to `name`_dq."""
    constants |= {f"{name}_scale": np.array(scale, np.float32), f"{name}_zero": np.array(zero, np.uint8)}
    return [
        _node("QuantizeLinear", [name, f"{name}_scale", f"{name}_zero"], [f"{name}_q"]),
        _node("DequantizeLinear", [f"{name}_q", f"{name}_scale", f"{name}_zero"], [f"{name}_dq"]),
    ]


def expected(pictures: Array) -> Array:
    means = np.maximum(pictures - np.float32(0.5), 0).mean(axis=(1, 2))
    logits = means @ WEIGHTS.T
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def two_inputs(path: Path, form: OnnxForm = "float32") -> Model:
    """total = a + b in float32, difference = a - b in the form's numbers: exact for whole ones from -255 to 0, with
    -255 among them."""
    constants: dict[str, NDArray[np.generic]] = {}
    nodes = [_node("Add", ["a", "b"], ["total"])]
    if form == "float32":
        nodes += [_node("Sub", ["a", "b"], ["difference"])]
    elif form == "float16":
        constants["one"] = np.array(1, np.float16)
        casts = [_node("Cast", [name], [f"{name}_half"], to=TensorProto.FLOAT16) for name in ("a", "b")]
        product = _node("Mul", ["difference_half", "one"], ["difference_one"])
        nodes += [
            *casts,
            _node("Sub", ["a_half", "b_half"], ["difference_half"]),
            product,
            _node("Cast", ["difference_one"], ["difference"], to=TensorProto.FLOAT),
        ]
    elif form == "qdq":
        nodes += [
            _node("Sub", ["a", "b"], ["wide"]),
            *_quantized("wide", 1, constants, zero=255),
            _node("Identity", ["wide_dq"], ["difference"]),
        ]
    else:
        nodes += [
            _node("Sub", ["a", "b"], ["wide"]),
            _node("DynamicQuantizeLinear", ["wide"], ["wide_q", "wide_scale", "wide_zero"]),
            _node("DequantizeLinear", ["wide_q", "wide_scale", "wide_zero"], ["difference"]),
        ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("a", "b", "total", "difference")
    ]
    return save(
        path, nodes, infos[:2], infos[2:], [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> Model:
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return Model(path, "onnx")
