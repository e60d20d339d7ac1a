"""Write QuantizeLinear and DequantizeLinear operators into a prepared graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.onnx.graph import Graph, unique
from plimsoll.quantize import parameters
from plimsoll.quantize.options import StaticOptions
from plimsoll.quantize.parameters import Grid
from plimsoll.quantize.picture import Picture
from plimsoll.quantize.placement import COMPUTING, FUSED, OPERATORS, Placement, node_key, weight_axis

if TYPE_CHECKING:
    from onnx import NodeProto


Ranges = Mapping[str, tuple[float, float]]


def insert(
    graph: Graph, placement: Placement, ranges: Ranges, options: StaticOptions, picture: Picture | None = None
) -> None:
    """Quantize a graph in place, with settled options, a range for each of the placement's grids, and a picture if one
    was absorbed."""
    if picture is not None:
        ranges = {
            **ranges,
            picture.real: (0.0, 255.0),
        }  # 256 steps over it are the 256 pixel values: scale 1, zero point 0.
    work = _Writer(graph, placement, ranges, options)
    work.picture = picture
    graph.replace_nodes(work.rewritten())
    del graph.proto.graph.value_info[:]


class _Writer:
    def __init__(self, graph: Graph, placement: Placement, ranges: Ranges, options: StaticOptions) -> None:
        assert options.activations is not None  # noqa: S101 - settled
        assert options.weight_bits is not None  # noqa: S101 - settled
        self._graph = graph
        self._placement = placement
        self._options = options
        self._bits: int = options.weight_bits
        self._grids: dict[str, Grid] = {
            root: parameters.grid(*ranges[root], dtype=options.activations, symmetry=options.symmetry or "auto")
            for root in placement.grids()
        }
        self._quantized = set(placement.nodes)
        self.picture: Picture | None = None
        self._names = {name for node in graph.nodes for name in (*node.input, *node.output)} | {
            one.name for one in graph.proto.graph.initializer
        }
        self._names |= {node.name for node in graph.nodes}
        self._dequantized: dict[str, str] = {}
        """Quantized tensors, and what holds them in float again."""
        self._biases: dict[tuple[str, bytes], str] = {}
        self._weights: dict[tuple[str, bytes, int], tuple[str, parameters.Weights]] = {}
        self._nodes: list[NodeProto] = []

    def rewritten(self) -> list[NodeProto]:
        """Return the graph's nodes with the new ones between them."""
        for name in self._graph.inputs:
            self._behind(name)
        for node in self._graph.nodes:
            if node_key(node) in self._quantized and self._graph.kind(node) in COMPUTING:
                self._constants(node)
            for place, name in enumerate(list(node.input)):
                node.input[place] = self._dequantized.get(name, name)
            self._nodes.append(node)
            if (
                self._options.hold_averages
                and self._graph.kind(node) == "AveragePool"
                and node_key(node) not in self._quantized
            ):
                self._hold(node)
            for name in node.output:
                self._behind(name)
        return self._nodes

    def _hold(self, node: NodeProto) -> None:
        """Put a Max with the least float32 behind an average of quantized values, which changes nothing.

        Some runtimes move the scale of what is averaged behind an AveragePool, and then round the averages to 8 bits
        where a change of shape follows. They don't move a scale through a Max. (A GlobalAveragePool is a ReduceMean to
        them, which they leave in float.)
        """
        if node.input[0] not in self._dequantized.values():
            return
        name = node.output[0]
        node.output[0] = unique(self._names, f"{name}/average")
        least = self._graph.add_constant(
            unique(self._names, f"{name}/least"), np.array(np.finfo(np.float32).min, np.float32)
        )
        self._node("Max", [node.output[0], least], name)

    def _behind(self, name: str) -> None:
        """Write what comes behind a tensor that was just made, where it is quantized."""
        if name in self._placement.roots:
            self._pair(name, self._placement.roots[name])
        elif self.picture is not None and name == self.picture.pixels:
            self._pair(self.picture.real, self.picture.real)

    def _pair(self, name: str, root: str) -> None:
        """Write QuantizeLinear and DequantizeLinear; the latter alone for pixels, which are integers already."""
        grid = self._grids[root]
        base = unique(self._names, f"{name}/q")
        zero_point = np.array(grid.zero_point, grid.dtype)
        scale = self._graph.add_constant(unique(self._names, f"{base}/scale"), np.array(grid.scale, np.float32))
        zero = self._graph.add_constant(unique(self._names, f"{base}/zero_point"), zero_point)
        if self.picture is not None and name == self.picture.real:
            base = self.picture.pixels
        else:
            source = self._node("Max", [name], unique(self._names, f"{name}/float")) if self._would_fuse(name) else name
            self._node("QuantizeLinear", [source, scale, zero], base)
        self._dequantized[name] = self._node("DequantizeLinear", [base, scale, zero], unique(self._names, f"{name}/dq"))

    def _would_fuse(self, name: str) -> bool:
        """Tell whether ONNX Runtime would take an operator that is to stay in float for a quantized one, as all around
        it is.

        It even quantizes weights by itself then (its WeightBiasQuantization). A Max over one tensor, which is that
        tensor, keeps it from that.
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
        axis = weight_axis(self._graph, node)
        channels = self._graph.dims(node.input[1])[axis]
        bias = self._graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        scale = self._scale_of(node.input[0]) if self._options.bias == "int32" else None
        # A Gemm may have one bias for all channels; that one stays in float.
        fits = scale is not None and bias is not None and len(bias) == channels
        least = parameters.least_weight_scales(bias, scale) if fits and bias is not None and scale is not None else None
        name, weights = self._weight(node.input[1], axis, least)
        node.input[1] = name
        if self.picture is not None and node_key(node) == self.picture.convolution:
            bias = self._without_mean(node, weights, bias)
        if scale is not None and bias is not None and len(bias) == channels:
            node.input[2] = self._bias(node.input[2], bias, weights.scales.astype(np.float64) * scale)

    def _without_mean(
        self, node: NodeProto, weights: parameters.Weights, bias: parameters.Floats | None
    ) -> parameters.Floats:
        """Give a convolution the bias that subtracts the picture's mean; return it."""
        assert self.picture is not None  # noqa: S101 - the caller's condition
        sums = weights.values.astype(np.float64).sum(axis=(2, 3)) * weights.scales.astype(np.float64)[:, None]
        moved = np.asarray((0.0 if bias is None else bias) - sums @ self.picture.mean, np.float32)
        name = self._graph.add_constant(unique(self._names, f"{node.output[0]}/bias"), moved)
        del node.input[2:]
        node.input.append(name)
        return moved

    def _scale_of(self, name: str) -> float | None:
        """Return the scale of what an operator reads, looking through what only changes the layout."""
        while name not in self._placement.roots and (maker := self._graph.maker.get(name)) is not None:
            name = maker.input[0]
            name = next((before for before, after in self._dequantized.items() if after == name), name)
        root = self._placement.roots.get(name)
        return None if root is None else self._grids[root].scale

    def _weight(self, name: str, axis: int, least: parameters.Floats | None) -> tuple[str, parameters.Weights]:
        """Return the dequantized weights' name, written once for operators that share them."""
        key = (name, b"" if least is None else least.tobytes(), axis)
        if key not in self._weights:
            weights = parameters.quantize_weights(
                self._graph.constant(name), axis, self._options.weights, self._bits, least
            )
            base = unique(self._names, f"{name}/q")
            values = self._graph.add_constant(base, weights.values)
            scales = self._graph.add_constant(unique(self._names, f"{base}/scale"), weights.scales)
            zeros = self._graph.add_constant(
                unique(self._names, f"{base}/zero_point"), np.zeros(weights.scales.shape, np.int8)
            )
            output = self._node(
                "DequantizeLinear", [values, scales, zeros], unique(self._names, f"{name}/dq"), axis=axis
            )
            self._weights[key] = output, weights
        return self._weights[key]

    def _bias(self, name: str, bias: parameters.Floats, scales: Any) -> str:
        key = (name, scales.tobytes())
        if key not in self._biases:
            stored = scales.astype(np.float32)
            base = unique(self._names, f"{name}/q")
            values = self._graph.add_constant(base, parameters.quantize_bias(bias, stored.astype(np.float64)))
            scale = self._graph.add_constant(unique(self._names, f"{base}/scale"), stored)
            zeros = self._graph.add_constant(
                unique(self._names, f"{base}/zero_point"), np.zeros(stored.shape, np.int32)
            )
            self._biases[key] = self._node(
                "DequantizeLinear", [values, scale, zeros], unique(self._names, f"{name}/dq"), axis=0
            )
        return self._biases[key]
