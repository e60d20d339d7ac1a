"""Write QuantizeLinear and DequantizeLinear operators into a prepared graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.quantize import affine
from plimsoll.quantize.affine import Grid
from plimsoll.quantize.graph import Graph, unique
from plimsoll.quantize.options import StaticOptions
from plimsoll.quantize.placement import COMPUTING, FUSED, OPERATORS, Placement, node_key, weight_axis

if TYPE_CHECKING:
    from onnx import NodeProto


def insert(graph: Graph, placement: Placement, ranges: Mapping[str, tuple[float, float]], options: StaticOptions) -> None:
    """Quantize a graph in place, with settled options and a range for each of the placement's grids."""
    work = _Writer(graph, placement, ranges, options)
    graph.replace_nodes(work.rewritten())
    del graph.proto.graph.value_info[:]


class _Writer:
    def __init__(self, graph: Graph, placement: Placement, ranges: Mapping[str, tuple[float, float]], options: StaticOptions) -> None:
        assert options.activations is not None  # noqa: S101 - settled
        assert options.weight_bits is not None  # noqa: S101 - settled
        self._graph = graph
        self._placement = placement
        self._options = options
        self._bits: int = options.weight_bits
        self._grids: dict[str, Grid] = {
            root: affine.grid(*ranges[root], dtype=options.activations, symmetry=options.symmetry or "auto") for root in placement.grids()
        }
        self._quantized = set(placement.nodes)
        self._names = {name for node in graph.nodes for name in (*node.input, *node.output)} | {one.name for one in graph.proto.graph.initializer}
        self._names |= {node.name for node in graph.nodes}
        self._dequantized: dict[str, str] = {}
        """Quantized tensors, and what holds them in float again."""
        self._biases: dict[tuple[str, bytes], str] = {}
        self._weights: dict[tuple[str, bytes, int], tuple[str, affine.Weights]] = {}
        self._nodes: list[NodeProto] = []

    def rewritten(self) -> list[NodeProto]:
        """Return the graph's nodes with the new ones between them."""
        for name in self._graph.inputs:
            self._pair(name)
        for node in self._graph.nodes:
            if node_key(node) in self._quantized and self._graph.kind(node) in COMPUTING:
                self._constants(node)
            for place, name in enumerate(list(node.input)):
                node.input[place] = self._dequantized.get(name, name)
            self._nodes.append(node)
            for name in node.output:
                self._pair(name)
        return self._nodes

    def _pair(self, name: str) -> None:
        """Put QuantizeLinear and DequantizeLinear behind a tensor, where it is quantized."""
        root = self._placement.roots.get(name)
        if root is None:
            return
        grid = self._grids[root]
        base = unique(self._names, f"{name}/q")
        zero_point = np.array(grid.zero_point, grid.dtype)
        scale = self._graph.add_constant(unique(self._names, f"{base}/scale"), np.array(grid.scale, np.float32))
        zero = self._graph.add_constant(unique(self._names, f"{base}/zero_point"), zero_point)
        source = self._node("Max", [name], unique(self._names, f"{name}/float")) if self._would_fuse(name) else name
        self._node("QuantizeLinear", [source, scale, zero], base)
        self._dequantized[name] = self._node("DequantizeLinear", [base, scale, zero], unique(self._names, f"{name}/dq"))

    def _would_fuse(self, name: str) -> bool:
        """Tell whether ONNX Runtime would take an operator that is to stay in float for a quantized one, as all around it is.

        It even quantizes weights by itself then (its WeightBiasQuantization). A Max over one tensor, which is that tensor, keeps it from that.
        """
        maker = self._graph.maker.get(name)
        if maker is not None and self._graph.kind(maker) in FUSED:
            maker = self._graph.maker.get(maker.input[0])
        if maker is None or self._graph.kind(maker) not in OPERATORS or node_key(maker) in self._quantized:
            return False
        return maker.input[0] in self._dequantized.values()

    def _node(self, kind: str, reads: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, reads, [output], output, **attributes))
        return output

    def _constants(self, node: NodeProto) -> None:
        """Quantize an operator's weights, and its bias by the scales of input and weights."""
        source = node.input[0]
        axis = weight_axis(self._graph, node)
        has_bias = len(node.input) > 2 and node.input[2] != ""
        scale = self._scale_of(source)
        bias = self._graph.constant(node.input[2]) if has_bias else None
        as_integer = bias is not None and self._options.bias == "int32" and scale is not None
        least = affine.least_weight_scales(bias, scale) if as_integer and bias is not None and scale is not None else None
        if least is not None and len(least) != self._graph.dims(node.input[1])[axis]:
            least, as_integer = None, False  # A Gemm may broadcast one bias to all channels.
        name, weights = self._weight(node.input[1], axis, least)
        node.input[1] = name
        if as_integer and bias is not None and scale is not None:
            node.input[2] = self._bias(node.input[2], bias, weights.scales.astype(np.float64) * scale)

    def _scale_of(self, name: str) -> float | None:
        """Return the scale of what an operator reads, looking through what only changes the layout."""
        while name not in self._placement.roots and (maker := self._graph.maker.get(name)) is not None:
            name = maker.input[0]
            name = next((before for before, after in self._dequantized.items() if after == name), name)
        root = self._placement.roots.get(name)
        return None if root is None else self._grids[root].scale

    def _weight(self, name: str, axis: int, least: affine.Floats | None) -> tuple[str, affine.Weights]:
        """Return the dequantized weights' name, written once for operators that share them."""
        key = (name, b"" if least is None else least.tobytes(), axis)
        if key not in self._weights:
            weights = affine.quantize_weights(self._graph.constant(name), axis, self._options.weights, self._bits, least)
            base = unique(self._names, f"{name}/q")
            values = self._graph.add_constant(base, weights.values)
            scales = self._graph.add_constant(unique(self._names, f"{base}/scale"), weights.scales)
            zeros = self._graph.add_constant(unique(self._names, f"{base}/zero_point"), np.zeros(weights.scales.shape, np.int8))
            output = self._node("DequantizeLinear", [values, scales, zeros], unique(self._names, f"{name}/dq"), axis=axis)
            self._weights[key] = output, weights
        return self._weights[key]

    def _bias(self, name: str, bias: affine.Floats, scales: Any) -> str:
        key = (name, scales.tobytes())
        if key not in self._biases:
            stored = scales.astype(np.float32)
            base = unique(self._names, f"{name}/q")
            values = self._graph.add_constant(base, affine.quantize_bias(bias, stored.astype(np.float64)))
            scale = self._graph.add_constant(unique(self._names, f"{base}/scale"), stored)
            zeros = self._graph.add_constant(unique(self._names, f"{base}/zero_point"), np.zeros(stored.shape, np.int32))
            self._biases[key] = self._node("DequantizeLinear", [values, scale, zeros], unique(self._names, f"{name}/dq"), axis=0)
        return self._biases[key]
