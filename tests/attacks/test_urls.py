"""Hostile URLs, and hostile servers at them: none leads into the network around us, and none holds us up."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest

from helpers.picture_servers import Handler, answer, local_network, serve_pictures
from plimsoll.serve.http.urls import PUBLIC, Network, UrlSettings, fetch, is_public
from plimsoll.serve.messages import RequestError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
NOT_PUBLIC = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "192.88.99.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "100::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1"],
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def names(*addresses: str) -> Network:
    async def resolve(host: str, port: int) -> Sequence[str]:
        del host, port
        return addresses

    return Network(resolve, is_public)


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("1.1.1.1", "10.0.0.1"), ("::ffff:169.254.169.254",), ("fe80::1%eth0",), ("169.254.169.254",)],
)
def test_an_allowed_name_that_leads_inside_is_not_asked(addresses: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match="not public") as refused:
        asyncio.run(
            fetch("https://media.example.org/a.png", UrlSettings(hosts=("media.example.org",)), names(*addresses))
        )
    assert not any(address in str(refused.value) for address in addresses), (
        "an outsider doesn't learn what names mean in here"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "0"])
def test_no_way_of_writing_this_machine_helps_even_if_it_is_allowed(host: str) -> None:
    """With the real resolver, which reads all of these."""

    async def fetching() -> None:
        async with serve_pictures(answer(PNG)) as server:
            settings = UrlSettings(hosts=(f"{host}:{server.port}",), http=True)
            with pytest.raises(RequestError, match=r"not public|can't be fetched"):
                await fetch(f"http://{host}:{server.port}/", settings, PUBLIC)
            assert not server.heads

    asyncio.run(fetching())


@pytest.mark.parametrize(
    "url",
    [
        "http://media.example.org/a.png",
        "ftp://media.example.org/a.png",
        "file:///etc/passwd",
        "gopher://media.example.org/_GET",
        "//media.example.org/a.png",
        "media.example.org/a.png",
        "https://media.example.org.evil.com/a.png",
        "https://evilmedia.example.org/a.png",
        "https://sub.media.example.org/a.png",
        "https://cdn.example.net/a.png",
        "https://a.cdn.example.net.evil.com/a.png",
        "https://media.example.org:8443/a.png",
        "https://media.example.org:99999/a.png",
        "https://media.example.org:x/a.png",
        "https://media.example.org@127.0.0.1/a.png",
        "https://127.0.0.1@media.example.org/a.png",
        "https://user:word@media.example.org/a.png",
        "https://evil.com\\@media.example.org/a.png",
        "https://evil.com#@media.example.org/a.png",
        "https://evil.com?@media.example.org/a.png",
        "https://media.example.org\r\nHost: evil.com/a.png",
        "https://media.example.org/a.png HTTP/1.1\r\nX: y",
        "https://media.example.org\t/a.png",
        "https://[::1]/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://[media.example.org]/a.png",
        "https://media。example。org/a.png",
        "https://ｍedia.example.org/a.png",
        "https:///a.png",
        "https://media.example.org./a.png",
        "https://-media.example.org/a.png",
        "https://media.example.org/" + "a" * 3000,
        "",
        "https://",
        "\x00",
    ],
)
def test_urls_that_are_not_among_the_allowed(url: str) -> None:
    """Each is refused before anything is looked up."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError(f"{host}:{port} was looked up")

    settings = UrlSettings(hosts=("media.example.org", "*.cdn.example.net"))
    with pytest.raises(RequestError) as refused:
        asyncio.run(fetch(url, settings, Network(resolve, is_public)))
    assert refused.value.problem.kind == "input"
    assert refused.value.problem.status == 400


async def _from(what: bytes | Handler, **settings: object) -> bytes:
    async with serve_pictures(what) as server:
        given = UrlSettings.model_validate(
            {"hosts": (f"media.example.org:{server.port}",), "http": True, "timeout": 20.0, **settings}
        )
        return await fetch(f"http://media.example.org:{server.port}/a.png", given, local_network())


