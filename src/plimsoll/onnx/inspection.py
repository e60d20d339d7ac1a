"""What is in a network: its inputs, operators, parameters, and how much arithmetic one picture costs.

How the arithmetic is counted, for a batch of 1. A multiply-accumulate (MAC) is one product added to a sum, and two
floating-point operations (FLOPs); papers often give MACs and call them FLOPs.

| operator | counted |
| --- | --- |
| Conv | MACs: output elements × input channels / groups × kernel area; a bias adds one FLOP an output element |
| ConvTranspose | MACs: input elements × output channels / groups × kernel area; bias as above |
| Gemm, MatMul | MACs: output elements × length of the summed axis; Gemm's third input adds one FLOP an output element |
| elementwise | one FLOP an output element, whichever function it is |
| pooling | one FLOP for each element under the window, for each output element |
| reductions, global pooling | one FLOP an input element |
| BatchNormalization | 2 an element: scale and shift (mean and variance are constants) |
| InstanceNormalization, LayerNormalization … | 7 an element: sum, subtract, square, sum, divide, scale, shift |
| Softmax, LogSoftmax | 5 an element: maximum, subtract, exponential, sum, divide |
| Resize, Upsample | nearest: none; linear and cubic: 2 FLOPs a neighbour (2 or 4 along each resized axis) |
| Reshape, Transpose, Concat, Cast … | none: they move values |

Every other operator, and every one whose shapes are not known, is listed as not counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from plimsoll.core.model import Model
from plimsoll.errors import ModelError
from plimsoll.onnx import load
from plimsoll.onnx.normal_form import original

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`."""

    name: str
    path: str
    format: str
    bytes: int
    """Size on disk, with the external files."""
    external_files: tuple[str, ...]
    """Relative to the model's folder."""
    producer: str
    ir_version: int
    opsets: dict[str, int]
    """Operator domain → version; ONNX's own domain is `ai.onnx`."""
    inputs: tuple[load.Value, ...]
    outputs: tuple[load.Value, ...]
    operators: dict[str, int]
    """Operator → its count in the graph and its subgraphs, the most frequent first."""
    parameters: int
    """Stored numbers, of all dtypes."""
    parameter_counts: dict[str, int]
    parameter_bytes: dict[str, int]
    """Both: dtype → how many, the largest first."""
    macs: int
    """Multiply-accumulates for one picture."""
    flops: int
    """2 × MACs + all simpler arithmetic, for one picture."""
    uncounted: dict[str, int]
    """Operators whose arithmetic is not in `macs` and `flops`, and their counts; empty if the figures are complete.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def inspect(model: Model) -> Inspection:
    """Inspect a network, as its file came; raises ModelError."""
    if model.format != "onnx":
        raise ModelError(
            f"{model.source}: only ONNX files can be inspected, this one is {model.format}",
            "Inspect the model that it was made from.",
        )
    macs, flops, uncounted = count_arithmetic(load.infer_shapes(model, batch=1).graph)
    model = original(model)
    file = load.parse(model.path)
    proto = file.proto
    kinds = Counter(_kind(node) for node in load.messages(proto.graph, "NodeProto"))
    counts, sizes = _parameters(proto.graph)
    inputs, outputs = load.inputs_and_outputs(proto)
    return Inspection(
        name=model.name,
        path=str(model.path),
        format=model.format,
        bytes=model.size,
        external_files=tuple(file.relative_to(model.path.parent).as_posix() for file in file.files),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        ir_version=proto.ir_version,
        opsets={entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        inputs=inputs,
        outputs=outputs,
        operators=_sorted(kinds),
        parameters=counts.total(),
        parameter_counts=_sorted(counts),
        parameter_bytes=_sorted(sizes),
        macs=macs,
        flops=flops,
        uncounted=_sorted(uncounted),
    )


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _kind(node: Any) -> str:
    return str(node.op_type if node.domain in load.DEFAULT_DOMAINS else f"{node.domain}.{node.op_type}")


def _parameters(graph: Any) -> tuple[Counter[str], Counter[str]]:
    """Return how many numbers are stored of each dtype (initializers and constants), and their bytes."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in load.messages(graph, "TensorProto"):
        dtype, count = load.dtype_name(tensor.data_type), math.prod(tensor.dims)
        counts[dtype] += count
        sizes[dtype] += sum(map(len, tensor.string_data)) if dtype == "object" else math.ceil(count * _bits(dtype) / 8)
    return counts, sizes


def _bits(dtype: str) -> int:
    """Return the bits of one stored element, read from its dtype's name: int4 is 4, float8_e4m3fn is 8."""
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 8  # bool


class _NotCountedError(Exception):
    """A shape is missing, or the operator's arithmetic is unknown."""


@dataclass(frozen=True)
class _Operator:
    """A node with the shapes around it."""

    node: Any
    shapes: Mapping[str, Sizes]

    def input(self, index: int) -> Sizes:
        return self._shape(self.node.input, index)

    def output(self) -> Sizes:
        return self._shape(self.node.output, 0)

    def has_input(self, index: int) -> bool:
        return len(self.node.input) > index and bool(self.node.input[index])

    def attribute(self, name: str) -> Any:
        """Return the attribute's message, or None."""
        return next((attribute for attribute in self.node.attribute if attribute.name == name), None)

    def _shape(self, names: Any, index: int) -> Sizes:
        if len(names) <= index or names[index] not in self.shapes:
            raise _NotCountedError
        return self.shapes[names[index]]


