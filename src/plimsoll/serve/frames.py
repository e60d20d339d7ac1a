"""Messages between the web process and its workers: a JSON object behind its length, over a pipe."""

from __future__ import annotations

import asyncio
import struct
from typing import IO, Any

from pydantic_core import from_json, to_json

_LENGTH = struct.Struct("<I")
MAX_BYTES = 64 * 1024 * 1024
"""A frame carries no picture and no tensor, so one that is larger is a mistake."""


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
    return _parsed(body) if len(body) == length else None


async def read_async(stream: asyncio.StreamReader) -> dict[str, Any] | None:
    """Read the next message; None where the other side is gone, or sends what is none."""
    try:
        (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
        return _parsed(await stream.readexactly(length)) if length <= MAX_BYTES else None
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return None


def _parsed(body: bytes) -> dict[str, Any]:
    message: dict[str, Any] = from_json(body)
    return message
