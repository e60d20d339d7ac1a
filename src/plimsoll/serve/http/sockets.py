"""`Socket`: a WebSocket connection (RFC 6455) as its endpoint sees it, refused in words or accepted.

The `websockets` library reads and writes the protocol, behind uvicorn. A browser can't give a WebSocket headers, so a
key may also come as a subprotocol: `new WebSocket(url, ["plimsoll", "key.THE-KEY"])`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from plimsoll.core.duration import Duration
from plimsoll.serve.access.authorizer import Admission
from plimsoll.serve.request import RequestContext

SUBPROTOCOL = "plimsoll"
_KEY = "key."
_MEBIBYTE = 1024 * 1024
WRONG_TYPE, POLICY, AWAY = 1003, 1008, 1001
"""Close codes of RFC 6455, 7.4.1."""


class LiveSettings(BaseModel):
    """Frames over a WebSocket, for cameras."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connections: int = Field(64, ge=0)
    """Connections at the same time; more get 503. 0: none are accepted."""
    max_frame_bytes: int = Field(4 * _MEBIBYTE, ge=1024)
    """A larger message ends its connection."""
    idle_timeout: Duration = Field(60.0, gt=0)
    """A connection on which no frame comes for so long is closed."""


def available() -> bool:
    """Return whether WebSockets are spoken here: the extra `serve` installs what it takes."""
    return find_spec("websockets") is not None


def with_key(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return a handshake's headers, with a key that came as a subprotocol where other requests have it."""
    keys = [name.removeprefix(_KEY) for name in scope.get("subprotocols", ()) if name.startswith(_KEY)]
    return [*scope["headers"], *((b"authorization", b"Bearer " + key.encode("latin-1", "replace")) for key in keys)]


class Socket:
    """A connection that isn't accepted yet."""

    def __init__(
        self,
        scope: Scope,
        channel: tuple[Receive, Send],
        context: RequestContext,
        admit: Callable[[], Awaitable[Admission]],
        write_timeout: float,
    ) -> None:
        self.scope = scope
        self.context = context
        self.admit = admit
        """Admit the caller once more: a key may have been removed, and rates hold for what comes over a connection."""
        self._receive, self._send = channel
        self._write_timeout = write_timeout
        self._closed = False

    async def accept(self) -> None:
        """Open the connection."""
        offered = SUBPROTOCOL if SUBPROTOCOL in self.scope.get("subprotocols", ()) else None
        self.context.status = 101
        await self._send({"type": "websocket.accept", "subprotocol": offered, "headers": self._id()})

    async def refuse(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answer the handshake with an error."""
        self.context.status = status
        own = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        own += [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff"), *self._id()]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": own})
        await self._send({"type": "websocket.http.response.body", "body": body})

    def _id(self) -> list[tuple[bytes, bytes]]:
        return [(b"x-request-id", self.context.request_id.encode())]

    async def messages(self, idle_timeout: float) -> AsyncGenerator[bytes]:
        """Yield the binary messages until the caller closes the connection, or is silent for too long."""
        while not self._closed:
            try:
                async with asyncio.timeout(idle_timeout):
                    message = await self._receive()
            except TimeoutError:
                await self.close(AWAY, "no frame came for too long")
                return
            if message["type"] != "websocket.receive":
                return
            data: Any = message.get("bytes")
            if data is None:
                await self.close(WRONG_TYPE, "expected binary messages, a picture's file each")
                return
            self.context.bytes_in += len(data)
            yield data

    async def send(self, text: bytes) -> None:
        """Send a text; a caller that doesn't read it in time, or is gone, loses the connection."""
        if self._closed:
            return
        try:
            async with asyncio.timeout(self._write_timeout):
                await self._send({"type": "websocket.send", "text": text.decode()})
            self.context.bytes_out += len(text)
        except (TimeoutError, OSError):  # uvicorn's error for a caller that is gone is an OSError
            self._closed = self.context.gone = True

    async def close(self, code: int, reason: str) -> None:
        """End the connection."""
        if not self._closed:
            self._closed = True
            await self._send({"type": "websocket.close", "code": code, "reason": reason})


SocketHandler = Callable[[Socket], Awaitable[None]]
