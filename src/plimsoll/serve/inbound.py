"""`InboundMemory`: the pictures and tensors that came in, in the memory that is shared with the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plimsoll.serve.ipc import Arena, Array, Blocks, BytesRef, TensorRef, tensor_bytes
from plimsoll.serve.messages import Picture, PixelFrame, Problem, RequestError, RequestOptions
from plimsoll.serve.parsing import QUICK_COPY, copy
from plimsoll.serve.worker_handle import ItemKind


@dataclass(frozen=True)
class StoredInput:
    """A picture, or rows of tensors, in shared memory."""

    frame: Mapping[str, Any]
    """What the worker gets: where the bytes lie, and what to return."""
    blocks: tuple[int, ...]
    """What it occupies."""
    rows: int


class InboundMemory:
    """A part of the shared memory of what came in: `size` bytes from `start`. Each process that takes requests has one,
    for all models."""

    def __init__(self, arena: Arena, start: int, size: int) -> None:
        self.arena = arena
        self.blocks = Blocks(size)
        self._start = start
        self._copied = 0

    @classmethod
    def create(cls, size: int, parts: int = 1) -> InboundMemory:
        """Create so many parts of this size, and take the first one."""
        return cls(Arena.create(size * parts), 0, size)

    async def put(self, data: bytes | memoryview) -> BytesRef:
        """Store bytes and return where they are; raises RequestError where there is no room."""
        offset = self.blocks.allocate(len(data))
        if offset is None:
            message = f"too much is waiting: {self.blocks.used / 1e6:,.0f} MB"
            raise RequestError(Problem("overloaded", message, "Try again later.", 503, 1.0))
        ref: BytesRef = {"offset": self._start + offset, "size": len(data)}
        try:
            await copy(data, self.arena.at(ref))
            self._copied += len(data)
            if self._copied > QUICK_COPY:  # others have their turn between the many pictures of a request
                self._copied = 0
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.blocks.free(offset)
            raise
        return ref

    def free(self, blocks: Sequence[int]) -> None:
        """Free what was put there."""
        for offset in blocks:
            self.blocks.free(offset - self._start)

    async def store(self, kind: ItemKind, inputs: Sequence[Any], options: RequestOptions) -> list[StoredInput]:
        """Store the pictures of a request, or its feeds (rows of tensors by name); raises RequestError where there is
        no room, and then keeps none of them."""
        stored: list[StoredInput] = []
        try:
            for value in inputs:
                stored.append(await (self._feeds(value) if kind == "tensors" else self._picture(kind, value, options)))
        except (RequestError, asyncio.CancelledError):
            for item in stored:
                self.free(item.blocks)
            raise
        return stored

    async def _picture(self, kind: ItemKind, picture: Picture, options: RequestOptions) -> StoredInput:
        pixels = picture if isinstance(picture, PixelFrame) else None
        ref = await self.put(picture.data if isinstance(picture, PixelFrame) else picture)
        frame = {
            "picture": ref,
            "size": (pixels.height, pixels.width) if pixels is not None else None,
            "raw": kind == "raw",
            "top": options.top,
            "threshold": options.threshold,
            "masks": options.masks,
        }
        return StoredInput(frame, (ref["offset"],), 1)

    async def _feeds(self, feeds: Mapping[str, Array]) -> StoredInput:
        refs: dict[str, TensorRef] = {}
        try:
            for name, value in feeds.items():
                data = np.ascontiguousarray(value)
                refs[name] = {**await self.put(tensor_bytes(data)), "dtype": data.dtype.name, "shape": data.shape}
        except (RequestError, asyncio.CancelledError):
            self.free([ref["offset"] for ref in refs.values()])
            raise
        return StoredInput(
            {"feeds": refs}, tuple(ref["offset"] for ref in refs.values()), len(next(iter(feeds.values())))
        )