Cost = tuple[int, int]
"""MACs, and FLOPs besides them."""


def count_arithmetic(graph: Any) -> tuple[int, int, Counter[str]]:
    """Return (MACs, FLOPs, operators that could not be counted) of a graph whose shapes are inferred."""
    shapes = dict(_known_shapes(graph))
    macs = flops = 0
    uncounted: Counter[str] = Counter()
    for node in graph.node:
        try:
            products, others = _count(_Operator(node, shapes))
        except _NotCountedError:
            uncounted[_kind(node)] += 1
        else:
            macs += products
            flops += 2 * products + others
    return macs, flops, uncounted


def _known_shapes(graph: Any) -> Iterator[tuple[str, Sizes]]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        sizes = load.shape_of(value)
        fixed = tuple(size for size in sizes or () if isinstance(size, int))
        if sizes is not None and len(fixed) == len(sizes):
            yield value.name, fixed
    for tensor in graph.initializer:
        yield tensor.name, tuple(tensor.dims)


def _count(operator: _Operator) -> Cost:
    count = _COUNTS.get(_kind(operator.node))
    if count is None:
        raise _NotCountedError
    return count(operator)


def _conv(operator: _Operator, weights: int, bias: int) -> Cost:
    elements = math.prod(operator.output())
    return elements * math.prod(operator.input(weights)[1:]), elements if operator.has_input(bias) else 0


def _conv_transpose(operator: _Operator) -> Cost:
    bias = math.prod(operator.output()) if operator.has_input(2) else 0
    return math.prod(operator.input(0)) * math.prod(operator.input(1)[1:]), bias


def _gemm(operator: _Operator) -> Cost:
    transposed = operator.attribute("transA")
    matrix = operator.input(0)
    if len(matrix) != 2:
        raise _NotCountedError
    elements = math.prod(operator.output())
    return elements * matrix[0 if transposed is not None and transposed.i else 1], (
        elements if operator.has_input(2) else 0
    )


def _matmul(operator: _Operator) -> Cost:
    matrix = operator.input(0)
    if not matrix:
        raise _NotCountedError
    return math.prod(operator.output()) * matrix[-1], 0


def _pool(operator: _Operator) -> Cost:
    kernel = operator.attribute("kernel_shape")
    if kernel is None:
        raise _NotCountedError
    return 0, math.prod(operator.output()) * math.prod(kernel.ints)


def _resize(operator: _Operator) -> Cost:
    mode = operator.attribute("mode")
    neighbours = {b"nearest": 0, b"linear": 2, b"cubic": 4}.get(mode.s if mode is not None else b"nearest")
    if neighbours is None:
        raise _NotCountedError
    if neighbours == 0:
        return 0, 0
    before, after = operator.input(0), operator.output()
    resized = sum(size != other for size, other in zip(before, after, strict=False))
    return 0, 2 * neighbours**resized * math.prod(after) if resized else 0


def _of_output(operator: _Operator, each: int) -> Cost:
    return 0, each * math.prod(operator.output())


def _of_input(operator: _Operator) -> Cost:
    return 0, math.prod(operator.input(0))


def _nothing(operator: _Operator) -> Cost:
    del operator
    return 0, 0


_MOVES = """
    Cast CastLike Concat Constant ConstantOfShape DepthToSpace Dropout EyeLike Expand Flatten Gather GatherElements
    GatherND Identity OneHot Pad Range Reshape Scatter ScatterElements ScatterND Shape Size Slice SpaceToDepth Split
    Squeeze Tile Transpose Unsqueeze
"""
_ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Celu Clip Cos Cosh
    Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less
    LessOrEqual Log Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus
    Softsign Sqrt Sub Swish Tan Tanh ThresholdedRelu Where Xor
"""
_REDUCTIONS = """
    ArgMax ArgMin CumSum GlobalAveragePool GlobalLpPool GlobalMaxPool ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""
_NORMALIZATIONS = (
    "GroupNormalization InstanceNormalization LayerNormalization LpNormalization MeanVarianceNormalization"
    " RMSNormalization"
)

_COUNTS: Mapping[str, Callable[[_Operator], Cost]] = MappingProxyType(
    {
        **dict.fromkeys(_MOVES.split(), _nothing),
        **dict.fromkeys(_ELEMENTWISE.split(), partial(_of_output, each=1)),
        **dict.fromkeys(_REDUCTIONS.split(), _of_input),
        **dict.fromkeys(_NORMALIZATIONS.split(), partial(_of_output, each=7)),
        **dict.fromkeys(("Softmax", "LogSoftmax"), partial(_of_output, each=5)),
        **dict.fromkeys(("BatchNormalization", "DequantizeLinear", "QuantizeLinear"), partial(_of_output, each=2)),
        **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pool),
        **dict.fromkeys(("Resize", "Upsample"), _resize),
        **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
        "Conv": partial(_conv, weights=1, bias=2),
        "ConvInteger": partial(_conv, weights=1, bias=99),
        "QLinearConv": partial(_conv, weights=3, bias=8),
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
    }
)
"""Operator → how its arithmetic is counted; the module's docstring is the explanation."""
