"""A bound on the memory that pictures under way take in this process, whatever number of threads asks for it.

A picture of 12 megapixels takes 50 MB while it is decoded, one of 50 takes 200, and eight threads would take as many at
once. So each thread states what its picture will need as soon as the header is read, before the decoder allocates
anything, and waits while the others leave no room. What was reserved is given back once the picture has become a
tensor."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import Image

from plimsoll.system import host

_SHARE = 32
"""Pictures may take this part of the machine's memory, or of the container's."""
_LEAST, _MOST = 200_000_000, 4_000_000_000
_UNKNOWN = 500_000_000
"""Bytes: what a picture of 50 megapixels takes may always be taken; more than the second is no help to any number of
cores; and what is assumed where the system doesn't say."""
_PILLOW_BLOCK = 2 * 1024 * 1024
"""Pillow's blocks of 16 MB are mapped, cleared by the system, and given back with every picture; smaller ones stay in
the allocator for the next one. That saves a third of the time that decoding 12 megapixels takes."""


class MemoryBudget:
    """Room for so many bytes; threads wait for it. A picture that is larger than all of it is decoded alone."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = 0
        """Bytes, by all threads."""
        self._changed = threading.Condition()
        self._thread = threading.local()

    @contextmanager
    def picture(self) -> Iterator[None]:
        """Give back, at the end, what `reserve` took in this thread in the meantime."""
        self._thread.reserved = 0
        try:
            yield
        finally:
            reserved, self._thread.reserved = self._thread.reserved, None
            if reserved:
                with self._changed:
                    self.taken -= reserved
                    self._changed.notify_all()

    def reserve(self, size: int) -> None:
        """Wait for room for `size` bytes more and take it; outside of `picture` nothing is taken.

        A thread that holds some already does not wait: two such threads could wait for one another.
        """
        held: int | None = getattr(self._thread, "reserved", None)
        if held is None:
            return
        with self._changed:
            while not held and self.taken and self.taken + size > self.room:
                self._changed.wait()
            self.taken += size
        self._thread.reserved = held + size


@cache
def budget() -> MemoryBudget:
    """Return this process's budget, by the memory of the machine and of its cgroup."""
    memory = host.memory_bytes()
    return MemoryBudget(_UNKNOWN if memory is None else min(max(memory // _SHARE, _LEAST), _MOST))


def keep_pillow_blocks() -> None:
    """Let Pillow take memory in blocks that the allocator keeps, unless the user has chosen their size."""
    if "PILLOW_BLOCK_SIZE" not in os.environ:
        Image.core.set_block_size(_PILLOW_BLOCK)  # type: ignore[attr-defined]  # Pillow documents it under this name
