"""Small networks for testing conversions: a convolution × what follows it × another convolution or none × the last
operator.

Every combination is a network that reads pictures, with weights as trained ones are spread (He et al. 2015) and scales
as batch normalization leaves them, so that its values stay in ranges that 8 bits can hold.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from plimsoll.core.model import Model
from plimsoll.spec import Spec

SIDE = 40
CHANNELS = 8
OPSET = 17
FLOAT = onnx.TensorProto.FLOAT

SPEC = Spec.model_validate(
    {
        "name": "generated",
        "input": {
            "steps": [
                {"step": "decode"},
                {"step": "resize", "width": SIDE, "height": SIDE},
                {"step": "scale", "divisor": 255.0},
                {"step": "mean", "values": [0.485, 0.456, 0.406]},
                {"step": "std", "values": [0.229, 0.224, 0.225]},
                {"step": "layout", "order": "NCHW"},
            ]
        },
        "output": {"task": "tensor"},
    }
)


class Network:
    """A network under construction; values are known by name."""

    def __init__(self, seed: str) -> None:
        self.random = np.random.default_rng(zlib.crc32(seed.encode()))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("picture", FLOAT, ["N", 3, SIDE, SIDE])

    def add(self, operator: str, *inputs: str | NDArray[Any], outputs: int = 1, **attributes: Any) -> str:
        """Add an operator; arrays among its inputs are stored. Returns its first output."""
        names = [value if isinstance(value, str) else self.store(value) for value in inputs]
        names_out = [
            f"{operator.lower()}{len(self.nodes)}{'' if number == 0 else f'_{number}'}" for number in range(outputs)
        ]
        self.nodes.append(helper.make_node(operator, names, names_out, names_out[0], **attributes))
        return names_out[0]

    def store(self, values: NDArray[Any]) -> str:
        """Store an array; returns its name."""
        name = f"stored{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def normal(self, *shape: int, mean: float = 0.0, deviation: float = 1.0) -> NDArray[np.float32]:
        """Draw numbers."""
        return self.random.normal(mean, deviation, shape).astype(np.float32)

    def weights(self, *shape: int, gain: float = 2.0) -> NDArray[np.float32]:
        """Draw weights that keep the size of what they multiply."""
        return self.normal(*shape, deviation=float(np.sqrt(gain / np.prod(shape[1:]))))

    def conv(self, value: str, outputs: int = CHANNELS, kernel: int = 3, **attributes: Any) -> str:
        """Add a convolution with a bias."""
        groups = attributes.get("group", 1)
        if "auto_pad" not in attributes:
            attributes.setdefault("pads", [kernel // 2] * 4)
        weights = self.weights(outputs, self.channels(value) // groups, kernel, kernel)
        return self.add("Conv", value, weights, self.normal(outputs, deviation=0.1), **attributes)

    def dense(self, value: str, outputs: int = 6) -> str:
        """Add an average over all pixels, and a product with stored weights."""
        flat = self.add("Flatten", self.add("GlobalAveragePool", value)) if len(self.shape(value)) == 4 else value
        weights = self.weights(outputs, int(self.shape(flat)[-1]), gain=4.0)
        return self.add("Gemm", flat, weights, self.normal(outputs, deviation=0.1), transB=1)

    def shape(self, value: str) -> tuple[int | str, ...]:
        """Return a value's shape; the batch axis is `N`."""
        proto = shape_inference.infer_shapes(self.proto([]), data_prop=True)
        known = next(info for info in (*proto.graph.value_info, *proto.graph.input) if info.name == value)
        return tuple(axis.dim_value or axis.dim_param or "?" for axis in known.type.tensor_type.shape.dim)

    def channels(self, value: str) -> int:
        """Return how many channels a value has."""
        return int(self.shape(value)[1])

    def proto(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """Return the network, with these values as its outputs."""
        infos = [helper.make_empty_tensor_value_info(value) for value in outputs]
        graph = helper.make_graph(self.nodes, "generated", [self.input], infos, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


Part = Callable[[Network, str], str]
Last = Callable[[Network, str], str | list[str]]


def operator(name: str, *constants: NDArray[Any], **attributes: Any) -> Part:
    """Return a part that is one operator."""
    return lambda net, x: net.add(name, x, *constants, **attributes)


def array(*values: float, dtype: type = np.float32) -> NDArray[Any]:
    """Return values as a stored tensor."""
    return np.array(values, dtype)


def whole(*values: int) -> NDArray[np.int64]:
    """Return sizes or axes as a stored tensor."""
    return np.array(values, np.int64)


def scalar(value: float) -> NDArray[np.float32]:
    """Return a number as a stored tensor."""
    return np.array(value, np.float32)


EMPTY = ""


def conv(outputs: int = CHANNELS, kernel: int = 3, **attributes: Any) -> Part:
    """Return a part that is a convolution."""
    return lambda net, x: net.conv(x, outputs, kernel, **attributes)


def transposed(kernel: int, **attributes: Any) -> Part:
    """Return a part that is a transposed convolution."""

    def build(net: Network, x: str) -> str:
        inputs = net.channels(x)
        groups = attributes.get("group", 1)
        weights = net.weights(inputs, CHANNELS // groups, kernel, kernel, gain=4.0)
        return net.add("ConvTranspose", x, weights, net.normal(CHANNELS, deviation=0.1), **attributes)

    return build


def dead_channels(net: Network, x: str) -> str:
    """A convolution, three of whose channels learned nothing; of one of them a constant is left."""
    weights, bias = net.weights(CHANNELS, net.channels(x), 3, 3), net.normal(CHANNELS, deviation=0.1)
    weights[[4, 5]], bias[[4, 5]] = 0, 0
    weights[1], bias[1] = weights[1] * np.float32(1e-11), 2
    return net.add("Conv", x, weights, bias, pads=[1, 1, 1, 1])


CONVOLUTIONS: dict[str, Part] = {
    "conv3x3": conv(),
    "conv1x1": conv(kernel=1),
    "conv5x5": conv(kernel=5),
    "depthwise": conv(group=CHANNELS),
    "grouped": conv(group=2),
    "strided": conv(strides=[2, 2]),
    "dilated": conv(dilations=[2, 2], pads=[2, 2, 2, 2]),
    "asymmetric": conv(strides=[2, 2], pads=[0, 0, 1, 1]),
    "same_upper": conv(strides=[2, 2], auto_pad="SAME_UPPER"),
    "unpadded": conv(pads=[0, 0, 0, 0]),
    "odd_channels": conv(outputs=11),
    "no_bias": lambda net, x: net.add("Conv", x, net.weights(CHANNELS, net.channels(x), 3, 3), pads=[1, 1, 1, 1]),
    "dead_channels": dead_channels,
    "transposed2": transposed(2, strides=[2, 2]),
    "transposed3": transposed(3, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    "transposed4_grouped": transposed(4, strides=[2, 2], pads=[1, 1, 1, 1], group=2),
}


def silu(net: Network, x: str) -> str:
    """x · sigmoid(x)."""
    return net.add("Mul", x, net.add("Sigmoid", x))


def gelu(net: Network, x: str) -> str:
    """0.5 · x · (1 + erf(x / √2)), as PyTorch exports it."""
    scaled = net.add("Erf", net.add("Div", x, scalar(2**0.5)))
    return net.add("Mul", net.add("Mul", x, net.add("Add", scaled, scalar(1))), scalar(0.5))


def mish(net: Network, x: str) -> str:
    """x · tanh(softplus(x))."""
    return net.add("Mul", x, net.add("Tanh", net.add("Softplus", x)))


def batch_norm(net: Network, x: str) -> str:
    """Normalize with stored moments."""
    count = net.channels(x)
    scale, bias = net.normal(count, mean=1, deviation=0.3), net.normal(count, deviation=0.3)
    variance = np.abs(net.normal(count, mean=1, deviation=0.3)) + np.float32(0.1)
    return net.add("BatchNormalization", x, scale, bias, net.normal(count, deviation=0.3), variance)


def residual(net: Network, x: str) -> str:
    """Add what a convolution makes of a value to the value."""
    return net.add("Relu", net.add("Add", net.conv(net.add("Relu", x), net.channels(x)), x))


def squeeze_excite(net: Network, x: str) -> str:
    """Weigh channels by what their averages say."""
    count = net.channels(x)
    inner = net.add("Relu", net.conv(net.add("GlobalAveragePool", x), 4, 1))
    return net.add("Mul", x, net.add("HardSigmoid", net.conv(inner, count, 1), alpha=1 / 6))


def concat_unlike(net: Network, x: str) -> str:
    """Concatenate values of different ranges."""
    return net.add("Concat", net.add("Sigmoid", x), net.add("Mul", x, scalar(4)), axis=1)


def split(net: Network, x: str) -> str:
    """Split the channels, and join them the other way round."""
    count = net.channels(x)
    first = net.add("Split", x, whole(count // 2, count - count // 2), outputs=2, axis=1)
    return net.add("Concat", net.add("Relu", f"{first}_1"), first, axis=1)


def shuffle(net: Network, x: str) -> str:
    """Shuffle the channels, as ShuffleNet does."""
    _, count, height, width = net.shape(x)
    apart = net.add("Reshape", x, whole(-1, 1, int(count), int(height), int(width)) if int(count) % 2 else
                    whole(-1, 2, int(count) // 2, int(height), int(width)))  # fmt: skip
    return net.add(
        "Reshape", net.add("Transpose", apart, perm=[0, 2, 1, 3, 4]), whole(-1, *map(int, (count, height, width)))
    )


def focus(net: Network, x: str) -> str:
    """Every second pixel, four times, side by side, as YOLOv5's and YOLOX's first layer."""
    parts = [
        net.add("Slice", net.add("Slice", x, whole(row), whole(10_000), whole(2), whole(2)), whole(column),
                whole(10_000), whole(3), whole(2))
        for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]  # fmt: skip
    return net.add("Concat", *parts, axis=1)


def cropped(net: Network, x: str) -> str:
    """Make height and width even."""
    _, _, height, width = net.shape(x)
    ends = whole(int(height) // 2 * 2, int(width) // 2 * 2)
    return net.add("Slice", x, whole(0, 0), ends, whole(2, 3))


def per_channel(name: str, mean: float, deviation: float) -> Part:
    """Return an operator with a stored number for each channel."""
    return lambda net, x: net.add(name, x, net.normal(net.channels(x), 1, 1, mean=mean, deviation=deviation))


def layer_norm(net: Network, x: str) -> str:
    """Normalize over the channels, channels last."""
    count = net.channels(x)
    last = net.add("Transpose", x, perm=[0, 2, 3, 1])
    scale, bias = net.normal(count, mean=1, deviation=0.2), net.normal(count, deviation=0.2)
    return net.add("Transpose", net.add("LayerNormalization", last, scale, bias, axis=-1), perm=[0, 3, 1, 2])


def group_norm(net: Network, x: str) -> str:
    """Normalize groups of channels, as PyTorch exports it."""
    _, count, height, width = net.shape(x)
    groups = 1 if int(count) % 2 else 2
    apart = net.add("Reshape", x, whole(0, groups, -1))
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    normed = net.add("InstanceNormalization", apart, ones, zeros)
    back = net.add("Reshape", normed, whole(0, int(count), int(height), int(width)))
    scaled = net.add("Mul", back, net.normal(int(count), 1, 1, mean=1, deviation=0.2))
    return net.add("Add", scaled, net.normal(int(count), 1, 1, deviation=0.2))


def matmul_last(net: Network, x: str) -> str:
    """A product along the width."""
    width = int(net.shape(x)[3])
    return net.add("MatMul", x, net.weights(width, width, gain=1))


def matmul_channels(net: Network, x: str) -> str:
    """A product along the channels, as a linear layer of a network with channels last."""
    count = net.channels(x)
    last = net.add("Transpose", x, perm=[0, 2, 3, 1])
    product = net.add("Add", net.add("MatMul", last, net.weights(count, count, gain=1)), net.normal(count))
    return net.add("Transpose", product, perm=[0, 3, 1, 2])


def coordinates(net: Network, x: str) -> str:
    """Join stored channels that say where a pixel is, in sizes that are computed (CoordConv)."""
    _, _, height, width = net.shape(x)
    rows = np.broadcast_to(np.linspace(-1, 1, int(height), dtype=np.float32)[:, None], (1, 1, int(height), int(width)))
    sizes = net.add("Concat", net.add("Slice", net.add("Shape", x), whole(0), whole(1)), whole(1, 1, 1), axis=0)
    return net.add("Concat", x, net.add("Expand", np.ascontiguousarray(rows), sizes), axis=1)


def attention(net: Network, x: str) -> str:
    """Self-attention over the pixels, with a residual."""
    pooled = cropped(net, net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    _, count, height, width = (0, *map(int, net.shape(pooled)[1:]))
    tokens = net.add("Transpose", net.add("Reshape", pooled, whole(-1, count, height * width)), perm=[0, 2, 1])
    query, key, value = (net.add("MatMul", tokens, net.weights(count, count, gain=1)) for _ in range(3))
    scores = net.add("Mul", net.add("MatMul", query, net.add("Transpose", key, perm=[0, 2, 1])), scalar(count**-0.5))
    mixed = net.add("Add", tokens, net.add("MatMul", net.add("Softmax", scores, axis=-1), value))
    return net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1]), whole(-1, count, height, width))


def resize(mode: str, scales: tuple[float, float], coordinates: str, **attributes: Any) -> Part:
    """Return a part that changes height and width."""
    return operator(
        "Resize", array(), array(1, 1, *scales), mode=mode, coordinate_transformation_mode=coordinates, **attributes
    )


def pad(mode: str, *amounts: int, value: float | None = None) -> Part:
    """Return a part that pads (top, left, bottom, right)."""
    top, left, bottom, right = amounts
    extra = () if value is None else (scalar(value),)
    return operator("Pad", whole(0, 0, top, left, 0, 0, bottom, right), *extra, mode=mode)


FOLLOWS: dict[str, Part] = {
    "nothing": lambda _net, x: x,
    "relu": operator("Relu"),
    "relu6": operator("Clip", scalar(0), scalar(6)),
    "clip": operator("Clip", scalar(-1), scalar(1.5)),
    "mul": operator("Mul", scalar(0.37)),
    "mul_channels": per_channel("Mul", 1, 0.4),
    "add": operator("Add", scalar(1.5)),
    "add_channels": per_channel("Add", 0, 1),
    "sub_from": lambda net, x: net.add("Sub", scalar(1), x),
    "div": operator("Div", scalar(3)),
    "relu_mul": lambda net, x: net.add("Mul", net.add("Relu", x), scalar(0.2)),
    "relu_add": lambda net, x: net.add("Add", net.add("Relu", x), scalar(-2)),
    "hard_sigmoid": operator("HardSigmoid", alpha=1 / 6),
    "hard_sigmoid_default": operator("HardSigmoid"),
    "hard_swish": operator("HardSwish"),
    "hard_swish_apart": lambda net, x: net.add(
        "Div", net.add("Mul", x, net.add("Clip", net.add("Add", x, scalar(3)), scalar(0), scalar(6))), scalar(6)
    ),
    "sigmoid": operator("Sigmoid"),
    "tanh": operator("Tanh"),
    "silu": silu,
    "gelu": gelu,
    "mish": mish,
    "softplus": operator("Softplus"),
    "elu": operator("Elu", alpha=0.8),
    "selu": operator("Selu"),
    "leaky_relu": operator("LeakyRelu", alpha=0.1),
    "prelu": lambda net, x: net.add("PRelu", x, net.normal(net.channels(x), 1, 1, mean=0.2, deviation=0.1)),
    "prelu_one": operator("PRelu", np.full((1, 1, 1), 0.2, np.float32)),
    "abs": operator("Abs"),
    "neg": operator("Neg"),
    "sub_two": lambda net, x: net.add("Sub", x, net.conv(x, net.channels(x))),
    "div_two": lambda net, x: net.add(
        "Div", x, net.add("Add", net.add("Abs", net.conv(x, net.channels(x))), scalar(1))
    ),
    "max_two": lambda net, x: net.add("Max", x, net.conv(x, net.channels(x))),
    "min_two": lambda net, x: net.add("Min", x, net.conv(x, net.channels(x))),
    "max_one": operator("Max", scalar(-0.5)),
    "where": lambda net, x: net.add("Where", net.add("Greater", x, scalar(0)), x, net.add("Mul", x, scalar(0.3))),
    "square": lambda net, x: net.add("Mul", x, x),
    "pow": lambda net, x: net.add("Pow", net.add("Abs", x), scalar(0.5)),
    "batch_norm": batch_norm,
    "batch_norm_relu": lambda net, x: net.add("Relu", batch_norm(net, x)),
    "instance_norm": lambda net, x: net.add(
        "InstanceNormalization", x, net.normal(net.channels(x), mean=1), net.normal(net.channels(x))
    ),
    "layer_norm": layer_norm,
    "layer_norm_all": lambda net, x: net.add(
        "LayerNormalization", x, net.normal(*map(int, net.shape(x)[1:]), mean=1, deviation=0.1), axis=1
    ),
    "group_norm": group_norm,
    "matmul_last": matmul_last,
    "matmul_channels": matmul_channels,
    "coordinates": coordinates,
    "gather_channels": operator("Gather", whole(0, 2, 1, 5), axis=1),
    "tile": operator("Tile", whole(1, 1, 2, 1)),
    "sum_keeping_nothing": lambda net, x: net.add(
        "Mul", x, net.add("Unsqueeze", net.add("ReduceMean", x, axes=[1], keepdims=0), whole(1))
    ),
    "square_root_of_sum": lambda net, x: net.add("Sqrt", net.add("Add", net.add("Mul", x, x), scalar(0.01))),
    "reciprocal": lambda net, x: net.add("Reciprocal", net.add("Add", net.add("Abs", x), scalar(0.5))),
    "softmax": operator("Softmax", axis=1),
    "softmax_pixels": operator("Softmax", axis=3),
    "thresholded": operator("ThresholdedRelu", alpha=0.5),
    "celu": operator("Celu", alpha=0.7),
    "softsign": operator("Softsign"),
    "floor": lambda net, x: net.add("Floor", net.add("Mul", x, scalar(4))),
    "mean_two": lambda net, x: net.add("Mean", x, net.conv(x, net.channels(x))),
    "sum_three": lambda net, x: net.add("Sum", x, net.conv(x, net.channels(x)), net.add("Relu", x)),
    "lrn": operator("LRN", size=3, alpha=0.01, beta=0.75),
    "residual": residual,
    "squeeze_excite": squeeze_excite,
    "concat": lambda net, x: net.add("Concat", net.add("Relu", x), net.conv(x), axis=1),
    "concat_unlike": concat_unlike,
    "split": split,
    "shuffle": shuffle,
    "focus": lambda net, x: focus(net, cropped(net, x)),
    "slice": operator("Slice", whole(1, 2), whole(-1, 10_000), whole(2, 3)),
    "slice_channels": operator("Slice", whole(2), whole(7), whole(1)),
    "slice_strided": operator("Slice", whole(1, 0), whole(10_000, 10_000), whole(2, 3), whole(2, 3)),
    "slice_backwards": operator("Slice", whole(-1), whole(-10_000), whole(3), whole(-1)),
    "max_pool": operator("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    "max_pool_padded": operator("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "max_pool_ceil": operator("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max_pool_asymmetric": operator("MaxPool", kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1]),
    "max_pool_dilated": operator("MaxPool", kernel_shape=[3, 3], dilations=[2, 2]),
    "average_pool": operator("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "average_pool_padded": operator("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "average_pool_counting": operator(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "average_pool_ceil": operator("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average_pool_same": operator("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "mean_of_pixels": operator("ReduceMean", axes=[2, 3], keepdims=1),
    "max_of_channels": operator("ReduceMax", axes=[1], keepdims=1),
    "sum_of_rows": operator("ReduceMean", axes=[2], keepdims=1),
    "l2_norm": lambda net, x: net.add("Div", x, net.add("ReduceL2", x, axes=[1], keepdims=1)),
    "global_average": operator("GlobalAveragePool"),
    "global_max": operator("GlobalMaxPool"),
    "resize_nearest": resize("nearest", (2, 2), "asymmetric", nearest_mode="floor"),
    "resize_nearest_half": resize("nearest", (2, 2), "half_pixel", nearest_mode="round_prefer_floor"),
    "resize_nearest_odd": resize("nearest", (1.5, 1.5), "half_pixel", nearest_mode="round_prefer_floor"),
    "resize_linear": resize("linear", (2, 2), "half_pixel"),
    "resize_linear_pytorch": resize("linear", (2, 2), "pytorch_half_pixel"),
    "resize_linear_corners": resize("linear", (2, 2), "align_corners"),
    "resize_linear_asymmetric": resize("linear", (2, 2), "asymmetric"),
    "resize_linear_down": resize("linear", (0.5, 0.5), "half_pixel"),
    "resize_cubic": resize("cubic", (2, 2), "half_pixel", cubic_coeff_a=-0.75),
    "depth_to_space_dcr": operator("DepthToSpace", blocksize=2, mode="DCR"),
    "depth_to_space_crd": operator("DepthToSpace", blocksize=2, mode="CRD"),
    "space_to_depth": lambda net, x: net.add("SpaceToDepth", cropped(net, x), blocksize=2),
    "pad_constant": pad("constant", 1, 2, 1, 0),
    "pad_value": pad("constant", 1, 1, 2, 2, value=0.7),
    "pad_reflect": pad("reflect", 2, 2, 1, 1),
    "pad_edge": pad("edge", 1, 1, 2, 2),
    "transpose": operator("Transpose", perm=[0, 1, 3, 2]),
    "attention": attention,
}


def two_heads(net: Network, x: str) -> list[str]:
    """Scores and boxes, of one value each."""
    return [net.add("Sigmoid", net.conv(x, 3, 1)), net.conv(x, 4, 1)]


def joined_heads(net: Network, x: str) -> str:
    """Boxes beside scores in one output [N, 4 + 3, pixels]."""
    boxes = net.add("Mul", net.add("Sigmoid", net.conv(x, 4, 1)), scalar(320))
    both = net.add("Concat", boxes, net.add("Sigmoid", net.conv(x, 3, 1)), axis=1)
    return net.add("Reshape", both, whole(0, 7, -1))


def perceptron(net: Network, x: str) -> str:
    """Two products behind all pixels of a smaller picture, each for itself."""
    flat = net.add("Flatten", net.add("MaxPool", x, kernel_shape=[3, 3], strides=[3, 3]))
    inner = net.add("Relu", net.dense(flat, 16))
    return net.add("Sigmoid", net.dense(inner))


def perceptron_channels_last(net: Network, x: str) -> str:
    """The same, as TensorFlow flattens."""
    pooled = net.add("Relu", net.add("MaxPool", x, kernel_shape=[3, 3], strides=[3, 3]))
    flat = net.add("Flatten", net.add("Transpose", pooled, perm=[0, 2, 3, 1]))
    inner = net.add("Relu", net.dense(flat, 16))
    return net.add("Sigmoid", net.dense(inner))


def also_inside(net: Network, x: str) -> list[str]:
    """An output that other operators read too."""
    first = net.add("Relu", net.conv(x))
    return [first, net.dense(first)]


LASTS: dict[str, Last] = {
    "none": lambda _net, x: x,
    "relu": operator("Relu"),
    "sigmoid": operator("Sigmoid"),
    "tanh": operator("Tanh"),
    "exp": lambda net, x: net.add("Exp", net.add("Clip", x, scalar(-3), scalar(2))),
    "softmax_channels": operator("Softmax", axis=1),
    "log_softmax": operator("LogSoftmax", axis=1),
    "hard_sigmoid": operator("HardSigmoid"),
    "hard_swish": operator("HardSwish"),
    "gelu": gelu,
    "elu": operator("Elu"),
    "clip": operator("Clip", scalar(0), scalar(1)),
    "log": lambda net, x: net.add("Log", net.add("Add", net.add("Abs", x), scalar(0.1))),
    "sqrt": lambda net, x: net.add("Sqrt", net.add("Abs", x)),
    "gemm": lambda net, x: net.dense(x),
    "gemm_softmax": lambda net, x: net.add("Softmax", net.dense(x), axis=1),
    "gemm_sigmoid": lambda net, x: net.add("Sigmoid", net.dense(x)),
    "gemm_normed": lambda net, x: net.add("Div", (y := net.dense(x)), net.add("ReduceL2", y, axes=[1], keepdims=1)),
    "flatten": operator("Flatten"),
    "perceptron": perceptron,
    "perceptron_channels_last": perceptron_channels_last,
    "reshape": operator("Reshape", whole(0, 0, -1)),
    "channels_last": operator("Transpose", perm=[0, 2, 3, 1]),
    "tokens": lambda net, x: net.add("Transpose", net.add("Reshape", x, whole(0, 0, -1)), perm=[0, 2, 1]),
    "resize": resize("linear", (2, 2), "half_pixel"),
    "max_pool": operator("MaxPool", kernel_shape=[2, 2], strides=[1, 1]),
    "average": operator("GlobalAveragePool"),
    "argmax": operator("ArgMax", axis=1, keepdims=0),
    "two_heads": two_heads,
    "time_first": lambda net, x: net.add("Transpose", net.add("ReduceMean", x, axes=[2], keepdims=0), perm=[0, 2, 1]),
    "top_values": lambda net, x: net.add("ReduceMax", net.dense(x), axes=[1], keepdims=1),
    "three_axes": lambda net, x: net.add("Unsqueeze", net.dense(x), whole(1)),
    "joined_heads": joined_heads,
    "also_inside": also_inside,
}

BETWEEN: dict[str, Part] = {
    "": lambda _net, x: x,
    "conv": conv(),
    "conv_relu": lambda net, x: net.add("Relu", net.conv(x)),
}


@dataclass(frozen=True)
class Case:
    """One combination."""

    convolution: str
    follows: str
    between: str
    last: str

    @property
    def name(self) -> str:
        """The parts' names."""
        return "-".join(part for part in (self.convolution, self.follows, self.between, self.last) if part)

    @classmethod
    def named(cls, name: str) -> Case:
        """Return the combination of that name."""
        parts = name.split("-")
        return cls(parts[0], parts[1], parts[2] if len(parts) == 4 else "", parts[-1])

    def write(self, path: Path) -> Model | None:
        """Write the network; None where the parts don't fit together."""
        net = Network(self.name)
        try:
            value = net.add("Relu", net.conv("picture"))
            for part in (CONVOLUTIONS[self.convolution], FOLLOWS[self.follows], BETWEEN[self.between]):
                value = part(net, value)
            given = LASTS[self.last](net, value)
            proto = shape_inference.infer_shapes(
                net.proto([given] if isinstance(given, str) else given), strict_mode=True, data_prop=True
            )
            onnx.checker.check_model(proto, full_check=True)
        except (onnx.checker.ValidationError, shape_inference.InferenceError, ValueError):
            return None
        onnx.save(proto, path)
        return Model(path, "onnx", SPEC)


def cases() -> Iterator[Case]:
    """Yield every value of each part with the others as plain as they can be, then all pairs, then all the rest."""
    plain = Case("conv3x3", "relu", "conv", "gemm")
    seen: set[Case] = set()

    def fresh(case: Case) -> bool:
        if case in seen:
            return False
        seen.add(case)
        return True

    alone = [
        *(Case("conv3x3", follows, "", "none") for follows in FOLLOWS),
        *(Case("conv3x3", follows, "conv_relu", "gemm") for follows in FOLLOWS),
        *(Case("conv3x3", "relu", "conv", last) for last in LASTS),
        *(Case(convolution, "relu", "conv", "gemm") for convolution in CONVOLUTIONS),
        plain,
    ]
    yield from filter(fresh, alone)
    shuffled = np.random.default_rng(12)
    # Each what-follows meets each convolution and each last operator once, in an order that mixes all of them.
    pairs = list(itertools.product(FOLLOWS, LASTS))
    between, convolutions = list(BETWEEN), list(CONVOLUTIONS)
    for number in shuffled.permutation(len(pairs)):
        follows, last = pairs[number]
        convolution = convolutions[(list(FOLLOWS).index(follows) + list(LASTS).index(last)) % len(convolutions)]
        case = Case(convolution, follows, between[int(shuffled.integers(len(between)))], last)
        if fresh(case):
            yield case
    everything = list(itertools.product(CONVOLUTIONS, FOLLOWS, BETWEEN, LASTS))
    for number in shuffled.permutation(len(everything)):
        case = Case(*everything[number])
        if fresh(case):
            yield case
