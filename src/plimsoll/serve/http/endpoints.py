"""The table of what is served over HTTP, with its description; and what handlers answer with: pydantic models, and
errors in the shape of each interface.

Each interface writes its endpoints down where they are implemented, with a decorator:

    api = Endpoints("native")

    @api.post("/v1/predict", Description("predict", "Answer one picture or many.", …), right="predict")
    async def predict(request: Request) -> PredictResponse: ...

The same rows route a request, say which right it needs (`EndpointTable`), under which interface it is counted and
whether it is a probe (`Operation`), and are described at /openapi.json.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from plimsoll.serve.access.authorizer import AccessSettings, Right
from plimsoll.serve.http.sockets import SocketHandler
from plimsoll.serve.messages import Problem, ProblemKind, ReplyModel, RequestError
from plimsoll.serve.request import Interface, Operation, RequestContext

Schema = Mapping[str, Any]
Shape = type[BaseModel] | Schema

JSON = "application/json"
RETRY: Mapping[str, Any] = {
    "Retry-After": {
        "description": "Seconds until it is worth trying again, where that is known.",
        "schema": {"type": "integer"},
    }
}
TEXT: Schema = {"type": "string"}
FILE: Schema = {"type": "string", "format": "binary"}
"""Any bytes: OpenAPI's closest type for a file."""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mOsWHCCARtgYsABBqcEAHoHAfCY5IuSAAAAAElFTkSuQmCC"
"""A PNG of 8 × 8 blue pixels in base64: examples hold a picture that a service really answers."""


@dataclass(frozen=True)
class Content:
    """What a body holds in one media type."""

    shape: Shape
    media: str = JSON
    examples: Mapping[str, Any] = field(default_factory=dict)
    """By their names."""


@dataclass(frozen=True)
class Answer:
    """A status, and what comes with it. An endpoint may have several of one status: any of them can come."""

    status: int
    meaning: str
    contents: Sequence[Content] = ()
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """What an endpoint does."""

    name: str
    """Its operation id."""
    summary: str
    answers: Sequence[Answer]
    details: str = ""
    parameters: Sequence[Schema] = ()
    takes: Sequence[Content] = ()
    """The media types of its request's body; none where it has no body."""
    may_be_empty: bool = False
    """Whether the body may be left out."""


PICTURE_AS_BODY = tuple(
    Content(FILE, media) for media in ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
)
"""A picture's file as the whole body."""


def picture_parts(name: str) -> Content:
    """Return a multipart body with pictures in its parts of this name."""
    pictures = {"type": "array", "items": FILE, "minItems": 1}
    return Content({"type": "object", "properties": {name: pictures}, "required": [name]}, "multipart/form-data")


def ok(shape: Shape, meaning: str, media: str = JSON, **examples: Any) -> Answer:
    """Return the answer 200; examples by their names, in which underscores stand for spaces."""
    named = {name.replace("_", " "): value for name, value in examples.items()}
    return Answer(200, meaning, [Content(shape, media, named)])


def errors(shape: type[BaseModel], meanings: Mapping[int, str]) -> list[Answer]:
    """Return answers of one shape, each with its status and meaning; those that may pass by themselves say when to try
    again."""
    return [
        Answer(status, meaning, [Content(shape)], RETRY if status in (429, 503) else {})
        for status, meaning in meanings.items()
    ]


def parameter(
    name: str, where: Literal["query", "path", "header"], schema: Schema, description: str, example: object = None
) -> dict[str, Any]:
    """Return a parameter; those in the path are required."""
    described = {"name": name, "in": where, "description": description, "schema": dict(schema)}
    return (
        described | ({"required": True} if where == "path" else {}) | ({} if example is None else {"example": example})
    )


ModelT = TypeVar("ModelT", bound=BaseModel, covariant=True)
Method = Literal["GET", "POST"]
_H = TypeVar("_H", bound=Callable[[Request], Awaitable[Any]])
_FAVICON = "/favicon.ico"
"""Browsers request it without a key; the answer is 404."""


