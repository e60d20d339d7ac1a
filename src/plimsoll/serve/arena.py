"""`Arena`: memory that the web process and its workers share; `Blocks`: who may write where in it.

The memory has no name that could be left behind: when the last process that maps it is gone, however it ended, it is
gone.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import os
import sys
import tempfile
import uuid
from typing import Self

_ALIGNMENT = 64


class Arena:
    """Shared memory. One process makes it and passes its `handle` on to the processes that it starts."""

    def __init__(self, memory: mmap.mmap, handle: str, descriptor: int | None) -> None:
        self._memory = memory
        self._descriptor = descriptor
        self.handle = handle
        """What a process that is started needs to attach it."""
        self.view = memoryview(memory)
        """All of it."""

    @classmethod
    def create(cls, size: int) -> Self:
        """Make `size` bytes; pages that nobody writes take no memory."""
        if sys.platform == "win32":
            name = f"plimsoll-{uuid.uuid4().hex}"
            return cls(mmap.mmap(-1, size, tagname=name), f"{name}:{size}", None)
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, size)
        return cls(mmap.mmap(descriptor, size), f"{descriptor}:{size}", descriptor)

    @classmethod
    def attach(cls, handle: str) -> Self:
        """Map what another process made."""
        name, _, size = handle.rpartition(":")
        if sys.platform == "win32":
            return cls(mmap.mmap(-1, int(size), tagname=name), handle, None)
        return cls(mmap.mmap(int(name), int(size)), handle, int(name))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors that a process has to inherit; none on Windows."""
        return () if self._descriptor is None else (self._descriptor,)

    def close(self) -> None:
        """Let go of it; twice is harmless. Arrays that still look into it keep it mapped until they are gone."""
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
    """Allocates pieces of an arena: the first gap that is large enough, so that what is used stays at its beginning."""

    def __init__(self, size: int) -> None:
        self._gaps = [(0, size)]
        """Offset and size of what is free, in order, never two beside one another."""
        self._sizes: dict[int, int] = {}
        self.size = size

    @property
    def used(self) -> int:
        """Bytes that are handed out."""
        return sum(self._sizes.values())

    def allocate(self, size: int) -> int | None:
        """Return the offset of `size` bytes; None where no gap is large enough."""
        wanted = max(_ALIGNMENT, -(-size // _ALIGNMENT) * _ALIGNMENT)
        for place, (offset, length) in enumerate(self._gaps):
            if length >= wanted:
                if length == wanted:
                    del self._gaps[place]
                else:
                    self._gaps[place] = (offset + wanted, length - wanted)
                self._sizes[offset] = wanted
                return offset
        return None

    def free(self, offset: int) -> None:
        """Take a block back; raises KeyError for one that is not handed out."""
        size = self._sizes.pop(offset)
        place = bisect.bisect(self._gaps, (offset, 0))
        if place < len(self._gaps) and self._gaps[place][0] == offset + size:
            size += self._gaps.pop(place)[1]
        if place > 0 and sum(self._gaps[place - 1]) == offset:
            before, length = self._gaps[place - 1]
            self._gaps[place - 1] = (before, length + size)
        else:
            self._gaps.insert(place, (offset, size))
