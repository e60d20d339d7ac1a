"""What a hostile caller sends in place of a key, and what a hostile or broken file of keys holds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from helpers.asgi_servers import endpoint, http_app, serve_app
from plimsoll.errors import InputError
from plimsoll.serve.access import keys
from plimsoll.serve.access.authorizer import AccessSettings, caller_of
from plimsoll.serve.access.keys import Key, KeyStore, Terms
from plimsoll.serve.access.origins import is_foreign_page, names_this_machine
from plimsoll.serve.request import Operation


async def open_house(_: Request) -> Response:
    """What is guarded."""
    return Response(b"in")


HOUSE = [
    endpoint(Operation("/healthz", "operations", None), open_house),
    endpoint(Operation("/page/{file}", "page", None), open_house),
    endpoint(Operation("/v1/models", "native", "predict"), open_house),
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A guarded application over HTTP, and a good key."""
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    token, entry = keys.issue("one", Terms())
    keys.write(file, [entry])
    access = AccessSettings(keys=file)
    with serve_app(http_app(HOUSE, access)) as url:
        yield url, token


def ask(url: str, head: bytes) -> bytes:
    """Send bytes as they are; return the first line of the answer."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head)
        answer = b""
        while b"\r\n" not in answer and (more := connection.recv(65536)):
            answer += more
    return answer.partition(b"\r\n")[0]


def request(*headers: bytes, target: bytes = b"/v1/models", method: bytes = b"GET") -> bytes:
    return (
        method
        + b" "
        + target
        + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        + b"".join(header + b"\r\n" for header in headers)
        + b"\r\n"
    )


def test_the_good_key_opens(guarded: tuple[str, str]) -> None:
    assert b"200" in ask(guarded[0], request(b"Authorization: Bearer " + guarded[1].encode()))


HEADERS: dict[str, bytes] = {
    "none": b"X-Nothing: 1",
    "empty": b"Authorization:",
    "bearer alone": b"Authorization: Bearer",
    "another's": b"Authorization: Bearer plm_00000000_" + b"A" * 43,
    "a megabyte": b"Authorization: Bearer " + b"A" * 1_000_000,
    "the good one and more": b"Authorization: Bearer GOOD" + b"A" * 1000,
    "the good one and a zero": b"Authorization: Bearer GOOD\xc0\x80",
    "other digits": b"Authorization: Bearer " + "plm_００００００００_".encode() + b"A" * 43,
    "high bytes": b"Authorization: Bearer \xff\xfe\xfd",
    "wide": "X-API-Key: ключ".encode(),
    "a list": b"Authorization: Bearer GOOD, GOOD",
    "in basic": b"Authorization: Basic GOOD",
    "in a cookie": b"Cookie: key=GOOD",
    "under another name": b"X_API_Key: GOOD",
    "a pattern": b"Authorization: Bearer plm_........_" + b"." * 43,
    "forwarded": b"X-Forwarded-For: 127.0.0.1",
    "another path": b"X-Original-URL: /healthz",
}


@pytest.mark.parametrize("what", HEADERS)
def test_nothing_else_does(guarded: tuple[str, str], what: str) -> None:
    url, token = guarded
    answer = ask(url, request(HEADERS[what].replace(b"GOOD", token.encode())))
    assert any(status in answer for status in (b" 400 ", b" 401 ", b" 431 ")), answer


@pytest.mark.parametrize(
    "target",
    [
        b"/healthz/../v1/models",
        b"/page/../v1/models",
        b"/healthz%2f..%2fv1/models",
        b"/HEALTHZ",
        b"/healthz;x",
        b"/healthz%00",
        b"/v1/models?/healthz",
        b"/v1/models#/healthz",
    ],
)
def test_an_open_path_leads_nowhere_else(guarded: tuple[str, str], target: bytes) -> None:
    """The path is compared as it is, and routed as it is."""
    refused = b" 400 " if b"%00" in target else b" 401 "
    assert refused in ask(guarded[0], request(target=target))
    assert refused in ask(guarded[0], request(target=target, method=b"POST"))


def test_thousands_of_headers_and_tokens(guarded: tuple[str, str]) -> None:
    url, token = guarded
    many = [b"X-API-Key: plm_%08x_%s" % (number, b"A" * 43) for number in range(500)]
    assert b" 401 " in ask(url, request(*many[:150], b"Authorization: Bearer " + token.encode()))
    assert b" 400 " in ask(url, request(*many, b"Authorization: Bearer " + token.encode()))
    assert b" 200 " in ask(url, request(b"Authorization: Bearer " + token.encode()))


@given(
    st.lists(
        st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"forwarded", b"host"]), st.binary(max_size=300)),
        max_size=8,
    )
)
def test_whatever_headers_come_the_caller_can_be_told(headers: list[tuple[bytes, bytes]]) -> None:
    caller = caller_of(headers, "127.0.0.1")
    assert all(len(token) <= 256 for token in caller.tokens)
    hosts = [value for name, value in headers if name == b"host"]
    forwarded = any(name == b"forwarded" for name, _ in headers)
    assert caller.local is (not forwarded and all(names_this_machine(host) for host in hosts))


@pytest.mark.parametrize(
    ("host", "own"),
    [
        (b"localhost:8000", True),
        (b"127.0.0.1", True),
        (b"[::1]:8000", True),
        (b"192.0.2.7:8000", True),
        (b"app.localhost", True),
        (b"evil.example:8000", False),
        (b"localhost.evil.example", False),
        (b"127.0.0.1.evil.example", False),
        (b"evil.example#localhost", False),
        (b"localhost@evil.example", False),
        (b"", False),
        (b"[", False),
        (b"\xff", False),
    ],
)
def test_a_name_that_a_stranger_s_dns_may_lead_here_is_not_this_machine_s(host: bytes, own: bool) -> None:
    assert names_this_machine(host) is own
    assert caller_of([(b"host", host)], "127.0.0.1").local is own
    assert caller_of([(b"host", host)], "").local is own  # a Unix socket, where proxies ask


PAGES: dict[str, tuple[list[tuple[bytes, bytes]], bool]] = {
    "a program": ([(b"host", b"a:1")], False),
    "its own page": ([(b"host", b"a:1"), (b"origin", b"http://a:1")], False),
    "its own page behind TLS": ([(b"host", b"a"), (b"origin", b"https://a")], False),
    "its own page behind a proxy": (
        [(b"host", b"upstream"), (b"origin", b"https://a"), (b"sec-fetch-site", b"same-origin")],
        False,
    ),
    "another site's page": ([(b"host", b"a:1"), (b"origin", b"http://b:1")], True),
    "another port's page": ([(b"host", b"a:1"), (b"origin", b"http://a:2")], True),
    "a sandbox": ([(b"host", b"a:1"), (b"origin", b"null")], True),
    "a page that hides its origin": ([(b"host", b"a:1"), (b"sec-fetch-site", b"cross-site")], True),
    "a page of the same site": ([(b"host", b"a.x"), (b"sec-fetch-site", b"same-site")], True),
    "two origins": ([(b"host", b"a:1"), (b"origin", b"http://a:1"), (b"origin", b"http://b")], True),
    "an allowed page": ([(b"host", b"a"), (b"origin", b"https://ok"), (b"sec-fetch-site", b"cross-site")], False),
    "an allowed page and another": ([(b"host", b"a"), (b"origin", b"https://ok"), (b"origin", b"https://b")], True),
    "no origin at all": ([(b"host", b"a"), (b"origin", b"file://a")], True),
}


@pytest.mark.parametrize("which", PAGES)
def test_another_site_s_page_is_known_by_what_its_browser_says(which: str) -> None:
    headers, foreign = PAGES[which]
    assert is_foreign_page(headers, ["https://ok"]) is foreign
    assert not is_foreign_page(headers, ["*"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    file = tmp_path_factory.mktemp("store") / "keys.toml"
    keys.write(file, [keys.issue("one", Terms())[1]])
    return KeyStore(file)


@given(token=st.binary(max_size=400))
def test_no_bytes_open_or_break_the_store(store: KeyStore, token: bytes) -> None:
    assert store.find(token) is None


GOOD = "[[key]]\nname = 'x'\nid = '00000000'\nsha256 = '" + "a" * 64 + "'\n"
FILES: dict[str, bytes] = {
    "binary": bytes(range(256)),
    "not utf-8": GOOD.encode() + b"# \xff",
    "half": GOOD.encode()[:40],
    "deep": b"key = " + b"[" * 100_000,
    "too large": GOOD.encode() + b"#" * keys.MAX_FILE_BYTES,
    "another table": b"[[keys]]\nname = 'x'",
    "an extra": GOOD.encode() + b"admin = true",
    "a role that is none": GOOD.encode() + b"role = 'root'",
    "a rate of nothing": GOOD.encode() + b"rate = '0/s'",
    "a rate that is a number": GOOD.encode() + b"rate = 5",
    "an infinite burst": GOOD.encode() + b"burst = inf",
    "a burst of none": GOOD.encode() + b"burst = 0",
    "an end without a zone": GOOD.encode() + b"expires = 2026-01-01T00:00:00",
    "an end that is a number": GOOD.encode() + b"expires = 'never'",
    "twice": GOOD.encode() * 2,
    "a short hash": GOOD.replace("a" * 64, "a" * 63).encode(),
    "an upper-case hash": GOOD.replace("a" * 64, "A" * 64).encode(),
    "a name with a line break": GOOD.replace("'x'", '"x\\nrole"').encode(),
    "a name with an escape": GOOD.replace("'x'", '"\\u001b[31m"').encode(),
    "a name in right to left": GOOD.replace("'x'", '"\\u202ex"').encode(),
    "no name": GOOD.replace("'x'", "''").encode(),
    "a very long name": GOOD.replace("'x'", f"'{'x' * 65}'").encode(),
}


@pytest.mark.parametrize("what", FILES)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, what: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_bytes(FILES[what])
    with pytest.raises(InputError) as raised:
        keys.read(file)
    assert str(file) in raised.value.message
    assert len(raised.value.message) < 1000


def test_a_key_pasted_into_the_file_is_not_repeated(tmp_path: Path) -> None:
    """The message goes to a log; a secret in the wrong place mustn't."""
    token, _ = keys.issue("x", Terms())
    file = tmp_path / "keys.toml"
    file.write_text(GOOD.replace("a" * 64, token))
    with pytest.raises(InputError) as raised:
        keys.read(file)
    assert token not in str(raised.value)


