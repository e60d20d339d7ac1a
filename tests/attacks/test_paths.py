"""Ways of writing a path: none leads to a handler that demands more than its caller may.

Every route of the real application is asked for in every way that a reader of paths may take for another one. What is
behind a route is replaced by a note that it was reached; the guard and the router are the real ones.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message

from helpers.access_keys import write_keys
from helpers.asgi_servers import endpoint, http_app, serve_app
from plimsoll.serve.access.authorizer import AccessSettings, Right
from plimsoll.serve.access.keys import Terms
from plimsoll.serve.http.app import endpoints
from plimsoll.serve.http.endpoints import Endpoint
from plimsoll.serve.http.sockets import Socket
from plimsoll.serve.request import Operation
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings

MODEL = "/v2/models/{name}"
VERSION = "/v2/models/{name}/versions/{version}"
LOAD, UNLOAD = "/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"
RIGHTS: Mapping[tuple[str, str], Right | None] = {
    **{
        ("GET", path): None
        for path in ("/", "/page/{file}", "/healthz", "/readyz", "/openapi.json", "/v2/health/live", "/v2/health/ready")
    },
    ("GET", "/metrics"): "metrics",
    ("POST", "/v1/predict"): "predict",
    ("POST", "/v1/predict/clip"): "predict",
    ("GET", "/v1/frames"): "predict",
    **{("GET", path): "predict" for path in ("/v1/models", "/v1/models/{name}/proof", "/v2", "/v2/models/stats")},
    ("GET", "/v1/models/{name}/report"): "report",
    **{("POST", prefix + "/infer"): "predict" for prefix in (MODEL, VERSION)},
    **{
        ("GET", prefix + tail): "predict" for prefix in (MODEL, VERSION) for tail in ("", "/ready", "/config", "/stats")
    },
    ("POST", "/v2/repository/index"): "predict",
    ("POST", LOAD): "control",
    ("POST", UNLOAD): "control",
    **{
        ("POST", path): "predict"
        for path in (
            "/v1/detect-images",
            "/v1/vision/nsfw",
            "/api/vision/nsfw",
            "/hooks/unload",
            "/v1/models/{name}:predict",
        )
    },
}
"""What every route demands; a new one has to be written down here."""

CONTRACTS = {"photoprism": {"prefixes": ["/v1/vision", "/api/vision"]}, "pictrs": {"path": "/hooks/unload"}}
OTHERS_PAGE = {"Origin": "https://evil.example"}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}
REBOUND = {"Origin": "http://evil.example", "Host": "evil.example", "Sec-Fetch-Site": "same-origin"}
"""A page whose name was made to lead to 127.0.0.1."""
NO_TEXT = (
    *(
        "%00",
        "%01",
        "%07",
        "%08",
        "%09",
        "%0A",
        "%0a",
        "%0B",
        "%0C",
        "%0D",
        "%0D%0A",
        "%0A%0A",
        "%1B",
        "%1C",
        "%1F",
        "%7F",
    ),
    *("%C2%80", "%C2%85", "%C2%9F", "%E2%80%A8", "%E2%80%A9", "%E2%80%AE", "%E2%80%8B", "%EF%BB%BF"),
    *("%C0%AF", "%C0%8A", "%E0%80%8A", "%F0%80%80%8A", "%FF", "%80", "%C2", "%ED%A0%80", "%0A%00", "/%0A", "%0A/"),
)
"""C0, DEL, C1, separators of lines and paragraphs, format characters, overlong and broken UTF-8, a surrogate."""


@dataclass(frozen=True)
class AccessCase:
    """A service and one of its callers, and what that caller may."""

    access: AccessSettings
    headers: Mapping[str, str]
    rights: frozenset[Right | None]
    reads_only: bool = False
    """Whether it is another site's page, which may send nothing that does something."""

    def may(self, method: str, right: Right | None) -> bool:
        return right in self.rights and not (self.reads_only and method not in ("GET", "HEAD", "OPTIONS"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, AccessCase]:
    file = tmp_path_factory.mktemp("cases") / "keys.toml"
    tokens = write_keys(file, asks=Terms(), looks=Terms("metrics"), rules=Terms("admin"))
    keys = AccessSettings(keys=file)
    open_metrics = AccessSettings(keys=file, open_metrics=True)
    nobody, anybody = AccessSettings(control="nobody"), AccessSettings(control="anybody")
    everybody: frozenset[Right | None] = frozenset({None, "predict", "metrics"})
    bearing = {name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}
    return {
        "a page, no keys": AccessCase(AccessSettings(), OTHERS_PAGE, everybody, reads_only=True),
        "a page, anybody controls": AccessCase(anybody, CROSS_SITE, everybody, reads_only=True),
        "a page by its own name": AccessCase(AccessSettings(), REBOUND, everybody),
        "a proxy, no keys": AccessCase(AccessSettings(), {"X-Forwarded-For": "127.0.0.1"}, everybody),
        "nobody controls": AccessCase(nobody, {}, everybody | {"report"}),
        "no key": AccessCase(keys, {}, frozenset({None})),
        "no key, open metrics": AccessCase(open_metrics, {}, frozenset({None, "metrics"})),
        "a predict key": AccessCase(keys, bearing["asks"], frozenset({None, "predict", "report"})),
        "a metrics key": AccessCase(keys, bearing["looks"], frozenset({None, "metrics"})),
        "an admin key": AccessCase(
            keys, bearing["rules"], frozenset({None, "predict", "report", "metrics", "control"})
        ),
    }


CASES = (
    "a page, no keys",
    "a page, anybody controls",
    "a page by its own name",
    "a proxy, no keys",
    "nobody controls",
    "no key",
    "no key, open metrics",
    "a predict key",
    "a metrics key",
    "an admin key",
)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that serves no model, with all interfaces of other products on."""
    unstarted = Service(Settings.model_validate({"compat": CONTRACTS}), [])
    yield unstarted
    unstarted.memory.arena.close()


@pytest.fixture
def reached() -> list[tuple[str, str]]:
    """The method and path of each endpoint whose handler was reached."""
    return []


def guarded(reached: list[tuple[str, str]], service: Service, access: AccessSettings) -> ASGIApp:
    """Return the application with notes in `reached` in place of its handlers."""

    def noted(row: Endpoint) -> Endpoint:
        async def note(_: Request) -> Response:
            reached.append((row.method, row.path))
            return Response("reached")

        async def talk(socket: Socket) -> None:
            reached.append(("WEBSOCKET", row.path))
            await socket.accept()

        return replace(row, handler=note, socket=talk if row.socket is not None else None)

    return http_app([noted(row) for row in endpoints(service)], access)


def target_of(route: str) -> str:
    return route.format(name="tiny", version="1", file="serve.js") if "{" in route else route


def candidates(target: str) -> Iterator[str]:
    """Yield other ways of writing a path, and paths that a careless reader takes for it."""
    yield target
    head, _, last = target.rpartition("/")
    yield from (
        f"{target}/",
        f"{target}//",
        f"/{target}",
        f"//{target}",
        f"{target}/.",
        f"{target}/..",
        f"{target}/x",
        f"{target};x",
        f"{target}.json",
    )
    yield from (
        f"{target}%20",
        f"{target}%23",
        f"{target}%3F",
        f"{target}?x=/healthz",
        f"{target}%2F",
        f"{target}%252F",
        f"{target}%250A",
        f"{target}%5C",
    )
    yield from (
        f"{head}//{last}",
        f"{head}/./{last}",
        f"{head}/x/../{last}",
        f"{head}%2F{last}",
        f"{head}%2f{last}",
        f"{head}%252F{last}",
    )
    yield from (f"{head}%5C{last}", f"{head}/%2E/{last}", f"{head}/%2e%2e/{last}", f"{head}/.;/{last}")
    yield from (
        f"/healthz/..{target}",
        f"/page/..{target}",
        f"/page/%2e%2e{target}",
        f"/page{target}",
        f"/healthz%2F..{target}",
        f"/v1/models/..{target}",
    )
    yield from (
        target.upper(),
        target.title(),
        f"{head}/{last.upper()}",
        target.replace("/", "%2F"),
        target[1:],
        "/" + target.replace("/", "%2f")[3:],
    )
    yield "".join(f"%{ord(letter):02X}" if letter.isalpha() else letter for letter in target)
    yield f"{head}/%{ord(last[0]):02x}{last[1:]}" if last else target
    yield f"{target}%EF%BC%8F"  # a full-width slash
    yield "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in target)  # full-width letters


def malformed(target: str) -> Iterator[str]:
    """Yield a path with characters that are no text at its end, in its middle, and before its last part."""
    head, _, last = target.rpartition("/")
    for characters in NO_TEXT:
        yield from (target + characters, f"{head}{characters}/{last}", f"{head}/{characters}{last}")


async def ask(app: ASGIApp, method: str, target: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Ask as the HTTP server does, which decodes a path once; return the status and the body."""
    path, _, query = target.partition("?")
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in ({"Host": "127.0.0.1"} | dict(headers)).items()
        ],
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


