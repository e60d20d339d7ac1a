"""What follows a convolution value by value: stored scales and offsets become part of it, a hard swish in four parts
becomes one of two, and of a value before an activation that saturates only the range counts that isn't saturated.

Networks with learnable scales (PP-LCNet, PP-OCR) have eight such operators behind each convolution. Each of them is a
pass over the whole tensor in float32 between two in int8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.onnx.graph import Graph, attribute, unique

if TYPE_CHECKING:
    from onnx import NodeProto

Range = tuple[float, float]
Numbers = NDArray[np.float64]

_AFFINE = ("Mul", "Div", "Add", "Sub")
_SHARE = 1 / 6
_NO_LIMITS = (-np.inf, np.inf)


def simplify(graph: Graph) -> int:
    """Simplify in place; returns how many operators are gone."""
    before = len(graph.nodes)
    names = {name for node in graph.nodes for name in (*node.input, *node.output)}
    nodes = list(graph.nodes)
    for node in graph.nodes:
        while graph.kind(node) == "Conv" and (following := graph.sole_reader(node.output[0])) is not None:
            if not _absorb(graph, node, following, names):
                break
            nodes.remove(following)
            graph.maker[following.output[0]] = node
            node.output[0] = following.output[0]
    if len(nodes) < before:
        graph.replace_nodes(nodes)
    _join_hard_swishes(graph, names)
    if len(graph.nodes) < before:
        del graph.proto.graph.value_info[:]
    return before - len(graph.nodes)


def _absorb(graph: Graph, convolution: NodeProto, node: NodeProto, names: set[str]) -> bool:
    """Compute a stored scale or offset in the convolution before it, by its weights and bias; tell whether that can be
    done."""
    kind, weights = graph.kind(node), convolution.input[1]
    bias = [name for name in convolution.input[2:] if name]
    if kind not in _AFFINE or not graph.is_float_constant(weights):
        return False
    if not all(map(graph.is_float_constant, bias)):
        return False
    value = convolution.output[0]
    if (kind in ("Div", "Sub") and node.input[0] != value) or node.input[0] == node.input[1]:
        return False
    other = node.input[1] if node.input[0] == value else node.input[0]
    exact = graph.constant(weights)
    amount = _by_channel(graph, other, exact)
    if amount is None or (kind == "Div" and not amount.all()):
        return False
    offset: Numbers = graph.constant(bias[0]).astype(np.float64) if bias else np.zeros(len(exact))
    if kind in ("Mul", "Div"):
        factor = amount if kind == "Mul" else 1 / amount
        scaled = np.asarray(exact * factor.reshape(-1, *[1] * (exact.ndim - 1)), np.float32)
        convolution.input[1] = graph.add_constant(unique(names, f"{node.output[0]}/weights"), scaled)
        offset = offset * factor
    else:
        offset = offset + (amount if kind == "Add" else -amount)
    del convolution.input[2:]
    convolution.input.append(graph.add_constant(unique(names, f"{node.output[0]}/bias"), offset.astype(np.float32)))
    return True


def _by_channel(graph: Graph, name: str, weights: NDArray[Any]) -> Numbers | None:
    """Return a stored number for each output channel; None where it isn't one for all or one for each."""
    if not graph.is_float_constant(name) or graph.rank(name) > weights.ndim:
        return None
    shape = graph.dims(name)
    if any(size != 1 for index, size in enumerate(shape) if index != len(shape) - weights.ndim + 1):
        return None
    values = graph.constant(name).astype(np.float64).ravel()
    return np.broadcast_to(values, len(weights)) if len(values) in (1, len(weights)) else None


def _join_hard_swishes(graph: Graph, names: set[str]) -> None:
    """Write `x · clip(x + 3, 0, 6) / 6` as `x · HardSigmoid(x)`, which is the same."""
    from onnx import helper

    nodes, gone = list(graph.nodes), []
    for node in graph.nodes:
        parts = _hard_swish(graph, node)
        if parts is None:
            continue
        value, last, inner = parts
        gate = unique(names, f"{last.output[0]}/gate")
        joined = [
            helper.make_node("HardSigmoid", [value], [gate], gate, alpha=_SHARE, beta=0.5),
            helper.make_node("Mul", [value, gate], [last.output[0]], last.name or last.output[0]),
        ]
        index = nodes.index(last)
        nodes[index : index + 1] = joined
        gone += inner
    if gone:
        graph.replace_nodes([node for node in nodes if not any(node is other for other in gone)])


def _hard_swish(graph: Graph, add: NodeProto) -> tuple[str, NodeProto, list[NodeProto]] | None:
    """Return what a hard swish that begins with this sum reads, its last operator and those before that one; None where
    it begins with none."""
    if graph.kind(add) != "Add" or not _is_number(graph, add.input[1], 3):
        return None
    value = add.input[0]
    clip = graph.sole_reader(add.output[0])
    if clip is None or graph.kind(clip) != "Clip" or len(clip.input) != 3:
        return None
    if not (_is_number(graph, clip.input[1], 0) and _is_number(graph, clip.input[2], 6)):
        return None
    product = graph.sole_reader(clip.output[0])
    if product is None or graph.kind(product) != "Mul" or {*product.input} != {value, clip.output[0]}:
        return None
    last = graph.sole_reader(product.output[0])
    if last is None or last.input[0] != product.output[0]:
        return None
    divides = graph.kind(last) == "Div" and _is_number(graph, last.input[1], 6)
    multiplies = graph.kind(last) == "Mul" and _is_number(graph, last.input[1], float(np.float32(_SHARE)))
    return (value, last, [add, clip, product]) if divides or multiplies else None


def _is_number(graph: Graph, name: str, number: float) -> bool:
    return graph.is_float_constant(name) and graph.constant(name).size == 1 and graph.constant(name).item() == number


def unsaturated(graph: Graph, name: str) -> Range:
    """Return the range outside which what reads a value doesn't see how far outside it is."""
    limits = [_limits(graph, node, name) for node in graph.readers.get(name, [])]
    if not limits or graph.is_read_beyond(name):
        return _NO_LIMITS
    return min(low for low, _ in limits), max(high for _, high in limits)


def _limits(graph: Graph, node: NodeProto, name: str) -> Range:
    kind = graph.kind(node)
    if kind == "Mul":  # x · sigmoid(x) and its like vanish below, and grow above.
        gates = [graph.maker.get(other) for other in node.input if other != name]
        if len(gates) == 1 and gates[0] is not None and [*gates[0].input] == [name]:
            low = _limits(graph, gates[0], name)[0]
            return (low, np.inf) if graph.kind(gates[0]) in ("Sigmoid", "HardSigmoid") else _NO_LIMITS
    if kind in ("Sigmoid", "Tanh"):
        return (-8.0, 8.0) if kind == "Sigmoid" else (-4.0, 4.0)
    if kind == "HardSwish":
        return -3.0, np.inf
    if kind == "HardSigmoid":
        slope, middle = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
        return (-middle / slope, (1 - middle) / slope) if slope > 0 else _NO_LIMITS
    return _NO_LIMITS
