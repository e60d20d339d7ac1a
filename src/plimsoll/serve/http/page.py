"""The page at `/`, its files, and what a bundle proves: the report that `ship` put into it, and its checks as JSON.

The page is what lies in `site/`, served as it is: change a file, and reload. It speaks with the native interface like
anybody else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll.errors import PlimsollError
from plimsoll.report.report import Report
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.service import Service
from plimsoll.system import files

_SITE = "site"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_REPORT = ("report", "report.json")
_REPORT_PAGE = ("report", "index.html")
_MAX_PAGE_BYTES = 64_000_000

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; media-src"
    " 'self' blob: mediastream:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: its own files, this service, and pictures that the user chose. `form-action`: its form is
answered by script."""


def routes(service: Service) -> list[Route]:
    """Return the endpoints."""

    async def index(request: Request) -> Response:
        return _file(request, "index.html", {"Content-Security-Policy": POLICY})

    async def file(request: Request) -> Response:
        return _file(request, request.path_params["file"], {})

    async def report(request: Request) -> Response:
        path = _in_bundle(service, request.path_params["name"], _REPORT_PAGE)
        return Response(
            await asyncio.to_thread(_read, path),
            media_type="text/html",
            headers={"Content-Security-Policy": report_policy()},
        )

    async def proof(request: Request) -> Response:
        name = request.path_params["name"]
        path = _in_bundle(service, name, _REPORT)
        return Response(to_json(await asyncio.to_thread(_proof, path)), media_type="application/json")

    return [
        Route("/", index, methods=["GET"]),
        Route("/page/{file}", file, methods=["GET"]),
        Route("/v1/models/{name}/report", report, methods=["GET"]),
        Route("/v1/models/{name}/proof", proof, methods=["GET"]),
    ]


def _file(request: Request, name: str, headers: Mapping[str, str]) -> Response:
    """Return a file of the page; browsers ask again each time, and are told if they have it already."""
    place = resources.files("plimsoll.serve.http").joinpath(_SITE)
    found = {one.name: one for one in place.iterdir()}.get(name)
    if found is None or Path(name).suffix not in _TYPES:
        raise RequestError(Problem("input", f"there is nothing at {request.scope['path']}", "The page is at /.", 404))
    data = found.read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    said = {"ETag": tag, "Cache-Control": "no-cache", **headers}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=said)
    return Response(data, headers={**said, "Content-Type": _TYPES[Path(name).suffix]})


def report_policy() -> str:
    """Return what a report may do that came in a bundle, which anybody may have made.

    It has an origin of its own, so that it can neither ask this service with a visitor's rights nor read what it
    answers; of scripts it may run the one that this version's reports have.
    """
    script = resources.files("plimsoll.report.page").joinpath("page.js").read_bytes()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src"
        f" 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _in_bundle(service: Service, name: str, parts: tuple[str, ...]) -> Path:
    """Return the path of a file in a model's bundle; raises RequestError (404) where there is none."""
    metadata = service.find(name).metadata
    if metadata is None or metadata.bundle is None:
        raise RequestError(
            Problem(
                "input", f"{name} does not come from a bundle, so it has no report", "`plimsoll ship` makes one.", 404
            )
        )
    path = Path(metadata.bundle)
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise _none(name)
    if not path.is_file():
        raise _none(name)
    return path


def _none(name: str) -> RequestError:
    return RequestError(
        Problem(
            "input",
            f"the bundle of {name} has no report",
            "`plimsoll ship` puts one into the bundles that it makes.",
            404,
        )
    )


def _read(path: Path) -> bytes:
    try:
        return files.read_bytes(path, _MAX_PAGE_BYTES)
    except OSError as error:
        raise RequestError(
            Problem(
                "failed",
                f"the report can't be read: {error.strerror}",
                "Was the model loaded anew just now? Try again.",
                503,
            )
        ) from error


def _proof(path: Path) -> dict[str, Any]:
    """Return what a report says in short: its checks and figures, without the rows behind them."""
    try:
        report = Report.read(path)
    except PlimsollError as error:
        raise RequestError(
            Problem("failed", "the bundle's report is not one that this version reads", status=500)
        ) from error
    shown = report.model_dump(mode="json", include={"kind", "subject", "created", "plimsoll", "checks", "measurements"})
    return {**shown, "passed": report.passed, "page": path.with_name(_REPORT_PAGE[1]).is_file()}