class ErrorInfo(ReplyModel):
    """A problem. None of its kinds says anything about what the picture shows."""

    kind: ProblemKind
    message: str
    hint: str

    @classmethod
    def of(cls, problem: Problem) -> ErrorInfo:
        """Return what a caller reads of a problem."""
        return cls(kind=problem.kind, message=problem.message, hint=problem.hint)


class ErrorResponse(ReplyModel):
    """Why there is no answer."""

    error: ErrorInfo


class OipError(ReplyModel):
    """Why there is no answer, as the Open Inference Protocol writes it."""

    error: str


@dataclass(frozen=True, slots=True)
class Reply(Generic[ModelT]):
    """A model that is answered with a status other than 200, or with headers; a problem's with `Retry-After`."""

    body: ModelT
    status: int = 200
    problem: Problem | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def respond(result: BaseModel | Reply[BaseModel] | Response) -> Response:
    """Return the response for what a handler returned. Of a model those keys are written that were set."""
    if isinstance(result, Response):
        return result
    reply = result if isinstance(result, Reply) else Reply(result)
    headers = dict(reply.headers)
    if reply.problem is not None and reply.problem.retry_seconds is not None:
        headers["Retry-After"] = str(reply.problem.retry_seconds)
    body = reply.body.__pydantic_serializer__.to_json(reply.body, by_alias=True, exclude_unset=True)
    return Response(body, reply.status, headers, media_type="application/json")


def error_reply(problem: Problem, interface: Interface, headers: Mapping[str, str] | None = None) -> Reply[BaseModel]:
    """Return an error in the shape of an interface: the Open Inference Protocol has a text, everything else says more.

    Other products' interfaces have shapes of their own for what they answer themselves; who isn't admitted to them, or
    meets a bug, reads this service's.
    """
    body = OipError(error=problem.text) if interface == "oip" else ErrorResponse(error=ErrorInfo.of(problem))
    return Reply(body, problem.status, problem, headers or {})


