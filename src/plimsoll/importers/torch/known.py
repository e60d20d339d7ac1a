"""Networks whose weights are imported without their code and without PyTorch: EfficientNet-Lite 0 to 4.

The names of the tensors are those of the package `efficientnet-lite-pytorch` 0.1.0. Blocks, widths and depths are
TensorFlow's (`models/official/efficientnet/lite/efficientnet_lite_builder.py`): no squeeze-and-excitation, ReLU6, a
stem and a head whose widths aren't scaled, paddings as in TensorFlow's SAME.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.importers.torch.state_dict import Tensors, read_tensors
from plimsoll.onnx.writer import GraphWriter

FORMS = {
    "efficientnet_lite0": (1.0, 1.0, 224),
    "efficientnet_lite1": (1.0, 1.1, 240),
    "efficientnet_lite2": (1.1, 1.2, 260),
    "efficientnet_lite3": (1.2, 1.4, 280),
    "efficientnet_lite4": (1.4, 1.8, 300),
}
"""Factors of the widths and of the depths, and pixels of a side of the input."""

_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
"""Blocks, kernel, stride of the first, expansion, input and output channels."""
_STEM, _HEAD, _DIVISOR = 32, 1280, 8
_EPSILON = 1e-3
_NOT_READ = "num_batches_tracked"


@dataclass(frozen=True)
class _Block:
    name: str
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


def write(path: Path, architecture: str, batch: int | None = None) -> GraphWriter:
    """Return the network with the weights of a file that `torch.save` wrote: input `data` [N, 3, side, side], output
    `logits` [N, labels]. Raises ModelError for weights of another network."""
    width, depth, side = FORMS[architecture]
    weights = _Weights(read_tensors(path), str(path))
    graph = GraphWriter(architecture, batch)
    value = graph.input("data", (graph.batch, 3, side, side))
    value = _convolution(weights, graph, value, ("_conv_stem", "_bn0"), (_STEM, 3, 3, 2, 1, side))
    value, side = _clipped(graph, value), -(-side // 2)
    channels = _STEM
    for block in _blocks(width, depth):
        value = _written(weights, graph, value, block, side)
        side, channels = -(-side // block.stride), block.outputs
    value = _convolution(weights, graph, value, ("_conv_head", "_bn1"), (_HEAD, channels, 1, 1, 1, side))
    value = graph.add("GlobalAveragePool", [_clipped(graph, value)], "mean")
    value = graph.add("Flatten", [value], "features", axis=1)
    bias = weights.take("_fc.bias", -1)
    matrix = graph.constant("_fc.weight", weights.take("_fc.weight", len(bias), _HEAD))
    value = graph.add("Gemm", [value, matrix, graph.constant("_fc.bias", bias)], "_fc", transB=1)
    graph.output(value, "logits", (graph.batch, len(bias)))
    weights.require_all_read()
    return graph


def _blocks(width: float, depth: float) -> Iterator[_Block]:
    number = 0
    for stage, (count, kernel, stride, expansion, inputs, outputs) in enumerate(_STAGES):
        # The first and the last stage keep their depth, and the first its input, whose width is the stem's.
        repeats = count if stage in (0, len(_STAGES) - 1) else math.ceil(depth * count)
        before, after = _STEM if stage == 0 else _scaled(inputs, width), _scaled(outputs, width)
        for repeat in range(repeats):
            first = repeat == 0
            yield _Block(
                f"_blocks.{number}", kernel, stride if first else 1, expansion, before if first else after, after
            )
            number += 1


def _scaled(channels: int, width: float) -> int:
    """Return a width to a multiple of 8, not more than a tenth below the exact one (TensorFlow's `round_filters`)."""
    exact = channels * width
    rounded = max(_DIVISOR, int(exact + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * exact else rounded


def _written(weights: _Weights, graph: GraphWriter, value: str, block: _Block, side: int) -> str:
    """Write a block: widened, convolved a channel, narrowed, and added to what came where the shapes are the same."""
    wide, came, name = block.inputs * block.expansion, value, block.name
    if block.expansion != 1:
        form = (wide, block.inputs, 1, 1, 1, side)
        value = _clipped(graph, _convolution(weights, graph, value, (f"{name}._expand_conv", f"{name}._bn0"), form))
    form = (wide, 1, block.kernel, block.stride, wide, side)
    value = _clipped(graph, _convolution(weights, graph, value, (f"{name}._depthwise_conv", f"{name}._bn1"), form))
    form = (block.outputs, wide, 1, 1, 1, side)
    value = _convolution(weights, graph, value, (f"{name}._project_conv", f"{name}._bn2"), form)
    same = block.stride == 1 and block.inputs == block.outputs
    return graph.add("Add", [value, came], f"{name}.add") if same else value


def _convolution(
    weights: _Weights, graph: GraphWriter, value: str, names: tuple[str, str], form: tuple[int, int, int, int, int, int]
) -> str:
    """Write a convolution and the batch norm behind it; form: outputs, inputs of a group, kernel, stride, groups, and
    the side of what comes."""
    outputs, inputs, kernel, stride, groups, side = form
    convolution, norm = names
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    stored = graph.constant(
        f"{convolution}.weight", weights.take(f"{convolution}.weight", outputs, inputs, kernel, kernel)
    )
    value = graph.add(
        "Conv",
        [value, stored],
        convolution,
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[total // 2] * 2 + [total - total // 2] * 2,
        group=groups,
    )
    parts = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    statistics = [graph.constant(part, weights.take(part, outputs)) for part in parts]
    return graph.add("BatchNormalization", [value, *statistics], norm, epsilon=_EPSILON)


def _clipped(graph: GraphWriter, value: str) -> str:
    limits = [
        graph.constant(f"{value}.{what}", np.array(limit, np.float32)) for what, limit in (("low", 0), ("high", 6))
    ]
    return graph.add("Clip", [value, *limits], f"{value}.relu6")


class _Weights:
    """Tensors that are taken by name, each in the shape that the network has."""

    def __init__(self, tensors: Tensors, where: str) -> None:
        self._tensors, self._where = tensors, where
        self._left = {name for name in tensors if not name.endswith(_NOT_READ)}

    def take(self, name: str, *shape: int) -> NDArray[Any]:
        """Return a tensor as float32; -1 is a size to be found. Raises ModelError where it is missing or of another
        shape."""
        values = self._tensors.get(name)
        if values is None or len(values.shape) != len(shape) or not _fits(values.shape, shape):
            reason = "no such tensor" if values is None else f"found {list(values.shape)}"
            raise ModelError(
                f"{self._where}: the tensor '{name}': {reason}, expected {list(shape)}",
                "Do the weights belong to another network?",
            )
        self._left.discard(name)
        return values.astype(np.float32)

    def require_all_read(self) -> None:
        """Raise ModelError for tensors left over: then it is another network."""
        if self._left:
            raise ModelError(
                f"{self._where}: {len(self._left)} of its tensors are not the network's:"
                f" {', '.join(sorted(self._left)[:8])}"
            )


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return all(size == want or want == -1 for size, want in zip(shape, expected, strict=True))
