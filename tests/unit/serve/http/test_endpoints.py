"""The pipeline over real HTTP: what is open, what needs a key, what a browser may."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Message

from helpers.asgi_servers import endpoint, http_app, serve_app
from helpers.service_process import until
from plimsoll.serve.access import keys
from plimsoll.serve.access.authorizer import AccessSettings, Right
from plimsoll.serve.access.keys import Key, Rate, Terms
from plimsoll.serve.http.body import while_connected
from plimsoll.serve.http.endpoints import ErrorInfo, ErrorResponse, Method, Reply, context_of
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.request import Interface, Operation
from plimsoll.serve.settings import CorsSettings


async def anything(request: Request) -> Response:
    """Say which key asked; a request's body says how many pictures it has."""
    body = await request.body()
    if body.isdigit():
        context_of(request).pictures = int(body)
    if request.url.path == "/":
        return HTMLResponse("<h1>page</h1>")
    return JSONResponse({"key": context_of(request).key})


ROUTES: Sequence[tuple[Method, str, Interface, Right | None]] = (
    ("GET", "/", "page", None),
    ("GET", "/page/{file}", "page", None),
    ("GET", "/healthz", "operations", None),
    ("GET", "/readyz", "operations", None),
    ("GET", "/v2/health/live", "oip", None),
    ("GET", "/v2/health/ready", "oip", None),
    ("GET", "/openapi.json", "operations", None),
    ("GET", "/metrics", "operations", "metrics"),
    ("POST", "/v1/predict", "native", "predict"),
    ("GET", "/v1/models", "native", "predict"),
    ("POST", "/v2/models/{name}/infer", "oip", "predict"),
    ("POST", "/pict-rs", "compat", "predict"),
    ("POST", "/hooks/{one}/{two}", "compat", "predict"),
)
"""Some of the service's. Those of CONTROL say nothing of rights."""


@contextmanager
def service(access: AccessSettings, cors: CorsSettings | None = None) -> Iterator[httpx.Client]:
    """Serve something that the pipeline guards."""
    rows = [endpoint(Operation(path, interface, right), anything, method) for method, path, interface, right in ROUTES]
    rows += [endpoint(Operation(path.replace("/x/", "/{name}/"), "oip"), anything, "POST") for path in CONTROL]
    with serve_app(http_app(rows, access, cors)) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture
def tokens(file: Path) -> dict[str, str]:
    """A file with three keys."""
    issued: dict[str, str] = {}
    entries: list[Key] = []
    for name, terms in {
        "asks": Terms(),
        "looks": Terms("metrics"),
        "rules": Terms("admin"),
        "slow": Terms(rate=Rate.parse("1/h"), burst=2),
    }.items():
        issued[name], entry = keys.issue(name, terms, entries)
        entries.append(entry)
    keys.write(file, entries)
    return issued


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize(
    "path", ["/", "/page/app.js", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json"]
)
def test_the_page_and_probes_need_no_key(file: Path, path: str) -> None:
    with service(AccessSettings(keys=file)) as client:
        assert client.get(path).status_code == 200
        assert client.head(path).status_code == 200
        assert client.post(path).status_code == 401


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/predict",
        "/metrics",
        "/v2",
        "/v2/models/x",
        "/anything/else",
        "/healthz/",
        "/%2e%2e/x",
        "/page",
    ],
)
def test_everything_else_does(file: Path, path: str) -> None:
    with service(AccessSettings(keys=file)) as client:
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="plimsoll"'
        assert "key" in json.dumps(answer.json()["error"])


def test_a_key_is_taken_from_either_header(file: Path, tokens: dict[str, str]) -> None:
    token = tokens["asks"]
    with service(AccessSettings(keys=file)) as client:
        good = [
            bearer(token),
            {"Authorization": f"bearer  {token}"},
            {"X-API-Key": token},
            {**bearer(token), "X-API-Key": token},
        ]
        for headers in good:
            answer = client.post("/v1/predict", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"key": "asks"})
        bad = [
            {"Authorization": f"Basic {token}"},
            {"Authorization": token},
            {"Authorization": "Bearer"},
            {"Cookie": token},
            {"X-API-Key": "x"},
        ]
        for headers in [*bad, {**bearer(token), "X-API-Key": tokens["rules"]}]:
            assert client.post("/v1/predict", headers=headers).status_code == 401
        assert client.post(f"/v1/predict?key={token}").status_code == 401
        assert 'error="invalid_token"' in client.get("/v1/models", headers=bearer("x")).headers["www-authenticate"]


