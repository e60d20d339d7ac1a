"""NVIDIA GPUs through the driver's libraries: which ones exist, found without initializing them, and their memory.

`gpus` asks NVML (`libnvidia-ml`), which starts no CUDA context: cheap, and harmless to a process that forks later.
`Device` is CUDA's driver API (`libcuda`). Both come with every driver and need no Python package; names and numbers are
those of NVIDIA's manuals (NVML API Reference; CUDA Driver API).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from plimsoll.errors import BackendMissingError, RunError

_NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_CUDA = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 96
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…"""
_STREAM_NON_BLOCKING = 1
_NO_GPU = "No NVIDIA GPU answers on this machine. It needs one, and NVIDIA's driver: `nvidia-smi` must list it."


@dataclass(frozen=True)
class Gpu:
    """A GPU's name and compute capability."""

    name: str
    """As NVIDIA's driver names it, for example `NVIDIA H100 80GB HBM3`."""
    capability: tuple[int, int]
    """CUDA's compute capability: (8, 0) Ampere, (8, 9) Ada, (9, 0) Hopper …"""

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]})"


@cache
def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that the driver lists, regardless of CUDA_VISIBLE_DEVICES; none without a driver."""
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError:
        return ()
    if nvml.nvmlInit_v2() != 0:
        return ()
    try:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        return tuple(gpu for index in range(count.value) if (gpu := _listed(nvml, index)) is not None)
    finally:
        nvml.nvmlShutdown()


def _listed(nvml: ctypes.CDLL, index: int) -> Gpu | None:
    handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(_NAME_BYTES)
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = (
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
        or nvml.nvmlDeviceGetName(handle, name, _NAME_BYTES)
        or nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    )
    return None if failed else Gpu(name.value.decode(errors="replace"), (major.value, minor.value))


def missing(capability: tuple[int, int] = (0, 0), why: str = "") -> str:
    """Return what this machine lacks to compute on a GPU of at least this capability; empty if nothing."""
    present = gpus()
    if not present:
        return _NO_GPU
    if all(gpu.capability < capability for gpu in present):
        return (
            f"{why} needs compute capability {capability[0]}.{capability[1]}; here is {', '.join(map(str, present))}."
        )
    return ""


def at(index: int = 0) -> Gpu:
    """Return the GPU that CUDA has at this index, as CUDA_VISIBLE_DEVICES leaves them; makes no context. Raises
    BackendMissingError or RunError."""
    handle = _handle(index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call("cuDeviceGetName", name, _NAME_BYTES, handle)
    parts = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        _call("cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
        parts.append(value.value)
    return Gpu(name.value.decode(errors="replace"), (parts[0], parts[1]))


class Device:
    """One GPU's memory and a stream, for the thread that creates it: its context is current only there.

    The context is the primary one, shared with CUDA's runtime and all libraries on top of it. Raises
    BackendMissingError if there is no such GPU, RunError with CUDA's error name for later failures.
    """

    def __init__(self, index: int = 0) -> None:
        self._closed = True
        self._handle = _handle(index)
        self._context = ctypes.c_void_p()
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._handle)
        self.activate()
        stream = ctypes.c_void_p()
        _call("cuStreamCreate", ctypes.byref(stream), _STREAM_NON_BLOCKING)
        self._closed = False
        self.stream = stream.value or 0
        """The stream's handle, as a number."""

    def activate(self) -> None:
        """Make its context current in this thread."""
        _call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes of the GPU's memory."""
        address = ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return address.value

    def free(self, address: int) -> None:
        """Free memory of the GPU."""
        _call("cuMemFree_v2", ctypes.c_uint64(address))

    def allocate_host(self, size: int) -> int:
        """Return the address of `size` bytes of this machine's memory that the GPU copies from and to at full speed
        (page-locked)."""
        address = ctypes.c_void_p()
        _call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(max(size, 1)), 0)
        return address.value or 0

    def free_host(self, address: int) -> None:
        """Free page-locked memory."""
        _call("cuMemFreeHost", ctypes.c_void_p(address))

    def upload(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy to the GPU in the stream."""
        _call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_void_p(self.stream),
        )

    def download(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy from the GPU in the stream."""
        _call(
            "cuMemcpyDtoHAsync_v2",
            ctypes.c_void_p(target),
            ctypes.c_uint64(source),
            ctypes.c_size_t(size),
            ctypes.c_void_p(self.stream),
        )

    def wait(self) -> None:
        """Wait until the stream is idle."""
        _call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def close(self) -> None:
        """Release the stream and the context; may be called twice."""
        if self._closed:
            return
        self._closed = True
        _call("cuStreamDestroy_v2", ctypes.c_void_p(self.stream))
        _call("cuCtxSetCurrent", ctypes.c_void_p(None))
        _call("cuDevicePrimaryCtxRelease_v2", self._handle)


def _handle(index: int) -> ctypes.c_int:
    handle = ctypes.c_int()
    cuda = _driver()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGet(ctypes.byref(handle), index) != 0:
        raise BackendMissingError(f"CUDA has no GPU {index} on this machine", _NO_GPU)
    return handle


def _call(name: str, *arguments: Any) -> None:
    cuda = _driver()
    function: Callable[..., int] = getattr(cuda, name)
    code = function(*arguments)
    if code == 0:
        return
    text = ctypes.c_char_p()
    cuda.cuGetErrorName(code, ctypes.byref(text))
    reason = (text.value or b"").decode() or f"CUDA error {code}"
    hint = "Try smaller batches, or close what else uses the GPU." if "OUT_OF_MEMORY" in reason else ""
    raise RunError(f"the GPU refused {name.removesuffix('_v2')}: {reason}", hint)


@cache
def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(_CUDA)
    except OSError as error:
        raise BackendMissingError(f"NVIDIA's driver can't be loaded: {error}", _NO_GPU) from error
