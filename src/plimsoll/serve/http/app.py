"""The service over HTTP, as an ASGI application: the pipeline's adapter to that protocol.

```
HttpApp       finds what answers a request, and sends its answer or error
└─ _Exchange  the request's messages as they pass: their bytes and times; headers that every answer has
```
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import re
import time
from collections.abc import Callable, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plimsoll.errors import PlimsollError
from plimsoll.serve.access.origins import SAFE_METHODS, is_foreign_page
from plimsoll.serve.access.proxies import TrustedProxies
from plimsoll.serve.http.compression import compressed
from plimsoll.serve.http.endpoints import Endpoint, EndpointTable, Match, error_reply, refusing, respond
from plimsoll.serve.http.openapi import document_endpoint
from plimsoll.serve.http.sockets import Socket, with_key
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.pipeline import MAX_PATH, Pipeline, problem_of
from plimsoll.serve.request import RequestContext
from plimsoll.serve.service import Service
from plimsoll.serve.settings import CorsSettings

INTERFACES = (
    "http.predict",
    "http.clips",
    "http.frames",
    "http.oip",
    "http.operations",
    "http.models",
    "http.page",
    "compat.misskey",
    "compat.photoprism",
    "compat.pictrs",
    "compat.kserve",
)
"""Modules with a function `endpoints`, those for inference first: the first endpoint that fits answers."""
_LINGER_S = 5.0

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:"
    " mediastream:; connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
"""For HTML that doesn't bring its own policy: its own files, pictures that the user chose, nothing from elsewhere."""
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),  # answers say something about pictures
]
_PAGE_HEADERS = [*_SECURITY, (b"content-security-policy", PAGE_POLICY.encode())]
_DATA_HEADERS = [
    *_SECURITY,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
]
_CORS_REQUEST_HEADERS = (
    "Authorization",
    "X-API-Key",
    "X-Request-Id",
    "Content-Type",
    "Inference-Header-Content-Length",
    "traceparent",
)
_CORS_ANSWER_HEADERS = ("X-Request-Id", "Retry-After", "Inference-Header-Content-Length")
_FOREIGN = Problem(
    "input",
    "web pages of other sites may not send this request",
    "Who runs this service may allow an origin: `[cors] origins`.",
    403,
)
_MAX_PARAMETERS, _MAX_QUERY = 100, 16_384
_LONG_QUERY = Problem(
    "input",
    f"the query has more than {_MAX_PARAMETERS} parameters, or {_MAX_QUERY:,} bytes",
    "Send them in a body.",
    400,
)
_CROWDED = Problem("overloaded", "too many connections are open", "Try again later.", 503, 1.0)
_LOGGED_OPTIONS = {b"top", b"threshold", b"priority", b"timeout"}
_NUMBER = re.compile(rb"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")


def endpoints(service: Service, interfaces: Sequence[str] = INTERFACES) -> list[Endpoint]:
    """Return all that is served over HTTP."""
    rows: list[Endpoint] = []
    for name in interfaces:
        rows += importlib.import_module(f"plimsoll.serve.{name}").endpoints(service)
    return rows + document_endpoint(rows, service.settings.access)


def application(service: Service, pipeline: Pipeline | None = None, root_path: str = "") -> HttpApp:
    """Return the application of a service, which the caller starts and closes; without a pipeline no key is needed, and
    nothing is logged. `root_path`: the prefix below which a proxy shows it."""
    return HttpApp(
        endpoints(service),
        pipeline or Pipeline(service.metrics, service.settings.log),
        service.settings.cors,
        write_timeout=service.settings.write_timeout,
        draining=lambda: service.draining,
        root_path=root_path,
    )


