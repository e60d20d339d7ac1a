"""The page at `/` and its files.

The files in `site/` are served unchanged: edit one, and reload. What draws answers and handles the camera is the
browser package's (`plimsoll.export.web`). The page uses the native interface like any other client.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from plimsoll.serve.http.endpoints import (
    TEXT,
    Answer,
    Content,
    Description,
    Endpoint,
    Endpoints,
    ErrorResponse,
    errors,
    ok,
    parameter,
)
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.service import Service

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SHARED = ("camera.js", "elements.js", "overlay.css", "overlay.js", "verdict.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; media-src"
    " 'self' blob: mediastream:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: its own files, this service, and pictures that the user chose. `form-action`: its form is
answered by script."""

_UNCHANGED = Answer(304, "What the browser has already is still right.")
_IF_NONE_MATCH = parameter("If-None-Match", "header", TEXT, "The ETag of what the browser has.")
_PAGE = Description(
    "page",
    "A page to try the models.",
    [ok(TEXT, "The page.", "text/html"), _UNCHANGED],
    parameters=[_IF_NONE_MATCH],
)
_FILE = Description(
    "pageFile",
    "A file of the page.",
    [
        Answer(200, "The file.", [Content(TEXT, kind.partition(";")[0]) for kind in _TYPES.values()]),
        _UNCHANGED,
        *errors(ErrorResponse, {404: "There is no such file."}),
    ],
    parameters=[parameter("file", "path", TEXT, "Its name.", "serve.js"), _IF_NONE_MATCH],
)


def endpoints(_: Service) -> list[Endpoint]:
    """Return the endpoints."""
    api = Endpoints("page")

    @api.get("/", _PAGE, right=None)
    async def page(request: Request) -> Response:
        return _file(request, "index.html", {"Content-Security-Policy": POLICY})

    @api.get("/page/{file}", _FILE, right=None)
    async def file(request: Request) -> Response:
        return _file(request, request.path_params["file"], {})

    return api.rows


def _file(request: Request, name: str, headers: Mapping[str, str]) -> Response:
    """Return a file of the page; browsers ask again each time, and are told if they have it already."""
    by_name = {file.name: file for file in resources.files("plimsoll.serve.http").joinpath("site").iterdir()}
    by_name |= {shared: resources.files("plimsoll.export.web").joinpath("site", shared) for shared in _SHARED}
    kind = _TYPES.get(Path(name).suffix)
    if name not in by_name or kind is None:
        raise RequestError(Problem("input", f"there is nothing at {request.scope['path']}", "The page is at /.", 404))
    data = by_name[name].read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", **headers}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers={**headers, "Content-Type": kind})
