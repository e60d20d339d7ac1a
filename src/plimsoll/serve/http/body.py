"""Read request bodies within limits: their size, all of them together, and their time; and wait for an answer only as
long as its caller does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.pipeline import too_slow
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_HEADER_BYTES = 16_384
_MAX_FIELDS = 4096
"""Parts of a multipart body beside the pictures."""
_T = TypeVar("_T")


@dataclass
class Part:
    """A part of a multipart body."""

    name: str = ""
    filename: str | None = None
    content_type: str = ""
    data: bytes = b""


async def read_body(request: Request, service: Service) -> bytes:
    """Return a request's body; raises RequestError: 413 where it is too large, 408 where it comes too slowly, 503 where
    too much is received at once."""
    settings = service.settings
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_body_bytes:
        raise _too_large(settings)
    chunks: list[bytes] = []
    size = 0
    try:
        with service.receive_limit.counted() as share:
            async with asyncio.timeout(settings.body_timeout):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > settings.max_body_bytes:
                        raise _too_large(settings)
                    share.add(len(chunk))
                    chunks.append(chunk)
    except TimeoutError:
        raise too_slow("body", settings.body_timeout) from None
    except ClientDisconnect:
        raise _hung_up() from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def while_connected(request: Request, coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns; cancels it, and raises RequestError, where the client hangs up. The request's
    body must have been read."""
    work = asyncio.ensure_future(coroutine)
    disconnected = asyncio.ensure_future(_disconnection(request))
    try:
        await asyncio.wait({work, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise _hung_up()
        return work.result()
    finally:
        disconnected.cancel()
        work.cancel()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _hung_up() -> RequestError:
    return RequestError(Problem("input", "the client hung up", status=499))


def media_type(request: Request) -> str:
    """Return a request's media type in lower case, without its parameters; empty where it has none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _too_large(settings: Settings) -> RequestError:
    message = f"the body is larger than {settings.max_body_bytes:,} bytes"
    return RequestError(Problem("input", message, "Send fewer or smaller pictures at once.", 413))


def check_count(count: int, settings: Settings, hint: str, what: str = "pictures") -> None:
    """Raise RequestError where a request has no pictures (400), or too many (413)."""
    if not count:
        raise RequestError(Problem("input", f"there is no {what.removesuffix('s')} in the request", hint, 400))
    if count > settings.max_items:
        message = f"{count:,} {what} in one request; {settings.max_items:,} are allowed"
        raise RequestError(Problem("input", message, "Send several requests.", 413))


async def read_parts(request: Request, service: Service) -> list[Part]:
    """Return the parts of a multipart/form-data body, in their order; raises RequestError (400, or as `read_body`)."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestError(Problem("input", "expected multipart/form-data with a boundary", status=400))
    return parse_parts(await read_body(request, service), boundary, service.settings.max_items + _MAX_FIELDS)


def parse_parts(body: bytes, boundary: bytes, limit: int) -> list[Part]:
    """Return the parts of a multipart body; raises RequestError (400)."""
    reader = _PartReader(limit)
    try:
        parser = MultipartParser(boundary, reader.callbacks(), max_size=len(body) + 1)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RequestError(Problem("input", f"the multipart body can't be read: {error}", status=400)) from error
    if not reader.ended:
        raise RequestError(Problem("input", "the multipart body ends in the middle of a part", status=400))
    return reader.parts


@dataclass
class _PartReader:
    limit: int
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
        if len(self.parts) >= self.limit:
            raise ValueError(f"more than {self.limit} parts")
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
