"""PhotoPrism's vision service: `POST /v1/vision/nsfw`, and `…/nsfw` below other prefixes.

PhotoPrism sends JSON with pictures as data URLs and takes the entries of `result.nsfw` in their order. Its `status` is
safe, unsafe or unavailable. It decides again from `score` by a threshold of its own, or from the five classes where
there is no score, so an entry without an answer has neither. (After PhotoPrism's internal/ai/vision and
internal/ai/nsfw.)
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll.core.wording import explain
from plimsoll.serve.compat.moderation import Looked, Seen, look
from plimsoll.serve.http import urls
from plimsoll.serve.http.body import read_body
from plimsoll.serve.http.waiting import while_connected
from plimsoll.serve.json_body import read_json
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_MAX_ID = 200


class VisionQuestion(BaseModel):
    """What PhotoPrism asks; it sends more (options, a prompt …) that other kinds of model use."""

    id: str = Field("", description="Comes back with the answer.")
    images: list[str] = Field(
        [],
        description=(
            "Pictures as data URLs, `data:image/jpeg;base64,…`; others only for hosts that the service was told to"
            " trust."
        ),
    )
    url: str = Field("", description="One more picture.")


def routes(service: Service) -> list[Route]:
    """Return the endpoints."""
    own = service.settings.compat.photoprism
    if not own.enabled:
        return []

    async def nsfw(request: Request) -> Response:
        asked = VisionQuestion()
        try:
            asked = _read(await read_body(request, service.settings), service.settings)
            sent = await _pictures(request, asked, service.settings)
        except RequestError as refused:
            return _refusal(asked, refused.problem, [])
        try:
            looked = await look(
                request, service, service.settings.compat, own.model, [one for one in sent if isinstance(one, bytes)]
            )
        except RequestError as refused:
            return _refusal(
                asked, refused.problem, [one if isinstance(one, Problem) else refused.problem for one in sent]
            )
        return _answer(asked, looked, sent, looked.threshold if own.threshold is None else own.threshold)

    return [Route(path, nsfw, methods=["POST"]) for path in own.paths]


def _read(body: bytes, settings: Settings) -> VisionQuestion:
    try:
        asked = VisionQuestion.model_validate(read_json(body, _EXPECTED))
    except ValidationError as error:
        raise _bad(explain(error, "the body")) from error
    asked.id = asked.id[:_MAX_ID]
    count = len(asked.images) + bool(asked.url)
    if not count:
        raise _bad("there is no picture in the request")
    if count > settings.max_items:
        raise RequestError(
            Problem(
                "input",
                f"{count:,} pictures in one request; {settings.max_items:,} are allowed",
                "Send several requests.",
                413,
            )
        )
    return asked


_EXPECTED = 'Send {"images": ["data:image/jpeg;base64,…"]}.'


def _bad(message: str) -> RequestError:
    return RequestError(Problem("input", message, _EXPECTED, 400))


async def _pictures(request: Request, asked: VisionQuestion, settings: Settings) -> list[bytes | Problem]:
    """Return the bytes of each picture, or what is wrong with it; those that are named by http(s) URLs are fetched
    where that is allowed."""
    named = [*asked.images, *([asked.url] if asked.url else [])]
    elsewhere = [one for one in named if one[:5].lower() != "data:"]
    fetched = iter(await while_connected(request, urls.fetch_all(elsewhere, settings.urls)) if elsewhere else [])
    return [_decoded(one) if one[:5].lower() == "data:" else next(fetched) for one in named]


def _decoded(text: str) -> bytes | Problem:
    head = _DATA_URL.match(text)
    if head is None:
        return Problem("input", "the data URL is not of base64", "data:image/jpeg;base64,…", 400)
    try:
        return base64.b64decode(text[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        return Problem("input", "the data URL holds no base64", "data:image/jpeg;base64,…", 400)


def _answer(asked: VisionQuestion, looked: Looked, sent: Sequence[bytes | Problem], threshold: float) -> Response:
    rest = iter(looked.pictures)
    entries = [_entry(one if isinstance(one, Problem) else next(rest), threshold) for one in sent]
    model = {"type": "nsfw", "name": looked.model, "version": looked.version}
    return Response(
        to_json({"id": asked.id, "code": 200, "model": model, "result": {"nsfw": entries}}),
        media_type="application/json",
    )


def _entry(seen: Seen | Problem, threshold: float) -> dict[str, Any]:
    if isinstance(seen, Problem):
        return {"status": "unavailable", "reason": seen.message}
    status = "safe" if seen.is_safe(threshold) else "unsafe"
    return {"status": status, "score": seen.score, "threshold": threshold} | {
        str(name): probability for name, probability in seen.classes.items()
    }


def _refusal(asked: VisionQuestion, problem: Problem, pictures: Sequence[Problem]) -> Response:
    """Return the answer to a request that got none; every picture in it is `unavailable`."""
    status = problem.status if problem.status >= 400 else 500
    headers = {"Retry-After": str(max(1, round(problem.retry_after)))} if problem.retry_after else None
    entries = [_entry(one, 0.0) for one in pictures]
    return Response(
        to_json({"id": asked.id, "code": status, "error": problem.message, "result": {"nsfw": entries}}),
        status,
        headers,
        media_type="application/json",
    )
