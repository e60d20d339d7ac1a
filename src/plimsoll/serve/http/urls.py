"""Fetch a picture that a request names by its URL. Off unless hosts are allowed; nothing that is not public is ever
asked.

What could go wrong, and what stands against it:

- any address of the network around us: only allowed hosts, on their scheme's own port
- a name that leads to a private address, or to another one at the second look: it is looked up once, all of its
  addresses must be public, and the connection goes to the very address that was checked, with the name for TLS and
  `Host`
- a redirect to somewhere else: none is followed
- endless or huge answers: limits of bytes and time, nothing that is compressed
- reading what is no picture through error messages: the bytes must begin as a picture does, and are never shown
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
    """Whether an address may be asked."""
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context


@dataclass(frozen=True)
class _Place:
    """A URL in parts."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """Return what stands in `Host`."""
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
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


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

    async def one(url: str) -> bytes | Problem:
        async with gate:
            try:
                return await _fetch(url, settings, network, allowance)
            except RequestError as refused:
                return refused.problem

    return list(await asyncio.gather(*(one(url) for url in urls)))


async def _fetch(url: str, settings: UrlSettings, network: Network, allowance: _Allowance) -> bytes:
    place = _parsed(url, settings)
    try:
        async with asyncio.timeout(settings.timeout):
            return _picture(await _got(place, await _addresses(place, network), settings, (network, allowance)))
    except TimeoutError:
        raise RequestError(
            Problem(
                "deadline", f"the picture was not there after {settings.timeout:g} s", "Send its bytes instead.", 504
            )
        ) from None
    except (OSError, h11.ProtocolError, asyncio.IncompleteReadError) as error:  # ssl's errors are OSErrors
        raise _unavailable(f"the picture can't be fetched from {place.host}: {_reason(error)}") from error


def _parsed(url: str, settings: UrlSettings) -> _Place:
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
            "Neither names and passwords nor [addresses] can stand before it or in its place.",
            400,
        )
    place = _Place(
        scheme,
        host,
        port if port is not None else _PORTS[scheme],
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )
    if not any(_matches(place, entry) for entry in settings.hosts):
        raise _refused(
            f"pictures of {place.name} may not be fetched",
            "Send their bytes. Who runs this service may allow the host: `[urls] hosts`.",
            400,
        )
    return place


def _matches(place: _Place, entry: str) -> bool:
    name, _, port = entry.partition(":")
    if place.port != (int(port) if port else _PORTS[place.scheme]):
        return False
    return place.host.endswith(name[1:]) and place.host != name[2:] if name.startswith("*.") else place.host == name


async def _addresses(place: _Place, network: Network) -> list[str]:
    """Look a host up once; one address that is not public condemns them all, since a name of the public has no such."""
    found = [ipaddress.ip_address(text.partition("%")[0]) for text in await network.resolve(place.host, place.port)]
    if not found:
        raise _unavailable(f"{place.host} has no address")
    if not all(network.admits(address) for address in found):
        raise _refused(
            f"{place.host} leads to an address that is not public", "Only the public internet is asked.", 400
        )
    return [str(address) for address in found[:_TRIES]]


async def _got(
    place: _Place, addresses: Sequence[str], settings: UrlSettings, reach: tuple[Network, _Allowance]
) -> bytes:
    network, allowance = reach
    secure = {"ssl": network.trust(), "server_hostname": place.host} if place.scheme == "https" else {}
    for number, address in enumerate(addresses, 1):
        try:
            reader, writer = await asyncio.open_connection(address, place.port, limit=_CHUNK, **secure)  # type: ignore[arg-type]
            break
        except ConnectionError:
            if number == len(addresses):
                raise
    try:
        return await _answer(reader, writer, place, (settings.max_bytes, allowance))
    finally:
        writer.transport.abort()  # Nothing more is wanted of it, and a polite end may take its time.


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: _Place, limits: tuple[int, _Allowance]
) -> bytes:
    """Ask for the picture, and return its bytes."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    head = [
        ("Host", place.name),
        ("User-Agent", "Plimsoll"),
        ("Accept", "image/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    writer.write(connection.send(h11.Request(method="GET", target=place.path, headers=head)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    most, allowance = limits
    chunks: list[bytes] = []
    size = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            _check(event, most)
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > most:
                raise _too_large(most)
            allowance.take(len(event.data))
            chunks.append(bytes(event.data))
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            return b"".join(chunks)


def _check(response: h11.Response, most: int) -> None:
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
        raise _unavailable("the picture's host sends it compressed, though nobody asked for that")
    if int(headers.get(b"content-length", b"0")) > most:
        raise _too_large(most)


def _picture(data: bytes) -> bytes:
    """Return the data if it begins as a picture does."""
    from plimsoll.preprocessing.decode import sniff  # Pillow comes with it, which a service without URLs doesn't need.

    if sniff(data) is None:
        raise RequestError(
            Problem("image", "what is at the URL is no picture", "JPEG, PNG, WebP, GIF and BMP are.", 415)
        )
    return data


def _refused(message: str, hint: str, status: int) -> RequestError:
    return RequestError(Problem("input", message, hint, status))


def _too_large(most: int) -> RequestError:
    return _refused(f"the picture at the URL is larger than {most:,} bytes", "Send a smaller one.", 413)


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
