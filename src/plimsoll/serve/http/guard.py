"""Keys and rate limits at the door: a plain ASGI middleware, before anything of a request's body is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from plimsoll.serve.access.authorizer import FORWARDED, Authorizer, Caller, Need, loopback
from plimsoll.serve.access.settings import AccessSettings
from plimsoll.serve.messages import Problem, RequestError

OPEN = frozenset({"/", "/page/{file}", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json"})
"""Routes that anybody may read without a key: the page, probes, and the description of the interface. None of them says
anything about models."""
_PREDICT = frozenset(
    {
        *(
            "/v1/predict",
            "/v1/models",
            "/v1/models/{name}/report",
            "/v1/models/{name}/proof",
            "/v2",
            "/v2/models/stats",
            "/v2/repository/index",
        ),
        *(f"/v2/models/{{name}}{operation}" for operation in ("", "/infer", "/ready", "/config", "/stats")),
        *(
            f"/v2/models/{{name}}/versions/{{version}}{operation}"
            for operation in ("", "/infer", "/ready", "/config", "/stats")
        ),
    }
)
"""Routes that need the right `predict`, besides those of the contracts. /metrics has a right of its own; all other
routes need `control`."""
_FAVICON = "/favicon.ico"
"""Browsers request it without a key; there is none (404)."""
_FORWARDED = frozenset(name.encode() for name in FORWARDED)
_READING = frozenset({"GET", "HEAD"})
_UNREADABLE = Problem(
    "input", "the path contains control characters, or is not UTF-8", "Is it percent-encoded correctly?", 400
)
_MAX_KEY_BYTES = 256


class Needs:
    """What requests need the right to do. `contracts` are the paths of the contracts that are on."""

    def __init__(self, settings: AccessSettings, contracts: Iterable[str] = ()) -> None:
        self._predict = _PREDICT | frozenset(contracts)
        self._open_metrics = settings.open_metrics
        self._open = frozenset(path for path in settings.open_paths if not path.endswith("/*"))
        self._open_below = tuple(path[:-1] for path in settings.open_paths if path.endswith("/*"))

    def of(self, path: str, method: str, route: str | None) -> Need | None:
        """Return what a request needs the right to do, or None where everybody may.

        `route` is the path as written at the route that will answer (`/v2/models/{name}`); None where none will, and
        learning that needs a key. A route that is not classified needs `control`.
        """
        reading = method in _READING
        if path in self._open or (self._open_below and path.startswith(self._open_below)):
            return None
        if route is None:
            return None if reading and path == _FAVICON else "predict"
        if route == "/metrics":
            return None if self._open_metrics else "metrics"
        if reading and route in OPEN:
            return None
        return "predict" if route in self._predict else "control"


class Guard:
    """Lets requests through to `app`, or answers them: 400, 401, 403, 429. `scope["state"]["key"]` is then the key's
    name.

    `routes` are the routes of `app`. They say which of them will answer, so that guard and router never read a path
    differently.
    """

    def __init__(self, app: ASGIApp, door: Authorizer, needs: Needs, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._door = door
        self._needs = needs
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        if not readable(scope["path"]):
            await refusal(scope["path"], _UNREADABLE, shown=False)(scope, receive, send)
            return
        need = self._need(scope)
        if need is None:
            await self._app(scope, receive, send)
            return
        caller = caller_of(scope)
        try:
            ticket = await self._door.admit(caller, need)
        except RequestError as refused:
            await refusal(scope["path"], refused.problem, shown=bool(caller.tokens))(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        if ticket.key is not None:
            state["key"] = ticket.key.name
        try:
            await self._app(scope, receive, send)
        finally:
            ticket.settle(state.get("pictures", 1))

    def _need(self, scope: Scope) -> Need | None:
        root, path = scope.get("root_path", ""), scope["path"]
        path = path[len(root) :] if root and path.startswith(f"{root}/") else path
        # The router takes the first route that fits in full; what fits only in part is answered with 405.
        route = next((route for route in self._routes if route.matches(scope)[0] is Match.FULL), None)
        return self._needs.of(path, scope["method"], None if route is None else getattr(route, "path", ""))

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":  # nothing here speaks it, and what comes later must not slip past
            await send({"type": "websocket.close", "code": 1008})


def readable(path: str) -> bool:
    """Return whether a decoded path is printable text: no control, format or separator characters, and no U+FFFD, which
    replaces invalid UTF-8.

    Such characters are read differently in different places: Python's `$` ignores a trailing newline, `\\Z` doesn't.
    """
    return path.isprintable() and "\ufffd" not in path


def caller_of(scope: Scope) -> Caller:
    """Read from a request's head who asks."""
    tokens = set()
    passed_on = False
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                tokens.add(token.strip()[:_MAX_KEY_BYTES])
        elif name == b"x-api-key":
            tokens.add(value.strip()[:_MAX_KEY_BYTES])
        elif name in _FORWARDED:
            passed_on = True
    address = scope["client"][0] if scope.get("client") else ""
    return Caller(frozenset(tokens), address, not passed_on and (not address or loopback(address)))


def refusal(path: str, problem: Problem, *, shown: bool) -> Response:
    """Return the answer to who isn't let in; `shown`: whether a key was shown at all (RFC 6750, 3)."""
    headers = {"Cache-Control": "no-store"}
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="plimsoll"' + (', error="invalid_token"' if shown else "")
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    # The Open Inference Protocol has a text, everything else says more.
    body = {"error": f"{problem.message}. {problem.hint}"} if path.startswith("/v2") else {"error": problem.to_dict()}
    return Response(to_json(body), problem.status, headers, media_type="application/json")
