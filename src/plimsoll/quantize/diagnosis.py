"""What quantization costs a network, and where: `sensitivity`, which operators deviate most when they are quantized and
so gain most in float; and `lint`, what is likely to go wrong, before anything is quantized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import InputError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import load
from plimsoll.onnx.graph import Graph
from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.half import LARGEST, SMALLEST_NORMAL, float_weights
from plimsoll.quantize.placement import Placement, node_key
from plimsoll.quantize.prepare import OPSET, prepare, write
from plimsoll.quantize.static import StaticOptions, checked_placement, insert_qdq, resolve_options
from plimsoll.system import host

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


Array = NDArray[Any]
Outputs = list[NDArray[np.float64]]
"""For each picture its output values, one output after another."""


@dataclass(frozen=True)
class OperatorDeviation:
    """What quantizing one operator alone does to the network's outputs."""

    name: str
    """As `StaticOptions.keep_float` takes it."""
    operator: str
    """Conv, Gemm, Add …"""
    mean_abs: float
    """Mean absolute difference of all output values on all pictures, in the outputs' unit; infinite where a value isn't
    finite."""
    max_abs: float


def sensitivity(
    model: Model, calibration: Calibration, tensors: Array, options: StaticOptions | None = None
) -> tuple[OperatorDeviation, ...]:
    """Rank the operators by the deviation that each causes when it alone is quantized, the worst first.

    "It alone" means its weights and the tensors that it reads and makes. (The other way round, all but one, measures
    small differences between large deviations, and needs many more pictures for a stable order.) One calibration serves
    all. The cost is that of loading the float network once for each operator and running `tensors` `[N, …]` through it;
    16 pictures are plenty. It is measured on `options.target`. Raises InputError without pictures, and what `static`
    and `Runner` raise.
    """
    chosen = resolve_options(options, calibration)
    pictures = _split(tensors)
    with TemporaryDirectory(prefix="plimsoll-sensitivity-") as temporary:
        folder = Path(temporary)
        prepared = prepare(model, folder)
        proto = onnx_graph.load(prepared)
        graph = Graph(proto)
        placement = checked_placement(model, graph, chosen)
        calibration.check_fit(model, placement.calibrated_tensors())
        kinds = {node_key(node): graph.kind(node) for node in graph.nodes}
        reference = _answers(prepared, pictures, REFERENCE_TARGET)
        rows = []
        for name in placement.nodes:
            alone = _alone(proto, placement, name, calibration, chosen)
            quantized = write(alone, folder / "alone.onnx", model)
            mean, largest = _difference(reference, _answers(quantized, pictures, chosen.target))
            rows.append(OperatorDeviation(name, kinds[name], mean, largest))
    return tuple(sorted(rows, key=lambda row: -row.mean_abs))


def _alone(
    proto: ModelProto, placement: Placement, name: str, calibration: Calibration, options: StaticOptions
) -> ModelProto:
    """Return the network with one operator quantized."""
    graph = Graph(type(proto).FromString(proto.SerializeToString()))
    tensors = placement.tensors[name]
    insert_qdq(
        graph,
        Placement(
            {tensor: placement.roots[tensor] for tensor in tensors if tensor in placement.roots},
            [name],
            {name: tensors},
        ),
        calibration,
        options,
    )
    return graph.proto


def _split(tensors: Array) -> list[Array]:
    if len(tensors) == 0:
        raise InputError("no picture was given to measure the deviation with", "Sixteen are plenty.")
    return [tensors[index : index + 1] for index in range(len(tensors))]


def _answers(model: Model, pictures: Sequence[Array], target: Target) -> Outputs:
    with (
        Runner.open(model, target, objective="throughput") as runner,
        ThreadPoolExecutor(runner.streams, "plimsoll-sensitivity") as pool,
    ):
        outputs = pool.map(runner.infer, pictures)
        return [np.concatenate([value.ravel().astype(np.float64) for value in answer.values()]) for answer in outputs]


def _difference(reference: Outputs, other: Outputs) -> tuple[float, float]:
    """Return mean and largest absolute difference; infinite where one isn't finite."""
    joined = np.concatenate([np.abs(first - second) for first, second in zip(reference, other, strict=True)])
    return (float(joined.mean()), float(joined.max())) if np.isfinite(joined).all() else (np.inf, np.inf)


FEW_IMAGES = 32
"""Fewer pictures show too little of what a network meets. NVIDIA and NNCF recommend some hundreds; on open_nsfw nothing
is gained beyond 100."""
MIXED_RATIO = 16.0
"""Beyond this ratio of two ranges the smaller one is left with less than 4 of the 8 bits, if both share a scale."""
LOST_SHARE = 2.0**-10
"""How far a tensor's float16 values may be off, by the root mean square, as a share of its size: rounding alone gives
at most half of it."""

_BOUNDED = {"Sigmoid": 1.0, "HardSigmoid": 1.0, "Softmax": 1.0, "Tanh": 1.0}
_THROUGH = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Slice", "Split")
"""What leaves values as they are, or some of them out."""


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
    is_quantized = any(node.op_type == "QuantizeLinear" for node in proto.graph.node)
    for output in graph.outputs:
        node, has_one_scale = _concatenation(graph, output)
        if node is None or (is_quantized and not has_one_scale):
            continue
        parts = list(_parts(graph, node))
        sizes = {name: size for name in parts if (size := _size(graph, name, calibration)) is not None}
        unknown = [name for name in parts if name not in sizes]
        if reason := _reason(sizes, unknown):
            findings.append(
                Finding(
                    "mixed-ranges",
                    f"the output '{output}' joins values of different sizes ({node_key(node)}: {reason}); with one"
                    f" scale the small ones {'have' if has_one_scale else 'would have'} no steps left",
                    "Quantize the network that it was made from with Plimsoll, which keeps such an output in float."
                    if has_one_scale
                    else "Plimsoll keeps it in float; for another quantizer, give the network one output for each.",
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


_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def _concatenation(graph: Graph, name: str) -> tuple[NodeProto | None, bool]:
    """Return the Concat that makes an output, but for its layout, and whether its values are quantized together."""
    node, is_quantized = graph.maker.get(name), False
    while node is not None and graph.kind(node) in (*_THROUGH, *_QUANTIZERS):
        is_quantized = is_quantized or graph.kind(node) in _QUANTIZERS
        node = graph.maker.get(node.input[0])
    return (node if node is not None and graph.kind(node) == "Concat" else None), is_quantized


def _parts(graph: Graph, join: NodeProto) -> Iterator[str]:
    """Yield what a Concat joins; where it joins others' results (a YOLOv5 has one for each stride), what those join."""
    for name in join.input:
        inner, _ = _concatenation(graph, name)
        if inner is None:
            yield name
        else:
            yield from _parts(graph, inner)


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
        if kind not in (*_THROUGH, *_QUANTIZERS):
            return None
        name = node.input[0]
