"""Decode what callers send as a clip: in a process of its own, within limits, frame by frame.

A clip is hostile until it is decoded, and its decoder may crash, hang or take all memory: so the process ends with its
clip, and what it may take is limited. It gets the clip over a pipe and gives frames back over another, no faster than
they are taken; it shares no memory with the service.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plimsoll.core.duration import Duration
from plimsoll.serve.messages import PixelFrame, Problem, RequestError

RECORD = struct.Struct("<cIdII")
"""What stands before a frame: its kind, number, time, height and width."""
FRAME, ERROR, END = b"f", b"e", b"."
CHANNELS = 3
_BUSY_S = 5.0
_MEBIBYTE = 1024 * 1024


class ClipSettings(BaseModel):
    """What a clip may be and cost; its bytes are limited by `max_body_bytes`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_seconds: Duration = Field(600.0, gt=0)
    """Of the clip's own time."""
    max_frames: int = Field(20_000, ge=1)
    """Frames that are decoded, answered or not."""
    max_megapixels: float = Field(9.0, gt=0, le=36)
    """Of a frame; 4K has 8.3."""
    timeout: Duration = Field(600.0, gt=0)
    """How long decoding and answering may take together."""
    memory_bytes: int = Field(2048 * _MEBIBYTE, ge=256 * _MEBIBYTE)
    """Address space of the process that decodes, where the system limits that."""
    at_once: int = Field(2, ge=0)
    """Clips that are answered at the same time; more get 503. 0: none are."""


@dataclass(frozen=True)
class ClipFrame:
    """A decoded frame."""

    number: int
    time: float
    """Seconds since the clip began."""
    pixels: PixelFrame


@asynccontextmanager
async def decoded(
    data: bytes, sampling: str, settings: ClipSettings
) -> AsyncGenerator[AsyncGenerator[ClipFrame | Problem]]:
    """Give a clip's frames in order, and at the end what is wrong with it, if anything is; the process ends with the
    block. Raises RequestError where it can't be started."""
    config = {
        "sampling": sampling,
        "seconds": settings.max_seconds,
        "frames": settings.max_frames,
        "megapixels": settings.max_megapixels,
        "memory": settings.memory_bytes,
        "cpu_seconds": settings.timeout,
        "bytes": len(data),
    }
    try:
        process = await asyncio.to_thread(_start)
    except OSError as error:
        message = f"the clip can't be decoded now: {error.strerror or error}"
        raise RequestError(Problem("unavailable", message, status=503, retry_after=_BUSY_S)) from error
    expired = asyncio.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = asyncio.get_running_loop().call_later(settings.timeout, expire)
    feeding = asyncio.ensure_future(asyncio.to_thread(_feed, process, config, data))
    frames = _frames(process, expired, settings)
    try:
        async with aclosing(frames):
            yield frames
    finally:
        timer.cancel()
        process.kill()  # also ends what a thread waits for
        await asyncio.gather(feeding, return_exceptions=True)
        await asyncio.to_thread(_end, process)


def _start() -> subprocess.Popen[bytes]:
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "plimsoll.serve.clip_process"]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=nothing, env={**os.environ, **threads}, start_new_session=True
    )


def _feed(process: subprocess.Popen[bytes], config: Mapping[str, Any], data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - a pipe
    with suppress(OSError), process.stdin as stream:  # it may have ended already
        stream.write(json.dumps(config).encode() + b"\n")
        stream.write(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


async def _frames(
    process: subprocess.Popen[bytes], expired: asyncio.Event, settings: ClipSettings
) -> AsyncGenerator[ClipFrame | Problem]:
    assert process.stdout is not None  # noqa: S101 - a pipe
    limit = round(settings.max_megapixels * 1e6) * CHANNELS
    while True:
        record = await asyncio.to_thread(_read, process.stdout, limit)
        if isinstance(record, ClipFrame):
            yield record
            continue
        if isinstance(record, Problem):
            yield record
        elif expired.is_set():
            yield Problem("deadline", f"the clip took longer than {settings.timeout:g} s", "Send a shorter one.", 504)
        elif record == "died":
            yield Problem("failed", "the process that decodes the clip died", "Is the clip damaged?", 415)
        return


def _read(stream: IO[bytes], limit: int) -> ClipFrame | Problem | Literal["ended", "died"]:
    """Return the next frame, or what is wrong with the clip, or how its process ended."""
    head = stream.read(RECORD.size)
    if len(head) < RECORD.size:
        return "died"
    if head[:1] == END:
        return "ended"
    kind, number, time, height, width = RECORD.unpack(head)
    size = height * width * CHANNELS
    if kind == ERROR:
        message = stream.read(min(height, 10_000)).decode("utf-8", "replace")
        return Problem("image", message, "The frames until there were answered." if number else "", 415)
    if kind != FRAME or size > limit:
        return Problem("failed", "the process that decodes the clip gave no frame", status=415)
    data = stream.read(size)
    return ClipFrame(number, time, PixelFrame(data, height, width)) if len(data) == size else "died"


def available() -> bool:
    """Return whether clips can be decoded here."""
    return find_spec("av") is not None
