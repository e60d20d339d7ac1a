"""Fetch a picture that a request names by its URL. Off unless hosts are allowed; only public addresses are ever
connected to.

What could go wrong, and what stands against it:

- any address of the network around us: only allowed hosts, on their scheme's own port
- a name that leads to a private address, or to another one at the second look: it is looked up once, all of its
  addresses must be public, and the connection goes to the very address that was checked, with the name for TLS and
  `Host`
- a redirect to somewhere else: none is followed
- endless or huge answers: limits of bytes and time, nothing that is compressed
- reading through error messages what is not a picture: the bytes must begin as a picture does, and are never quoted
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

import h11
from pydantic import BaseModel, ConfigDict, Field

from plimsoll.core.duration import Duration
from plimsoll.serve.messages import Problem, RequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = r"(?=[a-z0-9.-]{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ALLOWED = r"^(?:\*\.)?[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?(?::[0-9]{1,5})?$"
_PORTS = {"https": 443, "http": 80}
_MAX_URL = 2048
_MAX_HEAD = 16_384
_CHUNK = 65_536
_TRIES = 3

# Global unicast (RFC 4291, 2.4); what else there is of IPv6 is local, reserved, multicast, or holds an IPv4 address.
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_TUNNELS = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))
_REFUSED = (
    ipaddress.IPv4Network(
        "192.0.0.0/24"
    ),  # for protocols; some clouds keep their metadata there, and older Pythons call parts of it global
    ipaddress.IPv4Network("168.63.129.16/32"),  # public by its number, but Azure's inner service
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays into 6to4 tunnels
)


class UrlSettings(BaseModel):
    """Whether pictures may be named by their URLs, and which."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: tuple[Annotated[str, Field(pattern=_ALLOWED)], ...] = ()
    """Allowed hosts in small letters: `media.example.org`, `*.example.org` (all below it, not itself), either with
    `:port`. None: URLs are off."""
    http: bool = False
    """Whether http:// is allowed beside https://."""
    max_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    """A larger picture is not fetched."""
    max_request_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """All pictures together that one request names."""
    timeout: Duration = Field(10.0, gt=0, le=300)
    """A picture that isn't there by then is given up."""
    at_once: int = Field(4, ge=1, le=64)
    """How many pictures of one request are fetched at the same time."""


@dataclass(frozen=True)
class Network:
    """How the world is reached. Tests bring their own; no setting leads here."""

    resolve: Callable[[str, int], Awaitable[Sequence[str]]]
    """Returns the addresses of a host; raises OSError."""
    admits: Callable[[Address], bool]
    """Whether an address may be connected to."""
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context


@dataclass(frozen=True)
class _Location:
    """A URL in its parts."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """Return the value of the header `Host`."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"


class _Allowance:
    """Bytes that a request may still fetch."""

    def __init__(self, count: int) -> None:
        self.left = count

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _refused(
                "the pictures that the request names are too large together", "Name fewer in one request.", 413
            )


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host as the system's resolver has them."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the public internet: not private, local, reserved, multicast, a cloud's own,
    or a tunnel to one of these."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        return address in _UNICAST and address.is_global and not any(address in tunnel for tunnel in _TUNNELS)
    return address.is_global and not address.is_multicast and not any(address in network for network in _REFUSED)


PUBLIC = Network(resolve, is_public)


async def fetch(url: str, settings: UrlSettings, network: Network = PUBLIC) -> bytes:
    """Return the picture file at a URL.

    Raises RequestError: `input` where the URL is not allowed or leads to too much, `image` where there is no picture,
    `unavailable` where its host doesn't answer with one, `deadline` where that takes too long.
    """
    return await _fetch(url, settings, network, _Allowance(settings.max_request_bytes))


async def fetch_all(urls: Sequence[str], settings: UrlSettings, network: Network = PUBLIC) -> list[bytes | Problem]:
    """Return what came of each URL of a request, in their order."""
    allowance = _Allowance(settings.max_request_bytes)
    gate = asyncio.Semaphore(settings.at_once)

    async def outcome(url: str) -> bytes | Problem:
        async with gate:
            try:
                return await _fetch(url, settings, network, allowance)
            except RequestError as refused:
                return refused.problem

    return list(await asyncio.gather(*(outcome(url) for url in urls)))


async def _fetch(url: str, settings: UrlSettings, network: Network, allowance: _Allowance) -> bytes:
    location = _parsed(url, settings)
    try:
        async with asyncio.timeout(settings.timeout):
            return _picture(
                await _download(location, await _addresses(location, network), settings, (network, allowance))
            )
    except TimeoutError:
        raise RequestError(
            Problem(
                "deadline", f"the picture was not there after {settings.timeout:g} s", "Send its bytes instead.", 504
            )
        ) from None
    except (OSError, h11.ProtocolError, asyncio.IncompleteReadError) as error:  # ssl's errors are OSErrors
        raise _unavailable(f"the picture can't be fetched from {location.host}: {_reason(error)}") from error


