"""Decide what is quantized: which operators compute in int8, and so which tensors get a QuantizeLinear and
DequantizeLinear.

The rules follow what the runtimes fuse (docs/decisions/0006-quantization.md):

- A convolution or matrix product is quantized with its weights, its input and its output, the last behind the Relu or
  Clip that it fuses with. Without a quantized output ONNX Runtime computes it in float.
- A sum, product, concatenation or average is quantized where all that it reads comes from quantized operators.
- Operators that only move or choose values (MaxPool, Transpose …) pass on the scale of what they read.
- The last convolution or product before an output stays in float, with all that comes after it, and with an average or
  a change of layout just before it: it is little work, and 256 steps are too few for an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plimsoll.onnx.graph import Graph, attribute

if TYPE_CHECKING:
    from onnx import NodeProto

COMPUTING = ("Conv", "Gemm", "MatMul")
JOINING = ("Add", "Mul", "Concat")
AVERAGING = ("AveragePool", "GlobalAveragePool")
OPERATORS = COMPUTING + JOINING + AVERAGING
"""What can be quantized; all of it is by default."""

_LAYOUT = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
_PASSING = (*_LAYOUT, "MaxPool", "DepthToSpace", "SpaceToDepth", "Slice", "Split")
"""Operators whose every output value is one of their input's, so that one scale serves both sides."""

FUSED = ("Relu", "Clip")
"""What runtimes compute together with the operator before it."""

_POINTWISE = (
    *FUSED,
    *("PRelu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Erf", "Gelu", "Mish", "Abs", "Neg"),
    *("Add", "Sub", "Mul", "Div"),
)
"""What some runtimes compute together with a convolution before it, one after another: each value depends on the one
value of the convolution alone, and on stored numbers."""


@dataclass
class Placement:
    """What is quantized."""

    roots: dict[str, str] = field(default_factory=dict)
    """Each quantized tensor, and the one whose scale and zero point it has: itself, or the one it was moved out of."""
    nodes: list[str] = field(default_factory=list)
    """The quantized operators, by `node_key`, in the graph's order."""
    tensors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """For each of them the quantized tensors that it reads, and the one that it makes."""

    def calibrated_tensors(self) -> list[str]:
        """Return the tensors whose ranges are needed."""
        return sorted(set(self.roots.values()))


def node_key(node: NodeProto) -> str:
    """Return what a node is called in options and rankings: its name, or its first output's where it has none."""
    return str(node.name or node.output[0])


def placement_of(
    graph: Graph,
    *,
    operators: Collection[str] = OPERATORS,
    keep_float: Collection[str] = (),
    float_heads: bool = True,
    fuses_pointwise: bool = False,
) -> Placement:
    """Return what is quantized in a prepared graph; the nodes `keep_float` stay in float.

    `fuses_pointwise`: a convolution's result is quantized behind all pointwise operators that follow it alone.
    """
    in_float = set(keep_float) | (_heads(graph) if float_heads else set())
    builder = _PlacementBuilder(graph, operators, in_float, fuses_pointwise=fuses_pointwise)
    for node in graph.nodes:
        builder.visit(node)
    return builder.placement


def _heads(graph: Graph) -> set[str]:
    """Return the nodes between the last convolutions or products and the outputs, these included."""
    heads: set[str] = set()
    pending = list(graph.outputs)
    seen = set(pending)
    while pending:
        maker = graph.maker.get(pending.pop())
        if maker is None:
            continue
        heads.add(node_key(maker))
        if graph.kind(maker) not in COMPUTING:
            pending += [name for name in maker.input if name and name not in seen]
            seen.update(maker.input)
        else:
            heads |= _feeding(graph, maker)
    return heads


def _feeding(graph: Graph, head: NodeProto) -> set[str]:
    """Return the averages and changes of layout just before a head."""
    feeding: set[str] = set()
    before = graph.maker.get(head.input[0])
    while (
        before is not None
        and graph.kind(before) in (*AVERAGING, *_LAYOUT)
        and graph.sole_reader(before.output[0]) is not None
    ):
        feeding.add(node_key(before))
        before = graph.maker.get(before.input[0])
    return feeding


_STEEP = ("Sqrt", "Log", "Reciprocal", "Pow", "Div")
"""Operators that turn the rounding of a value near zero into much."""
_LONGEST = 12
"""So many pointwise operators are looked at behind a convolution."""


def _behind_pointwise(graph: Graph, name: str) -> str:
    """Return the last tensor that pointwise operators make of this one, where nothing else reads those before it.

    `x` and `sigmoid(x)` may be read by one of these operators each: `x · sigmoid(x)` is what is returned.
    """
    inside, last = {name}, name
    for _ in range(_LONGEST):
        if any(graph.is_read_beyond(tensor) for tensor in inside):
            break
        nodes = [node for tensor in inside for node in graph.readers.get(tensor, []) if node.output[0] not in inside]
        ready = [node for node in nodes if _is_pointwise(graph, node, inside)]
        if not ready:
            break
        inside.update(node.output[0] for node in ready)
        read = [tensor for tensor in inside if _is_read_outside(graph, tensor, inside)]
        last = read[0] if len(read) == 1 else last
    return last


def _is_read_outside(graph: Graph, name: str, inside: Collection[str]) -> bool:
    return graph.is_read_beyond(name) or any(node.output[0] not in inside for node in graph.readers.get(name, []))


