"""`LimitedProtocol`: uvicorn's HTTP/1.1 with limits that it doesn't have: for the head of a request (a time, a size, a
count), for answers that nobody reads, and for connections; and without upgrades, but to WebSocket."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from plimsoll.serve.settings import Settings

_HEAD_BYTES = 65_536
_HEADERS = 200
_HEAD_PIECE, _CHUNKS_PIECE = 1024, 2048
"""So much is parsed at once of what may be many heads, and of a chunked body, behind which heads may come: what comes
together on sixty connections would keep others waiting."""
_LINGER_S = 1.0
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_READ_BYTES = 262_144
"""A caller that reads reads at least so much in `write_timeout`."""
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_NOT_HTTP2 = (
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # SETTINGS
    b"\x00\x00\x34\x07\x00\x00\x00\x00\x00"  # GOAWAY
    b"\x00\x00\x00\x00\x00\x00\x00\x0d"  # no stream was looked at; HTTP_1_1_REQUIRED (RFC 9113, 7)
    b"this service speaks HTTP/1.1; nginx speaks 2"
)
"""What callers read who begin with HTTP/2."""
_log = logging.getLogger("plimsoll.serve")


class UnreadAnswers:
    """The connections whose callers don't read as fast as they are answered."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[LimitedProtocol, None] = {}

    def add(self, connection: LimitedProtocol) -> None:
        """Note a connection that can't take more; those that wait longest are cut where all hold too much."""
        self._waiting[connection] = None
        held = {waiting: waiting.unsent_bytes for waiting in self._waiting}
        while sum(held.values()) > self._limit:
            longest = next(iter(held))
            del held[longest]
            longest.cut("answers that nobody reads hold too much memory")

    def remove(self, connection: LimitedProtocol) -> None:
        """Forget one that reads again, or is gone."""
        self._waiting.pop(connection, None)


class _Flow(FlowControl):
    """Reads no more while a connection holds requests that it hasn't parsed, whoever wants to read on."""

    holding = False

    def resume_reading(self) -> None:
        if not self.holding:
            super().resume_reading()


