"""What is known of a call: its deadline, and who makes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn, Protocol
from urllib.parse import unquote

import grpc

from plimsoll.serve.access.doorkeeper import Caller, loopback

_FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-real-ip", "via"})
"""A proxy passes these on: then the program that asks isn't certainly one of this machine."""
_MOST_KEY_BYTES = 256


class Call(Protocol):
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

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: tuple[tuple[str, str], ...]) -> NoReturn:
        """End the call."""
        ...


def caller_of(call: Call) -> Caller:
    """Return who makes a call: a key stands in `authorization: Bearer KEY` or `x-api-key: KEY`, as over HTTP."""
    tokens = set()
    passed_on = False
    for name, value in call.invocation_metadata() or ():
        text = value if isinstance(value, bytes) else value.encode()
        if name == "authorization":
            scheme, _, token = text.partition(b" ")
            if scheme.lower() == b"bearer":
                tokens.add(token.strip()[:_MOST_KEY_BYTES])
        elif name == "x-api-key":
            tokens.add(text.strip()[:_MOST_KEY_BYTES])
        passed_on = passed_on or name in _FORWARDED
    address = address_of(call.peer())
    return Caller(frozenset(tokens), address, not passed_on and (not address or loopback(address)))


def address_of(peer: str) -> str:
    """Return the IP address that gRPC tells of the other side; empty for a Unix socket."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")
