"""Run a network with OpenVINO: compiled for the first sizes that come, each by itself, and for any size after that."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import translate
from plimsoll.core.model import TensorInfo, Tensors
from plimsoll.errors import BuildError, RunError

Shapes = tuple[tuple[int, ...], ...]


class Compiler:
    """A network that was read, ready to be compiled for one size of its inputs or for any."""

    def __init__(
        self, openvino: ModuleType, core: Any, network: Any, settings: Mapping[str, Any], streams: int
    ) -> None:
        self._core = core
        self._settings = settings
        self._streams = streams
        self.network = network
        self.tensor = openvino.Tensor

    def compile(self, shapes: Shapes | None = None) -> CompiledNetwork:
        """Return it compiled for these shapes of its inputs, or for any; raises what OpenVINO raises, or BuildError."""
        network = self.network
        if shapes is not None:
            network = network.clone()
            network.reshape(dict(enumerate(map(list, shapes))))
        compiled = self._core.compile_model(network, "CPU", dict(self._settings))
        requested, actual = (
            self._settings["INFERENCE_PRECISION_HINT"],
            compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
        )
        if actual != requested:
            raise BuildError(
                f"OpenVINO computes in {actual} on this processor, not in {requested} as requested",
                "Use the target of that precision.",
            )
        return CompiledNetwork(compiled, max(self._streams, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))


class CompiledNetwork:
    """A compiled network, and a request for each call that may be under way."""

    def __init__(self, compiled: Any, requests: int) -> None:
        self._free = [compiled.create_infer_request() for _ in range(requests)]
        self._turn = threading.Semaphore(requests)

    def run(self, tensors: list[Any]) -> list[NDArray[Any]]:
        """Compute the outputs, as copies: the request's own memory is written again by its next call."""
        with self._turn:
            request = self._free.pop()
            try:
                for index, tensor in enumerate(tensors):
                    request.set_input_tensor(index, tensor)
                # The stream's threads compute, and Python's lock is free while this one waits.
                request.start_async()
                request.wait()
                return [np.array(tensor.data) for tensor in request.output_tensors]
            finally:
                self._free.append(request)


class OpenVinoSession:
    """Compiled for the first sizes that come, each by itself, and for any size once there are more."""

    concurrent = True

    def __init__(self, compiler: Compiler, fixed_sizes: int) -> None:
        self._compiler: Compiler | None = compiler
        # Compiling renames outputs that are copies of one another.
        self.inputs = tuple(_info(port) for port in compiler.network.inputs)
        self.outputs = tuple(_info(port) for port in compiler.network.outputs)
        self._most = fixed_sizes
        self._fixed: dict[Shapes, CompiledNetwork] = {}
        self._any: CompiledNetwork | None = None
        self._lock = threading.Lock()
        self._compiled_for(
            tuple(
                tuple(1 if size is None and axis == 0 else size or 0 for axis, size in enumerate(port.shape))
                for port in self.inputs
            )
        )

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        with translate(RunError, "OpenVINO failed"):
            if self._compiler is None:
                raise RunError("OpenVINO failed: the session is closed")
            arrays = [_shareable(feeds[info.name]) for info in self.inputs]
            compiled = self._compiled_for(tuple(info.shape for info in arrays))
            tensor = self._compiler.tensor
            values = compiled.run([tensor(info, shared_memory=True) for info in arrays])
        return {info.name: _shaped(value, info) for info, value in zip(self.outputs, values, strict=True)}

    def _compiled_for(self, shapes: Shapes) -> CompiledNetwork:
        """Return the network for these shapes, compiled if need be; a size of 0 stands for one that isn't known yet."""
        if (ready := self._fixed.get(shapes)) is not None:
            return ready
        if self._any is not None and len(self._fixed) >= self._most:
            return self._any
        with self._lock:
            return self._compile(shapes)

    def _compile(self, shapes: Shapes) -> CompiledNetwork:
        if self._compiler is None:
            raise RunError("OpenVINO failed: the session is closed")
        if shapes in self._fixed:
            return self._fixed[shapes]
        if len(self._fixed) < self._most and all(all(shape) for shape in shapes):
            self._fixed[shapes] = self._compiler.compile(shapes)
            return self._fixed[shapes]
        self._any = self._any or self._compiler.compile()
        return self._any

    def close(self) -> None:
        with self._lock:
            self._compiler = self._any = None
            self._fixed.clear()


def _info(port: Any) -> TensorInfo:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorInfo(port.get_any_name(), shape, str(port.element_type.to_dtype()))


def _shaped(value: NDArray[Any], info: TensorInfo) -> NDArray[Any]:
    """Return an output in the shape that the network gives it: compiled, a last Transpose that only moves axes of one
    is left out."""
    if value.ndim != len(info.shape) or all(
        size in (None, own) for size, own in zip(info.shape, value.shape, strict=True)
    ):
        return value
    if info.shape.count(None) > 1:
        return value
    shaped = value.reshape([-1 if size is None else size for size in info.shape])
    same = [size for size in shaped.shape if size != 1] == [size for size in value.shape if size != 1]
    return shaped if same else value


def _shareable(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, or a copy where OpenVINO can't read it in place."""
    return array if array.flags.c_contiguous and array.flags.writeable else array.copy()
