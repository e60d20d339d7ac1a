"""Operators that move, choose, repeat or resize, and those that compute with sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functions
from numpy.typing import NDArray

from plimsoll.backends.torch.operators.values import (
    Known,
    Node,
    Operator,
    Value,
    is_known,
    known,
    setting,
    tensor,
    whole,
)

_CUBIC = -0.75


def _sizes(x: torch.Tensor) -> Known:
    sizes = np.empty(x.ndim, object)
    sizes[:] = list(x.shape)
    return sizes


def _shape(node: Node, x: Value) -> Value:
    return _sizes(tensor(x))[slice(node.get("start", 0), node.get("end"))]


def _size(node: Node, x: Value) -> Value:
    del node
    return np.array(tensor(x).numel(), object)


def _constant(node: Node) -> Value:
    for name, dtype in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        if node.get(name) is not None:
            return np.array(node.get(name), dtype)
    value = node.get("value")
    if value is None:
        raise node.refuse("it holds something else than numbers")
    return np.asarray(value)


def _constant_of_shape(node: Node, shape: Value) -> Value:
    given = node.get("value")
    fill = np.asarray(given).reshape(-1)[0] if given is not None else np.float32(0)
    sizes = whole(node, shape) or []
    if all(isinstance(size, int) for size in sizes):
        return np.full(sizes, fill)
    return torch.full(sizes, fill.item(), dtype=torch.from_numpy(np.array(fill)).dtype)


def _range(node: Node, start: Value, limit: Value, delta: Value) -> Value:
    ends = [known(node, value) for value in (start, limit, delta)]
    low, high, step = (end.item() for end in ends if end is not None)
    return np.arange(low, high, step, dtype=np.int64 if ends[0] is None or ends[0].dtype == object else ends[0].dtype)


def _reshape(node: Node, x: Value, shape: Value | None = None) -> Value:
    sizes = setting(node, "shape", shape)
    if is_known(x):
        return np.reshape(x, sizes)
    taken = tensor(x)
    if not node.get("allowzero", 0):
        sizes = [taken.shape[axis] if isinstance(size, int) and size == 0 else size for axis, size in enumerate(sizes)]
    return taken.reshape(sizes)


def _flatten(node: Node, x: Value) -> Value:
    taken = tensor(x)
    axis = node.get("axis", 1)
    axis = axis + taken.ndim if axis < 0 else axis
    rows = taken.shape[0] if axis == 1 else int(np.prod([int(size) for size in taken.shape[:axis]], dtype=np.int64))
    return taken.reshape(rows, -1) if taken.numel() else taken.reshape(rows, int(np.prod(taken.shape[axis:])))


def _transpose(node: Node, x: Value) -> Value:
    if isinstance(x, np.ndarray):
        return np.transpose(x, node.get("perm"))
    taken = tensor(x)
    return taken.permute(*(node.get("perm") or reversed(range(taken.ndim))))


def _squeeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    over = setting(node, "axes", axes)
    if isinstance(x, np.ndarray):
        return np.squeeze(x, None if over is None else tuple(over))
    return tensor(x).squeeze() if over is None else tensor(x).squeeze(tuple(over))


def _unsqueeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    over = setting(node, "axes", axes)
    if isinstance(x, np.ndarray):
        return np.expand_dims(x, tuple(over))
    taken = tensor(x)
    rank = taken.ndim + len(over)
    for axis in sorted(index % rank for index in over):
        taken = taken.unsqueeze(axis)
    return taken


def _concat(node: Node, *values: Value) -> Value:
    axis = node.get("axis", 1)
    numbers = [value for value in values if is_known(value)]
    if len(numbers) == len(values):
        return np.concatenate(numbers, axis)
    like = tensor(next(value for value in values if not is_known(value)))
    return torch.cat([tensor(value, like) for value in values], axis)


def _split(node: Node, x: Value, parts: Value | None = None) -> Sequence[Value]:
    taken, axis = tensor(x), node.get("axis", 0)
    sizes = setting(node, "split", parts)
    if sizes is None:
        each = -(-int(taken.shape[axis]) // len(node.outputs))
        return list(torch.split(taken, each, axis))
    return list(torch.split(taken, sizes, axis))


_BOUNDS = ("starts", "ends", "axes", "steps")
_FAR = 1 << 30
"""An end beyond this, or below its negative, means the end of the axis."""


def _slice(node: Node, x: Value, *given: Value) -> Value:
    starts, ends, axes, steps = (
        setting(node, name, given[index] if index < len(given) else None) for index, name in enumerate(_BOUNDS)
    )
    taken: Any = x if isinstance(x, np.ndarray) else tensor(x)
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = axes[index] if axes else index, steps[index] if steps else 1
        far = isinstance(end, int) and (end > _FAR if step > 0 else end < -_FAR)
        taken = _cut(taken, axis % max(taken.ndim, 1), slice(start, None if far else end, step))
    return taken


def _cut(x: Any, axis: int, where: slice) -> Any:
    if isinstance(x, np.ndarray) or where.step > 0:
        return x[(slice(None),) * axis + (where,)]
    places = list(range(int(x.shape[axis])))[where]
    return x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))


def _gather(node: Node, x: Value, places: Value) -> Value:
    axis = node.get("axis", 0)
    if isinstance(x, np.ndarray) and not isinstance(places, torch.Tensor):
        indices = known(node, places)
        gathered: Any = np.take(x, np.asarray(indices, np.int64), axis)
        return gathered if isinstance(gathered, np.ndarray) else np.array(gathered, x.dtype)
    taken = tensor(x)
    where = tensor(places, taken)
    axis %= taken.ndim
    where = torch.where(where < 0, where + taken.shape[axis], where)
    picked = taken.index_select(axis, where.reshape(-1))
    return picked.reshape(*taken.shape[:axis], *where.shape, *taken.shape[axis + 1 :])


def _expand(node: Node, x: Value, shape: Value) -> Value:
    sizes = whole(node, shape) or []
    taken = tensor(x)
    return taken.expand(
        torch.broadcast_shapes(
            taken.shape, torch.Size(sizes) if all(isinstance(size, int) for size in sizes) else sizes
        )
    )


def _tile(node: Node, x: Value, repeats: Value) -> Value:
    return tensor(x).tile(whole(node, repeats) or [])


def _pad(
    node: Node, x: Value, pads: Value | None = None, value: Value | None = None, axes: Value | None = None
) -> Value:
    taken = tensor(x)
    given = setting(node, "pads", pads)
    over = whole(node, axes) or list(range(taken.ndim))
    fill = known(node, value)
    number = node.get("value", 0.0) if fill is None else fill.item()
    ends = [0] * 2 * taken.ndim
    for index, axis in enumerate(over):
        from_behind = taken.ndim - 1 - axis % taken.ndim
        ends[2 * from_behind], ends[2 * from_behind + 1] = given[index], given[index + len(over)]
    mode = node.get("mode", b"constant").decode()
    if mode == "constant":
        return functions.pad(taken, ends, value=number)
    while len(ends) > 2 and ends[-2:] == [0, 0]:
        ends = ends[:-2]
    return functions.pad(taken, ends, mode={"edge": "replicate", "reflect": "reflect", "wrap": "circular"}[mode])


def _resize(node: Node, x: Value, *given: Value | None) -> Value:
    """Resize pictures [N, C, …] as PyTorch can: nearest, linear or cubic, in the coordinates that it knows."""
    if (
        node.get("axes") is not None
        or node.get("antialias", 0)
        or node.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
    ):
        raise node.refuse("it has axes, anti-aliasing or a policy for aspect ratios")
    taken = tensor(x)
    old = node.kind == "Upsample" or node.opset < 11
    _, scales, sizes = (None, *given, None)[:3] if old else (*given, None, None, None)[:3]
    factors = (
        node.get("scales")
        if scales is None
        else [float(scale) for scale in np.asarray(known(node, scales), np.float64).reshape(-1)]
    )
    target, stretch = whole(node, sizes), None
    if not target:
        if not factors:
            raise node.refuse("it has neither sizes nor scales")
        stretch = list(factors[2:])
        target = [0, 0, *(int(int(size) * factor) for size, factor in zip(taken.shape[2:], stretch, strict=True))]
    coordinates = node.get("coordinate_transformation_mode", b"asymmetric" if old else b"half_pixel").decode()
    return _interpolated(
        node, taken, [int(size) for size in target[2:]], (node.get("mode", b"nearest").decode(), coordinates), stretch
    )


def _interpolated(
    node: Node, x: torch.Tensor, target: list[int], how: tuple[str, str], stretch: list[float] | None
) -> torch.Tensor:
    mode, coordinates = how
    if mode == "nearest":
        return _nearest(node, x, target, coordinates, stretch)
    names = {("linear", 3): "linear", ("linear", 4): "bilinear", ("linear", 5): "trilinear", ("cubic", 4): "bicubic"}
    if (mode, x.ndim) not in names or coordinates not in ("half_pixel", "align_corners", "pytorch_half_pixel"):
        raise node.refuse(f"it is {mode} in {coordinates} coordinates")
    if mode == "cubic" and (node.get("cubic_coeff_a", _CUBIC) != _CUBIC or node.get("exclude_outside", 0)):
        raise node.refuse("its cubic curve isn't PyTorch's")
    if coordinates == "pytorch_half_pixel" and 1 in target:
        raise node.refuse("one of its sizes is 1")
    if (
        stretch is not None
        and coordinates == "align_corners"
        and any((size * factor) % 1 for size, factor in zip(map(int, x.shape[2:]), stretch, strict=True))
    ):
        raise node.refuse("its scales don't lead to whole sizes")
    if stretch is not None and coordinates != "align_corners":
        return functions.interpolate(
            x, scale_factor=stretch, mode=names[mode, x.ndim], align_corners=False, recompute_scale_factor=False
        )
    return functions.interpolate(x, target, mode=names[mode, x.ndim], align_corners=coordinates == "align_corners")


def _nearest(
    node: Node, x: torch.Tensor, target: list[int], coordinates: str, stretch: list[float] | None
) -> torch.Tensor:
    """Choose the nearest pixel along each axis, by ONNX's formulas."""
    rounding = node.get(
        "nearest_mode", b"round_prefer_floor" if coordinates != "asymmetric" or node.opset >= 11 else b"floor"
    ).decode()
    rounds: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
        "round_prefer_floor": lambda at: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda at: np.floor(at + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    for axis, length in enumerate(target):
        size = int(x.shape[axis + 2])
        scale = stretch[axis] if stretch is not None else length / size
        out = np.arange(length, dtype=np.float64)
        if coordinates == "align_corners":
            at = out * (size - 1) / (length - 1) if length > 1 else out * 0
        elif coordinates in ("half_pixel", "pytorch_half_pixel"):
            at = (out + 0.5) / scale - 0.5 if coordinates == "half_pixel" or length > 1 else out * 0
        elif coordinates == "asymmetric":
            at = out / scale
        else:
            raise node.refuse(f"it is nearest in {coordinates} coordinates")
        places = np.clip(rounds[rounding](at), 0, size - 1).astype(np.int64)
        x = x.index_select(axis + 2, torch.from_numpy(places).to(x.device))
    return x


def _depth_to_space(node: Node, x: Value) -> Value:
    taken, block = tensor(x), node.get("blocksize")
    if node.get("mode", b"DCR") == b"CRD":
        return functions.pixel_shuffle(taken, block)
    count, channels, height, width = taken.shape
    deep = taken.reshape(count, block, block, channels // block**2, height, width)
    return deep.permute(0, 3, 4, 1, 5, 2).reshape(count, channels // block**2, height * block, width * block)


def _space_to_depth(node: Node, x: Value) -> Value:
    taken, block = tensor(x), node.get("blocksize")
    if node.get("mode", b"DCR") == b"CRD":
        return functions.pixel_unshuffle(taken, block)
    count, channels, height, width = taken.shape
    flat = taken.reshape(count, channels, height // block, block, width // block, block)
    return flat.permute(0, 3, 5, 1, 2, 4).reshape(count, channels * block**2, height // block, width // block)


def _arg(largest: bool) -> Operator:
    def run(node: Node, x: Value) -> Value:
        if node.get("select_last_index", 0):
            raise node.refuse("it wants the last of equal values")
        compute = torch.argmax if largest else torch.argmin
        return compute(tensor(x), dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))

    return run


def _top_k(node: Node, x: Value, count: Value | None = None) -> Sequence[Value]:
    number = node.get("k") if count is None else (whole(node, count) or [0])[0]
    axis = node.get("axis", -1)
    values, places = torch.sort(
        tensor(x), dim=axis, descending=bool(node.get("largest", 1)), stable=True
    )  # of equal values the first, as ONNX wants
    return [values.narrow(axis, 0, number), places.narrow(axis, 0, number)]


OPERATORS: dict[str, Operator] = {
    "Shape": _shape, "Size": _size, "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Range": _range,
    "Reshape": _reshape,
    "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Concat": _concat,
    "Split": _split,
    "Slice": _slice, "Gather": _gather, "Expand": _expand, "Tile": _tile, "Pad": _pad, "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth, "ArgMax": _arg(True), "ArgMin": _arg(False),
    "TopK": _top_k,
}  # fmt: skip
