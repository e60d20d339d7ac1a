"""One HTTP/1.1 connection for load generators: whole requests as bytes go in, whole answers come out, and it notices an
answer too many."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import httptools

HOST = "127.0.0.1"
_STEP_S = 1.0
_T = TypeVar("_T")


async def patiently(awaitable: Awaitable[_T], seconds: float) -> _T:
    """Wait at most so many seconds in which this process itself ran: where both sides were stopped for a while, nobody
    is late. Raises TimeoutError."""
    task = asyncio.ensure_future(awaitable)
    left = seconds
    try:
        while not task.done() and left > 0:
            await asyncio.wait({task}, timeout=min(_STEP_S, left))
            left -= _STEP_S
        if not task.done():
            raise TimeoutError(f"nothing came for {seconds:g} s")
        return task.result()
    finally:
        task.cancel()


class NoResponseError(Exception):
    """The connection ended before a whole answer had come."""


@dataclass
class Response:
    """A whole answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""


class Connection(asyncio.Protocol):
    """A connection on which one request at a time is asked."""

    def __init__(self) -> None:
        self.surplus = 0
        """Answers, or pieces of them, that nobody had asked for."""
        self.open = True
        self._response = Response()
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, port: int) -> Connection:
        """Open a connection; raises OSError where nobody listens."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return connection

    async def ask(self, request: bytes) -> Response:
        """Send a request and return its answer; raises NoResponseError. A cancelled call closes the connection."""
        self.send(request)
        return await self.answer()

    def send(self, data: bytes) -> None:
        """Send bytes, which may be a part of a request."""
        if self._transport is None or not self.open:
            raise NoResponseError("the connection was closed before the request was sent")
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(data)

    async def answer(self) -> Response:
        """Wait for the answer to what was sent; raises NoResponseError."""
        assert self._waiting is not None, "nothing was sent"
        try:
            return await self._waiting
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """Close the connection; nobody waits for an answer any more."""
        self._forget()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up rudely: the other side gets a reset, not an end."""
        self._forget()
        if self._transport is not None:
            raw: socket.socket | None = self._transport.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    # what the loop and the parser call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no instances of it

    def data_received(self, data: bytes) -> None:
        """Parse a piece of an answer."""
        if self._waiting is None or self._waiting.done():
            self.surplus += 1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is no HTTP: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self.open = False
        self._fail(f"the connection ended without an answer: {exc or 'closed'}")

    def on_message_begin(self) -> None:
        """Begin an answer."""
        self._response = Response()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._response.body += body

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        self._response.status = self._parser.get_status_code()
        if self._response.status < 200:  # 100 Continue is no answer
            return
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._response)
        if not self._parser.should_keep_alive():
            self.open = False
            self.close()

    def _forget(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.cancel()

    def _fail(self, reason: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(NoResponseError(reason))
