"""Convolutions, products, pooling, normalization, softmax, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as functions

from plimsoll.backends.torch.operators.values import Node, Operator, Value, setting, tensor, wide

_CONVOLUTIONS = {1: functions.conv1d, 2: functions.conv2d, 3: functions.conv3d}
_TRANSPOSED = {1: functions.conv_transpose1d, 2: functions.conv_transpose2d, 3: functions.conv_transpose3d}
_MAX_POOLS = {1: functions.max_pool1d, 2: functions.max_pool2d, 3: functions.max_pool3d}


def _pads(
    node: Node, sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Return the padding at the beginning of each axis, then at the end of each, as ONNX orders it; `auto_pad` counted
    out."""
    rank = len(kernel)
    mode = node.get("auto_pad", b"NOTSET").decode()
    if mode in ("NOTSET", ""):
        return list(node.get("pads", [0] * 2 * rank))
    if mode == "VALID":
        return [0] * 2 * rank
    needed = []
    for axis in range(rank):
        size = int(sizes[axis])
        steps = -(-size // strides[axis])
        needed.append(max(0, (steps - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - size))
    small, large = [total // 2 for total in needed], [total - total // 2 for total in needed]
    return small + large if mode == "SAME_UPPER" else large + small


def _padded(x: torch.Tensor, pads: Sequence[int], value: float = 0.0) -> torch.Tensor:
    rank = len(pads) // 2
    ends = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in range(2)]
    return functions.pad(x, ends, value=value) if any(ends) else x


def _even(pads: Sequence[int]) -> bool:
    return list(pads[: len(pads) // 2]) == list(pads[len(pads) // 2 :])


def _conv(node: Node, x: Value, weights: Value, bias: Value | None = None) -> Value:
    taken, kernel = tensor(x), tensor(weights)
    rank = kernel.ndim - 2
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    pads = _pads(node, taken.shape[2:], list(kernel.shape[2:]), strides, dilations)
    if not _even(pads):
        taken, pads = _padded(taken, pads), [0] * 2 * rank
    added = None if bias is None else tensor(bias)
    return _CONVOLUTIONS[rank](taken, kernel, added, strides, pads[:rank], dilations, node.get("group", 1))


def _conv_transpose(node: Node, x: Value, weights: Value, bias: Value | None = None) -> Value:
    taken, kernel = tensor(x), tensor(weights)
    rank = kernel.ndim - 2
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    extra = list(node.get("output_padding", [0] * rank))
    reach = [(int(kernel.shape[axis + 2]) - 1) * dilations[axis] + 1 for axis in range(rank)]
    pads = list(node.get("pads", [0] * 2 * rank))
    mode, sizes = node.get("auto_pad", b"NOTSET").decode(), node.get("output_shape")
    if sizes is None and mode.startswith("SAME"):
        sizes = [int(taken.shape[axis + 2]) * strides[axis] for axis in range(rank)]
    if sizes is not None:
        cut = [
            strides[axis] * (int(taken.shape[axis + 2]) - 1) + extra[axis] + reach[axis] - sizes[axis]
            for axis in range(rank)
        ]
        small, large = [total // 2 for total in cut], [total - total // 2 for total in cut]
        pads = small + large if mode == "SAME_UPPER" else large + small
    added = None if bias is None else tensor(bias)
    whole = _TRANSPOSED[rank](taken, kernel, added, strides, 0, extra, node.get("group", 1), dilations)
    return _padded(whole, [-pad for pad in pads])


def _gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    left, right = tensor(a), tensor(b)
    product = (left.t() if node.get("transA", 0) else left) @ (right.t() if node.get("transB", 0) else right)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    product = product if alpha == 1 else product * alpha
    return product if c is None else product + (tensor(c, product) if beta == 1 else tensor(c, product) * beta)


def _matmul(node: Node, a: Value, b: Value) -> Value:
    del node
    return torch.matmul(tensor(a), tensor(b))


def _pool_ends(node: Node, x: torch.Tensor) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return kernel, strides, dilations and padding; the padding is made longer at the ends where `ceil_mode` starts
    one more window."""
    kernel = list(node.get("kernel_shape"))
    strides, dilations = list(node.get("strides", [1] * len(kernel))), list(node.get("dilations", [1] * len(kernel)))
    pads = _pads(node, x.shape[2:], kernel, strides, dilations)
    if node.get("ceil_mode", 0):
        rank = len(kernel)
        for axis in range(rank):
            size = int(x.shape[axis + 2])
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            whole = size + pads[axis] + pads[axis + rank] - reach
            last = -(-whole // strides[axis]) * strides[axis]
            if last < size + pads[axis]:  # a window has to begin in the picture or before it
                pads[axis + rank] += last - whole
    return kernel, strides, dilations, pads


def _max_pool(node: Node, x: Value) -> Value:
    if len(node.outputs) > 1:
        raise node.refuse("it is asked for the places of the largest values")
    taken = tensor(x)
    kernel, strides, dilations, pads = _pool_ends(node, taken)
    rank = len(kernel)
    if _even(pads) and all(pad <= size // 2 for pad, size in zip(pads, kernel, strict=False)):
        return _MAX_POOLS[rank](taken, kernel, strides, pads[:rank], dilations)
    lowest = -math.inf if taken.is_floating_point() else torch.iinfo(taken.dtype).min
    return _MAX_POOLS[rank](_padded(taken, pads, lowest), kernel, strides, 0, dilations)


def _average_pool(node: Node, x: Value) -> Value:
    taken = tensor(x)
    kernel, strides, dilations, pads = _pool_ends(node, taken)
    rank = len(kernel)
    if any(dilation != 1 for dilation in dilations):
        raise node.refuse("it has dilations")
    means: Callable[..., torch.Tensor] = {1: functions.avg_pool1d, 2: functions.avg_pool2d, 3: functions.avg_pool3d}[
        rank
    ]
    if not any(pads):
        return means(taken, kernel, strides)
    sums = means(_padded(taken, pads), kernel, strides)
    counted = torch.ones_like(taken[:1, :1])
    if node.get("count_include_pad", 0):
        own = _pads(node, taken.shape[2:], kernel, strides, dilations)
        counted = _padded(counted, own, 1.0)
        pads = [pad - mine for pad, mine in zip(pads, own, strict=True)]  # what `ceil_mode` added is never counted
    return sums / means(_padded(counted, pads), kernel, strides)


def _global(compute: Callable[..., torch.Tensor]) -> Operator:
    def run(node: Node, x: Value) -> Value:
        del node
        taken = tensor(x)
        return compute(taken, dim=tuple(range(2, taken.ndim)), keepdim=True)

    return run


def _batch_norm(node: Node, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Value:
    if node.get("training_mode", 0):
        raise node.refuse("it is in training mode")
    return functions.batch_norm(
        tensor(x), tensor(mean), tensor(variance), tensor(scale), tensor(bias), False, 0.0, node.get("epsilon", 1e-5)
    )


def _instance_norm(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    return functions.instance_norm(tensor(x), weight=tensor(scale), bias=tensor(bias), eps=node.get("epsilon", 1e-5))


def _layer_norm(node: Node, x: Value, scale: Value, bias: Value | None = None) -> Sequence[Value]:
    taken = tensor(x)
    axis = node.get("axis", -1) % taken.ndim
    over, epsilon = tuple(range(axis, taken.ndim)), node.get("epsilon", 1e-5)
    if len(node.outputs) == 1:
        normal = functions.layer_norm(taken, [int(size) for size in taken.shape[axis:]], eps=epsilon) * tensor(scale)
        return [normal if bias is None else normal + tensor(bias)]
    exact = taken.float()
    mean = exact.mean(over, keepdim=True)
    inverse = torch.rsqrt((exact - mean).square().mean(over, keepdim=True) + epsilon)
    normal = ((exact - mean) * inverse).to(taken.dtype) * tensor(scale)
    return [normal if bias is None else normal + tensor(bias), mean, inverse]


def _group_norm(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    taken = tensor(x)
    per_channel = [tensor(values) for values in (scale, bias)]
    if node.opset < 21:  # one for each group then
        per_channel = [values.repeat_interleave(taken.shape[1] // values.shape[0]) for values in per_channel]
    return functions.group_norm(taken, node.get("num_groups"), *per_channel, eps=node.get("epsilon", 1e-5))


def _lrn(node: Node, x: Value) -> Value:
    """Sum over `size` channels, as many below as above; one more above where it is even."""
    taken, size = tensor(x), node.get("size")
    below = (size - 1) // 2
    squares = functions.pad(wide(taken).square().unsqueeze(1), [0, 0, 0, 0, below, size - 1 - below])
    sums = functions.avg_pool3d(squares, (size, 1, 1), stride=1).squeeze(1) * size
    return (taken / (node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * sums) ** node.get("beta", 0.75)).to(
        taken.dtype
    )


def _softmax(compute: Callable[..., torch.Tensor]) -> Operator:
    def run(node: Node, x: Value) -> Value:
        taken = tensor(x)
        if node.opset >= 13:
            return compute(wide(taken), dim=node.get("axis", -1)).to(taken.dtype)
        axis = node.get("axis", 1) % taken.ndim
        return compute(wide(taken).flatten(axis), dim=-1).reshape(taken.shape).to(taken.dtype)

    return run


def _reduce(compute: Callable[..., torch.Tensor]) -> Operator:
    def run(node: Node, x: Value, axes: Value | None = None) -> Value:
        taken = tensor(x)
        over = setting(node, "axes", axes)
        if not over:
            if node.get("noop_with_empty_axes", 0):
                return taken
            over = list(range(taken.ndim))
        return compute(wide(taken), dim=tuple(over), keepdim=bool(node.get("keepdims", 1))).to(taken.dtype)

    return run


def _squares(x: torch.Tensor, **over: Any) -> torch.Tensor:
    return x.square().sum(**over)


def _l1(x: torch.Tensor, **over: Any) -> torch.Tensor:
    return x.abs().sum(**over)


def _l2(x: torch.Tensor, **over: Any) -> torch.Tensor:
    return x.square().sum(**over).sqrt()


def _lp_normalization(node: Node, x: Value) -> Value:
    return functions.normalize(tensor(x), p=float(node.get("p", 2)), dim=node.get("axis", -1), eps=1e-12)


OPERATORS: dict[str, Operator] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul, "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(torch.mean), "GlobalMaxPool": _global(torch.amax), "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm, "GroupNormalization": _group_norm,
    "LRN": _lrn,
    "LpNormalization": _lp_normalization, "Softmax": _softmax(torch.softmax), "LogSoftmax": _softmax(torch.log_softmax),
    "ReduceMean": _reduce(torch.mean), "ReduceSum": _reduce(torch.sum), "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSumSquare": _reduce(_squares), "ReduceL1": _reduce(_l1), "ReduceL2": _reduce(_l2),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
}  # fmt: skip