def test_two_headers_of_one_name_do_not_slip_past(file: Path, tokens: dict[str, str]) -> None:
    with service(AccessSettings(keys=file)) as client:
        both = [("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {tokens['asks']}")]
        assert client.post("/v1/predict", headers=both).status_code == 401


CONTROL = [
    "/v2/repository/models/x/load",
    "/v2/repository/models/x/unload",
    "/v1/models/x/reload",
    "/v1/models/x/load/",
    "/v2/repository/models/x/%6coad",
]


@pytest.mark.parametrize("path", CONTROL)
def test_only_admins_control_models(file: Path, tokens: dict[str, str], path: str) -> None:
    with service(AccessSettings(keys=file)) as client:
        assert client.post(path).status_code == 401
        refused = client.post(path, headers=bearer(tokens["asks"]))
        assert refused.status_code == 403
        assert "www-authenticate" not in refused.headers
        assert client.post(path, headers=bearer(tokens["rules"])).status_code == 200


def test_metrics_have_a_role_of_their_own(file: Path, tokens: dict[str, str]) -> None:
    with service(AccessSettings(keys=file)) as client:
        assert client.get("/metrics", headers=bearer(tokens["looks"])).status_code == 200
        assert client.get("/metrics", headers=bearer(tokens["rules"])).status_code == 200
        assert client.get("/metrics", headers=bearer(tokens["asks"])).status_code == 403
        assert client.get("/v1/models", headers=bearer(tokens["looks"])).status_code == 403
    with service(AccessSettings(keys=file, open_metrics=True)) as client:
        assert client.get("/metrics").status_code == 200


@pytest.mark.usefixtures("tokens")
def test_paths_can_be_opened(file: Path) -> None:
    with service(AccessSettings(keys=file, open_paths=("/pict-rs", "/hooks/*"))) as client:
        assert client.post("/pict-rs").status_code == 200
        assert client.post("/hooks/a/b").status_code == 200
        assert [client.post(path).status_code for path in ("/pict-rs/x", "/hooks", "/hooksx", "/v1/predict")] == [
            401
        ] * 4


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize("opened", ["/v2/*", "/*", "/v2/repository/*", "/v2/repository/models/x/*"])
def test_a_wildcard_never_opens_what_controls_models(file: Path, opened: str) -> None:
    with service(AccessSettings(keys=file, open_paths=(opened,))) as client:
        for path in CONTROL:
            assert client.post(path).status_code == 401, path
        assert client.post("/v2/models/x/infer").status_code == (401 if "repository" in opened else 200)
    with service(AccessSettings(open_paths=(opened,), control="nobody")) as client:
        assert client.post("/v2/repository/models/x/unload").status_code == 403


@pytest.mark.usefixtures("tokens")
def test_a_path_written_out_opens_even_control(file: Path) -> None:
    with service(AccessSettings(keys=file, open_paths=("/v2/repository/models/x/load",))) as client:
        assert client.post("/v2/repository/models/x/load").status_code == 200
        assert client.post("/v2/repository/models/y/load").status_code == 401


@pytest.mark.parametrize(
    ("seconds", "waits"), [(0.001, 1), (0.9, 1), (1.0, 1), (1.2, 2), (1.5, 2), (2.0001, 3), (29.5, 30)]
)
def test_retry_after_is_rounded_up_whoever_answers(seconds: float, waits: int) -> None:
    """A caller that comes a moment too early is turned away once more."""
    problem = Problem("overloaded", "too much waits", "", 503, seconds)

    async def overloaded(_: Request) -> Response:
        raise RequestError(problem)

    async def other_shape(_: Request) -> Reply[ErrorResponse]:
        return Reply(ErrorResponse(error=ErrorInfo.of(problem)), 422, problem)

    rows = [endpoint(Operation("/v1/predict", "native"), overloaded), endpoint(Operation("/v2", "oip"), overloaded)]
    rows.append(endpoint(Operation("/v1/validate", "compat"), other_shape))
    with serve_app(http_app(rows)) as url, httpx.Client(base_url=url) as client:
        answers = [client.get(row.path) for row in rows]
    assert [answer.headers["retry-after"] for answer in answers] == [str(waits)] * 3
    assert [answer.status_code for answer in answers] == [503, 503, 422]
    assert isinstance(answers[1].json()["error"], str)


