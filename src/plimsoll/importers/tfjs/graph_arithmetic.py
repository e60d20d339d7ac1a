"""TensorFlow's arithmetic in ONNX: what is computed number by number, reduced, compared, or looked up by value.

Sources: TensorFlow.js 4.22, `tfjs-converter/src/operations/op_list` (arithmetic, basic_math, logical, reduction,
matrices, evaluation). Where everything is stored, the result is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from plimsoll.importers.tfjs.graph_node import Convert, Node, Operand
from plimsoll.importers.tfjs.operators import TensorFlowWriter
from plimsoll.importers.tfjs.tensors import Array, Value, broadcast

Activation = Callable[[TensorFlowWriter, Value, str], Value]


def _scalar(number: float) -> Array:
    return np.array(number, np.float32)


def _simple(operator: str) -> Activation:
    return lambda writer, value, name: writer.unary(operator, value, name)


ACTIVATIONS: dict[str, Activation] = {
    "Relu": _simple("Relu"),
    "Relu6": lambda writer, value, name: writer.clipped(value, 0, 6, name),
    "Elu": _simple("Elu"),
    "Selu": _simple("Selu"),
    "Sigmoid": _simple("Sigmoid"),
    "Tanh": _simple("Tanh"),
    "Softplus": _simple("Softplus"),
    "Softsign": _simple("Softsign"),
}
"""What may be fused to a convolution too."""

_UNARY: dict[str, Activation] = {
    **ACTIVATIONS,
    **{
        kind: _simple(kind)
        for kind in ("Exp", "Sqrt", "Neg", "Abs", "Log", "Ceil", "Floor", "Round", "Sin", "Cos", "Tan", "Asin", "Acos",
                     "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Erf", "Sign", "Reciprocal")
    },
    "Inv": _simple("Reciprocal"),
    "LogicalNot": _simple("Not"),
    "Rsqrt": lambda writer, value, name: writer.unary("Reciprocal", writer.unary("Sqrt", value, f"{name}/root"), name),
    "Square": lambda writer, value, name: writer.binary("Mul", value, value, name),
    "Log1p": lambda writer, value, name: writer.unary(
        "Log", writer.binary("Add", value, _scalar(1), f"{name}/more"), name
    ),
    "Expm1": lambda writer, value, name: writer.binary(
        "Sub", writer.unary("Exp", value, f"{name}/power"), _scalar(1), name
    ),
    "ZerosLike": lambda writer, value, name: writer.binary("Mul", value, np.zeros((), value.dtype), name),
    "OnesLike": lambda writer, value, name: writer.binary(
        "Add", writer.binary("Mul", value, np.zeros((), value.dtype), f"{name}/zeros"), np.ones((), value.dtype), name
    ),
    "IsNan": lambda writer, value, name: writer.write("IsNaN", [value], value.shape, name, "bool"),
}  # fmt: skip

_EXACT_UNARY: Mapping[str, Callable[[Array], Array]] = {
    "Neg": np.negative, "Abs": np.abs, "Exp": np.exp, "Sqrt": np.sqrt, "Log": np.log, "Ceil": np.ceil,
    "Floor": np.floor, "Round": np.round, "Square": np.square, "Reciprocal": np.reciprocal, "Sign": np.sign,
    "Rsqrt": lambda value: 1 / np.sqrt(value), "ZerosLike": np.zeros_like, "OnesLike": np.ones_like,
    "LogicalNot": np.logical_not,
}  # fmt: skip


def _unary(node: Node) -> Operand:
    operand = node.inputs[0]
    if not isinstance(operand, Value) and node.op in _EXACT_UNARY:
        return np.asarray(_EXACT_UNARY[node.op](operand), operand.dtype)
    return _UNARY[node.op](node.writer, node.value(0), node.name)


def _leaky_relu(node: Node) -> Operand:
    return node.writer.unary("LeakyRelu", node.value(0), node.name, alpha=node.number("alpha", 0.2))


def _prelu(node: Node) -> Operand:
    return node.writer.binary("PRelu", node.value(0), node.stored(1), node.name)


def _clip(node: Node) -> Operand:
    return node.writer.clipped(node.value(0), float(node.stored(1)), float(node.stored(2)), node.name)


_Exact = Callable[[Array, Array], Array]
_BINARY: Mapping[str, tuple[str, _Exact]] = {
    "Add": ("Add", np.add), "AddV2": ("Add", np.add), "BiasAdd": ("Add", np.add), "Sub": ("Sub", np.subtract),
    "Mul": ("Mul", np.multiply), "Maximum": ("Max", np.maximum), "Minimum": ("Min", np.minimum),
    "Pow": ("Pow", np.power), "LogicalAnd": ("And", np.logical_and), "LogicalOr": ("Or", np.logical_or),
}  # fmt: skip
_COMPARISONS: Mapping[str, tuple[str, _Exact]] = {
    "Equal": ("Equal", np.equal), "NotEqual": ("Equal", np.not_equal), "Greater": ("Greater", np.greater),
    "GreaterEqual": ("GreaterOrEqual", np.greater_equal), "Less": ("Less", np.less),
    "LessEqual": ("LessOrEqual", np.less_equal),
}  # fmt: skip


def _pair(node: Node, exact: _Exact) -> tuple[Operand, Operand] | Array:
    """Return both operands, or the result where both are stored."""
    first, second = node.inputs[0], node.inputs[1]
    if isinstance(first, Value) or isinstance(second, Value):
        return first, second
    broadcast(first.shape, second.shape)
    return np.asarray(exact(first, second))


def _binary(node: Node) -> Operand:
    operator, exact = _BINARY[node.op]
    pair = _pair(node, exact)
    return node.writer.binary(operator, *pair, node.name) if isinstance(pair, tuple) else pair


def _comparison(node: Node) -> Operand:
    operator, exact = _COMPARISONS[node.op]
    pair = _pair(node, exact)
    if not isinstance(pair, tuple):
        return pair
    if node.op != "NotEqual":
        return node.writer.binary(operator, *pair, node.name, "bool")
    return node.writer.unary("Not", node.writer.binary(operator, *pair, f"{node.name}/equal", "bool"), node.name)


def _divided(node: Node) -> Operand:
    """RealDiv and Div; DivNoNan is 0 where it divides by 0."""
    pair = _pair(node, np.divide)
    if not isinstance(pair, tuple):
        return pair
    quotient = node.writer.binary("Div", *pair, node.name if node.op != "DivNoNan" else f"{node.name}/quotient")
    if node.op != "DivNoNan":
        return quotient
    zero = node.writer.binary("Equal", node.computed(1), _scalar(0), f"{node.name}/zero", "bool")
    return _chosen(node.writer, zero, _scalar(0), quotient, node.name)


def _floored(node: Node) -> Operand:
    """FloorDiv and FloorMod, whose remainder has the divisor's sign, as ONNX's Mod of whole numbers."""
    pair = _pair(node, np.floor_divide if node.op == "FloorDiv" else np.mod)
    if not isinstance(pair, tuple):
        return pair
    writer, name = node.writer, node.name
    whole = "int32" in [operand.dtype for operand in pair if isinstance(operand, Value)]
    if whole:
        rest = writer.binary("Mod", *pair, name if node.op != "FloorDiv" else f"{name}/rest")
        if node.op != "FloorDiv":
            return rest
        return writer.binary("Div", writer.binary("Sub", pair[0], rest, f"{name}/whole"), pair[1], name)
    quotient = writer.binary("Div", *pair, f"{name}/quotient")
    floor = writer.unary("Floor", quotient, name if node.op == "FloorDiv" else f"{name}/floor")
    if node.op == "FloorDiv":
        return floor
    return writer.binary("Sub", pair[0], writer.binary("Mul", floor, pair[1], f"{name}/multiple"), name)


def _squared_difference(node: Node) -> Operand:
    pair = _pair(node, lambda first, second: np.square(first - second))
    if not isinstance(pair, tuple):
        return pair
    apart = node.writer.binary("Sub", *pair, f"{node.name}/difference")
    return node.writer.binary("Mul", apart, apart, node.name)


def _atan2(node: Node) -> Operand:
    """The angle of (x, y), from the quotient's arc tangent and the signs."""
    writer, name, rise, run = node.writer, node.name, node.computed(0), node.computed(1)
    half = writer.unary("Atan", writer.binary("Div", rise, run, f"{name}/slope"), f"{name}/half")
    above = writer.binary("GreaterOrEqual", rise, _scalar(0), f"{name}/above", "bool")
    turn = _chosen(writer, above, _scalar(math.pi), _scalar(-math.pi), f"{name}/turn")
    behind = writer.binary("Less", run, _scalar(0), f"{name}/behind", "bool")
    turned = _chosen(writer, behind, writer.binary("Add", half, turn, f"{name}/turned"), half, f"{name}/angle")
    origin = writer.binary(
        "And",
        writer.binary("Equal", rise, _scalar(0), f"{name}/flat", "bool"),
        writer.binary("Equal", run, _scalar(0), f"{name}/steep", "bool"),
        f"{name}/origin",
    )
    return _chosen(writer, origin, _scalar(0), turned, name)


