"""Recurrent operators in the form that LiteRT computes: all that is read of them is their output at every step.

onnx2tf takes an operator's first named output for the sequence, whichever it is, and reads the last state (Y_h) from
the variable that LiteRT keeps it in. XNNPACK reads such a variable before it is written: each picture would get the
state of the one before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plimsoll.errors import BuildError
from plimsoll.onnx.graph import Graph, attribute, unique

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_RECURRENT = ("LSTM", "GRU", "RNN")
_LAST, _END = -1, 2**31 - 1


def read_states_from_sequence(proto: ModelProto, where: str) -> None:
    """Compute the last state (Y_h) of recurrent operators from their output at every step (Y), in place.

    Raises BuildError for an LSTM whose cell state (Y_c) is read: nothing else holds it.
    """
    graph = Graph(proto)
    taken = {name for node in graph.nodes for name in (*node.input, *node.output)}
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        nodes.append(node)
        if graph.kind(node) not in _RECURRENT:
            continue
        every, last, cell = (
            name if graph.all_readers(name) or name in graph.outputs else "" for name in (*node.output, "", "")[:3]
        )
        if cell:
            raise BuildError(
                f"{where}: LiteRT's {node.op_type} ('{node.name}') can't return its cell state (Y_c), which is read",
                "Export the network without it, or choose another runtime.",
            )
        every = every or unique(taken, f"{last}_every_step")
        node.output[:] = [every]
        if last:
            nodes += _last_state(graph, taken, node, last)
    graph.replace_nodes(nodes)


def _last_state(graph: Graph, taken: set[str], node: NodeProto, last: str) -> list[NodeProto]:
    """Return nodes that cut the state `[directions, batch, hidden]` after the last step out of `[steps, directions,
    batch, hidden]`; backwards, the first step is the last."""
    from onnx import helper

    direction = attribute(node, "direction", b"forward").decode()
    axes = graph.add_constant(unique(taken, f"{last}_axes"), np.array([0, 1], np.int64))
    parts, nodes = [], []
    for index, backwards in enumerate({"forward": [False], "reverse": [True]}.get(direction, [False, True])):
        part = unique(taken, f"{last}_{'first' if backwards else 'last'}_step")
        bounds = (0, 1) if backwards else (_LAST, _END)
        starts, ends = (
            graph.add_constant(unique(taken, f"{part}_{what}"), np.array(numbers, np.int64))
            for what, numbers in (("starts", [bounds[0], index]), ("ends", [bounds[1], index + 1]))
        )
        nodes.append(helper.make_node("Slice", [node.output[0], starts, ends, axes], [part], name=part))
        parts.append(part)
    if len(parts) > 1:
        joined = unique(taken, f"{last}_joined")
        nodes.append(helper.make_node("Concat", parts, [joined], name=joined, axis=1))
        parts = [joined]
    step = graph.add_constant(unique(taken, f"{last}_step_axis"), np.array([0], np.int64))
    nodes.append(helper.make_node("Squeeze", [parts[0], step], [last], name=last))
    return nodes
