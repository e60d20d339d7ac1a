"""Correct biases for what rounding does to weights on average.

Weights that are rounded to 8 bits are off by `E = W_rounded - W`. The noise of that has a mean, since what a layer
reads isn't zero on average (behind a Relu it never is): `E · mean(x)` for each output channel, the same at every pixel.
The bias takes it out again. Where a channel has few weights, as in depthwise convolutions, that is most of the noise
(M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section
4.2, with means measured on the calibration pictures).

`static` corrects what it quantizes. Converters that quantize a float32 network themselves get one whose weights lie on
their grid already, with biases that are corrected for it (`round_weights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.model import Model
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.graph import Graph, unique
from plimsoll.quantize.parameters import Weights, quantize_weights
from plimsoll.quantize.placement import computes_with_constants, node_key, placement_of, weight_axis
from plimsoll.quantize.prepare import prepare, write

if TYPE_CHECKING:
    from onnx import NodeProto

CORRECTED = ("Conv", "Gemm")
"""The operators that have a bias."""

Floats = NDArray[np.float64]


def tensors_read(graph: Graph) -> set[str]:
    """Return the tensors whose means correct a bias: what convolutions and products with a bias read. Their channels
    are on axis 1."""
    return {
        str(node.input[0])
        for node in graph.nodes
        if graph.kind(node) in CORRECTED and computes_with_constants(graph, node)
    }


def channel_means(values: NDArray[Any]) -> Floats:
    """Return the mean of each channel of a tensor `[N, channels, …]`."""
    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
    return np.asarray(values.mean(axis=axes, dtype=np.float64), np.float64)


def mean_error(node: NodeProto, weights: Weights, exact: NDArray[Any], means: Floats) -> Floats | None:
    """Return what rounded weights add to each output channel on average; None where the means are of another size.

    Padding is taken for pixels like the others: what it makes of a border is small beside the rest.
    """
    error = weights.real() - exact
    if node.op_type == "Gemm":
        error = error if weights.axis == 0 else error.T
        return error @ means if len(means) == error.shape[1] else None
    outputs, inputs = error.shape[:2]
    groups = len(means) // inputs
    if groups * inputs != len(means) or outputs % groups:
        return None
    by_group = error.reshape(groups, outputs // groups, inputs, -1).sum(axis=3)
    return np.asarray(np.einsum("goi,gi->go", by_group, means.reshape(groups, inputs)).ravel(), np.float64)


def round_weights(model: Model, means: Mapping[str, Sequence[float]], folder: Path) -> Model:
    """Return the float32 network with the weights of int8 and biases that are corrected for them, in `folder`, for a
    converter that scales each channel by its largest weight; the model itself where `means` has nothing to correct.

    Layers that stay in float, before the outputs, keep their weights. Raises what `prepare` raises.
    """
    with TemporaryDirectory(prefix="plimsoll-prepare-") as temporary:
        graph = Graph(onnx_graph.load(prepare(model, Path(temporary))))
    quantized = set(placement_of(graph).nodes)
    nodes = [
        node
        for node in graph.nodes
        if node_key(node) in quantized and graph.kind(node) in CORRECTED and node.input[0] in means
    ]
    if not nodes:
        return model
    taken = {tensor.name for tensor in graph.proto.graph.initializer}
    for node in nodes:
        _round(graph, node, np.array(means[node.input[0]]), taken)
    return write(graph.proto, folder / f"{model.path.stem}.onnx", model)


def _round(graph: Graph, node: NodeProto, means: Floats, taken: set[str]) -> None:
    exact = graph.constant(node.input[1])
    weights = quantize_weights(exact, weight_axis(graph, node), "minmax")
    error = mean_error(node, weights, exact, means)
    if error is None:
        return
    bias = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.float32(0)
    constants = {"weights": weights.real().astype(np.float32), "bias": np.asarray(bias - error, np.float32)}
    node.input[1:] = [
        graph.add_constant(unique(taken, f"{node.output[0]}/{part}"), values) for part, values in constants.items()
    ]
