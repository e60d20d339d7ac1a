"""Whose request a proxy passes on: the address in `X-Forwarded-For`, as far as trusted proxies wrote it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

_HEADER = b"x-forwarded-for"
_MAX_ADDRESSES = 32
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """The networks in which proxies stand that name their callers."""

    def __init__(self, networks: Sequence[_Network] = ()) -> None:
        self._networks = networks

    def caller(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return who asks: the last address that a trusted proxy names and that is no trusted proxy itself.

        Whatever stands before it may be the caller's own invention. `peer`: the other end of the connection, empty for
        a Unix socket, which only trusted ones may open.
        """
        named = b",".join(value for name, value in headers if name == _HEADER)
        if not named or not self._trusts(peer):
            return peer
        caller = peer
        for text in reversed(named.decode("latin-1").split(",")[-_MAX_ADDRESSES:]):
            address = _read(text.strip())
            if address is None:
                break
            caller = str(address)
            if not self._trusts(caller):
                break
        return caller

    def _trusts(self, address: str) -> bool:
        if not address:
            return True
        parsed = _read(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def _read(text: str) -> _Address | None:
    """Return an address, with a port or without: `192.0.2.1:80`, `[2001:db8::1]:80`; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