async def shake_hands(app: ASGIApp, target: str, headers: Mapping[str, str]) -> int:
    """Ask for a WebSocket; return the status."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    scope = {
        "type": "websocket",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "ws",
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in ({"Host": "127.0.0.1"} | dict(headers)).items()
        ],
    }
    await app(scope, receive, send)
    return 101 if sent[0]["type"] == "websocket.accept" else int(sent[0]["status"])


@pytest.mark.parametrize("case", CASES)
def test_a_websocket_reaches_what_speaks_it_and_nothing_else(
    service: Service, cases: Mapping[str, AccessCase], reached: list[tuple[str, str]], case: str
) -> None:
    app, caller = guarded(reached, service, cases[case].access), cases[case]
    may = caller.may("POST", "predict")  # no page of another site, though the method is GET
    for route in {route for _, route in RIGHTS}:
        for target in candidates(target_of(route)):
            reached.clear()
            status = asyncio.run(shake_hands(app, target, caller.headers))
            own = unquote(target.partition("?")[0]) == "/v1/frames"
            assert reached == ([("WEBSOCKET", "/v1/frames")] if own and may else []), target
            assert (status == 101) is (own and may), target
            assert status in (101, 400, 401, 403, 404, 405), target


def test_every_route_has_its_right(service: Service) -> None:
    assert {(row.method, row.path): row.right for row in endpoints(service)} == RIGHTS


@pytest.mark.parametrize("case", CASES)
def test_every_route_answers_who_may_and_nobody_else(
    service: Service, cases: Mapping[str, AccessCase], reached: list[tuple[str, str]], case: str
) -> None:
    app, caller = guarded(reached, service, cases[case].access), cases[case]
    for (method, route), need in RIGHTS.items():
        for used in (method, "HEAD") if method == "GET" else (method,):
            reached.clear()
            status, _ = asyncio.run(ask(app, used, target_of(route), caller.headers))
            assert reached == ([(method, route)] if caller.may(method, need) else []), (used, route)
            assert status == 200 if caller.may(method, need) else status in (401, 403), (used, route)


@pytest.mark.parametrize("case", CASES)
def test_no_way_of_writing_a_path_gives_more_rights(
    service: Service, cases: Mapping[str, AccessCase], reached: list[tuple[str, str]], case: str
) -> None:
    app, caller = guarded(reached, service, cases[case].access), cases[case]

    async def ask_all(methods: Iterable[str]) -> None:
        for _, route in RIGHTS:
            for target in candidates(target_of(route)):
                for method in methods:
                    reached.clear()
                    status, _ = await ask(app, method, target, caller.headers)
                    assert all(caller.may(method, RIGHTS[handler]) for handler in reached), (method, target, reached)
                    assert reached or status in (307, 401, 403, 404, 405), (method, target, status)

    asyncio.run(ask_all(("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE")))


@pytest.mark.parametrize("case", CASES)
def test_a_path_that_is_not_text_is_refused_before_anything_else(
    service: Service, cases: Mapping[str, AccessCase], reached: list[tuple[str, str]], case: str
) -> None:
    app, caller = guarded(reached, service, cases[case].access), cases[case]

    async def ask_all(methods: Iterable[str]) -> None:
        for _, route in RIGHTS:
            for target in malformed(target_of(route)):
                for method in methods:
                    status, body = await ask(app, method, target, caller.headers)
                    assert reached == [], (method, target)
                    if caller.reads_only and method == "POST":
                        assert status == 403, (method, target)
                        continue
                    assert status == 400, (method, target, status)
                    error = json.loads(body)["error"]
                    message = error if unquote(target).startswith("/v2") else error["message"]
                    assert "path" in message, (method, target)

    asyncio.run(ask_all(("GET", "POST", "HEAD")))


def test_a_path_that_leads_nowhere_is_404_to_who_may_ask(
    service: Service, cases: Mapping[str, AccessCase], reached: list[tuple[str, str]]
) -> None:
    statuses = {}
    for name in ("a page, no keys", "no key", "a predict key"):
        app = guarded(reached, service, cases[name].access)
        statuses[name] = [
            asyncio.run(ask(app, method, path, cases[name].headers))[0]
            for method, path in (
                ("GET", "/nothing"),
                ("GET", "/v1/models/x/reload"),
                ("GET", "/page/a/b"),
                ("GET", "/favicon.ico"),
            )
        ]
    assert statuses == {"a page, no keys": [404] * 4, "no key": [401] * 3 + [404], "a predict key": [404] * 4}


def test_a_route_that_nobody_classified_needs_the_most(
    cases: Mapping[str, AccessCase], reached: list[tuple[str, str]]
) -> None:
    async def new(_: Request) -> Response:
        reached.append(("GET", "new"))
        return Response()

    rows = [endpoint(Operation("/v1/models/{name}/erase", "native"), new)]
    for case in cases.values():
        app = http_app(rows, case.access)
        reached.clear()
        status, _ = asyncio.run(ask(app, "GET", "/v1/models/tiny/erase", case.headers))
        assert (status == 200, bool(reached)) == ("control" in case.rights,) * 2


RAW = (
    b"\x00",
    b"\x01",
    b"\t",
    b"\x0b",
    b"\x1b",
    b"\x7f",
    b"\x80",
    b"\x85",
    b"\xa0",
    b"\xc0\x8a",
    b"\xe2\x80\xa8",
    b"\xff",
    b"%",
    b"%0",
    b"%0g",
    b"%u000a",
)
"""What the HTTP server itself has to read; a newline and a carriage return would end the line."""


OVERRIDES = {
    "X-HTTP-Method-Override": "POST",
    "X-Method-Override": "POST",
    "X-Original-URL": target_of(UNLOAD),
    "X-Rewrite-URL": target_of(UNLOAD),
    "X-Forwarded-Prefix": target_of(UNLOAD),
    "X-Forwarded-Host": "localhost",
    "X-Forwarded-For": "127.0.0.1",
}
"""What other software takes for the method or the path, in place of those in the first line."""


class Wire:
    """A connection over which bytes go as they are; opened again where the other side closed it."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._connection: socket.socket | None = None

    def status(self, method: str, target: bytes, headers: Mapping[str, str]) -> int:
        """Send a request; return the answer's status, 0 where the connection was closed instead."""
        lines = [f"{name}: {value}" for name, value in ({"Host": "127.0.0.1"} | dict(headers)).items()]
        head = "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()
        if self._connection is None:
            self._connection = socket.create_connection(self._address, timeout=10)
        self._connection.sendall(method.encode() + b" " + target + b" HTTP/1.1\r\n" + head)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := self._connection.recv(65536)):
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = 0 if method == "HEAD" else int(fields.get(b"content-length", b"0"))
        while len(body) < length and (more := self._connection.recv(65536)):
            body += more
        if not answer or fields.get(b"connection") == b"close":
            self.close()
        return int(answer.split()[1]) if answer else 0

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@pytest.mark.parametrize("case", ["a page, no keys", "nobody controls", "a predict key", "a metrics key"])
def test_over_a_connection_no_spelling_of_any_route_reaches_more_than_its_caller_may(
    service: Service, cases: Mapping[str, AccessCase], reached: list[tuple[str, str]], case: str
) -> None:
    """The server that `plimsoll serve` runs, asked with raw bytes: for every route the class of the guard is that of
    the handler, however the path is written and whatever other headers say."""
    caller = cases[case]
    app = guarded(reached, service, caller.access)
    routes = list(RIGHTS) if case != "a metrics key" else [("GET", "/metrics"), ("POST", UNLOAD)]
    with serve_app(app) as url:
        wire = Wire(url)

        def check(method: str, target: bytes, **more: str) -> int:
            reached.clear()
            status = wire.status(method, target, {**caller.headers, **more})
            assert all(caller.may(method, RIGHTS[handler]) for handler in reached), (method, target, more, reached)
            assert not reached or status == 200, (method, target, status)
            return status

        for own_method, route in routes:
            target = target_of(route)
            expected = 200 if caller.may(own_method, RIGHTS[own_method, route]) else 403
            statuses = {200: (200,), 403: (401, 403)}[expected]
            assert check(own_method, target.encode()) in statuses, (own_method, route)
            for spelling in [*candidates(target), *(target + characters for characters in NO_TEXT)]:
                for method in {own_method, "POST"}:
                    check(method, spelling.encode())
            for extra in RAW:
                assert check(own_method, target.encode() + extra) != 200 or own_method == "GET", extra
            whole = (
                f"http://x{target}",
                f"http://healthz{target}",
                f"//x{target}",
                f"http://x/healthz#{target}",
                f"{target}#/healthz",
                "*",
            )
            for text in whole:
                check(own_method, text.encode())
            for name, value in OVERRIDES.items():
                for method in ("GET", "POST", "OPTIONS", "HEAD"):
                    check(method, b"/healthz", **{name: value})
                    check(method, target.encode(), **{name: value})
        wire.close()


@pytest.mark.parametrize("host", ["x", "x/v2/", "x?", "x#", "x/healthz?", "evil.example/v2"])
def test_the_host_header_changes_neither_rights_nor_the_form_of_errors(
    service: Service, cases: Mapping[str, AccessCase], reached: list[tuple[str, str]], host: str
) -> None:
    caller = cases["a predict key"]
    app = guarded(reached, service, caller.access)
    for path, is_text in (("/nothing", False), ("/v2/nothing/at/all", True), ("/v2%3Fx", True), ("/page%3F/v2", False)):
        status, body = asyncio.run(ask(app, "GET", path, {**caller.headers, "Host": host}))
        error = json.loads(body)["error"]
        assert (status, isinstance(error, str)) == (404, is_text), (host, path)
        assert unquote(path) in (error if is_text else error["message"])
    assert asyncio.run(ask(app, "POST", target_of(UNLOAD), {**caller.headers, "Host": host}))[0] == 403
