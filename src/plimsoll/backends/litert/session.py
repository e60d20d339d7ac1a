"""Interpreters of a TFLite file, one for each stream, behind the session that presents them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.litert.tflite_file import TfliteFile, TfliteTensor
from plimsoll.backends.session_pool import SessionPool
from plimsoll.core.model import TensorInfo, Tensors
from plimsoll.errors import RunError

Array = NDArray[Any]


class LiteRtSession(SessionPool):
    """A network that is loaded once for each stream.

    Where the file's inputs or outputs are quantized integers, the session's are float32 all the same: it rounds to the
    file's steps, and multiplies back.
    """

    def __init__(self, file: TfliteFile, interpreters: list[Any]) -> None:
        inputs, outputs = (tuple(_info(tensor) for tensor in side) for side in (file.inputs, file.outputs))
        super().__init__("LiteRT", inputs, outputs, [_Interpreter(interpreter, file) for interpreter in interpreters])


class _Interpreter:
    """One interpreter. Only one thread may use it at a time."""

    def __init__(self, interpreter: Any, file: TfliteFile) -> None:
        self._interpreter = interpreter
        self._stateful = file.stateful
        details = zip(interpreter.get_input_details(), file.inputs, strict=True)
        self._inputs = [(detail["index"], tensor, _encoder(tensor)) for detail, tensor in details]
        answers = zip(interpreter.get_output_details(), file.outputs, strict=True)
        self._outputs = [(detail["index"], tensor, _decoder(tensor)) for detail, tensor in answers]
        self._shapes = {detail["index"]: tuple(map(int, detail["shape"])) for detail in interpreter.get_input_details()}

    def run(self, feeds: Mapping[str, Array]) -> Tensors:
        self._resize(feeds)
        for index, tensor, encode in self._inputs:
            self._interpreter.set_tensor(index, encode(feeds[tensor.name]))
        if self._stateful:  # An answer must not depend on the pictures before.
            self._interpreter.reset_all_variables()
        self._interpreter.invoke()
        return {tensor.name: decode(self._interpreter.get_tensor(index)) for index, tensor, decode in self._outputs}

    def _resize(self, feeds: Mapping[str, Array]) -> None:
        """Prepare the interpreter for the sizes that the file leaves free, where they are others than last time."""
        shapes = {index: feeds[tensor.name].shape for index, tensor, _ in self._inputs}
        if shapes == self._shapes:
            return
        self._shapes = {}  # Should it fail, the next call must not think that all is prepared.
        for index, shape in shapes.items():
            self._interpreter.resize_tensor_input(index, shape, strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def _info(tensor: TfliteTensor) -> TensorInfo:
    return TensorInfo(tensor.name, tensor.shape, "float32" if tensor.quantized else tensor.dtype)


def _encoder(tensor: TfliteTensor) -> Callable[[Array], Array]:
    """Return what turns real values into the tensor's integers: rounded to the nearest, clipped to what they hold."""
    if not tensor.quantized:
        return lambda values: values
    limits = np.iinfo(tensor.dtype)
    scale, zero = np.float32(tensor.scales[0]), np.float32(tensor.zero_points[0])

    def encode(values: Array) -> Array:
        steps = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
        if np.isnan(steps).any():
            raise RunError(
                f"the input '{tensor.name}' has values that are not a number, which {tensor.dtype} can't hold"
            )
        return steps.astype(tensor.dtype)

    return encode


def _decoder(tensor: TfliteTensor) -> Callable[[Array], Array]:
    """Return what turns the tensor's integers into the real values that they stand for."""
    if not tensor.quantized:
        return lambda steps: steps
    scale, zero = np.float32(tensor.scales[0]), np.float32(tensor.zero_points[0])
    return lambda steps: (steps.astype(np.float32) - zero) * scale
