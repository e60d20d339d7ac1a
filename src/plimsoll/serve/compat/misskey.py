"""Misskey's sensitive-media detector: `POST /v1/detect-images`.

Misskey sends pictures as parts of a multipart body (299 x 299 PNG; whatever the model reads is fine here) and finds the
classes Hentai, Porn and Sexy in the answers, which it judges by its own threshold. After the API document of
misskey-dev/sensitive-detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll.serve.compat.moderation import Seen, look
from plimsoll.serve.compat.settings import MISSKEY_PATH
from plimsoll.serve.http.body import Part, read_body, read_parts
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings

_CODES = {"input": "INVALID_REQUEST", "image": "IMAGE_DECODE_FAILED", "unavailable": "MODEL_UNAVAILABLE"}
_WHOLE = {413: "REQUEST_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE"}
_UNSAID = ("", "application/octet-stream")


def routes(service: Service) -> list[Route]:
    """Return the endpoint."""
    settings = service.settings.compat
    if not settings.misskey.enabled:
        return []

    async def detect(request: Request) -> Response:
        try:
            parts = await _parts(request, service.settings)
        except RequestError as refused:
            return _refusal(refused.problem)
        wrong = [_wrong(part) for part in parts]
        good = [part.data for part, problem in zip(parts, wrong, strict=True) if problem is None]
        try:
            seen: Sequence[Seen | Problem] = (
                await look(request, service, settings, settings.misskey.model, good)
            ).pictures
        except RequestError as refused:  # the contract has a model's failure in each picture's entry
            seen = [refused.problem] * len(good)
        rest = iter(seen)
        results = [_failed(*problem) if problem else _shown(next(rest)) for problem in wrong]
        return Response(to_json({"success": True, "result": {"results": results}}), media_type="application/json")

    return [Route(MISSKEY_PATH, detect, methods=["POST"])]


async def _parts(request: Request, settings: Settings) -> list[Part]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        await read_body(request, settings)  # the contract looks at the size first
        raise RequestError(
            Problem("input", "the body must be multipart/form-data", "Send each picture as a part.", 415)
        )
    parts = await read_parts(request, settings)
    if not parts:
        raise RequestError(Problem("input", "the body has no parts", "Send each picture as a part.", 400))
    if len(parts) > settings.max_items:
        raise RequestError(
            Problem(
                "input", f"{len(parts):,} parts; at most {settings.max_items:,} are read", "Send several requests.", 413
            )
        )
    return parts


def _wrong(part: Part) -> tuple[str, str] | None:
    """Return the code and the words for what is wrong with a part, before anybody looks at its picture."""
    if part.filename is None:
        return "INVALID_REQUEST", "the part is not a file"
    if not part.data:
        return "INVALID_REQUEST", "the part is empty"
    kind = part.content_type.partition(";")[0].strip().lower()
    if kind not in _UNSAID and not kind.startswith("image/"):
        return "UNSUPPORTED_MEDIA_TYPE", f"a part of type {kind[:100]!r} is not read"
    return None


def _shown(seen: Seen | Problem) -> dict[str, Any]:
    if isinstance(seen, Problem):
        return _failed(_CODES.get(seen.kind, "DETECTION_FAILED"), seen.message)
    ordered = sorted(seen.classes.items(), key=lambda one: -one[1])
    return {
        "success": True,
        "predictions": [{"className": name, "probability": probability} for name, probability in ordered],
    }


def _failed(code: str, message: str) -> dict[str, Any]:
    return {"success": False, "error": {"code": code, "message": message}}


def _refusal(problem: Problem) -> Response:
    """Return the answer to a request that can't be read: 400, 413 or 415; 500 for what is our fault."""
    status = problem.status if problem.status in _WHOLE else 400 if problem.kind == "input" else 500
    code = _WHOLE.get(status) or ("INVALID_REQUEST" if status == 400 else "DETECTION_FAILED")
    return Response(to_json(_failed(code, problem.message)), status, media_type="application/json")