def _is_pointwise(graph: Graph, node: NodeProto, inside: Collection[str]) -> bool:
    """Tell whether an operator computes with these tensors and stored numbers alone, value by value."""
    if graph.kind(node) not in _POINTWISE:
        return False
    constants = [name for name in node.input if name and name not in inside]
    return all(graph.is_constant(name) and _fits_channels(graph.dims(name)) for name in constants)


def _fits_channels(shape: Sequence[int]) -> bool:
    """Tell whether stored numbers are one for all, or one for each channel of [N, channels, height, width]."""
    return len(shape) <= 4 and all(size == 1 for index, size in enumerate(shape) if index != len(shape) - 3)


class _PlacementBuilder:
    def __init__(self, graph: Graph, operators: Collection[str], in_float: set[str], *, fuses_pointwise: bool) -> None:
        self.graph = graph
        self._fuses_pointwise = fuses_pointwise
        self.placement = Placement()
        self._operators = operators
        self._in_float = in_float
        self._from_quantized: set[str] = set()
        """Tensors that come out of quantized operators, moved or not."""

    def visit(self, node: NodeProto) -> None:
        """Take the next node in the graph's order."""
        kind = self.graph.kind(node)
        if kind in _PASSING or kind in FUSED:
            if node.input[0] in self._from_quantized:
                self._from_quantized.update(node.output)
        elif kind in self._operators and node_key(node) not in self._in_float and self._fits(node, kind):
            tensors = [*self._reads(node, kind), *self._output(node)]
            for name in tensors:
                self._quantize(name)
            self.placement.nodes.append(node_key(node))
            self.placement.tensors[node_key(node)] = tuple(dict.fromkeys(tensors))
            self._from_quantized.update(node.output)

    def _fits(self, node: NodeProto, kind: str) -> bool:
        if kind in COMPUTING:
            return computes_with_constants(self.graph, node) and not self._reads_cubic_resize(node)
        if averages_padding(node):
            return False
        reads = self._reads(node, kind)
        if kind == "Mul" and len(reads) == 2 and reads[0] == reads[1]:
            return False
        return bool(reads) and all(name in self._from_quantized for name in reads) and len(reads) == len(node.input)

    def _reads_cubic_resize(self, node: NodeProto) -> bool:
        """Tell whether a node reads a cubic Resize. Between two quantized tensors, ONNX Runtime computes a Resize in
        integers, and refuses to load a cubic one."""
        maker = self.graph.maker.get(node.input[0])
        while maker is not None and self.graph.kind(maker) in _PASSING:
            maker = self.graph.maker.get(maker.input[0])
        return maker is not None and self.graph.kind(maker) == "Resize" and attribute(maker, "mode", b"") == b"cubic"

    def _reads(self, node: NodeProto, kind: str) -> list[str]:
        return [node.input[0]] if kind in COMPUTING or kind in AVERAGING else list(node.input)

    def _output(self, node: NodeProto) -> list[str]:
        """Return the tensor in which an operator's result is quantized, if it is."""
        name = node.output[0]
        if self._fuses_pointwise and self.graph.kind(node) in COMPUTING:
            behind = _behind_pointwise(self.graph, name)
            # A square, rounded, and its root: the convolution's own values lose far less.
            steep = any(self.graph.kind(reader) in _STEEP for reader in self.graph.readers.get(behind, []))
            name = name if steep else behind
        elif (reader := self.graph.sole_reader(name)) is not None and self.graph.kind(reader) in FUSED:
            name = reader.output[0]
        return [] if name in self.graph.outputs else [name]

    def _quantize(self, name: str) -> None:
        """Quantize a tensor, and what it was moved out of, with the same scale and zero point."""
        chain = [name]
        while (maker := self.graph.maker.get(chain[-1])) is not None and self.graph.kind(maker) in _PASSING:
            chain.append(maker.input[0])
        for index, tensor in enumerate(chain):
            maker = self.graph.maker.get(tensor)
            moved = maker is not None and self.graph.kind(maker) in _LAYOUT
            # Runtimes see through what only changes the layout; a second pair there can cost a pass over the
            # tensor.
            if not moved or index == len(chain) - 1:
                self.placement.roots.setdefault(tensor, chain[-1])


def computes_with_constants(graph: Graph, node: NodeProto) -> bool:
    """Tell whether a Conv, Gemm or MatMul has float32 weights (and bias) that are stored in the file, in a form that
    runtimes have in int8."""
    if len(node.input) < 2 or graph.is_constant(node.input[0]) or not graph.is_float_constant(node.input[1]):
        return False
    kind = graph.kind(node)
    if kind == "MatMul":
        return graph.rank(node.input[1]) == 2
    has_bias = len(node.input) > 2 and node.input[2] != ""
    if has_bias and not (graph.is_float_constant(node.input[2]) and graph.rank(node.input[2]) == 1):
        return False
    if kind == "Gemm":
        factors = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0))
        return factors == (1.0, 1.0) and not attribute(node, "transA", 0)
    return True


def averages_padding(node: NodeProto) -> bool:
    """Tell whether a node averages zeros around its input too. Some runtimes pad integers for it, with zeros that are
    other numbers where there is a zero point."""
    counts = node.op_type == "AveragePool" and bool(attribute(node, "count_include_pad", 0))
    return counts and any(attribute(node, "pads", (0,)))


def weight_axis(graph: Graph, node: NodeProto) -> int:
    """Return the axis of a weight tensor that counts output channels."""
    if graph.kind(node) == "Conv":
        return 0
    return 0 if graph.kind(node) == "Gemm" and attribute(node, "transB", 0) else 1