def _sum(node: Node) -> Operand:
    total: Operand = node.inputs[0]
    for index, operand in enumerate(node.inputs[1:], 1):
        name = node.name if index == len(node.inputs) - 1 else f"{node.name}/sum{index}"
        if isinstance(total, Value) or isinstance(operand, Value):
            total = node.writer.binary("Add", total, operand, name)
        else:
            total = np.asarray(total + operand)
    return total


def _chosen(writer: TensorFlowWriter, condition: Value, first: Operand, second: Operand, name: str) -> Value:
    shape = broadcast(condition.shape, first.shape, second.shape)
    kinds = [operand.dtype for operand in (first, second) if isinstance(operand, Value)]
    dtype = (*kinds, str(first.dtype))[0]
    options = [operand if isinstance(operand, Value) else operand.astype(dtype) for operand in (first, second)]
    return writer.write("Where", [condition, *options], shape, name, dtype)


def _select(node: Node) -> Operand:
    if (arrays := node.arrays) is not None:
        return np.where(*arrays)
    condition = node.computed(0)
    if node.op == "Select" and len(condition.shape) == 1 and len(node.inputs[1].shape) > 1:
        condition = node.writer.reshaped(
            condition, (condition.shape[0], *[1] * (len(node.inputs[1].shape) - 1)), f"{node.name}/condition"
        )
    return _chosen(node.writer, condition, node.inputs[1], node.inputs[2], node.name)


