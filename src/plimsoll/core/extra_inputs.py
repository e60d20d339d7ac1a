"""What a network's further inputs get beside the picture: the values that a Spec gives, in the shape and the dtype that
the network takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.fit import describe
from plimsoll.core.model import TensorInfo
from plimsoll.errors import SpecError
from plimsoll.spec.inputs import Extra, Input


def extra_input(extra: Extra, info: TensorInfo, picture: Sequence[int], *, channels_last: bool) -> NDArray[Any]:
    """Return what a further input gets beside a batch of pictures whose tensor has the shape `picture`, `[N, …]`.

    An input whose first axis is free, or for which the Spec says the axis, gets the values once a picture. Raises
    SpecError where they don't fit.
    """
    values, axis = _values(extra, picture, channels_last), batch_axis(extra, info)
    each = _fitted(extra, values, info, axis)
    return each if axis is None else np.stack([each] * picture[0], axis)


def values_each(extra: Extra, info: TensorInfo, picture: Sequence[int], *, channels_last: bool) -> NDArray[Any]:
    """Return the same for one picture, without the axis of the pictures."""
    return _fitted(extra, _values(extra, picture, channels_last), info, batch_axis(extra, info))


def batch_axis(extra: Extra, info: TensorInfo) -> int | None:
    """Return which axis of a further input holds the pictures; None where it is the same for a whole call."""
    if extra.batch_axis is not None:
        return None if extra.batch_axis == "none" else extra.batch_axis
    whole = extra.shape is not None and len(extra.shape) == len(info.shape)
    return 0 if info.shape and info.shape[0] is None and not whole else None


def pack(views: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return several tensors of one picture as one, float32 `[K]`: one after another, each in the order of its rows."""
    return np.concatenate([view.astype(np.float32, copy=False).ravel() for view in views])


def unpack(packed: NDArray[Any], spec: Input) -> list[NDArray[Any]]:
    """Return the views of a batch of pictures, `[N, …]` each, from what `pack` made of them, `[N, K]`."""
    views, start = [], 0
    for view in spec.views:
        form = view.tensor_spec
        sizes = [size or 1 for size in form.shape]
        end = start + math.prod(sizes)
        views.append(packed[:, start:end].reshape(-1, *sizes).astype(form.dtype, copy=False))
        start = end
    return views


def _values(extra: Extra, picture: Sequence[int], channels_last: bool) -> NDArray[Any]:
    if extra.source == "input_size":
        height, width = picture[1:3] if channels_last else picture[2:4]
        return np.array([height, width] if extra.order == "hw" else [width, height], np.float64)
    if extra.value is not None:
        return np.array(extra.value, np.float64)
    values = np.array(extra.values, np.float64)
    return values if extra.shape is None else values.reshape(extra.shape)


def _fitted(extra: Extra, values: NDArray[Any], info: TensorInfo, axis: int | None) -> NDArray[Any]:
    """Return the values in the shape of the network's input, without the axis of the pictures."""
    shape = [size for position, size in enumerate(info.shape) if position != axis]
    own = extra.shape or values.shape
    lacking = len(shape) - len(own)
    filled = [own[at - lacking] if size is None and at >= lacking else size for at, size in enumerate(shape)]
    try:
        if None in filled:
            raise ValueError("a size is free")
        return np.broadcast_to(values, [size or 0 for size in filled]).astype(info.dtype)
    except ValueError as error:
        given = f"{list(values.shape)} values" if values.ndim else "one value"
        raise SpecError(
            f"[[input.extra]] '{extra.tensor}': {given} for the network's input, {describe(info.dtype, info.shape)}",
            "Give as many values as it takes, or say with `shape` what the network leaves open.",
        ) from error
