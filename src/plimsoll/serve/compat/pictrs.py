"""pict-rs's external validation: `POST /v1/validate` with a picture's bytes.

pict-rs, which stores Lemmy's pictures, accepts an upload where the answer is 2xx and refuses it at anything else
(src/ingest.rs). 200 is said of a picture that was looked at and is safe, 406 of one that was looked at and is not, and
another status of one that has no answer: it is refused like an unsafe one, and differs in logs and metrics.
"""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request

from plimsoll.serve.compat.moderation import Probability, moderate
from plimsoll.serve.compat.settings import PictrsSettings
from plimsoll.serve.http.body import check_count, read_body
from plimsoll.serve.http.endpoints import (
    PICTURE_AS_BODY,
    RETRY,
    Answer,
    Content,
    Description,
    Endpoint,
    Endpoints,
    Reply,
    ok,
)
from plimsoll.serve.messages import Problem, ReplyModel, RequestError
from plimsoll.serve.service import Service


class Accepted(ReplyModel):
    """Looked at, and safe."""

    status: Literal["accepted"]
    score: Probability
    threshold: Probability


class Rejected(ReplyModel):
    """Looked at, and not safe."""

    status: Literal["rejected"]
    score: Probability
    threshold: Probability


class Unknown(ReplyModel):
    """Nothing is known of the picture."""

    status: Literal["unknown"]
    reason: str


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoint."""
    settings = service.settings.compat.pictrs
    api = Endpoints("compat")
    if not settings.enabled:
        return []

    @api.post(settings.path, _description(settings), right="predict")
    async def validate(request: Request) -> Accepted | Reply[Rejected] | Reply[Unknown]:
        try:
            body = await read_body(request, service)
            check_count(1 if body else 0, service.settings, "Send a picture's bytes.")
            moderated = await moderate(request, service, settings.model, [body])
        except RequestError as error:
            return _unknown(error.problem, settings.error_status)
        (outcome,) = moderated.pictures
        if isinstance(outcome, Problem):
            return _unknown(outcome, settings.error_status)
        threshold = moderated.threshold if settings.threshold is None else settings.threshold
        if outcome.is_safe(threshold):
            return Accepted(status="accepted", score=outcome.score, threshold=threshold)
        return Reply(Rejected(status="rejected", score=outcome.score, threshold=threshold), 406)

    return api.rows


def _unknown(problem: Problem, status: int) -> Reply[Unknown]:
    return Reply(Unknown(status="unknown", reason=problem.message), status, problem)


def _description(settings: PictrsSettings) -> Description:
    accepted = {"status": "accepted", "score": 0.028, "threshold": 0.5}
    rejected = {"status": "rejected", "score": 0.93, "threshold": 0.5}
    return Description(
        "pictrsValidate",
        "pict-rs's external validation: whether an upload is accepted.",
        [
            ok(Accepted, "It was looked at and is safe.", safe=accepted),
            Answer(406, "It was looked at and is not safe.", [Content(Rejected, examples={"not safe": rejected})]),
            Answer(settings.error_status, "It could not be looked at, for whatever reason.", [Content(Unknown)], RETRY),
        ],
        "pict-rs accepts an upload where the status is 2xx, and refuses it otherwise.",
        takes=PICTURE_AS_BODY,
    )