@pytest.mark.parametrize(
    "status",
    [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
        "300 Choices",
        "304 Not Modified",
    ],
)
def test_no_redirect_is_followed(status: str) -> None:
    async def fetching() -> None:
        async with serve_pictures(answer(PNG)) as inside:
            with pytest.raises(RequestError, match="redirects are not followed"):
                await _from(answer(b"", status, f"Location: http://127.0.0.1:{inside.port}/", "Content-Length: 0"))
            assert not inside.heads

    asyncio.run(fetching())


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (answer(b"secret=hunter2\n"), "not lead to a picture"),
        (answer(b""), "not lead to a picture"),
        (
            answer(
                b"<svg xmlns='http://www.w3.org/2000/svg'/>", "200 OK", "Content-Type: image/png", "Content-Length: 41"
            ),
            "not lead to a picture",
        ),
        (answer(PNG, "404 Not Found"), "status 404"),
        (answer(PNG, "206 Partial Content"), "status 206"),
        (answer(PNG, "200 OK", "Content-Encoding: gzip", f"Content-Length: {len(PNG)}"), "compressed"),
        (answer(PNG, "200 OK", "Content-Length: 999999999"), "larger than"),
        (answer(PNG, "200 OK", "Content-Length: 99999999999999999999999999"), "larger than|HTTP as it should"),
        (answer(PNG, "200 OK", "Content-Length: -1"), "HTTP as it should"),
        (answer(PNG, "200 OK", "Content-Length: 5", "Content-Length: 2008"), "HTTP as it should"),
        (answer(PNG, "200 OK", f"Content-Length: {len(PNG) + 50}"), "HTTP as it should"),
        (answer(b"zz\r\n", "200 OK", "Transfer-Encoding: chunked"), "HTTP as it should"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "HTTP as it should"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000, "HTTP as it should"),
        (b"", "HTTP as it should"),
    ],
)
def test_what_is_not_an_honest_picture_is_reported_in_words_and_never_shown(what: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words) as refused:
        asyncio.run(_from(what, max_bytes=4096))
    assert "hunter2" not in str(refused.value)


def test_an_endless_picture_ends() -> None:
    sent = 0

    async def pour(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        del head
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + PNG[:16].ljust(65536, b"x") + b"\r\n")
            sent += 65536
            await writer.drain()

    with pytest.raises(RequestError, match="larger than"):
        asyncio.run(_from(pour, max_bytes=1_000_000))
    assert sent < 20_000_000


@pytest.mark.parametrize("slow", ["head", "body"])
def test_a_server_that_dawdles_is_given_up(slow: str) -> None:
    async def trickle(head: bytes, writer: asyncio.StreamWriter) -> None:
        del head
        writer.write(b"HTTP/1.1 200 OK\r\n" if slow == "head" else b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"X-Y: z\r\n" if slow == "head" else b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    with pytest.raises(RequestError) as refused:
        asyncio.run(_from(trickle, timeout=0.6))
    assert refused.value.problem.kind == "deadline"
    assert refused.value.problem.status == 504


def test_a_name_is_looked_up_once_and_the_checked_address_is_asked() -> None:
    """A second look could lead elsewhere (DNS rebinding)."""
    looks = 0

    async def fetching() -> None:
        async with serve_pictures(answer(PNG)) as server:

            async def resolve(host: str, port: int) -> Sequence[str]:
                nonlocal looks
                del host, port
                looks += 1
                return ["127.0.0.1"] if looks == 1 else ["192.0.2.1"]

            network = Network(resolve, lambda address: str(address) == "127.0.0.1")
            settings = UrlSettings(hosts=(f"media.example.org:{server.port}",), http=True)
            assert await fetch(f"http://media.example.org:{server.port}/", settings, network) == PNG

    asyncio.run(fetching())
    assert looks == 1
