"""One context of an engine, with its memory and its stream. All of it belongs to the thread that makes it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.tensorrt import runtime
from plimsoll.core.model import TensorInfo, Tensors
from plimsoll.errors import RunError
from plimsoll.system.gpu import Device


class _Buffer:
    """Memory of one tensor, on the GPU and, page-locked, on this side. It grows when it has to."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._size = 0
        self.there = 0
        """Its address on the GPU."""
        self._here = 0

    def reserve(self, size: int) -> None:
        """Make it at least so many bytes."""
        if size <= self._size:
            return
        self.close()
        self.there = self._device.allocate(size)
        self._here = self._device.allocate_host(size)
        self._size = size

    def view(self, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        """Return this side's memory as a tensor."""
        count = int(np.prod(shape, dtype=np.int64))
        if not count:
            return np.empty(shape, dtype)
        memory = (ctypes.c_byte * (count * np.dtype(dtype).itemsize)).from_address(self._here)
        return np.frombuffer(memoryview(memory), dtype).reshape(shape)

    def upload(self, size: int) -> None:
        """Start copying to the GPU."""
        self._device.upload(self.there, self._here, size)

    def download(self, size: int) -> None:
        """Start copying from the GPU."""
        self._device.download(self._here, self.there, size)

    def close(self) -> None:
        """Release both sides."""
        if self._size:
            self._size = 0
            self._device.free(self.there)
            self._device.free_host(self._here)


class ExecutionContext:
    """A context that computes one call at a time."""

    def __init__(self, engine: Any, log: Any, device_index: int) -> None:
        self._log = log
        self._device = Device(device_index)
        self._buffers: dict[str, _Buffer] = {}
        self._context = engine.create_execution_context()
        if self._context is None:
            self._device.close()
            raise RunError(
                f"the GPU has no room for a context{runtime.recent_errors(log)}",
                "Fewer contexts or a smaller max_batch need less.",
            )
        self._allocator = _allocator(self._buffer)

    def run(
        self, feeds: Mapping[str, NDArray[Any]], inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
    ) -> Tensors:
        """Compute all outputs; raises RunError."""
        self._log.errors.clear()
        for info in inputs:
            self._put(info.name, feeds[info.name])
        if unknown := self._context.infer_shapes():
            raise RunError(
                f"TensorRT needs more than the shapes of {', '.join(unknown)}{runtime.recent_errors(self._log)}"
            )
        for info in outputs:
            self._prepare(info)
        self._require(self._context.execute_async_v3(self._device.stream), "compute")
        # Only now is the size of an output known that depends on the picture.
        shapes = {
            info.name: self._allocator.shapes.pop(info.name, None) or tuple(self._context.get_tensor_shape(info.name))
            for info in outputs
        }
        for info in outputs:
            self._buffer(info.name).download(_bytes(shapes[info.name], info.dtype))
        self._device.wait()
        return {info.name: self._buffer(info.name).view(shapes[info.name], info.dtype).copy() for info in outputs}

    def _put(self, name: str, value: NDArray[Any]) -> None:
        buffer = self._buffer(name)
        buffer.reserve(value.nbytes)
        np.copyto(buffer.view(value.shape, str(value.dtype)), value)
        buffer.upload(value.nbytes)
        self._require(self._context.set_input_shape(name, value.shape), f"take {name} {list(value.shape)}")
        self._require(self._context.set_tensor_address(name, buffer.there), f"read {name}")

    def _prepare(self, info: TensorInfo) -> None:
        shape = tuple(self._context.get_tensor_shape(info.name))
        if min(shape, default=1) < 0:
            self._require(self._context.set_output_allocator(info.name, self._allocator), f"give out {info.name}")
            return
        buffer = self._buffer(info.name)
        buffer.reserve(max(_bytes(shape, info.dtype), 1))
        self._require(self._context.set_tensor_address(info.name, buffer.there), f"write {info.name}")

    def _buffer(self, name: str) -> _Buffer:
        return self._buffers.setdefault(name, _Buffer(self._device))

    def _require(self, done: bool, doing: str) -> None:
        if not done:
            raise RunError(f"TensorRT can't {doing}{runtime.recent_errors(self._log)}")

    def close(self) -> None:
        """Release the context and its memory."""
        self._context = self._allocator = None
        for buffer in self._buffers.values():
            buffer.close()
        self._device.close()


def _allocator(buffer_of: Any) -> Any:
    """Return an output allocator of TensorRT for outputs whose size depends on the picture's content; their shapes end
    up in `shapes`."""
    tensorrt = runtime.load()

    class Allocator(tensorrt.IOutputAllocator):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            tensorrt.IOutputAllocator.__init__(self)
            self.shapes: dict[str, tuple[int, ...]] = {}

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            del memory, alignment, stream  # CUDA's own alignment of 256 bytes is what TensorRT asks for
            buffer = buffer_of(tensor_name)
            try:
                buffer.reserve(max(size, 1))
            except RunError:
                return 0
            return int(buffer.there)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shapes[tensor_name] = tuple(shape)

    return Allocator()


def _bytes(shape: Sequence[int], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