class HttpApp:
    """Answers what the endpoints serve, all of it through the pipeline."""

    def __init__(
        self,
        rows: Sequence[Endpoint],
        pipeline: Pipeline,
        cors: CorsSettings | None = None,
        *,
        write_timeout: float = 30.0,
        draining: Callable[[], bool] = lambda: False,
        root_path: str = "",
    ) -> None:
        self.table = EndpointTable(rows, pipeline.authorizer.settings if pipeline.authorizer is not None else None)
        self._pipeline = pipeline
        self._draining = draining
        self._write_timeout = write_timeout
        self._root_path = root_path.rstrip("/")
        self._origins = cors.origins if cors is not None else ()
        self._answer: ASGIApp = self._handled if cors is None or not cors.origins else _with_cors(self._handled, cors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] not in ("http", "websocket"):
            return
        if scope["type"] == "websocket":
            scope["method"], scope["headers"] = "GET", with_key(scope)
        root = self._root_path  # which some proxies take away and others leave
        scope["root_path"] = root
        if root and scope["path"].startswith(f"{root}/"):
            scope["path"] = scope["path"][len(root) :]
        match = self._match(scope)
        context = _context(scope, match, self._pipeline.proxies)
        crowded = "crowded" in scope.get("state", ())
        scope["path_params"] = match.parameters
        scope["state"] = {"context": context, "endpoint": match.endpoint}
        if scope["type"] == "websocket":
            with self._pipeline.recorded(context):
                await self._talk(scope, receive, send)
            return
        exchange = _Exchange(context, receive, send, closing=crowded or self._draining())
        with self._pipeline.recorded(context):
            await self._answer(scope, exchange.receive, exchange.send)

    def _match(self, scope: Scope) -> Match:
        """Return what answers a request, found once: its right is checked and its handler called.

        A page of another site gets nowhere with what may do something.
        """
        method, path = scope["method"], scope["path"]
        match = self.table.find(method, path)
        if "crowded" in scope.get("state", ()) and not match.endpoint.probe:
            return Match(refusing(path, _CROWDED), {}, None)
        query = scope["query_string"]
        if len(query) > _MAX_QUERY or query.count(b"&") >= _MAX_PARAMETERS:
            return Match(refusing(path, _LONG_QUERY), {}, None)
        # No browser keeps another site's page from reading what comes over a WebSocket.
        harmless = scope["type"] == "http" and method in SAFE_METHODS and match.right != "control"
        if harmless or not is_foreign_page(scope["headers"], self._origins):
            return match
        return Match(refusing(path, _FOREIGN), {}, None)

    async def _talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["state"]["context"]
        endpoint: Endpoint = scope["state"]["endpoint"]
        await receive()  # that a connection is asked for
        socket = Socket(scope, (receive, send), context, lambda: self._pipeline.authorize(context), self._write_timeout)

        async def handle() -> None:
            if endpoint.socket is None:
                if not endpoint.path:  # a stand-in, which says why there is nothing
                    await endpoint.handler(Request({**scope, "type": "http"}))
                hint = "GET /openapi.json lists what there is."
                raise RequestError(Problem("input", f"nothing speaks WebSocket at {context.path}", hint, 400))
            await endpoint.socket(socket)

        async def fail(error: PlimsollError) -> None:
            problem = problem_of(error)
            headers = _challenge(context) if problem.status == 401 else None
            response = respond(error_reply(problem, "native", headers))
            own = {
                name: value for name, value in response.headers.items() if name in ("retry-after", "www-authenticate")
            }
            await socket.refuse(response.status_code, bytes(response.body), own)

        await self._pipeline.handled(context, handle, fail)

    async def _handled(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["state"]["context"]
        endpoint: Endpoint = scope["state"]["endpoint"]

        async def handle() -> None:
            request = Request(scope, receive, send)
            response = await compressed(respond(await endpoint.handler(request)), request.headers)
            await response(scope, receive, send)

        async def fail(error: PlimsollError) -> None:
            problem = problem_of(error)
            headers = _challenge(context) if problem.status == 401 else None
            await respond(error_reply(problem, context.operation.interface, headers))(scope, receive, send)

        await self._pipeline.handled(context, handle, fail)


def _context(scope: Scope, match: Match, proxies: TrustedProxies) -> RequestContext:
    context = RequestContext(match.endpoint, scope["method"], scope["path"], scope["headers"])
    context.right = match.right
    context.address = proxies.caller(scope["client"][0] if scope.get("client") else "", scope["headers"])
    if query := scope["query_string"]:
        context.options = logged_options(query)
    route = match.endpoint.path
    context.span_name = f"{context.method} {route}" if route else context.method
    context.attributes = {"http.request.method": context.method, "url.path": context.path[:MAX_PATH]}
    if route:
        context.attributes["http.route"] = route
    return context


def logged_options(query: bytes) -> dict[str, str]:
    """Return the parameters of a query that this service knows and that are numbers; everything else may be
    personal."""
    options = {}
    for pair in query[:1000].split(b"&"):
        name, _, value = pair.partition(b"=")
        if name in _LOGGED_OPTIONS and _NUMBER.fullmatch(value):
            options[name.decode()] = value.decode()
    return options


def _challenge(context: RequestContext) -> dict[str, str]:
    """Return the header of a 401, which tells a bad key from none (RFC 6750, 3)."""
    error = ', error="invalid_token"' if context.caller().tokens else ""
    return {"WWW-Authenticate": f'Bearer realm="plimsoll"{error}'}


def _with_cors(app: ASGIApp, settings: CorsSettings) -> ASGIApp:
    """Answer what browsers ask before they send other origins' requests, which carries no key; cookies are never sent
    along."""
    return CORSMiddleware(
        app,
        allow_origins=settings.origins,
        allow_methods=("GET", "POST"),
        allow_headers=_CORS_REQUEST_HEADERS,
        expose_headers=_CORS_ANSWER_HEADERS,
        max_age=settings.max_age,
    )


class _Exchange:
    """A request's messages as they pass."""

    __slots__ = ("_closing", "_context", "_receive", "_send", "_unread")

    def __init__(self, context: RequestContext, receive: Receive, send: Send, *, closing: bool) -> None:
        self._context = context
        self._receive = receive
        self._send = send
        self._closing = closing
        self._unread = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in context.headers
        )

    async def receive(self) -> Message:
        """Pass a message of the caller's on."""
        message = await self._receive()
        context = self._context
        if message["type"] == "http.request":
            context.bytes_in += len(message.get("body", b""))
            if not message.get("more_body"):
                self._unread = False
                context.received_ns = context.received_ns or time.time_ns()
        elif context.status is None:
            context.gone = True
        return message

    async def send(self, message: Message) -> None:
        """Pass a message of the answer on.

        What still comes of an unread body would hold the connection for as long as the caller likes; and a service that
        drains sends its callers away.
        """
        context = self._context
        if message["type"] == "http.response.start":
            self._started(message["status"])
            message["headers"] = self._headers(message.get("headers", ()))
        else:
            context.bytes_out += len(message.get("body", b""))
            if self._unread and not message.get("more_body"):
                await self._send({**message, "more_body": True})
                await _discard_rest(self._receive)
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    def _started(self, status: int) -> None:
        context = self._context
        context.status = context.attributes["http.response.status_code"] = status
        context.server_fault = status >= 500
        context.answered_ns = time.time_ns()

    def _headers(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        own = [(name.lower(), value) for name, value in headers]
        present = dict(own)
        added = _PAGE_HEADERS if present.get(b"content-type", b"").startswith(b"text/html") else _DATA_HEADERS
        own += [header for header in added if header[0] not in present]
        own.append((b"x-request-id", self._context.request_id.encode()))
        if self._unread or self._closing:
            own.append((b"connection", b"close"))
        return own


async def _discard_rest(receive: Receive) -> None:
    """Throw away, for a while, what a caller still sends: closing at once resets the connection, and the caller never
    sees the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