def test_a_rate_is_answered_with_429(file: Path, tokens: dict[str, str]) -> None:
    with service(AccessSettings(keys=file)) as client:
        statuses = [client.post("/v1/predict", headers=bearer(tokens["slow"])).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        answer = client.post("/v1/predict", headers=bearer(tokens["slow"]))
        assert 3590 <= int(answer.headers["retry-after"]) <= 3600
        error = answer.json()["error"]
        assert (error["kind"], error["message"]) == ("overloaded", "the key 'slow' may ask 1/h, and 2 at once")
        assert isinstance(client.post("/v2/models/x/infer", headers=bearer(tokens["slow"])).json()["error"], str)
        assert client.get("/healthz").status_code == 200


def test_pictures_are_counted(file: Path) -> None:
    token, entry = keys.issue("counted", Terms(rate=Rate.parse("10/h"), burst=10, counts="pictures"))
    keys.write(file, [entry])
    with service(AccessSettings(keys=file)) as client:
        assert [client.post("/v1/predict", headers=bearer(token), content=b"7").status_code for _ in range(3)] == [
            200,
            200,
            429,
        ]


def test_without_keys_an_address_has_a_rate() -> None:
    with service(AccessSettings.model_validate({"address_rate": "1/h", "address_burst": 3})) as client:
        assert [client.get("/v1/models").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert client.get("/healthz").status_code == 200


def test_without_keys_a_local_program_controls_models_and_a_web_page_does_not() -> None:
    with service(AccessSettings()) as client:
        path = CONTROL[0]
        assert client.post(path).status_code == 200
        for name in ("Origin", "X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
            assert client.post(path, headers={name: "http://127.0.0.1"}).status_code == 403, name
        assert client.post("/v1/predict", headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.post("/v1/predict", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert client.post("/v1/predict", headers=own).status_code == 200


@pytest.mark.usefixtures("tokens")
def test_other_origins_may_not_ask_unless_it_is_set(file: Path) -> None:
    asking = {
        "Origin": "https://app.example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    with service(AccessSettings(keys=file)) as client:
        answer = client.options("/v1/predict", headers=asking)
        assert "access-control-allow-origin" not in answer.headers
    with service(AccessSettings(keys=file), CorsSettings(origins=("https://app.example.org",))) as client:
        answer = client.options("/v1/predict", headers=asking)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example.org")
        assert "access-control-allow-credentials" not in answer.headers
        assert client.options("/v1/predict", headers={**asking, "Origin": "https://evil.example"}).status_code == 400
        refused = client.post("/v1/predict", headers={"Origin": "https://app.example.org"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://app.example.org")


def test_browsers_are_told_what_the_page_may() -> None:
    with service(AccessSettings()) as client:
        page, data = client.get("/"), client.get("/v1/models")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert data.headers["content-security-policy"].startswith("default-src 'none'")
    for answer in (page, data):
        assert (answer.headers["x-content-type-options"], answer.headers["x-frame-options"]) == ("nosniff", "DENY")
        assert answer.headers["cache-control"] == "no-store"


def test_a_key_that_is_removed_is_refused_without_a_restart(file: Path, tokens: dict[str, str]) -> None:
    with service(AccessSettings(keys=file)) as client:
        assert client.get("/v1/models", headers=bearer(tokens["asks"])).status_code == 200
        keys.write(file, [key for key in keys.read(file) if key.name != "asks"])
        until(
            lambda: client.get("/v1/models", headers=bearer(tokens["asks"])).status_code == 401, "the file to be read"
        )
        assert client.get("/v1/models", headers=bearer(tokens["rules"])).status_code == 200


def test_a_refused_request_leaves_nothing_behind() -> None:
    """Whatever a request was read into goes with its error, without a look for rings of references."""

    class Numbers:
        """What a body was read into."""

    left: list[weakref.ref[Numbers]] = []

    async def refuse() -> None:
        numbers = Numbers()
        left.append(weakref.ref(numbers))
        raise RequestError(Problem("input", "too many numbers", status=413))

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def ask() -> None:
        with suppress(RequestError):
            await while_connected(Request({"type": "http"}, receive), refuse())
        await asyncio.sleep(0)
        assert left[0]() is None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(ask())
    finally:
        gc.enable()
