"""face-api.js's weights manifests: weights without a topology, of networks whose topology is known.

The networks for 68 landmarks (and its tiny variant) and for expressions have the same form: blocks of depthwise
separable convolutions, each of which reads the sum of all before it in its block, then a mean over what is left of the
picture, and one matrix product (`src/faceFeatureExtractor` and `src/faceProcessor` in @vladmandic/face-api 1.7.15). The
topology is written as a graph model's, so that TensorFlow.js itself can answer the probe.

Input: `input` [N, 112, 112, 3], RGB, (value - mean) / 255 with the means 122.782, 117.001, 104.298. Output: `output`,
[N, 136] the 68 points as x, y in shares of the input, or [N, 7] the logits of neutral, happy, sad, angry, fearful,
disgusted and surprised.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

SIDE = 112
"""Pixels of a side of the input."""
_PART = re.compile(r"dense(\d)/conv(\d)/(?:filters|depthwise_filter|pointwise_filter|bias)")

Nodes = list[dict[str, Any]]


def topology(weights: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
    """Return the graph of the network that these weights belong to; None for another network's."""
    layers = {(int(match[1]), int(match[2])) for match in map(_PART.fullmatch, weights) if match}
    if not layers or not {"fc/weights", "fc/bias"} <= set(weights):
        return None
    blocks, count = (max(numbers) + 1 for numbers in zip(*layers, strict=True))
    sizes = {"shape": {"dim": [{"size": str(size)} for size in (-1, SIDE, SIDE, 3)]}}
    nodes = [_node(name, "Const", dtype={"type": "DT_FLOAT"}) for name in weights]
    nodes.append(_node("input", "Placeholder", dtype={"type": "DT_FLOAT"}, shape=sizes))
    value = "input"
    for block in range(blocks):
        nodes += _block(f"dense{block}", value, count, plain=block == 0)
        value = nodes[-1]["name"]
    left = SIDE >> blocks  # Each block halves the sides.
    nodes += [
        _node(
            "mean",
            "AvgPool",
            value,
            ksize=_listed(1, left, left, 1),
            strides=_listed(1, 2, 2, 1),
            padding=_text("VALID"),
        ),
        _node("features", "Squeeze", "mean", squeeze_dims=_listed(1, 2)),
        _node("product", "MatMul", "features", "fc/weights"),
        _node("output", "BiasAdd", "product", "fc/bias"),
    ]
    return {"node": nodes, "library": {}, "versions": {}}


def _block(name: str, value: str, layers: int, *, plain: bool) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a block: `relu(a + b + c + d)`, a computed from `value` with stride 2 (by a `plain`
    convolution in the first block), each further from the sum of those before it."""
    if plain:
        yield _convolution(f"{name}/conv0", value, "filters", 2)
    else:
        yield from _separable(f"{name}/conv0", value, 2)
    yield _node(f"{name}/relu0", "Relu", f"{name}/conv0")
    total = f"{name}/relu0"
    for layer in range(1, layers):
        yield from _separable(f"{name}/conv{layer}", f"{name}/relu{layer - 1}", 1)
        yield _node(f"{name}/sum{layer}", "AddV2", total, f"{name}/conv{layer}")
        total = f"{name}/sum{layer}"
        yield _node(f"{name}/relu{layer}", "Relu", total)


def _separable(name: str, value: str, stride: int) -> Nodes:
    spread = _node(f"{name}/depthwise", "DepthwiseConv2dNative", value, f"{name}/depthwise_filter", **_window(stride))
    return [spread, _convolution(name, spread["name"], "pointwise_filter", 1)]


def _convolution(name: str, value: str, kernel: str, stride: int) -> dict[str, Any]:
    fused = {"fused_ops": {"list": {"s": [_text("BiasAdd")["s"]]}}, "num_args": {"i": "1"}}
    return _node(name, "_FusedConv2D", value, f"{name}/{kernel}", f"{name}/bias", **_window(stride), **fused)


def _window(stride: int) -> dict[str, Any]:
    strides, dilations = _listed(1, stride, stride, 1), _listed(1, 1, 1, 1)
    return {"strides": strides, "dilations": dilations, "padding": _text("SAME")}


def _node(name: str, operator: str, *reads: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": operator, "input": list(reads), "attr": attributes}


def _listed(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def _text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}
