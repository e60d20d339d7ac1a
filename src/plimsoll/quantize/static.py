"""`static`: int8 with ranges that are known beforehand, as explicit QuantizeLinear and DequantizeLinear in ONNX."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll import backends
from plimsoll.backends.base import QuantizationDefaults
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import BuildError, InputError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.graph import Graph, unique
from plimsoll.quantize import bias_correction, parameters, pointwise
from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.parameters import QuantizationParams, Symmetry, WeightMethod
from plimsoll.quantize.pixel_input import PixelInput, fold_normalization
from plimsoll.quantize.placement import (
    COMPUTING,
    FUSED,
    OPERATORS,
    Placement,
    averages_padding,
    node_key,
    placement_of,
    weight_axis,
)
from plimsoll.quantize.prepare import prepare, write
from plimsoll.quantize.space_to_depth import apply_space_to_depth
from plimsoll.system import host

if TYPE_CHECKING:
    from onnx import NodeProto

_DEFAULT_TARGET = replace(REFERENCE_TARGET, precision="int8")


@dataclass(frozen=True)
class StaticOptions(QuantizationDefaults):
    """Options of `static`. `for_target` gives what suits a runtime; by itself it is what suits the reference's."""

    operators: tuple[str, ...] = OPERATORS
    """Which kinds of operators are quantized."""
    keep_float: tuple[str, ...] = ()
    """Operators that stay in float, by name (by their first output's where they have none)."""
    float_heads: bool = True
    """Keep the last convolutions or products before the outputs in float, and all after them."""
    weights: WeightMethod = "mse"
    """Where each channel's range ends: at its largest weight, or where the mean squared error is least."""
    correct_bias: bool = True
    """Take out of biases what rounded weights add on average, where the calibration table has means."""
    target: Target = _DEFAULT_TARGET
    """Where the network will run; `sensitivity` measures there."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.operators if name not in OPERATORS]
        if unknown:
            raise InputError(f"operators can't be quantized: {', '.join(unknown)}; choose from {', '.join(OPERATORS)}")

    @classmethod
    def for_target(cls, target: Target) -> Self:
        """Return what runs fastest, with the least deviation, on a target."""
        return cls(target=target, **vars(backends.get(target.runtime).quantization(target)))

    def with_symmetry(self, symmetry: Symmetry) -> Self:
        """Return the options with this symmetry."""
        return replace(self, symmetry=symmetry)

    def resolved(self) -> Self:
        """Return the options with what depends on this processor filled in."""
        processor = host.capabilities()
        activations = self.activations or ("uint8" if processor.x86 else "int8")
        bits = self.weight_bits or (7 if activations == "uint8" and processor.int8_saturates else 8)
        return replace(self, activations=activations, weight_bits=bits)


def static(model: Model, calibration: Calibration, folder: Path, options: StaticOptions | None = None) -> Model:
    """Return an int8 child: weights symmetric with a scale for each output channel, activations by the calibration's
    ranges.

    Inputs and outputs stay float32. Written into `folder`. Options default to what suits ONNX Runtime on this
    processor; `StaticOptions.for_target` gives those of a target.

    A folded network (`plimsoll.preprocessing.folded`) takes the calibration of the one that it was folded from where it
    `reads_bytes`.

    Raises ModelError where the calibration was made for another network or lacks a tensor, or the file is quantized
    already; BuildError where nothing in it can be quantized or an operator to keep isn't there.
    """
    chosen = resolve_options(options, calibration)
    with TemporaryDirectory(prefix="plimsoll-prepare-") as temporary:
        graph = Graph(onnx_graph.load(prepare(model, Path(temporary))))
    placement = checked_placement(model, graph, chosen)
    pixel_input = _pixel_input(graph, placement, chosen)
    own_range = () if pixel_input is None else (pixel_input.real,)
    calibration.check_fit(model, [name for name in placement.calibrated_tensors() if name not in own_range])
    insert_qdq(graph, placement, calibration, chosen, pixel_input)
    if chosen.space_to_depth:
        apply_space_to_depth(graph)
    return write(graph.proto, folder / f"{model.path.stem}.int8.onnx", model)


def reads_bytes(model: Model, options: StaticOptions | None = None) -> bool:
    """Tell whether `static` lets the first convolution of this folded network read the picture's bytes: `pixel_input`.

    It then needs no range for what the input steps made of the picture. Where not, quantize the network as it came and
    fold the result. Raises as `static` does.
    """
    chosen = (options or StaticOptions()).resolved()
    with TemporaryDirectory(prefix="plimsoll-prepare-") as temporary:
        graph = Graph(onnx_graph.load(prepare(model, Path(temporary))))
    return _pixel_input(graph, checked_placement(model, graph, chosen), chosen) is not None


def _pixel_input(graph: Graph, placement: Placement, options: StaticOptions) -> PixelInput | None:
    # Bytes can only go where uint8 is what convolutions take.
    return fold_normalization(graph, placement) if options.activations == "uint8" else None


def resolve_options(options: StaticOptions | None, calibration: Calibration) -> StaticOptions:
    """Return the options with what depends on the processor and the calibration filled in."""
    chosen = (options or StaticOptions()).resolved()
    return chosen if chosen.symmetry is not None else chosen.with_symmetry(calibration.symmetry)


def checked_placement(model: Model, graph: Graph, options: StaticOptions) -> Placement:
    """Return what is quantized in the model's prepared graph; raises BuildError for options that don't fit it."""
    names = {node_key(node) for node in graph.nodes}
    if unknown := [name for name in options.keep_float if name not in names]:
        raise BuildError(
            f"{model.source}: unknown operators in keep_float: {', '.join(map(repr, unknown))}",
            "`sensitivity` lists the names of operators.",
        )
    placement = placement_of(
        graph,
        operators=options.operators,
        keep_float=options.keep_float,
        float_heads=options.float_heads,
        fuses_pointwise=options.fuses_pointwise,
    )
    if not placement.nodes:
        raise BuildError(
            f"{model.source}: nothing in it to quantize",
            "A convolution or product that ends the network stays in float. Choose float32 or float16.",
        )
    return placement


def insert_qdq(
    graph: Graph,
    placement: Placement,
    calibration: Calibration,
    options: StaticOptions,
    pixel_input: PixelInput | None = None,
) -> None:
    """Quantize a graph in place, with resolved options and a range for each of the placement's calibrated tensors."""
    if pixel_input is not None:
        # 256 steps over this range are the 256 pixel values: scale 1, zero point 0.
        ranges = {**calibration.ranges, pixel_input.real: (0.0, 255.0)}
        calibration = calibration.model_copy(update={"ranges": ranges})
    writer = _QdqWriter(graph, placement, calibration, options)
    writer.pixel_input = pixel_input
    graph.replace_nodes(writer.nodes())
    del graph.proto.graph.value_info[:]


