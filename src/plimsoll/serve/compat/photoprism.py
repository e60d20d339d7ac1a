"""PhotoPrism's vision service: `POST /v1/vision/nsfw`, and `…/nsfw` below other prefixes.

PhotoPrism sends JSON with pictures as data URLs and takes the entries of `result.nsfw` in their order. Its `status` is
safe, unsafe or unavailable. It decides again from `score` by a threshold of its own, or from the five classes where
there is no score, so an entry without an answer has neither. (After PhotoPrism's internal/ai/vision and
internal/ai/nsfw.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request

from plimsoll.serve.compat.moderation import Moderated, Moderation, Probability, moderate
from plimsoll.serve.http import urls
from plimsoll.serve.http.body import check_count, read_body, while_connected
from plimsoll.serve.http.endpoints import PNG, Content, Description, Endpoint, Endpoints, Reply, errors, ok
from plimsoll.serve.messages import Problem, ReplyModel, RequestError, validated
from plimsoll.serve.parsing import JsonLimits, decode_base64, off_loop, read_json
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_MAX_ID = 200
_EXPECTED = 'Send {"images": ["data:image/jpeg;base64,…"]}.'


class VisionRequest(BaseModel):
    """What PhotoPrism asks; it sends more (options, a prompt …) that other kinds of model use."""

    id: str = Field("", description="Comes back with the answer.")
    images: list[str] = Field(
        [],
        fail_fast=True,
        description=(
            "Pictures as data URLs, `data:image/jpeg;base64,…`; others only for hosts that the service was told to"
            " trust."
        ),
    )
    url: str = Field("", description="One more picture.")

    @property
    def urls(self) -> list[str]:
        """Return all pictures, as they are named."""
        return [*self.images, *([self.url] if self.url else [])]


class VisionVerdict(ReplyModel):
    """A picture that was looked at."""

    status: Literal["safe", "unsafe"]
    score: Probability = Field(description="How sure the model is that it is not safe.")
    threshold: Probability = Field(description="From this score on it is unsafe.")
    Drawing: Probability
    Hentai: Probability
    Neutral: Probability
    Porn: Probability
    Sexy: Probability


class VisionUnavailable(ReplyModel):
    """A picture of which nothing is known: neither a score nor a class, as PhotoPrism would decide by them."""

    status: Literal["unavailable"]
    reason: str


class VisionModel(ReplyModel):
    """What answered."""

    type: Literal["nsfw"]
    name: str
    version: str


class VisionResult(ReplyModel):
    """An entry for each picture, in their order."""

    nsfw: list[VisionVerdict | VisionUnavailable]


class VisionResponse(ReplyModel):
    """The answer to PhotoPrism."""

    id: str
    code: Literal[200]
    model: VisionModel
    result: VisionResult


class VisionNothing(ReplyModel):
    """An entry for each picture that could be counted, none with an answer."""

    nsfw: list[VisionUnavailable]


class VisionError(ReplyModel):
    """The answer to PhotoPrism when the whole request failed."""

    id: str
    code: int = Field(description="The status.")
    error: str
    result: VisionNothing


_VERDICT = {
    "status": "safe",
    "score": 0.028,
    "threshold": 0.5,
    "Drawing": 0.0,
    "Hentai": 0.0,
    "Neutral": 0.972,
    "Porn": 0.028,
    "Sexy": 0.0,
}
_EXAMPLE = {
    "id": "6ba7b810",
    "code": 200,
    "model": {"type": "nsfw", "name": "open_nsfw", "version": "1"},
    "result": {"nsfw": [_VERDICT, {"status": "unavailable", "reason": "the data URL is not base64"}]},
}
_ERRORS = {
    400: "The request can't be read, or names no picture.",
    404: "The model that shall answer is not served.",
    408: "The body came too slowly.",
    413: "The body is too large, or names too many pictures.",
    415: "The body's compression is unknown.",
    503: "There is no room, or the model does not answer now, or it can't say what is safe.",
}


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoints."""
    settings = service.settings.compat.photoprism
    api = Endpoints("compat")
    if not settings.enabled:
        return []

    async def nsfw(request: Request) -> VisionResponse | Reply[VisionError]:
        question = VisionRequest()
        try:
            question = await _read(request, service)
            sent = await _pictures(request, question, service.settings)
        except RequestError as error:
            return _refused(question, error.problem, [])
        pictures = [picture for picture in sent if isinstance(picture, bytes)]
        try:
            moderated = await moderate(request, service, settings.model, pictures)
        except RequestError as error:
            problems = [picture if isinstance(picture, Problem) else error.problem for picture in sent]
            return _refused(question, error.problem, problems)
        return _response(
            question, moderated, sent, moderated.threshold if settings.threshold is None else settings.threshold
        )

    for number, path in enumerate(settings.paths, 1):
        api.post(path, _description(number), right="predict")(nsfw)
    return api.rows


