"""Pictures that are named by their URLs: what is fetched, and how."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from helpers.picture_servers import answer, certificate, local_network, serve_pictures
from plimsoll.serve.http.urls import UrlSettings, fetch, fetch_all
from plimsoll.serve.messages import Problem, RequestError


def http(port: int, **more: object) -> UrlSettings:
    return UrlSettings.model_validate({"hosts": (f"media.example.org:{port}",), "http": True, **more})


def test_a_picture_is_fetched_from_the_address_that_was_looked_up(example_photos: list[Path]) -> None:
    data = example_photos[0].read_bytes()

    async def fetching() -> None:
        async with serve_pictures(answer(data)) as server:
            got = await fetch(
                f"http://media.example.org:{server.port}/a/b.jpg?x=1#part", http(server.port), local_network()
            )
            assert got == data
            head = server.heads[0]
            assert head.startswith(b"GET /a/b.jpg?x=1 HTTP/1.1\r\n")
            assert f"Host: media.example.org:{server.port}\r\n".lower().encode() in head.lower()
            assert b"accept-encoding: identity" in head.lower()

    asyncio.run(fetching())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's command is not installed")
def test_tls_is_spoken_with_the_name_though_the_address_is_connected(
    tmp_path: Path, example_photos: list[Path]
) -> None:
    data = example_photos[0].read_bytes()
    server_side, client_side = certificate(tmp_path, "media.example.org")
    _, stranger = certificate(tmp_path, "other.example.org")

    async def fetching() -> None:
        async with serve_pictures(answer(data), server_side) as server:
            url = f"https://media.example.org:{server.port}/a.jpg"
            settings = UrlSettings(hosts=(f"*.example.org:{server.port}",))
            assert await fetch(url, settings, local_network(client_side)) == data
            assert server.names == ["media.example.org"]
            with pytest.raises(RequestError, match="certificate is not valid"):
                await fetch(url, settings, local_network(stranger))
            with pytest.raises(RequestError, match="certificate is not valid"):
                await fetch(url.replace("media", "evil"), settings, local_network(client_side))

    asyncio.run(fetching())


def test_each_url_of_a_request_has_its_own_outcome_in_its_place(example_photos: list[Path]) -> None:
    data = example_photos[0].read_bytes()

    async def fetching() -> None:
        async with serve_pictures(answer(data)) as server:
            good = f"http://media.example.org:{server.port}/a.jpg"
            outcomes = await fetch_all(
                [good, "http://elsewhere.example.org/a.jpg", good], http(server.port), local_network()
            )
            assert outcomes[0] == outcomes[2] == data
            assert isinstance(outcomes[1], Problem)
            assert "may not be fetched" in outcomes[1].message
            small = await fetch_all(
                [good, good], http(server.port, max_request_bytes=len(data) + 10, at_once=1), local_network()
            )
            assert small[0] == data
            assert isinstance(small[1], Problem)
            assert small[1].status == 413

    asyncio.run(fetching())


def test_urls_are_off_by_default_and_nothing_is_asked() -> None:
    with pytest.raises(RequestError, match="can't be named by URL here"):
        asyncio.run(fetch("https://media.example.org/a.jpg", UrlSettings()))


@pytest.mark.parametrize(
    "host",
    [
        "*",
        "*.",
        "EXAMPLE.org",
        "https://example.org",
        "example.org/",
        "a b",
        "user@example.org",
        "",
        "*.*.org",
        "ex*mple.org",
    ],
)
def test_what_is_not_a_host_is_not_a_setting(host: str) -> None:
    with pytest.raises(ValidationError):
        UrlSettings(hosts=(host,))
