"""A small convolutional network, trained here and now on scikit-learn's handwritten digits: a real model with real
labels.

Plain NumPy, about two seconds: 697 digits teach it, the other 1,100 are what it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits

Array = NDArray[Any]
TAUGHT = 697
_SIZE = 8
_EPOCHS = 10
_BATCH = 16
_RATE = 3e-3

SPEC = """
name = "digits"

[input]
[[input.steps]]
step = "decode"
colour = "grey"
[[input.steps]]
step = "resize"
width = 8
height = 8
[[input.steps]]
step = "scale"
divisor = 255.0
[[input.steps]]
step = "layout"
order = "NCHW"

[output]
task = "classify"
labels = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
activation = "softmax"
"""
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Digits:
    """The trained network, its Spec, and the digits that it has not seen: one folder a class."""

    model: Path
    spec: Path
    images: Path
    accuracy: float
    """On the unseen digits, as the training code itself computes it."""


def make(folder: Path) -> Digits:
    """Train the network and write everything into a folder."""
    loaded = load_digits()
    pixels = np.rint(loaded.images * 255 / 16).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    taught, unseen = order[:TAUGHT], order[TAUGHT:]
    weights = _train(_tensors(pixels[taught]), loaded.target[taught])
    model, spec, images = folder / "digits.onnx", folder / "digits.toml", folder / "digits"
    _export(weights, model)
    spec.write_text(SPEC)
    for index in unseen:
        of_class = images / LABELS[loaded.target[index]]
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index]).save(of_class / f"{index}.png")
    predicted = _forward(weights, _tensors(pixels[unseen]))[-1].argmax(axis=1)
    return Digits(model, spec, images, float((predicted == loaded.target[unseen]).mean()))


def _tensors(pixels: Array) -> Array:
    return (pixels[:, np.newaxis] / 255).astype(np.float32)


def _patches(x: Array, stride: int) -> Array:
    """Return the 3 x 3 surroundings of every place, padded with zeros: `[N, H, W, C * 9]`."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(
        len(x), windows.shape[2], windows.shape[3], -1
    )


def _forward(weights: list[Array], x: Array) -> list[Array]:
    """Return what the backward pass needs, and the logits `[N, 10]` last."""
    first, first_bias, second, second_bias, last, last_bias = weights
    patches = _patches(x, 1)
    first_out = np.maximum(patches @ first + first_bias, 0)
    two = _patches(first_out.transpose(0, 3, 1, 2), 2)
    second_out = np.maximum(two @ second + second_bias, 0)
    flat = second_out.transpose(0, 3, 1, 2).reshape(len(x), -1)
    return [patches, first_out, two, second_out, flat, flat @ last + last_bias]


def _gradients(weights: list[Array], x: Array, labels: Array) -> list[Array]:
    _, _, second, _, last, _ = weights
    first, first_out, two, second_out, flat, logits = _forward(weights, x)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    wrong = powers / powers.sum(axis=1, keepdims=True)
    wrong[np.arange(len(x)), labels] -= 1
    wrong /= len(x)
    back = (wrong @ last.T).reshape(len(x), second_out.shape[3], *second_out.shape[1:3]).transpose(0, 2, 3, 1) * (
        second_out > 0
    )
    to_patches = (back @ second.T).reshape(*back.shape[:3], first_out.shape[3], 3, 3)
    spread = np.zeros((len(x), first_out.shape[3], _SIZE + 2, _SIZE + 2), np.float32)
    for row in range(3):
        for column in range(3):
            spread[:, :, row : row + _SIZE : 2, column : column + _SIZE : 2] += to_patches[..., row, column].transpose(
                0, 3, 1, 2
            )
    earlier = spread[:, :, 1:-1, 1:-1].transpose(0, 2, 3, 1) * (first_out > 0)
    columns = [first.reshape(-1, first.shape[-1]), two.reshape(-1, two.shape[-1])]
    outs = [earlier.reshape(-1, earlier.shape[-1]), back.reshape(-1, back.shape[-1])]
    return [
        columns[0].T @ outs[0],
        outs[0].sum(0),
        columns[1].T @ outs[1],
        outs[1].sum(0),
        flat.T @ wrong,
        wrong.sum(0),
    ]


def _train(x: Array, labels: Array) -> list[Array]:
    """Train with Adam (Kingma and Ba 2015) for a fixed number of passes, alike every time."""
    rng = np.random.default_rng(1)
    shapes = [(9, 12), (12,), (108, 24), (24,), (24 * 16, 10), (10,)]
    # He's initialization; biases begin at zero.
    weights: list[Array] = [
        (rng.normal(size=shape) * (len(shape) - 1) * np.sqrt(2 / shape[0])).astype(np.float32) for shape in shapes
    ]
    means, squares = [np.zeros_like(weight) for weight in weights], [np.zeros_like(weight) for weight in weights]
    step = 0
    for _ in range(_EPOCHS):
        for batch in np.array_split(rng.permutation(len(x)), len(x) // _BATCH):
            step += 1
            for index, gradient in enumerate(_gradients(weights, x[batch], labels[batch])):
                means[index] = 0.9 * means[index] + 0.1 * gradient
                squares[index] = 0.999 * squares[index] + 0.001 * gradient**2
                unbiased = means[index] / (1 - 0.9**step), squares[index] / (1 - 0.999**step)
                weights[index] = (weights[index] - _RATE * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)).astype(
                    np.float32
                )
    return weights


def _export(weights: list[Array], path: Path) -> None:
    first, first_bias, second, second_bias, last, last_bias = weights
    constants = {
        "first": first.T.reshape(12, 1, 3, 3), "first_bias": first_bias, "second": second.T.reshape(24, 12, 3, 3),
        "second_bias": second_bias,
        "last": last, "last_bias": last_bias,
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["picture", "first", "first_bias"], ["a"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        helper.make_node(
            "Conv", ["b", "second", "second_bias"], ["c"], name="conv2", pads=[1, 1, 1, 1], strides=[2, 2]
        ),
        helper.make_node("Relu", ["c"], ["d"], name="relu2"),
        helper.make_node("Flatten", ["d"], ["e"], name="flatten"),
        helper.make_node("Gemm", ["e", "last", "last_bias"], ["logits"], name="last"),
    ]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 1, _SIZE, _SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    stored = [
        numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "digits", [picture], [logits], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