def _seen(graph: Graph, name: str, given: tuple[float, float]) -> tuple[float, float]:
    """Return the part of a range that matters to what reads it: the 256 steps are for that."""
    low, high = pointwise.unsaturated(graph, name)
    return max(given[0], low), min(given[1], high)


class _QdqWriter:
    def __init__(self, graph: Graph, placement: Placement, calibration: Calibration, options: StaticOptions) -> None:
        assert options.activations is not None  # noqa: S101 - resolved
        assert options.weight_bits is not None  # noqa: S101 - resolved
        self._graph = graph
        self._placement = placement
        self._options = options
        self._bits: int = options.weight_bits
        self._params: dict[str, QuantizationParams] = {
            root: QuantizationParams.of_range(
                *_seen(graph, root, calibration.ranges[root]),
                dtype=options.activations,
                symmetry=options.symmetry or "auto",
            )
            for root in placement.calibrated_tensors()
        }
        self._means = calibration.means
        self._quantized = set(placement.nodes)
        self.pixel_input: PixelInput | None = None
        self._names = {name for node in graph.nodes for name in (*node.input, *node.output)} | {
            tensor.name for tensor in graph.proto.graph.initializer
        }
        self._names |= {node.name for node in graph.nodes}
        self._dequantized: dict[str, str] = {}
        """Quantized tensors, and what holds them in float again."""
        self._biases: dict[tuple[str, bytes], str] = {}
        self._weights: dict[tuple[str, bytes, int], tuple[str, parameters.Weights]] = {}
        self._nodes: list[NodeProto] = []

    def nodes(self) -> list[NodeProto]:
        """Return the graph's nodes with the new ones between them."""
        for name in self._graph.inputs:
            self._quantize_value(name)
        for node in self._graph.nodes:
            if node_key(node) in self._quantized and self._graph.kind(node) in COMPUTING:
                self._constants(node)
            for index, name in enumerate(list(node.input)):
                node.input[index] = self._dequantized.get(name, name)
            self._nodes.append(node)
            if (
                self._options.hold_averages
                and self._graph.kind(node) == "AveragePool"
                and node_key(node) not in self._quantized
            ):
                self._keep_unrounded(node)
            for name in node.output:
                self._quantize_value(name)
        return self._nodes

    def _keep_unrounded(self, node: NodeProto) -> None:
        """Put a Max with the least float32 behind an average of quantized values, which changes nothing.

        Some runtimes move the scale of what is averaged behind an AveragePool, and then round the averages to 8 bits
        where a change of shape follows. They don't move a scale through a Max. (A GlobalAveragePool is a ReduceMean to
        them, which they leave in float.) Where zeros around it are averaged too, another Max stands before it.
        """
        if node.input[0] not in self._dequantized.values():
            return
        name = node.output[0]
        node.output[0] = unique(self._names, f"{name}/average")
        least = self._graph.add_constant(
            unique(self._names, f"{name}/least"), np.array(np.finfo(np.float32).min, np.float32)
        )
        if averages_padding(node):
            self._nodes.remove(node)
            node.input[0] = self._node("Max", [node.input[0], least], unique(self._names, f"{name}/held"))
            self._nodes.append(node)
        self._node("Max", [node.output[0], least], name)

    def _quantize_value(self, name: str) -> None:
        """Insert what follows a tensor, where it is quantized."""
        if name in self._placement.roots:
            self._insert_pair(name, self._placement.roots[name])
        elif self.pixel_input is not None and name == self.pixel_input.pixels:
            self._insert_pair(self.pixel_input.real, self.pixel_input.real)

    def _insert_pair(self, name: str, root: str) -> None:
        """Insert QuantizeLinear and DequantizeLinear; the latter alone for pixels, which are integers already."""
        params = self._params[root]
        base = unique(self._names, f"{name}/q")
        zero_point = np.array(params.zero_point, params.dtype)
        scale = self._graph.add_constant(unique(self._names, f"{base}/scale"), np.array(params.scale, np.float32))
        zero = self._graph.add_constant(unique(self._names, f"{base}/zero_point"), zero_point)
        if self.pixel_input is not None and name == self.pixel_input.real:
            base = self.pixel_input.pixels
        else:
            source = (
                self._node("Max", [name], unique(self._names, f"{name}/float")) if self._would_be_fused(name) else name
            )
            self._node("QuantizeLinear", [source, scale, zero], base)
        self._dequantized[name] = self._node("DequantizeLinear", [base, scale, zero], unique(self._names, f"{name}/dq"))

    def _would_be_fused(self, name: str) -> bool:
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
        exact = self._graph.constant(node.input[1])
        node.input[1], weights = self._weight(node.input[1], axis, least)
        if self.pixel_input is not None and node_key(node) == self.pixel_input.convolution:
            bias = self._without_mean(node, weights, bias)
        elif self._options.correct_bias:
            bias = self._corrected(node, weights, exact, bias)
        if scale is not None and bias is not None and len(bias) == channels:
            node.input[2] = self._bias(node.input[2], bias, weights.scales.astype(np.float64) * scale)

    def _without_mean(
        self, node: NodeProto, weights: parameters.Weights, bias: parameters.Floats | None
    ) -> parameters.Floats:
        """Give a convolution the bias that subtracts the picture's mean; return it."""
        assert self.pixel_input is not None  # noqa: S101 - the caller's condition
        sums = weights.values.astype(np.float64).sum(axis=(2, 3)) * weights.scales.astype(np.float64)[:, None]
        return self._less(node, bias, sums @ self.pixel_input.mean)

    def _corrected(
        self, node: NodeProto, weights: parameters.Weights, exact: parameters.Floats, bias: parameters.Floats | None
    ) -> parameters.Floats | None:
        """Give an operator the bias that takes out what rounded weights add on average; return it."""
        read = next((name for name, held in self._dequantized.items() if held == node.input[0]), node.input[0])
        if self._graph.kind(node) not in bias_correction.CORRECTED or read not in self._means:
            return bias
        error = bias_correction.mean_error(node, weights, exact, np.array(self._means[read]))
        return bias if error is None or not error.any() else self._less(node, bias, error)

    def _less(self, node: NodeProto, bias: parameters.Floats | None, amount: NDArray[np.float64]) -> parameters.Floats:
        """Subtract from an operator's bias; return what is left."""
        moved = np.asarray((0.0 if bias is None else bias) - amount, np.float32)
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
        return None if root is None else self._params[root].scale

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