def _description(number: int) -> Description:
    example = {"id": "6ba7b810", "model": "nsfw", "images": [f"data:image/png;base64,{PNG}"]}
    return Description(
        f"photoprismVision{number if number > 1 else ''}",
        "PhotoPrism's vision service: whether pictures are safe.",
        [
            ok(VisionResponse, "An entry for each picture, in their order.", two_pictures=_EXAMPLE),
            *errors(VisionError, _ERRORS),
        ],
        "A picture without an answer is `unavailable`, and never safe.",
        takes=[Content(VisionRequest, examples={"one picture": example})],
    )


async def _read(request: Request, service: Service) -> VisionRequest:
    limit = service.settings.max_items
    data = await read_json(await read_body(request, service), _EXPECTED, JsonLimits.for_items(limit))
    if isinstance(data, dict) and isinstance(data.get("images"), list):
        check_count(len(data["images"]) or 1, service.settings, _EXPECTED)
    question = validated(VisionRequest, data, status=400, hint=_EXPECTED)
    question.id = question.id[:_MAX_ID]
    check_count(len(question.urls), service.settings, _EXPECTED)
    return question


async def _pictures(request: Request, question: VisionRequest, settings: Settings) -> list[bytes | Problem]:
    """Return the bytes of each picture, or what is wrong with it; those that are named by http(s) URLs are fetched
    where that is allowed."""
    remote = [url for url in question.urls if not _is_data(url)]
    fetched = iter(await while_connected(request, urls.fetch_all(remote, settings.urls)) if remote else [])
    size = sum(map(len, question.urls))
    decoded = await off_loop(size, lambda: [_decoded(url) if _is_data(url) else None for url in question.urls])
    return [next(fetched) if picture is None else picture for picture in decoded]


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def _decoded(url: str) -> bytes | Problem:
    head = _DATA_URL.match(url)
    try:
        if head is not None:
            return decode_base64(url[head.end() :])
    except ValueError:
        pass
    return Problem("input", "the data URL is not base64", "data:image/jpeg;base64,…", 400)


def _response(
    question: VisionRequest, moderated: Moderated, sent: Sequence[bytes | Problem], threshold: float
) -> VisionResponse:
    rest = iter(moderated.pictures)
    outcomes = [picture if isinstance(picture, Problem) else next(rest) for picture in sent]
    entries = [
        _unavailable(outcome) if isinstance(outcome, Problem) else _verdict(outcome, threshold) for outcome in outcomes
    ]
    model = VisionModel(type="nsfw", name=moderated.model, version=moderated.version)
    return VisionResponse(id=question.id, code=200, model=model, result=VisionResult(nsfw=entries))


def _verdict(outcome: Moderation, threshold: float) -> VisionVerdict:
    status: Literal["safe", "unsafe"] = "safe" if outcome.is_safe(threshold) else "unsafe"
    classes = {str(name): probability for name, probability in outcome.classes.items()}
    return VisionVerdict(status=status, score=outcome.score, threshold=threshold, **classes)


def _unavailable(problem: Problem) -> VisionUnavailable:
    return VisionUnavailable(status="unavailable", reason=problem.message)


def _refused(question: VisionRequest, problem: Problem, pictures: Sequence[Problem]) -> Reply[VisionError]:
    """Return the answer to a request that got none; every picture in it is `unavailable`."""
    status = problem.status if problem.status >= 400 else 500
    nothing = VisionNothing(nsfw=[_unavailable(picture) for picture in pictures])
    return Reply(VisionError(id=question.id, code=status, error=problem.message, result=nothing), status, problem)
