"""What browsers say of a request: whether a web page sent it, and whose.

Without keys a service trusts whoever reaches its port. Browsers reach it too, for any page that their user opens: a
POST without a body needs no permission of ours (no preflight), and a page may make its own name lead to 127.0.0.1 (DNS
rebinding). So requests that change something or cost something are refused where another site's page sends them, and
what only programs on this machine may do needs a `Host` that no page can choose.

After Go's `http.CrossOriginProtection`, https://words.filippo.io/csrf/.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing (RFC 9110, 9.2.1); a page of another origin can send them, and not read the answers."""
OWN_SITE = frozenset({b"same-origin", b"none"})
"""`none`: the user typed the address, or opened a bookmark."""


def is_foreign_page(headers: Iterable[tuple[bytes, bytes]], allowed: Sequence[str]) -> bool:
    """Return whether a web page of an origin that isn't `allowed` (`*`: all are) sent a request.

    `Sec-Fetch-Site`, which no page can set, decides where it is there; else `Origin` must name the host that was asked.
    A request without either is no browser's.
    """
    if "*" in allowed:
        return False
    sites: set[bytes] = set()
    origins: set[bytes] = set()
    hosts: set[bytes] = set()
    for name, value in headers:
        if name == b"sec-fetch-site":
            sites.add(value.strip().lower())
        elif name == b"origin":
            origins.add(value.strip())
        elif name in (b"host", b"x-forwarded-host"):
            hosts.add(value.strip().lower())
    if origins and {origin.decode("latin-1") for origin in origins} <= set(allowed):
        return False
    if sites:
        return not sites <= OWN_SITE
    return any(_host_of(origin) not in hosts for origin in origins)


def _host_of(origin: bytes) -> bytes:
    """Return the host and port in an origin as `Host` writes them; empty for `null` and what is no origin."""
    try:
        parts = urlsplit(origin.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        return b""
    return parts.netloc.lower().encode() if parts.scheme in ("http", "https") else b""


@lru_cache(1024)
def names_this_machine(host: bytes) -> bool:
    """Return whether the value of `Host` is an address, `localhost` or this machine's name: no name that a stranger's
    DNS could lead here."""
    try:
        name = urlsplit(f"//{host.decode('ascii')}").hostname or ""
    except (UnicodeDecodeError, ValueError):
        return False
    if name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