_REDUCTIONS: Mapping[str, tuple[str, Callable[..., Array]]] = {
    "Mean": ("ReduceMean", np.mean), "Max": ("ReduceMax", np.max), "Min": ("ReduceMin", np.min),
    "Sum": ("ReduceSum", np.sum), "Prod": ("ReduceProd", np.prod), "All": ("ReduceMin", np.all),
    "Any": ("ReduceMax", np.any),
}  # fmt: skip


def _reduced(node: Node) -> Operand:
    operator, exact = _REDUCTIONS[node.op]
    operand, axes, keep = node.inputs[0], node.numbers(1), node.flag("keep_dims")
    if not isinstance(operand, Value):
        if -1 in operand and node.op in ("Prod", "Sum"):
            raise ValueError("it reckons with the batch's size")
        return np.asarray(exact(operand, axis=tuple(axes), keepdims=keep), operand.dtype)
    if operand.dtype == "float32":
        return node.writer.reduced(operator, operand, axes, node.name, keep=keep)
    whole = node.writer.cast(operand, "int32", f"{node.name}/whole")
    value = node.writer.reduced(operator, whole, axes, f"{node.name}/reduced", keep=keep)
    return node.writer.cast(value, operand.dtype, node.name)


def _axis_of(node: Node, value: Value, axis: int) -> int:
    """Return an axis counted from the first; raises ValueError for the batch's, where it is free."""
    axis %= len(value.shape)
    if axis == 0 and value.free:
        raise ValueError(f"{node.op} over the batch")
    return axis


def _extreme(node: Node) -> Operand:
    """The index of the largest or smallest value."""
    value = node.value(0)
    axis = _axis_of(node, value, node.numbers(1)[0] if len(node.inputs) > 1 else 0)
    shape = (*value.shape[:axis], *value.shape[axis + 1 :])
    index = node.writer.write(node.op, [value], shape, f"{node.name}/index", "int64", axis=axis, keepdims=0)
    return node.writer.cast(index, "int32", node.name)


