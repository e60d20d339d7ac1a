"""Keys and rate limits at the door: a plain ASGI middleware, before anything of a request's body is read."""

from __future__ import annotations

import math
import re
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from plimsoll.serve.access.doorkeeper import Caller, Doorkeeper, Need, loopback
from plimsoll.serve.access.settings import AccessSettings
from plimsoll.serve.messages import Problem, Refused

OPEN = frozenset({"/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/favicon.ico"})
"""What may be read without a key: the page, what probes ask, and the description of the interface. None of them says anything about models."""
OPEN_BELOW = ("/page/",)
"""The page's own files."""

_CONTROL = re.compile(r"/(?:un|re)?load/?\Z")
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via", b"origin"})
"""A proxy passes these on, or a browser sends them: then the program that asks isn't certainly one of this machine."""
_READING = frozenset({"GET", "HEAD"})
_MAX_KEY_BYTES = 256


class Guard:
    """Lets requests through to `app`, or answers them: 401, 403, 429. `scope["state"]["key"]` is then the key's name."""

    def __init__(self, app: ASGIApp, door: Doorkeeper, settings: AccessSettings) -> None:
        self._app = app
        self._door = door
        self._open_metrics = settings.open_metrics
        self._open = frozenset(path for path in settings.open_paths if not path.endswith("/*"))
        self._open_below = tuple(path[:-1] for path in settings.open_paths if path.endswith("/*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        need = self.need(scope)
        if need is None:
            await self._app(scope, receive, send)
            return
        caller = caller_of(scope)
        try:
            ticket = await self._door.admit(caller, need)
        except Refused as refused:
            await refusal(scope["path"], refused.problem, shown=bool(caller.tokens))(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        if ticket.key is not None:
            state["key"] = ticket.key.name
        try:
            await self._app(scope, receive, send)
        finally:
            ticket.settle(state.get("pictures", 1))

    def need(self, scope: Scope) -> Need | None:
        """Return what a request needs the right to do, or None where everybody may. What nobody thought of needs a key."""
        root, path, reading = scope.get("root_path", ""), scope["path"], scope["method"] in _READING
        path = path.removeprefix(root) if root else path
        if (reading and (path in OPEN or path.startswith(OPEN_BELOW))) or path in self._open or (self._open_below and path.startswith(self._open_below)):
            return None
        if path == "/metrics":
            return None if self._open_metrics else "metrics"
        return "control" if not reading and _CONTROL.search(path) else "predict"

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":  # nothing here speaks it, and what comes later must not slip past
            await send({"type": "websocket.close", "code": 1008})


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
