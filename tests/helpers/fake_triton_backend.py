"""What Triton puts into its Python processes as `triton_python_backend_utils`, as far as Plimsoll uses it.

Tensors are NumPy arrays; text elements arrive as bytes objects. Its own:
github.com/triton-inference-server/python_backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class TritonError:
    """An error with one of Triton's codes."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class Tensor:
    """A named tensor; like Triton's, it takes contiguous NumPy arrays alone."""

    def __init__(self, name: str, array: Array) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, np.ascontiguousarray(array)

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array


@dataclass
class InferenceRequest:
    tensors: list[Tensor]

    def inputs(self) -> list[Tensor]:
        return self.tensors


@dataclass
class InferenceResponse:
    output_tensors: Sequence[Tensor] = field(default_factory=list)
    error: TritonError | None = None


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return next((tensor for tensor in request.tensors if tensor.name() == name), None)


def pictures(*files: bytes) -> InferenceRequest:
    """Ask about picture files."""
    array = np.empty(len(files), object)
    array[:] = files
    return InferenceRequest([Tensor("image", array)])
