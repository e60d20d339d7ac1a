"""httpx: the only place that knows it, imported when a client is made."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from plimsoll.client.exchange import AttemptError, Exchange, Reply
from plimsoll.core.foreign import require
from plimsoll.core.version import __version__
from plimsoll.errors import InputError

if TYPE_CHECKING:
    import httpx

_CONNECT_S = 5.0
_KEEP_ALIVE_S = 4.0
"""How long an idle connection is kept: less than the 5 s after which servers commonly close theirs."""
_LONGEST_TIMEOUT_S = 3600.0
"""The longest timeout that a service accepts."""


@dataclass(frozen=True)
class ClientConfig:
    """Where a service is, and how a client calls it."""

    url: str
    key: str | None = field(repr=False)
    timeout: float
    """Seconds for a call with all its attempts, unless the caller sets another."""
    retries: int
    connections: int
    verify: str | bool
    """A file of certificates to trust; False trusts any."""

    def validated(self) -> Self:
        """Return itself; raises InputError where a value is invalid."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"invalid service address {self.url!r}", "Expected http://HOST:PORT or https://HOST.")
        if parts.username is not None or parts.query or parts.fragment:
            raise InputError("a service address has no user, query or fragment", "Pass a key as Client(url, key=…).")
        if self.key is not None and not (
            self.key.isascii() and self.key.isprintable() and self.key.strip() == self.key != ""
        ):
            raise InputError("the key contains invalid characters", "Is there a line break at its end?")
        if self.connections < 1:
            raise InputError(f"connections = {self.connections}: expected at least 1")
        return self

    def httpx_options(self) -> dict[str, Any]:
        """Return the arguments of httpx's clients; raises BackendMissingError where httpx is not installed."""
        httpx = require("httpx", "pip install 'plimsoll-line[client]'")

        headers = {"user-agent": f"plimsoll/{__version__}", "accept": "application/json"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        limits = httpx.Limits(
            max_connections=self.connections, max_keepalive_connections=self.connections, keepalive_expiry=_KEEP_ALIVE_S
        )
        return {
            "base_url": self.url.rstrip("/"),
            "headers": headers,
            "limits": limits,
            "verify": self._trust(),
            "follow_redirects": False,
        }

    def _trust(self) -> ssl.SSLContext | bool:
        if isinstance(self.verify, bool):
            return self.verify
        context = ssl.create_default_context()
        try:
            context.load_verify_locations(self.verify)
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                f"{self.verify}: can't read certificates from it: {error}", "Expected a PEM file."
            ) from error
        return context


def open_client(config: ClientConfig) -> httpx.Client:
    """Return a pool of connections."""
    options = config.httpx_options()
    import httpx

    return httpx.Client(**options)


def open_async_client(config: ClientConfig) -> httpx.AsyncClient:
    """Return a pool of connections for asyncio."""
    options = config.httpx_options()
    import httpx

    return httpx.AsyncClient(**options)


def send(client: httpx.Client, exchange: Exchange) -> Reply:
    """Make a call once; raises AttemptError."""
    import httpx

    left = exchange.remaining()
    deadline = time.monotonic() + left
    answering = False
    try:
        with client.stream(timeout=_timeout(left), **_request(exchange, left)) as response:
            answering = True
            parts = []
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > deadline:  # httpx's own limit is for each read
                    raise AttemptError("the reply comes too slowly", "late")
            return _reply(response, b"".join(parts))
    except httpx.RequestError as error:
        raise attempt_error(error, answering) from error


async def send_async(client: httpx.AsyncClient, exchange: Exchange) -> Reply:
    """Make a call once; raises AttemptError."""
    import httpx

    left = exchange.remaining()
    answering = False
    try:
        async with asyncio.timeout(left), client.stream(timeout=_timeout(left), **_request(exchange, left)) as response:
            answering = True
            return _reply(response, await response.aread())
    except TimeoutError as error:
        raise AttemptError("out of time", "late") from error
    except httpx.RequestError as error:
        raise attempt_error(error, answering) from error


def attempt_error(error: httpx.RequestError, answering: bool) -> AttemptError:
    """Return how an attempt failed; `answering`: whether the head of a reply had come."""
    import httpx

    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        # A certificate that isn't trusted won't be a second later.
        return AttemptError(reason, "broken" if _is_certificate_error(error) else "unsent")
    if isinstance(error, httpx.TimeoutException):
        return AttemptError(reason, "late")
    if not answering and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return AttemptError(reason, "dropped")
    return AttemptError(reason, "broken")


def _is_certificate_error(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _request(exchange: Exchange, left: float) -> dict[str, Any]:
    call = exchange.call
    # The service learns how long the caller waits, so that it computes nothing in vain.
    params = (
        {**call.params, "timeout": f"{min(left, _LONGEST_TIMEOUT_S):.3f}"} if call.method == "POST" else call.params
    )
    return {
        "method": call.method,
        "url": call.path,
        "params": params,
        "headers": {**call.headers, "x-request-id": exchange.request_id},
        "content": call.body,
    }


def _timeout(left: float) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(left, connect=min(left, _CONNECT_S))


def _reply(response: httpx.Response, body: bytes) -> Reply:
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)
