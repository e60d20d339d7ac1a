"""pict-rs's external validation: `POST /v1/validate` with a picture's bytes.

pict-rs, which stores Lemmy's pictures, accepts an upload where the answer is 2xx and refuses it at anything else
(src/ingest.rs). 200 is said of a picture that was looked at and is safe, 406 of one that was looked at and is not, and
another status of one that has no answer: it is refused like an unsafe one, and told apart in logs and metrics.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll.serve.compat.moderation import look
from plimsoll.serve.http.body import read_body
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.service import Service


def routes(service: Service) -> list[Route]:
    """Return the endpoint."""
    settings = service.settings.compat
    own = settings.pictrs
    if not own.enabled:
        return []

    async def validate(request: Request) -> Response:
        try:
            body = await read_body(request, service.settings)
            if not body:
                raise RequestError(
                    Problem("input", "there is no picture in the request", "Send a picture's bytes.", 400)
                )
            looked = await look(request, service, settings, own.model, [body])
        except RequestError as refused:
            return _unknown(refused.problem, own.error_status)
        (seen,) = looked.pictures
        if isinstance(seen, Problem):
            return _unknown(seen, own.error_status)
        threshold = looked.threshold if own.threshold is None else own.threshold
        accepted = seen.is_safe(threshold)
        return _shown(
            {"status": "accepted" if accepted else "rejected", "score": seen.score, "threshold": threshold},
            200 if accepted else 406,
        )

    return [Route(own.path, validate, methods=["POST"])]


def _unknown(problem: Problem, status: int) -> Response:
    response = _shown({"status": "unknown", "reason": problem.message}, status)
    if problem.retry_after:
        response.headers["Retry-After"] = str(max(1, round(problem.retry_after)))
    return response


def _shown(body: dict[str, Any], status: int) -> Response:
    return Response(to_json(body), status, media_type="application/json")