def _parsed(url: str, settings: UrlSettings) -> _Location:
    """Take a URL apart; raises RequestError where it is not one of those that are allowed."""
    if not settings.hosts:
        raise _refused(
            "pictures can't be named by URL here",
            "Send their bytes. Who runs this service may allow hosts: `[urls] hosts`.",
            400,
        )
    if len(url) > _MAX_URL or not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        raise _refused(
            "the URL is too long, or has characters that no URL has",
            "Write others as %XX, and a host's name in ASCII (xn--…).",
            400,
        )
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused(f"the URL can't be read: {error}", "", 400) from error
    schemes = ("https", "http") if settings.http else ("https",)
    if scheme not in schemes:
        raise _refused(f"the URL begins with '{scheme[:20]}:'; allowed: {', '.join(schemes)}", "", 400)
    if "@" in parts.netloc or not re.fullmatch(_HOST, host):
        raise _refused(
            "the URL has no plain host name",
            "User names, passwords and [addresses] are not allowed.",
            400,
        )
    location = _Location(
        scheme,
        host,
        port if port is not None else _PORTS[scheme],
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )
    if not any(_matches(location, entry) for entry in settings.hosts):
        raise _refused(
            f"pictures of {location.name} may not be fetched",
            "Send their bytes. Who runs this service may allow the host: `[urls] hosts`.",
            400,
        )
    return location


def _matches(location: _Location, entry: str) -> bool:
    name, _, port = entry.partition(":")
    if location.port != (int(port) if port else _PORTS[location.scheme]):
        return False
    return (
        location.host.endswith(name[1:]) and location.host != name[2:]
        if name.startswith("*.")
        else location.host == name
    )


async def _addresses(location: _Location, network: Network) -> list[str]:
    """Look a host up once; one address that is not public condemns them all, since a public host has none."""
    addresses = [
        ipaddress.ip_address(text.partition("%")[0]) for text in await network.resolve(location.host, location.port)
    ]
    if not addresses:
        raise _unavailable(f"{location.host} has no address")
    if not all(network.admits(address) for address in addresses):
        raise _refused(
            f"{location.host} leads to an address that is not public", "Only public addresses are connected to.", 400
        )
    return [str(address) for address in addresses[:_TRIES]]


async def _download(
    location: _Location, addresses: Sequence[str], settings: UrlSettings, reach: tuple[Network, _Allowance]
) -> bytes:
    network, allowance = reach
    secure = {"ssl": network.trust(), "server_hostname": location.host} if location.scheme == "https" else {}
    for number, address in enumerate(addresses, 1):
        try:
            reader, writer = await asyncio.open_connection(address, location.port, limit=_CHUNK, **secure)  # type: ignore[arg-type]
            break
        except ConnectionError:
            if number == len(addresses):
                raise
    try:
        return await _answer(reader, writer, location, (settings.max_bytes, allowance))
    finally:
        writer.transport.abort()  # nothing more is read, and a graceful end may take its time


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, location: _Location, limits: tuple[int, _Allowance]
) -> bytes:
    """Ask for the picture, and return its bytes."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    head = [
        ("Host", location.name),
        ("User-Agent", "Plimsoll"),
        ("Accept", "image/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    writer.write(connection.send(h11.Request(method="GET", target=location.path, headers=head)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    limit, allowance = limits
    chunks: list[bytes] = []
    size = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            _check(event, limit)
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > limit:
                raise _too_large(limit)
            allowance.take(len(event.data))
            chunks.append(bytes(event.data))
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            return b"".join(chunks)


def _check(response: h11.Response, limit: int) -> None:
    """Refuse an answer by its head: no redirect, no error, nothing compressed, nothing too large."""
    headers = {bytes(name): bytes(value) for name, value in response.headers}
    if 300 <= response.status_code < 400:
        raise _refused(
            f"the URL leads on to another (status {response.status_code}), and redirects are not followed",
            "Name the picture's own URL.",
            400,
        )
    if response.status_code != 200:
        raise _unavailable(f"the picture's host answered with status {response.status_code}")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise _unavailable("the picture's host sends it compressed, which was not requested")
    if int(headers.get(b"content-length", b"0")) > limit:
        raise _too_large(limit)


def _picture(data: bytes) -> bytes:
    """Return the data if it begins as a picture does."""
    from plimsoll.preprocessing.formats import sniff

    if sniff(data) is None:
        raise RequestError(
            Problem("image", "the URL does not lead to a picture", "Expected JPEG, PNG, WebP, GIF or BMP.", 415)
        )
    return data


def _refused(message: str, hint: str, status: int) -> RequestError:
    return RequestError(Problem("input", message, hint, status))


def _too_large(limit: int) -> RequestError:
    return _refused(f"the picture at the URL is larger than {limit:,} bytes", "Send a smaller one.", 413)


def _unavailable(message: str) -> RequestError:
    return RequestError(Problem("unavailable", message, "Send the picture's bytes instead.", 502))


def _reason(error: Exception) -> str:
    """Say in words what failed, without what the host has sent."""
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "it doesn't speak TLS as it should"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it doesn't speak HTTP as it should"
