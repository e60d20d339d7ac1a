"""One request over gRPC, a call or one message of a stream: who makes it, its deadline, and what is seen of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import unquote

import grpc

from plimsoll.serve.access.authorizer import FORWARDED, Caller, loopback
from plimsoll.serve.grpc.status import MISTAKE, Outcome
from plimsoll.serve.request_line import new_id, sane

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_MOST_KEY_BYTES = 256

Metadata = tuple[tuple[str, str], ...]


class Context(Protocol):
    """As much as is used here of `grpc.aio.ServicerContext`."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller gives up; None where it said nothing."""
        ...

    def peer(self) -> str:
        """The other side's address: `ipv4:127.0.0.1:50000`, `ipv6:%5B::1%5D:50000`, `unix:…`."""
        ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What the caller sent beside the message, names in lower case."""
        ...

    async def read(self) -> Any:
        """Wait for the next message; `grpc.aio.EOF` where there is none any more."""
        ...

    async def write(self, message: bytes) -> None:
        """Send a message of a stream."""
        ...

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Say what goes back beside the answer."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata) -> NoReturn:
        """End the call."""
        ...


class Call:
    """A request, and what is seen of it while it is answered.

    `state` is what `scope["state"]` is over HTTP: whoever answers leaves `model`, `pictures` and `milliseconds` there,
    for the log and for traces.
    """

    def __init__(self, context: Context, path: str, known_as: str | None = None) -> None:
        self.path = path
        """`/service/procedure`."""
        self.address = address_of(context.peer())
        """The caller's; empty for a Unix socket."""
        self._remaining = context.time_remaining
        self.began = time.perf_counter()
        self.began_ns = time.time_ns()
        self.metadata = tuple(
            (name, value if isinstance(value, bytes) else value.encode())
            for name, value in context.invocation_metadata() or ()
        )
        self.id = known_as or request_id(self.metadata)
        """Of a stream all requests have its id."""
        self.state: dict[str, Any] = {"request_id": self.id}
        self.bytes_in = 0
        self.bytes_out = 0
        self.received_ns: int | None = None
        self.outcome: Outcome = MISTAKE
        """What came of it, once that is known."""
        self.span: Span | None = None
        self.gone = False
        """Whether the caller gave up before."""
        self.failure: BaseException | None = None
        """A mistake of ours."""

    def received(self, size: int) -> None:
        """Note that the message is there."""
        self.bytes_in, self.received_ns = size, time.time_ns()

    def time_remaining(self) -> float | None:
        """Return how many seconds are left until the caller gives up; None where it said nothing."""
        return self._remaining()

    def caller(self) -> Caller:
        """Return who makes it: a key stands in `authorization: Bearer KEY` or `x-api-key: KEY`, as over HTTP."""
        tokens = set()
        passed_on = False
        for name, value in self.metadata:
            if name == "authorization":
                scheme, _, token = value.partition(b" ")
                if scheme.lower() == b"bearer":
                    tokens.add(token.strip()[:_MOST_KEY_BYTES])
            elif name == "x-api-key":
                tokens.add(value.strip()[:_MOST_KEY_BYTES])
            passed_on = passed_on or name in FORWARDED
        return Caller(frozenset(tokens), self.address, not passed_on and (not self.address or loopback(self.address)))


def request_id(metadata: Iterable[tuple[str, bytes]]) -> str:
    """Return the caller's id for a request where it is sane, else a new one."""
    for name, value in metadata:
        if name == "x-request-id" and sane(value):
            return value.decode()
    return new_id().decode()


def address_of(peer: str) -> str:
    """Return the IP address that gRPC tells of the other side; empty for a Unix socket."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")