class LimitedProtocol(HttpToolsProtocol):
    """A connection. `limited` makes the class for a service."""

    settings: ClassVar[Settings]
    unread: ClassVar[UnreadAnswers]
    _timeout: Any = None
    _write_timeout: Any = None
    _unsent_before = 0
    _in_head = True
    _head_bytes = 0
    _refused = False
    _replaying = False
    _body_left = 0
    """Bytes of a body that are still to come; 0 where it is chunked."""
    _held = b""
    """What was read behind a request that waits for the answer to another one; parsed when its turn comes."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        self._body_pieces: list[bytes] = []
        self._limit_head()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._held:
            self._held += data
            return
        if self.timeout_keep_alive_task is not None:  # what comes may be blank lines, which begin no request
            self._unset_keepalive_if_required()
            self._limit_head()
        if data.startswith(_HTTP2_PREFACE) and self._in_head and self.cycle is None:
            self._refused = True
            self.transport.write(_NOT_HTTP2)
            self.loop.call_later(_LINGER_S, self.transport.close)
            return
        try:
            try:
                self._feed(data)
                self._pass_body_on()
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
                if not self._should_upgrade():
                    self._stay_with_http(rest)
                elif rest:  # frames before the handshake was answered
                    self.transport.close()
                else:
                    self.handle_websocket_upgrade()
                    return
        except httptools.HttpParserError:
            self._refused = True
            self._refuse_invalid()
            return
        self._refuse_long_head()

    def _feed(self, data: bytes) -> None:
        """Parse data in pieces, until a request waits for the answer to another one; the rest is held."""
        start = 0
        while start < len(data):
            piece = _HEAD_PIECE if self._in_head else self._body_left or _CHUNKS_PIECE
            end = min(len(data), start + piece)
            self._head_bytes += end - start
            try:
                self.parser.feed_data(memoryview(data)[start:end])
            except httptools.HttpParserUpgrade as upgrade:
                raise httptools.HttpParserUpgrade(start + upgrade.args[0]) from upgrade
            start = end
            if self.pipeline and start < len(data):
                self._hold(data[start:])
                return

    def _hold(self, data: bytes) -> None:
        self._held = data
        self.flow.pause_reading()
        self.flow.holding = True
        self._cancel_timeout()  # of a head that is here

    def _read_on(self) -> None:
        """Parse what was held."""
        data, self._held = self._held, b""
        self.flow.holding = False
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self._in_head:
                self._limit_head()
            self.data_received(data)

    def _refuse_invalid(self) -> None:
        """Answer what is no request, or one too many, with 400: behind the answers to those that came before it."""
        last: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn's types say
        if last is None or (last.response_complete and not self.pipeline):
            self.send_400_response("Invalid HTTP request received.")
        elif self._in_head:
            last.keep_alive = False
            self.flow.resume_reading()  # what is left unread would reset the connection before the answers are read
        elif self.pipeline or last.response_started:  # the rest of its body is damaged
            self.transport.close()
        else:
            self.send_400_response("Invalid HTTP request received.")

    def _refuse_long_head(self) -> None:
        if self._head_bytes > _HEAD_BYTES and not self._refused and not self.transport.is_closing():
            self._refused = True
            if not self._in_head:  # an answer may be on its way
                self.transport.close()
                return
            self.transport.write(_TOO_LONG)
            # Closing at once would reset the connection before the caller has read this.
            self.loop.call_later(_LINGER_S, self.transport.close)

    def _limit_head(self) -> None:
        self._cancel_timeout()
        self._timeout = self.loop.call_later(self.settings.header_timeout, self.transport.close)

    def _should_upgrade(self) -> bool:
        """Return whether the request that is being read becomes a WebSocket: alone on its connection, without a body,
        and where there is room."""
        requested = super()._should_upgrade() and self.scope["method"] == "GET"
        last: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn's types say
        alone = last is None or (last.response_complete and not self.pipeline)
        framed = any(name in _FRAMING for name, _ in self.headers)
        return requested and alone and not framed and len(self.connections) <= self.settings.max_connections

    def _stay_with_http(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 after a request to upgrade (RFC 9110, 7.8: a server may ignore it).

        The parser takes what follows for another protocol, so another one reads on: first what it has to know of the
        body, then the body, of which the request was told that it is over.
        """
        if self.transport.is_closing():
            return
        framing = [name + b": " + value + b"\r\n" for name, value in self.headers if name in _FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        if framing:
            self._replaying = True
            try:
                self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
            finally:
                self._replaying = False
        if rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        if self._replaying:
            return
        super().on_message_begin()
        self._in_head, self._body_left = True, 0
        self._limit_head()

    def on_url(self, url: bytes) -> None:
        if not self._replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # trailers are no headers (RFC 9110, 6.5.1): who checked those of a request has not seen them
        name = name.lower()
        if name == b"content-length" and value.isdigit():
            self._body_left = int(value)
        if self._replaying:
            return
        super().on_header(name, value)
        if len(self.headers) > _HEADERS:
            raise ValueError("too many headers")
        if name == b"host" and any(before == name for before, _ in self.headers[:-1]):
            raise ValueError("several hosts")  # who reads the other one sees another request (RFC 9112, 3.2)
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise ValueError("an unknown transfer coding")

    def on_headers_complete(self) -> None:
        if self._replaying:
            self._in_head = False
            self.cycle.more_body = True
            return
        self._in_head, self._head_bytes = False, 0
        self._cancel_timeout()
        super().on_headers_complete()
        if len(self.connections) > self.settings.max_connections:
            self.scope["state"]["crowded"] = True

    def on_body(self, body: bytes) -> None:
        self._body_left = max(0, self._body_left - len(body))
        self._body_pieces.append(body)

    def _pass_body_on(self) -> None:
        """Pass on what was read of a body, at once: uvicorn would copy all of it for each chunk, and what is read at
        once may hold tens of thousands.

        What the application takes as soon as it comes is not copied at all: uvicorn adds to an array of bytes, and
        makes bytes of that again.
        """
        if self._body_pieces:
            piece = b"".join(self._body_pieces)
            if self.cycle.body or self.parser.should_upgrade():
                super().on_body(piece)
            elif not self.cycle.response_complete:
                self.cycle.body = piece  # type: ignore[assignment]  # it is only ever read, or replaced
                if len(piece) > HIGH_WATER_LIMIT:
                    self.flow.pause_reading()
                self.cycle.message_event.set()
            self._body_pieces.clear()
            self._head_bytes = 0  # from here on it counts what is neither a head nor a body: trailers, sizes of chunks

    def on_message_complete(self) -> None:
        self._pass_body_on()
        self._in_head, self._head_bytes = True, 0
        if self._replaying:  # a body of no bytes
            self.cycle.more_body = False
            return
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        self._reads_again()
        super().connection_lost(exc)

    @property
    def unsent_bytes(self) -> int:
        """How much was written that the caller hasn't taken."""
        return int(self.transport.get_write_buffer_size())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent_before = self.unsent_bytes
        self._write_timeout = self.loop.call_later(self.settings.write_timeout, self._check_reading)
        self.unread.add(self)

    def resume_writing(self) -> None:
        self._reads_again()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end_if_unread()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline and not self._refused:  # uvicorn would read more at each answer
            self.flow.pause_reading()
        elif self._held:
            self.loop.call_soon(self._read_on)
        self._end_if_unread()

    def _end_if_unread(self) -> None:
        """Limit how long a connection that is being closed waits for its caller to read the rest."""
        if self.transport.is_closing() and self.unsent_bytes:
            self.loop.call_later(self.settings.write_timeout, self.transport.abort)

    def cut(self, reason: str) -> None:
        """End the connection, and what it holds."""
        _log.warning("%s: the connection is cut: %s", self.client[0] if self.client else "a caller", reason)
        self._reads_again()
        self.transport.abort()

    def _check_reading(self) -> None:
        before, self._unsent_before = self._unsent_before, self.unsent_bytes
        if before - self._unsent_before < min(_READ_BYTES, before):
            self.cut(f"nobody has read its answer for {self.settings.write_timeout:g} s")
        else:
            self._write_timeout = self.loop.call_later(self.settings.write_timeout, self._check_reading)

    def _reads_again(self) -> None:
        self.unread.remove(self)
        if self._write_timeout is not None:
            self._write_timeout.cancel()
            self._write_timeout = None

    def _cancel_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None


def limited(settings: Settings) -> type[LimitedProtocol]:
    """Return the protocol with these limits."""
    return type(
        "ServiceProtocol",
        (LimitedProtocol,),
        {"settings": settings, "unread": UnreadAnswers(settings.max_unsent_bytes)},
    )