def _top(node: Node) -> list[Operand]:
    """The largest values of the last axis, and their indices."""
    value, (count,) = node.value(0), node.numbers(1)
    axis = _axis_of(node, value, -1)
    size = node.writer.constant(f"{node.name}/count", np.array([count], np.int64))
    values, indices = node.writer.graph.add_many(
        "TopK", [node.writer.arranged(value, "last"), size], [node.name, f"{node.name}/indices"], axis=axis
    )
    shape = (*value.shape[:-1], count)
    places = node.writer.cast(Value(indices, shape, dtype="int64"), "int32", f"{node.name}:1")
    return [Value(values, shape, dtype=value.dtype), places]


def _cast(node: Node) -> Operand:
    dtype = node.dtype("DstT")
    operand = node.inputs[0]
    return node.writer.cast(operand, dtype, node.name) if isinstance(operand, Value) else operand.astype(dtype)


def product(node: Node) -> Operand:
    """Multiply matrices, both computed or with further axes."""
    first, second = node.computed(0), node.computed(1)
    flags = ("adj_x", "adj_y") if node.op.startswith("Batch") else ("transpose_a", "transpose_b")
    sides = []
    for side, flag in zip((first, second), flags, strict=True):
        rank = len(side.shape)
        perm = [*range(rank - 2), rank - 1, rank - 2]
        sides.append(node.writer.transposed(side, perm, f"{node.name}/{flag}") if node.flag(flag) else side)
    left, right = sides
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(f"multiplying {list(left.shape)} with {list(right.shape)}")
    shape = (*broadcast(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    return node.writer.write("MatMul", [left, right], shape, node.name)


def _einsum(node: Node) -> Operand:
    equation = node.text("equation").replace(" ", "")
    values = [node.computed(index) for index in range(len(node.inputs))]
    reads, _, gives = equation.partition("->")
    terms = reads.split(",")
    if "." in equation or not gives or len(terms) != len(values):
        raise ValueError(f"its equation is {equation!r}")
    sizes = {
        letter: size
        for term, value in zip(terms, values, strict=True)
        for letter, size in zip(term, value.shape, strict=True)
    }
    return node.writer.write("Einsum", values, tuple(sizes[letter] for letter in gives), node.name, equation=equation)


def _cumulative(node: Node) -> Operand:
    value, (axis,) = node.value(0), node.numbers(1)
    stored = np.array(_axis_of(node, value, axis), np.int64)
    exclusive, backwards = int(node.flag("exclusive")), int(node.flag("reverse"))
    return node.writer.write("CumSum", [value, stored], value.shape, node.name, exclusive=exclusive, reverse=backwards)


def _one_hot(node: Node) -> Operand:
    value, (depth,) = node.value(0), node.numbers(1)
    rank = len(value.shape) + 1
    axis = int(node.number("axis", -1)) % rank
    values = np.array([float(node.stored(3)), float(node.stored(2))], np.float32)
    shape = (*value.shape[:axis], depth, *value.shape[axis:])
    index = node.writer.cast(value, "int64", f"{node.name}/index")
    return node.writer.write(
        "OneHot", [index, np.array(depth, np.int64), values], shape, node.name, "float32", axis=axis
    )


def _softmax(node: Node) -> Operand:
    value = node.writer.softmax(node.value(0), -1, node.name if node.op == "Softmax" else f"{node.name}/softmax")
    return value if node.op == "Softmax" else node.writer.unary("Log", value, node.name)


_SPECIAL: Sequence[tuple[tuple[str, ...], Convert]] = (
    (("RealDiv", "Div", "DivNoNan"), _divided),
    (("FloorDiv", "FloorMod", "Mod"), _floored),
    (("SquaredDifference",), _squared_difference),
    (("Atan2",), _atan2),
    (("AddN",), _sum),
    (("Select", "SelectV2"), _select),
    (("ArgMax", "ArgMin"), _extreme),
    (("TopK", "TopKV2"), _top),
    (("Cast",), _cast),
    (("BatchMatMul", "BatchMatMulV2"), product),
    (("Einsum",), _einsum),
    (("Cumsum",), _cumulative),
    (("OneHot",), _one_hot),
    (("Softmax", "LogSoftmax"), _softmax),
    (("LeakyRelu",), _leaky_relu),
    (("Prelu",), _prelu),
    (("ClipByValue",), _clip),
)

ARITHMETIC: dict[str, Convert] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_COMPARISONS, _comparison),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **{kind: convert for kinds, convert in _SPECIAL for kind in kinds},
}
"""How each kind of node is written in ONNX."""


__all__ = ["ACTIVATIONS", "ARITHMETIC", "product"]