def test_a_folder_and_a_missing_file_are_reported(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "missing.toml", tmp_path / "no" / "folder.toml"):
        with pytest.raises(InputError, match="can't read the keys"):
            keys.read(file)
    with pytest.raises(InputError, match="can't write the keys"):
        keys.write(tmp_path / "no" / "folder.toml", [])


def test_ten_thousand_keys_do_not_stop_the_service(tmp_path: Path) -> None:
    """They are read in a thread: meanwhile the event loop goes on."""
    file = tmp_path / "keys.toml"
    entries = [
        Key.model_validate({"name": f"key {number}", "id": f"{number:08x}", "sha256": f"{number:064x}"})
        for number in range(10_000)
    ]
    keys.write(file, entries[:1])
    store = KeyStore(file, interval=0.0)
    keys.write(file, entries)

    async def others() -> int:
        reading = asyncio.create_task(store.refresh())
        turns = 0
        while not reading.done():
            await asyncio.sleep(0.005)
            turns += 1
        return turns

    assert asyncio.run(others()) > 1
    assert len(store) == 10_000


@given(st.text(max_size=80))
def test_no_name_breaks_the_file(name: str) -> None:
    try:
        _, entry = keys.issue(name, Terms())
    except InputError:
        return
    assert entry.name == name
    assert name.isascii()
    assert name.isprintable()
