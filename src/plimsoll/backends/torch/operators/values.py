"""What flows through a translated graph: tensors, and numbers that are known before a picture comes (sizes, axes,
scales)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from plimsoll.errors import BuildError

Known = NDArray[Any]
"""Numbers that are known; of dtype object where they are sizes of a picture's tensor, which may be symbols while a
network is exported."""


@dataclass(frozen=True)
class Stored:
    """A weight: as it is in the file, and as the module holds it, on its device and in its precision."""

    array: Known
    held: torch.Tensor


Value: TypeAlias = "torch.Tensor | Known | Stored"


@dataclass(frozen=True)
class Node:
    """An operator of a graph."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    precision: torch.dtype
    """What floating-point numbers are computed in."""
    attributes: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def refuse(self, why: str) -> BuildError:
        """Return the error that says what of this operator can't be translated."""
        return BuildError(
            f"{self.kind} '{self.name or self.outputs[0]}' can't be translated to PyTorch: {why}",
            "Run the network with another runtime.",
        )


Operator: TypeAlias = "Callable[..., Value | Sequence[Value]]"
"""Takes a Node and its inputs' values, None for one that is left out; returns its output's value, or its outputs'."""


def tensor(value: Value, like: torch.Tensor | None = None) -> torch.Tensor:
    """Return a value as a tensor: known numbers on the device of `like`, and in its precision where both are
    floating-point."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Stored):
        return value.held
    if value.dtype == object:
        flat = [torch.as_tensor(item, dtype=torch.int64) for item in value.reshape(-1)]
        built = torch.stack(flat).reshape(value.shape) if flat else torch.zeros(value.shape, dtype=torch.int64)
    else:
        built = torch.from_numpy(np.array(value))
    if like is None:
        return built
    floating = built.is_floating_point() and like.is_floating_point()
    return built.to(device=like.device, dtype=like.dtype if floating else built.dtype)


def known(node: Node, value: Value | None) -> Known | None:
    """Return the numbers of a value that has to be known; None for an input that is left out. Raises BuildError where a
    picture decides them."""
    if value is None:
        return None
    if isinstance(value, Stored):
        return value.array
    if isinstance(value, torch.Tensor):
        raise node.refuse("it needs a number that only the picture decides")
    return value


def whole(node: Node, value: Value | None) -> list[Any] | None:
    """Return known whole numbers (or sizes) as a list; None for an input that is left out."""
    array = known(node, value)
    if array is None:
        return None
    return [
        item if array.dtype == object and not isinstance(item, (int, np.integer)) else int(item)
        for item in array.reshape(-1)
    ]


def setting(node: Node, name: str, value: Value | None, default: Any = None) -> Any:
    """Return whole numbers that older opsets give as an attribute and newer ones as an input."""
    given = whole(node, value)
    return given if given is not None else node.get(name, default)


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return half-precision numbers in float32, in which long sums and powers are computed; others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def is_known(value: Value | None) -> TypeGuard[Known]:
    """Tell whether a value is known numbers, not a tensor or a weight."""
    return isinstance(value, np.ndarray)
