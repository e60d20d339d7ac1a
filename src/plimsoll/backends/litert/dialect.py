"""ONNX operators that onnx2tf converts to something else, written with operators that it converts rightly.

- Recurrent operators: it takes the first named output for the sequence, whichever it is, and reads the last state (Y_h)
  from the variable that LiteRT keeps it in. XNNPACK reads such a variable before it is written: each picture would get
  the state of the one before it. The last state is therefore cut out of the output at every step.
- Elu: TFLite's has no alpha.
- What is computed in float64: TFLite's operators have none.
- Pad with minus infinity before a MaxPool: no integer stands for it; the least float32 pads a maximum as well.
- MaxPool with dilations, and slices backwards: it has none (`onnx.lowering`).
- Softplus: it becomes log(1 + exp(x)), which is infinite from 89 on, and which 8 bits can't hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import BuildError
from plimsoll.onnx import lowering
from plimsoll.onnx.graph import Graph, attribute, unique

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_LAST, _END = -1, 2**31 - 1


def rewrite(proto: ModelProto, where: str) -> None:
    """Rewrite a network in place; every value that stays keeps its name.

    Raises BuildError for an LSTM whose cell state (Y_c) is read: LiteRT can't return it.
    """
    _narrow(proto)
    lowering.lower(proto)
    graph = Graph(proto)
    work = _Rewriter(graph, where)
    for node in graph.nodes:
        rule = _RULES.get(graph.kind(node))
        if rule is None:
            work.nodes.append(node)
        else:
            rule(work, node)
    if any(graph.kind(node) in _RULES for node in graph.nodes):
        graph.replace_nodes(work.nodes)


def _narrow(proto: ModelProto) -> None:
    """Compute in float32 what is computed in float64 between float32 values: LiteRT's operators have none."""
    from onnx import TensorProto, helper, numpy_helper

    double, single = TensorProto.DOUBLE, TensorProto.FLOAT
    ends = (*proto.graph.input, *proto.graph.output)
    if any(value.type.tensor_type.elem_type == double for value in ends):
        return
    for tensor in proto.graph.initializer:
        if tensor.data_type == double:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in proto.graph.node:
        for entry in node.attribute:
            if node.op_type == "Cast" and entry.name == "to" and entry.i == double:
                entry.i = single
            elif entry.HasField("t") and entry.t.data_type == double:
                value = numpy_helper.from_array(numpy_helper.to_array(entry.t).astype(np.float32), entry.t.name)
                entry.CopyFrom(helper.make_attribute(entry.name, value))


class _Rewriter:
    def __init__(self, graph: Graph, where: str) -> None:
        self.graph = graph
        self.where = where
        self.nodes: list[NodeProto] = []
        self.taken = {name for node in graph.nodes for name in (*node.input, *node.output)}

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add an operator; returns its output's name, which is `output`, with a number if that is taken."""
        from onnx import helper

        name = unique(self.taken, output)
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def replace(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Add an operator that gives a value of the network."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Store values; returns their name."""
        return self.graph.add_constant(unique(self.taken, name), values)

    def is_read(self, name: str) -> bool:
        """Tell whether a value matters."""
        return bool(name) and (name in self.graph.outputs or bool(self.graph.all_readers(name)))


def _recurrent(work: _Rewriter, node: NodeProto) -> None:
    every, last, cell = (name if work.is_read(name) else "" for name in (*node.output, "", "")[:3])
    if cell:
        raise BuildError(
            f"{work.where}: LiteRT's {node.op_type} ('{node.name}') can't return its cell state (Y_c), which is read",
            "Export the network without it, or choose another runtime.",
        )
    copy = type(node).FromString(node.SerializeToString())
    copy.output[:] = [every or unique(work.taken, f"{last}.every_step")]
    work.nodes.append(copy)
    if last:
        _last_state(work, copy, last)


def _last_state(work: _Rewriter, node: NodeProto, last: str) -> None:
    """Cut the state `[directions, batch, hidden]` after the last step out of `[steps, directions, batch, hidden]`;
    backwards, the first step is the last."""
    direction = attribute(node, "direction", b"forward").decode()
    axes, parts = work.constant(f"{last}.axes", np.array([0, 1], np.int64)), []
    for index, backwards in enumerate({"forward": [False], "reverse": [True]}.get(direction, [False, True])):
        step, end = (0, 1) if backwards else (_LAST, _END)
        starts = work.constant(f"{last}.starts", np.array([step, index], np.int64))
        ends = work.constant(f"{last}.ends", np.array([end, index + 1], np.int64))
        parts.append(work.add("Slice", [node.output[0], starts, ends, axes], f"{last}.step"))
    joined = parts[0] if len(parts) == 1 else work.add("Concat", parts, f"{last}.joined", axis=1)
    work.replace("Squeeze", [joined, work.constant(f"{last}.axis", np.array([0], np.int64))], last)


def _elu(work: _Rewriter, node: NodeProto) -> None:
    """max(x, 0) + alpha · elu(min(x, 0)): min(x, 0) as -max(-x, 0)."""
    alpha, source, output = float(attribute(node, "alpha", 1.0)), node.input[0], node.output[0]
    if alpha == 1:
        work.nodes.append(node)
        return
    below = work.add("Neg", [work.add("Relu", [work.add("Neg", [source], f"{output}.minus")], f"{output}.depth")],
                     f"{output}.below")  # fmt: skip
    bent = work.add("Elu", [below], f"{output}.bent", alpha=1.0)
    scaled = work.add("Mul", [bent, work.constant(f"{output}.alpha", np.array(alpha, np.float32))], f"{output}.scaled")
    work.replace("Add", [work.add("Relu", [source], f"{output}.above"), scaled], output)


def _softplus(work: _Rewriter, node: NodeProto) -> None:
    """max(x, 0) + log(1 + exp(-|x|))."""
    source, output = node.input[0], node.output[0]
    power = work.add("Exp", [work.add("Neg", [work.add("Abs", [source], f"{output}.size")], f"{output}.minus")],
                     f"{output}.power")  # fmt: skip
    more = work.add("Add", [power, work.constant(f"{output}.one", np.array(1, np.float32))], f"{output}.more")
    rest = work.add("Log", [more], f"{output}.rest")
    work.replace("Add", [work.add("Relu", [source], f"{output}.above"), rest], output)


def _pad(work: _Rewriter, node: NodeProto) -> None:
    fill = work.graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if fill is not None and fill.dtype == np.float32 and np.isneginf(fill).all() and _maximum(work, node.output[0]):
        node.input[2] = work.constant(f"{node.output[0]}.least", np.full(fill.shape, np.finfo(np.float32).min))
    work.nodes.append(node)


def _maximum(work: _Rewriter, name: str) -> bool:
    """Tell whether nothing but MaxPool reads a value, perhaps in another layout."""
    readers = work.graph.all_readers(name)
    return (
        bool(readers)
        and name not in work.graph.outputs
        and all(
            reader.op_type == "MaxPool" or (reader.op_type == "Transpose" and _maximum(work, reader.output[0]))
            for reader in readers
        )
    )


_RULES: dict[str, Callable[[_Rewriter, NodeProto], None]] = {
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Elu": _elu,
    "Pad": _pad,
    "Softplus": _softplus,
}
