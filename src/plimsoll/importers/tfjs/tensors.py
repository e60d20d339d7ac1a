"""TensorFlow's tensors while they are written as ONNX, and sliding windows.

Pictures are channels-last in TensorFlow; ONNX's convolutions take them channels-first. A value records which
of the two orders it has in the ONNX graph. Shapes are always TensorFlow's, the batch (None) first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from plimsoll.errors import ModelError

Shape = tuple[int | None, ...]
Pair = tuple[int, int]
Order = Literal["last", "first"]
Array = NDArray[Any]
MAX_ELEMENTS = 2**31


@dataclass(frozen=True)
class Value:
    """A tensor of the network."""

    name: str
    shape: Shape
    order: Order = "last"
    """Where the channels are in ONNX; only values with four axes are ever `first`."""
    dtype: str = "float32"
    """NumPy's name: float32, int32 or bool."""

    def __post_init__(self) -> None:
        if (
            any(size is not None and size < 1 for size in self.shape)
            or math.prod(size or 1 for size in self.shape) > MAX_ELEMENTS
        ):
            raise ValueError(f"a tensor of the shape {list(self.shape)}")

    @property
    def free(self) -> bool:
        """Whether its first axis is the batch, of any size."""
        return bool(self.shape) and self.shape[0] is None


@dataclass(frozen=True)
class Window:
    """How a window slides; pairs are (height, width)."""

    kernel: Pair
    strides: Pair
    padding: str
    """`same`, `valid`, or `explicit` with `pads`."""
    dilations: Pair = (1, 1)
    pads: tuple[Pair, Pair] = ((0, 0), (0, 0))
    """(top, bottom), (left, right); for `explicit`."""

    def __post_init__(self) -> None:
        if min(*self.kernel, *self.strides, *self.dilations) < 1 or self.padding not in ("same", "valid", "explicit"):
            raise ValueError(
                f"a window of kernel {self.kernel}, strides {self.strides}, dilations {self.dilations}, padding"
                f" {self.padding!r}"
            )

    @property
    def spans(self) -> Pair:
        """Pixels that a window covers."""
        height, width = (
            (kernel - 1) * dilation + 1 for kernel, dilation in zip(self.kernel, self.dilations, strict=True)
        )
        return height, width

    def slid(self, sizes: Sequence[int | None]) -> tuple[list[int | None], dict[str, Any]]:
        """Return the sizes after sliding over `sizes`, and ONNX's attributes for the padding.

        `same`: ceil(size / stride) windows, the odd pixel of padding at the end (TensorFlow's `GetWindowedOutputSize`).
        """
        out: list[int | None] = []
        pads: list[Pair] = []
        for size, span, stride, explicit in zip(sizes, self.spans, self.strides, self.pads, strict=True):
            if self.padding == "same":
                total = None if size is None else max((-(-size // stride) - 1) * stride + span - size, 0)
                total = span - 1 if total is None and stride == 1 else total
                out.append(None if size is None else -(-size // stride))
                pads.append((-1, -1) if total is None else (total // 2, total - total // 2))
            else:
                padded = None if size is None else size + sum(explicit)
                out.append(None if padded is None else (padded - span) // stride + 1)
                pads.append(explicit)
        if any(-1 in pair for pair in pads):
            return out, {"auto_pad": "SAME_UPPER"}
        return out, {"pads": [pads[0][0], pads[1][0], pads[0][1], pads[1][1]]}


def broadcast(*shapes: Sequence[int | None]) -> Shape:
    """Return the shape of operands of these shapes combined; raises ValueError if they don't fit."""
    rank = max(map(len, shapes))
    out: list[int | None] = []
    for sizes in zip(*((*[1] * (rank - len(shape)), *shape) for shape in shapes), strict=True):
        large = {size for size in sizes if size != 1}
        if len(large) > 1:
            raise ValueError(f"combining tensors of the shapes {[list(shape) for shape in shapes]}")
        out.append(large.pop() if large else 1)
    return tuple(out)


def channels_of(value: Value) -> int:
    """Return the number of channels; raises ValueError for what is no picture."""
    channels = value.shape[-1] if len(value.shape) == 4 else None
    if channels is None:
        raise ValueError(f"a tensor of the shape {list(value.shape)}, expected [batch, height, width, channels]")
    return channels


def fail(where: str, what: str, kind: str, reason: str, hint: str = "") -> ModelError:
    """Return the error for a layer or node that can't be converted."""
    return ModelError(
        f"{where}: {what} ({kind}): {reason}",
        hint or "Export the model to ONNX with its own framework, or remove that layer.",
    )


def free_shape(shape: Sequence[Any]) -> Shape:
    """Return a shape with None for free sizes, which are -1 in TensorFlow; raises ValueError for what is none."""
    sizes = [None if size is None else int(size) for size in shape]
    if not sizes or any(size is not None and size < -1 for size in sizes):
        raise ValueError(f"the shape {list(shape)}")
    return tuple(None if size == -1 else size for size in sizes)
