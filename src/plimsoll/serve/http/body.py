"""Read request bodies within limits: their size, all of them together, and their time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.receiving import Received
from plimsoll.serve.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_HEADER_BYTES = 16_384
_PARTS = 4096


@dataclass
class Part:
    """A part of a multipart body."""

    name: str = ""
    filename: str | None = None
    content_type: str = ""
    data: bytes = b""


async def read_body(request: Request, settings: Settings) -> bytes:
    """Return a request's body; raises RequestError: 413 where it is too large, 408 where it comes too slowly, 503 where
    too much is received at once."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_body_bytes:
        raise _too_large(settings)
    received: Received = request.app.state.received
    chunks: list[bytes] = []
    size = 0
    try:
        async with received.counted() as share, asyncio.timeout(settings.body_timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.max_body_bytes:
                    raise _too_large(settings)
                share.add(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise RequestError(
            Problem("input", f"the body was not there after {settings.body_timeout:g} s", "Send it faster.", 408)
        ) from None
    except ClientDisconnect:
        raise RequestError(Problem("input", "the client hung up", status=499)) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(settings: Settings) -> RequestError:
    return RequestError(
        Problem(
            "input",
            f"the body is larger than {settings.max_body_bytes:,} bytes",
            "Send fewer or smaller pictures at once.",
            413,
        )
    )


async def read_parts(request: Request, settings: Settings) -> list[Part]:
    """Return the parts of a multipart/form-data body, in their order; raises RequestError (400, or as `read_body`)."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestError(Problem("input", "the body is no multipart/form-data with a boundary", status=400))
    return parse_parts(await read_body(request, settings), boundary, settings.max_items + _PARTS)


def parse_parts(body: bytes, boundary: bytes, most: int) -> list[Part]:
    """Return the parts of a multipart body; raises RequestError (400)."""
    reading = _Reading(most)
    try:
        parser = MultipartParser(boundary, reading.callbacks(), max_size=len(body) + 1)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RequestError(Problem("input", f"the multipart body can't be read: {error}", status=400)) from error
    if not reading.ended:
        raise RequestError(Problem("input", "the multipart body ends in the middle of a part", status=400))
    return reading.parts


@dataclass
class _Reading:
    most: int
    parts: list[Part] = field(default_factory=list)
    ended: bool = False
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _header_bytes: int = 0
    _chunks: list[bytes] = field(default_factory=list)

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header(self._name, data[start:end]),
            "on_header_value": lambda data, start, end: self._header(self._value, data[start:end]),
            "on_header_end": self._header_end,
            "on_part_data": lambda data, start, end: self._chunks.append(bytes(data[start:end])),
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self.most:
            raise ValueError(f"more than {self.most} parts")
        self.parts.append(Part())
        self._header_bytes = 0

    def _header(self, into: bytearray, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > _HEADER_BYTES:
            raise ValueError("the head of a part is too long")
        into += data

    def _header_end(self) -> None:
        part, name, value = self.parts[-1], bytes(self._name).lower(), bytes(self._value)
        if name == b"content-disposition":
            _, options = parse_options_header(value)
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
            part.filename = options[b"filename"].decode("utf-8", "replace") if b"filename" in options else None
        elif name == b"content-type":
            part.content_type = value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.parts[-1].data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()

    def _all(self) -> None:
        self.ended = True
