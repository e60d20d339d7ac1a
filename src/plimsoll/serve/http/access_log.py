"""A line for each request, and its id: a plain ASGI middleware, the outermost.

A line has the time, id, method, path, status, milliseconds, bytes in and out, and as far as they are known the model,
how many pictures, how long each stage took, the key's name, the caller's address and the trace. It never has a picture,
a file name, a key, or a value of the query other than the numbers that this service knows.
"""

from __future__ import annotations

import re
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plimsoll.serve.log import LineHandler, LogSettings, timestamp
from plimsoll.serve.request_line import LONGEST_PATH, client, new_id, sane, told, worth_a_line

_NUMBER = re.compile(rb"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
_KNOWN = {b"top", b"threshold", b"priority", b"timeout"}


class AccessLog:
    """Gives each request an id, passes it on, and logs what came of it.

    The id is the caller's `X-Request-Id` where that is sane, else a new one; it is in `scope["state"]["request_id"]`
    and in the answer. Of the rest of `scope["state"]`, `model`, `pictures`, `milliseconds` (a mapping for each
    picture), `key` and `trace_id` are logged, where somebody set them.
    """

    def __init__(self, app: ASGIApp, lines: LineHandler | None, settings: LogSettings) -> None:
        self._app = app
        self._lines = lines if settings.requests else None
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(receive, send, request_id(scope))
        scope.setdefault("state", {})["request_id"] = seen.id.decode()
        failure: BaseException | None = None
        try:
            await self._app(scope, seen.receiving, seen.sending)
        except BaseException as error:
            failure = error
            raise
        finally:
            if self._lines is not None and self._wanted(scope["path"], seen.status, failure):
                self._lines.put(self._fields(scope, seen, failure))

    def _wanted(self, path: str, status: int | None, failure: BaseException | None) -> bool:
        return worth_a_line(self._settings, path, good=failure is None and status is not None and status < 400)

    def _fields(self, scope: Scope, seen: _Seen, failure: BaseException | None) -> dict[str, Any]:
        state = scope["state"]
        fields: dict[str, Any] = {
            "time": timestamp(),
            "status": seen.status,
            "method": scope["method"],
            "path": scope["path"][:LONGEST_PATH],
            "milliseconds": round(1e3 * (time.perf_counter() - seen.began), 2),
            "request_id": state["request_id"],
            "bytes_in": seen.bytes_in,
            "bytes_out": seen.bytes_out,
        }
        fields |= told(state)
        if (query := scope["query_string"]) and (asked := known(query)):
            fields["asked"] = asked
        if scope.get("client"):
            fields |= client(scope["client"][0], self._settings)
        if seen.gone:
            fields["gone"] = True  # the caller hung up before the answer
        if failure is not None:
            fields["error"] = type(failure).__name__
        return fields


class _Seen:
    """What is seen of one request as it goes by."""

    __slots__ = ("_receive", "_send", "began", "bytes_in", "bytes_out", "gone", "id", "status")

    def __init__(self, receive: Receive, send: Send, known_as: bytes) -> None:
        self._receive = receive
        self._send = send
        self.id = known_as
        self.began = time.perf_counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self.status: int | None = None
        self.gone = False

    async def receiving(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
        elif self.status is None:
            self.gone = True
        return message

    async def sending(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id)]
        else:
            self.bytes_out += len(message.get("body", b""))
        await self._send(message)


def request_id(scope: Scope) -> bytes:
    """Return the caller's id for a request where it is sane, else a new one of 128 random bits."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and sane(value):
            given: bytes = value
            return given
    return new_id()


def known(query: bytes) -> dict[str, str]:
    """Return the parameters of a query that this service knows and that are numbers; everything else may be personal."""
    found = {}
    for pair in query[:1000].split(b"&"):
        name, _, value = pair.partition(b"=")
        if name in _KNOWN and _NUMBER.fullmatch(value):
            found[name.decode()] = value.decode()
    return found
