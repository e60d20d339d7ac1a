"""Operators that compute each number for itself."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functions

from plimsoll.backends.torch.operators.values import Node, Operator, Value, is_known, known, tensor, wide

_TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip
"""PyTorch's types by ONNX's TensorProto.DataType."""
_ABOUT_PRECISION = {1, 10, 16}


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, torch.Tensor) and not a.is_floating_point():
        return torch.div(a, b, rounding_mode="trunc")
    if isinstance(a, np.ndarray) and a.dtype.kind in "iuO":
        return a // b  # sizes, which are positive
    return a / b


def _binary(compute: Callable[[Any, Any], Any]) -> Operator:
    def run(node: Node, a: Value, b: Value) -> Value:
        del node
        if is_known(a) and is_known(b):
            result: Any = compute(a, b)
            return result if isinstance(result, np.ndarray) else np.array(result, a.dtype)
        like = next(operand for operand in (a, b) if not is_known(operand))
        return tensor(compute(tensor(a, tensor(like)), tensor(b, tensor(like))))

    return run


def _unary(compute: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    def run(node: Node, x: Value) -> Value:
        del node
        return compute(tensor(x))

    return run


def _wide(compute: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    """Compute in float32 whatever the precision: for powers, which leave the range of float16 soon."""

    def run(node: Node, x: Value) -> Value:
        del node
        taken = tensor(x)
        return compute(wide(taken)).to(taken.dtype)

    return run


def _fold(compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    def run(node: Node, *values: Value) -> Value:
        del node
        first, *others = map(tensor, values)
        for other in others:
            first = compute(first, other)
        return first

    return run


def _mean(node: Node, *values: Value) -> Value:
    return tensor(_fold(torch.add)(node, *values)) / len(values)


def _pow(node: Node, x: Value, y: Value) -> Value:
    del node
    base = tensor(x)
    return torch.pow(wide(base), wide(tensor(y, base))).to(base.dtype)


def _mod(node: Node, a: Value, b: Value) -> Value:
    compute = torch.fmod if node.get("fmod", 0) else torch.remainder
    return compute(tensor(a), tensor(b, tensor(a)))


def _cast(node: Node, x: Value) -> Value:
    to = node.get("to")
    if to not in _TYPES:
        raise node.refuse(f"ONNX's type {to} has no counterpart")
    if isinstance(x, np.ndarray) and x.dtype == object:
        if not _TYPES[to].is_floating_point:
            return x
        return tensor(x).to(_TYPES[to])
    if isinstance(x, np.ndarray) and to not in _ABOUT_PRECISION:
        return x.astype(str(_TYPES[to]).removeprefix("torch."))
    return tensor(x).to(node.precision if to in _ABOUT_PRECISION else _TYPES[to])


def _clip(node: Node, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    given = [node.get("min"), node.get("max")] if node.opset < 11 else [known(node, bound) for bound in (low, high)]
    ends = [end.item() if isinstance(end, np.ndarray) else end for end in given]
    return tensor(x) if ends == [None, None] else torch.clamp(tensor(x), *ends)


def _prelu(node: Node, x: Value, slope: Value) -> Value:
    del node
    taken = tensor(x)
    return torch.where(taken < 0, taken * tensor(slope, taken), taken)


def _gelu(node: Node, x: Value) -> Value:
    return functions.gelu(tensor(x), approximate=node.get("approximate", b"none").decode())


def _elu(node: Node, x: Value) -> Value:
    return functions.elu(tensor(x), alpha=node.get("alpha", 1.0))


def _selu(node: Node, x: Value) -> Value:
    alpha, gamma = node.get("alpha", 1.6732632), node.get("gamma", 1.0507010)
    return gamma * functions.elu(tensor(x), alpha=alpha)


def _leaky_relu(node: Node, x: Value) -> Value:
    return functions.leaky_relu(tensor(x), node.get("alpha", 0.01))


def _hard_sigmoid(node: Node, x: Value) -> Value:
    return torch.clamp(node.get("alpha", 0.2) * tensor(x) + node.get("beta", 0.5), 0, 1)


def _thresholded_relu(node: Node, x: Value) -> Value:
    taken = tensor(x)
    return torch.where(taken > node.get("alpha", 1.0), taken, torch.zeros_like(taken))


def _where(node: Node, condition: Value, a: Value, b: Value) -> Value:
    del node
    if is_known(condition) and is_known(a) and is_known(b):
        return np.asarray(np.where(condition, a, b))
    like = next((operand for operand in (a, b) if not is_known(operand)), condition)
    return torch.where(tensor(condition, tensor(like)).bool(), tensor(a, tensor(like)), tensor(b, tensor(like)))


def _identity(node: Node, x: Value) -> Value:
    del node
    return x


def _dropout(node: Node, x: Value, ratio: Value | None = None, training: Value | None = None) -> Value:
    del ratio
    learns = known(node, training)
    if len([name for name in node.outputs if name]) > 1 or (learns is not None and learns.any()):
        raise node.refuse("it is in training mode, or is asked for its mask")
    return x


OPERATORS: dict[str, Operator] = {
    "Add": _binary(operator.add), "Sub": _binary(operator.sub), "Mul": _binary(operator.mul), "Div": _binary(_divide),
    "Equal": _binary(operator.eq), "Greater": _binary(operator.gt), "Less": _binary(operator.lt),
    "GreaterOrEqual": _binary(operator.ge), "LessOrEqual": _binary(operator.le),
    "And": _binary(operator.and_), "Or": _binary(operator.or_), "Xor": _binary(operator.xor),
    "Max": _fold(torch.maximum), "Min": _fold(torch.minimum), "Sum": _fold(torch.add), "Mean": _mean, "Pow": _pow,
    "Mod": _mod,
    "Abs": _unary(torch.abs), "Neg": _unary(torch.neg), "Floor": _unary(torch.floor), "Ceil": _unary(torch.ceil),
    "Round": _unary(torch.round), "Sign": _unary(torch.sign), "Not": _unary(torch.logical_not),
    "Sqrt": _unary(torch.sqrt),
    "Sin": _unary(torch.sin), "Cos": _unary(torch.cos), "Tanh": _unary(torch.tanh), "Atan": _unary(torch.atan),
    "Exp": _wide(torch.exp), "Log": _wide(torch.log), "Reciprocal": _wide(torch.reciprocal), "Erf": _unary(torch.erf),
    "Softplus": _wide(functions.softplus), "Relu": _unary(torch.relu), "Sigmoid": _unary(torch.sigmoid),
    "HardSwish": _unary(functions.hardswish), "Mish": _unary(functions.mish), "Softsign": _unary(functions.softsign),
    "LeakyRelu": _leaky_relu, "PRelu": _prelu, "Elu": _elu, "Selu": _selu, "Gelu": _gelu, "HardSigmoid": _hard_sigmoid,
    "ThresholdedRelu": _thresholded_relu, "Clip": _clip, "Cast": _cast, "Where": _where, "Identity": _identity,
    "Dropout": _dropout,
}  # fmt: skip