Handler = Callable[[Request], Awaitable[BaseModel | Reply[Any] | Response]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Endpoint(Operation):
    """A method at a path."""

    method: Method = "GET"
    handler: Handler
    description: Description | None = None
    socket: SocketHandler | None = None
    """What talks over a WebSocket, where that is asked for; the path's right holds for it too."""

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        if "{" not in self.path:
            return None
        parts = re.split(r"\{(\w+)\}", self.path)
        return re.compile("".join(f"(?P<{part}>[^/]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts)))

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the parameters in a decoded path, or None where the path is another's."""
        if self._pattern is None:
            return {} if path == self.path else None
        match = self._pattern.fullmatch(path)
        return match.groupdict() if match is not None else None

    def has_method(self, method: str) -> bool:
        """Whether it answers a method; HEAD is answered as GET."""
        return method == self.method or (method == "HEAD" and self.method == "GET")


class Endpoints:
    """The endpoints of one interface; `get` and `post` are decorators of their handlers."""

    def __init__(self, interface: Interface) -> None:
        self.interface = interface
        self.rows: list[Endpoint] = []

    def get(
        self,
        path: str,
        description: Description,
        *,
        right: Right | None = "control",
        probe: bool = False,
        socket: SocketHandler | None = None,
    ) -> Callable[[_H], _H]:
        """Have the decorated function answer GET; `socket` talks where a WebSocket is asked for."""
        return self._adding("GET", path, description, right, probe=probe, socket=socket)

    def post(self, path: str, description: Description, *, right: Right | None = "control") -> Callable[[_H], _H]:
        """Have the decorated function answer POST."""
        return self._adding("POST", path, description, right, probe=False)

    def _adding(
        self,
        method: Method,
        path: str,
        description: Description,
        right: Right | None,
        *,
        probe: bool,
        socket: SocketHandler | None = None,
    ) -> Callable[[_H], _H]:
        def add(handler: _H) -> _H:
            row = Endpoint(
                path,
                self.interface,
                right,
                probe,
                method=method,
                handler=handler,
                description=description,
                socket=socket,
            )
            self.rows.append(row)
            return handler

        return add


@dataclass(frozen=True, slots=True)
class Match:
    """What answers a request."""

    endpoint: Endpoint
    parameters: Mapping[str, str]
    """Those in its path."""
    right: Right | None
    """What the caller needs; None if no key is needed."""


class EndpointTable:
    """All endpoints; the first that has a request's path and method answers it."""

    def __init__(self, endpoints: Sequence[Endpoint], access: AccessSettings | None = None) -> None:
        access = access or AccessSettings()
        self.endpoints = endpoints
        self._open_metrics = access.open_metrics
        self._open = frozenset(path for path in access.open_paths if not path.endswith("/*"))
        self._open_below = tuple(path[:-1] for path in access.open_paths if path.endswith("/*"))

    def find(self, method: str, path: str) -> Match:
        """Return what answers a request: an endpoint, or a stand-in that says why no endpoint matches.

        Learning that a path leads nowhere needs a key.
        """
        if not is_readable(path):
            return Match(refusing(path, _UNREADABLE), {}, None)
        others: list[Endpoint] = []
        for endpoint in self.endpoints:
            parameters = endpoint.match(path)
            if parameters is not None:
                if endpoint.has_method(method):
                    return Match(endpoint, parameters, self.right(endpoint, path))
                others.append(endpoint)
        endpoint = _not_allowed(method, path, others) if others else self._redirecting(path) or _not_found(path)
        is_favicon = path == _FAVICON and method in ("GET", "HEAD")
        return Match(endpoint, {}, None if is_favicon else self.right(endpoint, path))

    def right(self, endpoint: Endpoint, path: str) -> Right | None:
        """Return what a request needs, where settings may have opened its path.

        A wildcard opens no endpoint that controls models or shows reports, which stand among those for inference.
        """
        if path in self._open or (endpoint.right == "metrics" and self._open_metrics):
            return None
        if endpoint.right not in ("control", "report") and self._open_below and path.startswith(self._open_below):
            return None
        return endpoint.right

    def _redirecting(self, path: str) -> Endpoint | None:
        """Return what leads from a path with a slash too many or too few to the right one."""
        other = path.rstrip("/") if path.endswith("/") else path + "/"
        if not any(endpoint.match(other) is not None for endpoint in self.endpoints):
            return None

        async def redirect(request: Request) -> Response:
            query = request.scope["query_string"].decode("latin-1")
            return RedirectResponse(quote(request.scope["root_path"] + other) + (f"?{query}" if query else ""))

        return _stand_in(path, redirect)


def is_readable(path: str) -> bool:
    """Return whether a decoded path is printable text: no control, format or separator characters, and no U+FFFD, which
    replaces invalid UTF-8.

    Such characters are read differently in different places: Python's `$` ignores a trailing newline, `\\Z` doesn't.
    """
    return path.isprintable() and "\ufffd" not in path


def context_of(request: Request) -> RequestContext:
    """Return what is known of a request, for the handler to add to."""
    context: RequestContext = request.scope["state"]["context"]
    return context


_UNREADABLE = Problem(
    "input", "the path contains control characters, or is not UTF-8", "Is it percent-encoded correctly?", 400
)


def _stand_in(path: str, handler: Handler) -> Endpoint:
    return Endpoint("", "oip" if path.startswith("/v2") else "none", "predict", handler=handler)


def refusing(path: str, problem: Problem) -> Endpoint:
    """Return a stand-in for an endpoint at this path, which answers with a problem."""

    async def refuse(_: Request) -> Response:
        raise RequestError(problem)

    return _stand_in(path, refuse)


def _not_found(path: str) -> Endpoint:
    hint = "GET /openapi.json lists what there is."
    return refusing(path, Problem("input", f"there is nothing at {path}", hint, 404))


def _not_allowed(method: str, path: str, others: Sequence[Endpoint]) -> Endpoint:
    async def refuse(request: Request) -> Reply[BaseModel]:
        problem = Problem("input", f"{method} is not allowed at {path}", "GET /openapi.json lists what there is.", 405)
        allowed = sorted({name for other in others for name in ("GET", "HEAD", "POST") if other.has_method(name)})
        return error_reply(problem, context_of(request).operation.interface, {"Allow": ", ".join(allowed)})

    return _stand_in(path, refuse)
