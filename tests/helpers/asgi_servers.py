"""Real HTTP servers on this machine: any ASGI application in a thread, and one that speaks the contract of `POST
/v1/predict` as a test wants it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from plimsoll.serve.access.authorizer import AccessSettings, Authorizer
from plimsoll.serve.http.app import HttpApp
from plimsoll.serve.http.endpoints import Endpoint, Handler, Method
from plimsoll.serve.http.listener import Address, uvicorn_config
from plimsoll.serve.log import LineHandler, LogSettings
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.request import Operation
from plimsoll.serve.settings import CorsSettings, Settings
from plimsoll.serve.tracing import Tracing


class _SharedServer:
    """The server that `plimsoll serve` runs, one for all tests, with the application that is on now: starting and
    ending a server takes half a second."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        config = uvicorn_config(self._answer_with_app, Settings(), Address())
        server = uvicorn.Server(config)
        threading.Thread(
            target=server.run, kwargs={"sockets": [self._listener]}, daemon=True, name="http-server"
        ).start()
        while not server.started:
            time.sleep(0.005)

    async def _answer_with_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        assert app is not None, f"nobody serves {scope['path']}"
        await app(scope, receive, send)


_shared_server = cache(_SharedServer)


@contextmanager
def serve_app(app: ASGIApp) -> Iterator[str]:
    """Serve an application over HTTP, one at a time; give its address."""
    server = _shared_server()
    assert server.app is None, "one application at a time"
    server.app = app
    try:
        yield server.url
    finally:
        server.app = None


def http_app(
    rows: Sequence[Endpoint],
    access: AccessSettings | None = None,
    cors: CorsSettings | None = None,
    log: LogSettings | None = None,
    lines: LineHandler | None = None,
    tracing: Tracing | None = None,
) -> HttpApp:
    """Return an application of these endpoints behind the real pipeline; without `access` everybody may ask."""
    authorizer = Authorizer(access) if access is not None else None
    return HttpApp(rows, Pipeline(Metrics(), log or LogSettings(), authorizer, lines, tracing), cors)


def endpoint(operation: Operation, handler: Handler, method: Method = "GET") -> Endpoint:
    """Return an endpoint that nobody described."""
    return Endpoint(
        operation.path, operation.interface, operation.right, operation.probe, method=method, handler=handler
    )


def read_request(connection: socket.socket) -> bytes:
    """Read one whole request from a connection; empty where the other side closed it."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head


@contextmanager
def silent_port() -> Iterator[tuple[socket.socket, str]]:
    """Hold a port, so that nobody else can take it, and don't listen on it: give its socket and its address."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder, f"http://127.0.0.1:{holder.getsockname()[1]}"


@dataclass
class FakeService:
    """Answers each picture with its length as the score; what comes before that, a test decides."""

    before: Callable[[Request, int], Response | None] = lambda _request, _number: None
    """Called with a request and its number from 1; an answer of its own is sent instead."""
    seconds: float = 0.0
    limit: int = 64 * 1024 * 1024
    seen: list[Request] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    """How many requests were answered at once."""

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/v1/predict", self.predict, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/readyz", self.ready),
            ]
        )

    async def predict(self, request: Request) -> Response:
        self.seen.append(request)
        if (answer := self.before(request, len(self.seen))) is not None:
            return answer
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self._answer(request)
        finally:
            self.under_way -= 1

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(len(body))
        if len(body) > self.limit:
            return problem(413, f"a request of {len(body)} bytes; at most {self.limit} are accepted", "input")
        pictures = [body]
        if request.headers["content-type"].startswith("multipart/form-data"):
            async with request.form() as form:
                parts = form.getlist("file")
                assert len(parts) == len(form.multi_items())
                pictures = [await part.read() for part in parts if isinstance(part, UploadFile)]
        if self.seconds:
            await asyncio.sleep(self.seconds)
        results = [_result(index, data) for index, data in enumerate(pictures)]
        status = 415 if len(results) == 1 and results[0]["error"] else 200  # a lone picture's problem is the request's
        return JSONResponse({"model": "standin", "version": "3", "results": results}, status)

    async def models(self, request: Request) -> Response:
        self.seen.append(request)
        ready = {"name": "standin", "version": "3", "state": "ready", "labels": ["sfw", "nsfw"]}
        return JSONResponse(
            {"models": [ready, {"name": "other", "version": "1", "state": "unavailable", "reason": "its worker dies"}]}
        )

    async def ready(self, request: Request) -> Response:
        self.seen.append(request)
        return self.before(request, len(self.seen)) or Response()


def _result(index: int, data: bytes) -> dict[str, Any]:
    times = {"queue": 0.5, "decode": 1.0, "infer": 2.0, "answer": 0.1}
    if data.startswith(b"bad"):
        problem = {"kind": "image", "message": "not a picture", "hint": "Send a JPEG."}
        return {"name": str(index), "answer": None, "error": problem, "milliseconds": {"queue": 0.5}, "batch": 1}
    score = float(len(data))
    return {
        "name": str(index),
        "answer": {"label": None, "score": score, "scores": {"nsfw": score}},
        "error": None,
        "milliseconds": times,
        "batch": 2,
    }


def problem(status: int, message: str, kind: str = "overloaded", **headers: str) -> Response:
    """Return an error as the native interface writes it."""
    words = {"error": {"kind": kind, "message": message, "hint": "Come back."}}
    return JSONResponse(words, status, headers={name.replace("_", "-"): value for name, value in headers.items()})
