"""Correct biases for what rounding does to weights on average.

Weights that are rounded to 8 bits are off by `E = W_rounded - W`. The noise of that has a mean, since what a layer
reads isn't zero on average (behind a Relu it never is): `E · mean(x)` for each output channel, the same at every pixel.
The bias takes it out again. Where a channel has few weights, as in depthwise convolutions, that is most of the noise
(M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section
4.2, with means measured on the calibration pictures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.onnx.graph import Graph
from plimsoll.quantize.parameters import Weights
from plimsoll.quantize.placement import computes_with_constants

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
    shape = [1] * exact.ndim
    shape[weights.axis] = -1
    error = weights.values * weights.scales.astype(np.float64).reshape(shape) - exact
    if node.op_type == "Gemm":
        error = error if weights.axis == 0 else error.T
        return error @ means if len(means) == error.shape[1] else None
    outputs, inputs = error.shape[:2]
    groups = len(means) // inputs
    if groups * inputs != len(means) or outputs % groups:
        return None
    by_group = error.reshape(groups, outputs // groups, inputs, -1).sum(axis=3)
    return np.asarray(np.einsum("goi,gi->go", by_group, means.reshape(groups, inputs)).ravel(), np.float64)
