"""Look at a network before it is quantized, and say what is likely to go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plimsoll.core.model import Model
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph
from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.data_free import LARGEST, SMALLEST_NORMAL, float_weights
from plimsoll.quantize.placement import node_key
from plimsoll.quantize.prepare import OPSET
from plimsoll.system import host

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

FEW_IMAGES = 32
"""Fewer pictures show too little of what a network meets. NVIDIA and NNCF recommend some hundreds; on open_nsfw nothing
is gained beyond 100."""
MIXED_RATIO = 16.0
"""Beyond this ratio of two ranges the smaller one is left with less than 4 of the 8 bits, if both share a scale."""
LOST_SHARE = 2.0**-10
"""How far a tensor's float16 values may be off, by the root mean square, as a share of its size: rounding alone gives
at most half of it."""

_BOUNDED = {"Sigmoid": 1.0, "HardSigmoid": 1.0, "Softmax": 1.0, "Tanh": 1.0}
_THROUGH = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")


@dataclass(frozen=True)
class Finding:
    """Something to know before quantizing."""

    code: str
    """mixed-ranges, no-vnni, few-images, old-opset or float16-subnormal."""
    message: str
    """What was found, and what it means."""
    advice: str
    """What to do."""


def lint(model: Model, calibration: Calibration | None = None, *, images: int | None = None) -> tuple[Finding, ...]:
    """Return what is likely to go wrong when `static` quantizes this network, on this processor.

    With a calibration, ranges are compared as measured; without, only those that an operator bounds are known.
    `images`: how many calibration pictures there are, where there is no calibration yet. Raises ModelError for a
    damaged file.
    """
    proto = onnx_graph.load(model)
    findings = [*_opset(proto), *_mixed_ranges(proto, calibration), *_processor()]
    count = calibration.images if calibration is not None and calibration.method != "given" else images
    if count is not None and count < FEW_IMAGES:
        findings.append(
            Finding(
                "few-images",
                f"{count} calibration pictures show too little of what the network will meet",
                f"Give at least {FEW_IMAGES}, better 100, as varied as the pictures in use.",
            )
        )
    return tuple(findings)


def before_float16(model: Model) -> tuple[Finding, ...]:
    """Return whether weights lose digits in float16, whose steps are 6e-8 below 6.1e-5 instead of ever finer. Raises
    ModelError for a damaged file."""
    worst: list[tuple[float, str]] = []
    for name, values in float_weights(onnx_graph.load(model)):
        if values.size and np.isfinite(values).all() and np.abs(values).max() <= LARGEST:
            exact = values.astype(np.float64)
            size = float(np.linalg.norm(exact))
            lost = float(np.linalg.norm(values.astype(np.float16).astype(np.float64) - exact)) / size if size else 0.0
            if lost > LOST_SHARE:
                worst.append((lost, name))
    if not worst:
        return ()
    lost, name = max(worst)
    return (
        Finding(
            "float16-subnormal",
            f"{len(worst)} weight tensors lose digits, as most of their values are below {SMALLEST_NORMAL:.2g}:"
            f" '{name}' is off by {lost:.1%} of its size",
            "Prove the answers before use; bfloat16 has no such floor.",
        ),
    )


def _opset(proto: ModelProto) -> list[Finding]:
    version = load.opset(proto)
    if version >= OPSET:
        return []
    return [
        Finding(
            "old-opset",
            f"the network has opset {version}; scales for each channel exist from opset {OPSET} on",
            f"Plimsoll raises it while it quantizes. Where that fails, export the network with opset {OPSET} or later.",
        )
    ]


def _processor() -> list[Finding]:
    if not host.capabilities().int8_saturates:
        return []
    return [
        Finding(
            "no-vnni",
            "this processor has no VNNI: sums of two int8 products are cut off at 16 bits",
            "Weights are quantized to 7 bits here, which can't overflow but deviates more; quantize on the kind of"
            " processor that will run the network.",
        )
    ]


def _mixed_ranges(proto: ModelProto, calibration: Calibration | None) -> list[Finding]:
    graph = Graph(proto)
    findings = []
    for output in graph.outputs:
        node = _concatenation(graph, output)
        if node is None:
            continue
        sizes = {name: size for name in node.input if (size := _size(graph, name, calibration)) is not None}
        unknown = [name for name in node.input if name not in sizes]
        if reason := _reason(sizes, unknown):
            findings.append(
                Finding(
                    "mixed-ranges",
                    f"the output '{output}' joins values of different sizes ({node_key(node)}: {reason}); with one"
                    " scale the small ones would have no steps left",
                    "Keep it in float, as `static` does by default (float_heads), or give the network one output for"
                    " each.",
                )
            )
    return findings


def _reason(sizes: dict[str, float], unknown: list[str]) -> str:
    """Say which parts of a concatenation don't fit together; nothing where they do, or too little is known."""
    if sizes and unknown:
        bounded = min(sizes, key=lambda name: sizes[name])
        return f"'{bounded}' stays within ±{sizes[bounded]:g}, '{unknown[0]}' is not bounded"
    if len(sizes) < 2:
        return ""
    small, large = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
    if sizes[large] <= MIXED_RATIO * sizes[small]:
        return ""
    return f"'{small}' stays within ±{sizes[small]:.3g}, '{large}' reaches {sizes[large]:.3g}"


def _concatenation(graph: Graph, name: str) -> NodeProto | None:
    """Return the Concat that makes an output, but for its layout."""
    node = graph.maker.get(name)
    while node is not None and graph.kind(node) in _THROUGH:
        node = graph.maker.get(node.input[0])
    return node if node is not None and graph.kind(node) == "Concat" else None


def _size(graph: Graph, name: str, calibration: Calibration | None) -> float | None:
    """Return the largest absolute value of a tensor, where it is known."""
    while True:
        if calibration is not None and name in calibration.ranges:
            low, high = calibration.ranges[name]
            return max(-low, high)
        node = graph.maker.get(name)
        if node is None:
            return None
        kind = graph.kind(node)
        if kind in _BOUNDED:
            return _BOUNDED[kind]
        if kind not in _THROUGH:
            return None
        name = node.input[0]
