"""The application: all interfaces, and what is the same for each: errors in words, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plimsoll.errors import PlimsollError
from plimsoll.serve.http.middleware import Shell
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.service import Service

INTERFACES = ("http.native", "http.operations", "http.openapi", "http.oip", "http.page", "compat")
_LINGER_S = 5.0
_log = logging.getLogger("plimsoll.serve")


def application(service: Service, shell: Shell | None = None, interfaces: Sequence[str] = INTERFACES) -> ASGIApp:
    """Return the application of a service that is started and closed by whoever runs it; `shell` is what stands before
    it: keys, logs …"""
    routes = [
        route for name in interfaces for route in importlib.import_module(f"plimsoll.serve.{name}").routes(service)
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={PlimsollError: _refused, HTTPException: _refused_by_starlette, Exception: _mistake},
    )
    app.state.received = service.received
    return Measured(app if shell is None else shell.around(app, service.settings.compat.paths), service)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlimsollError)  # noqa: S101 - it is registered for no other
    return shown(request, error.problem if isinstance(error, RequestError) else Problem.of(error))


async def _refused_by_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    path = request.scope["path"]
    message = {404: f"there is nothing at {path}", 405: f"{request.method} is not allowed at {path}"}.get(
        error.status_code, error.detail
    )
    response = shown(request, Problem("input", message, "GET /openapi.json lists what there is.", error.status_code))
    response.headers.update(error.headers or {})
    return response


async def _mistake(request: Request, error: Exception) -> Response:
    _log.error("a mistake of ours at %s: %s", request.scope["path"], error, exc_info=error)
    return shown(
        request, Problem("failed", "this is a mistake in Plimsoll", "Its log says more; please report it.", 500)
    )


def shown(request: Request, problem: Problem) -> Response:
    """Return a problem as the interface shows it that was spoken: the Open Inference Protocol has a text, everything
    else says more.

    The path is the one that was routed: Starlette's `request.url` reads it once more, together with the `Host` header.
    """
    if request.scope["path"].startswith("/v2"):
        body: dict[str, Any] = {"error": f"{problem.message}. {problem.hint}" if problem.hint else problem.message}
    else:
        body = {"error": problem.to_dict()}
    headers = {"Retry-After": str(max(1, round(problem.retry_after)))} if problem.retry_after else None
    return Response(to_json(body), problem.status, headers, media_type="application/json")


class Measured:
    """Count requests and their time, by model, interface and status."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._metrics = service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        state = scope.setdefault("state", {})
        status, unread = 0, _has_body(scope)

        async def taken() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # What still comes of an unread body would hold the connection for as long as the caller likes; and who
                # drains sends callers away.
                if unread or self._service.draining:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            elif unread and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _take_the_rest(taken)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            await self._app(scope, taken, noted)
        finally:
            interface, model = _interface(scope["path"]), state.get("model", "")
            self._metrics.requests.labels(model, interface, str(status)).inc()
            self._metrics.request_seconds.labels(model, interface).observe(time.perf_counter() - started)


async def _take_the_rest(receive: Receive) -> None:
    """Throw away, for a while, what a caller still sends: closing at once resets the connection, and the caller never
    sees the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _interface(path: str) -> str:
    """Return what was spoken, from a set that no caller can enlarge."""
    if path.startswith("/v2"):
        return "oip"
    if path in ("/healthz", "/readyz", "/metrics"):
        return "operations"
    if path.startswith(("/v1/predict", "/v1/models")):
        return "native"
    return "compat" if path.startswith("/v1") or path.endswith("/nsfw") else "page"
