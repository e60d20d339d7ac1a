"""Between the web process and its workers: frames over a pipe, and shared memory for pictures and tensors.

A frame is a JSON object behind its length. Shared memory is an `Arena`, in which `Blocks` allocates. The memory has no
name that could be left behind: it is gone with the last process that maps it, however that process ended.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import mmap
import os
import struct
import sys
import tempfile
import uuid
from collections.abc import Sequence
from typing import IO, Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

Array = NDArray[Any]

_LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A frame carries no picture and no tensor, so a larger one is a mistake."""
_ALIGNMENT = 64


def pack(message: dict[str, Any]) -> bytes:
    """Return a message as it goes over the pipe."""
    body = to_json(message, inf_nan_mode="constants")
    return _LENGTH.pack(len(body)) + body


def read(stream: IO[bytes]) -> dict[str, Any] | None:
    """Read the next message; None where the other side is gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return _parse(body) if len(body) == length else None


async def read_async(stream: asyncio.StreamReader) -> dict[str, Any] | None:
    """Read the next message; None where the other side is gone, or what it sent is not a frame."""
    try:
        (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
        return _parse(await stream.readexactly(length)) if length <= MAX_FRAME_BYTES else None
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return None


def _parse(body: bytes) -> dict[str, Any]:
    message: dict[str, Any] = from_json(body)
    return message


class BytesRef(TypedDict):
    """Where bytes lie in shared memory."""

    offset: int
    size: int


class TensorRef(BytesRef):
    """Where a tensor lies in shared memory, and what it is."""

    dtype: str
    shape: Sequence[int]


def tensor_bytes(value: Array) -> memoryview:
    """Return the bytes of a contiguous array, without a copy."""
    return value.reshape(-1).view(np.uint8).data


def read_tensor(data: bytes | memoryview, ref: TensorRef) -> Array:
    """Return the tensor that these bytes are, without a copy."""
    return np.frombuffer(data, ref["dtype"]).reshape(ref["shape"])


class Arena:
    """Shared memory. One process creates it and passes its `handle` to the processes that it starts."""

    def __init__(self, memory: mmap.mmap, handle: str, descriptor: int | None) -> None:
        self._memory = memory
        self._descriptor = descriptor
        self.handle = handle
        """What a started process needs to attach it."""
        self.view = memoryview(memory)
        """All of it."""

    @classmethod
    def create(cls, size: int) -> Self:
        """Create `size` bytes; pages that nobody writes take no memory."""
        if sys.platform == "win32":
            name = f"plimsoll-{uuid.uuid4().hex}"
            return cls(mmap.mmap(-1, size, tagname=name), f"{name}:{size}", None)
        descriptor = _anonymous_file()
        try:
            os.ftruncate(descriptor, size)
            memory = mmap.mmap(descriptor, size)
        except BaseException:  # no room, and whoever asks again and again keeps nothing of it
            os.close(descriptor)
            raise
        return cls(memory, f"{descriptor}:{size}", descriptor)

    @classmethod
    def attach(cls, handle: str) -> Self:
        """Map what another process created."""
        name, _, size = handle.rpartition(":")
        if sys.platform == "win32":
            return cls(mmap.mmap(-1, int(size), tagname=name), handle, None)
        return cls(mmap.mmap(int(name), int(size)), handle, int(name))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors that a process has to inherit; none on Windows."""
        return () if self._descriptor is None else (self._descriptor,)

    def at(self, ref: BytesRef) -> memoryview:
        """Return the bytes that `ref` names."""
        return self.view[ref["offset"] : ref["offset"] + ref["size"]]

    def close(self) -> None:
        """Unmap it; twice is harmless. Arrays that still look into it keep it mapped until they are gone."""
        self.view.release()
        with contextlib.suppress(BufferError):
            self._memory.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("plimsoll")
    descriptor, path = tempfile.mkstemp(prefix="plimsoll-")
    os.unlink(path)  # noqa: PTH108 - it is a descriptor's name, gone at once
    return descriptor


class Blocks:
    """Allocates blocks of an arena, each in the first gap that is large enough, so that its beginning is reused."""

    def __init__(self, size: int) -> None:
        self._gaps = [(0, size)]
        """Offset and size of what is free, in order; two gaps are never adjacent."""
        self._sizes: dict[int, int] = {}
        self.size = size

    @property
    def used(self) -> int:
        """Bytes that are allocated."""
        return sum(self._sizes.values())

    def allocate(self, size: int) -> int | None:
        """Return the offset of `size` bytes; None where no gap is large enough."""
        aligned = max(_ALIGNMENT, -(-size // _ALIGNMENT) * _ALIGNMENT)
        for index, (offset, length) in enumerate(self._gaps):
            if length >= aligned:
                if length == aligned:
                    del self._gaps[index]
                else:
                    self._gaps[index] = (offset + aligned, length - aligned)
                self._sizes[offset] = aligned
                return offset
        return None

    def free(self, offset: int) -> None:
        """Free a block; raises KeyError for one that is not allocated."""
        size = self._sizes.pop(offset)
        index = bisect.bisect(self._gaps, (offset, 0))
        if index < len(self._gaps) and self._gaps[index][0] == offset + size:
            size += self._gaps.pop(index)[1]
        if index > 0 and sum(self._gaps[index - 1]) == offset:
            before, length = self._gaps[index - 1]
            self._gaps[index - 1] = (before, length + size)
        else:
            self._gaps.insert(index, (offset, size))
