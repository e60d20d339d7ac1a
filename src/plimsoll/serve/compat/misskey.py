"""Misskey's sensitive-media detector: `POST /v1/detect-images`.

Misskey sends pictures as parts of a multipart body (299 x 299 PNG; whatever the model reads is fine here) and finds the
classes Hentai, Porn and Sexy in the answers, which it judges by its own threshold. After the API document of
misskey-dev/sensitive-detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from starlette.requests import Request

from plimsoll.serve.compat.moderation import Moderation, Probability, moderate
from plimsoll.serve.compat.settings import MISSKEY_PATH, Class
from plimsoll.serve.http.body import check_count, media_type, read_body, read_parts
from plimsoll.serve.http.endpoints import Description, Endpoint, Endpoints, Reply, errors, ok, picture_parts
from plimsoll.serve.http.multipart import Part
from plimsoll.serve.messages import Problem, ReplyModel, RequestError
from plimsoll.serve.service import Service

Code = Literal[
    "INVALID_REQUEST",
    "IMAGE_DECODE_FAILED",
    "MODEL_UNAVAILABLE",
    "DETECTION_FAILED",
    "UNSUPPORTED_MEDIA_TYPE",
    "REQUEST_TOO_LARGE",
]
_CODES: dict[str, Code] = {
    "input": "INVALID_REQUEST",
    "image": "IMAGE_DECODE_FAILED",
    "unavailable": "MODEL_UNAVAILABLE",
}
_REQUEST_CODES: dict[int, Code] = {413: "REQUEST_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE"}
_UNTYPED = ("", "application/octet-stream")


class Prediction(ReplyModel):
    """A class and its probability."""

    class_name: Class = Field(serialization_alias="className")
    probability: Probability


class Detection(ReplyModel):
    """A picture that was looked at: all five classes, the most probable first."""

    success: Literal[True]
    predictions: list[Prediction] = Field(min_length=5, max_length=5)


class DetectionError(ReplyModel):
    """Why."""

    code: Code
    message: str


class DetectionFailure(ReplyModel):
    """A picture, or a whole request, of which nothing is known."""

    success: Literal[False]
    error: DetectionError


class Detections(ReplyModel):
    """An entry for each part, in their order."""

    results: list[Detection | DetectionFailure]


class DetectResponse(ReplyModel):
    """The answer to Misskey."""

    success: Literal[True]
    result: Detections


_EXAMPLE = {
    "success": True,
    "result": {
        "results": [
            {
                "success": True,
                "predictions": [
                    {"className": "Neutral", "probability": 0.972},
                    {"className": "Porn", "probability": 0.028},
                    {"className": "Drawing", "probability": 0.0},
                    {"className": "Hentai", "probability": 0.0},
                    {"className": "Sexy", "probability": 0.0},
                ],
            },
            {"success": False, "error": {"code": "INVALID_REQUEST", "message": "the part is empty"}},
        ]
    },
}
_ERRORS = {
    400: "The request can't be read, or holds no parts.",
    413: "The body is too large, or has too many parts.",
    415: "The body is not multipart/form-data.",
    500: "Nothing could be looked at.",
}
_DESCRIPTION = Description(
    "misskeyDetect",
    "Misskey's sensitive-media detector: the five classes of pictures.",
    [
        ok(DetectResponse, "An entry for each part, in their order.", two_parts=_EXAMPLE),
        *errors(DetectionFailure, _ERRORS),
    ],
    "Each part that is a file is a picture; its name does not matter. A part that fails does so for itself, inside a"
    " 200.",
    takes=[picture_parts("image")],
)


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoint."""
    settings = service.settings.compat
    api = Endpoints("compat")
    if not settings.misskey.enabled:
        return []

    @api.post(MISSKEY_PATH, _DESCRIPTION, right="predict")
    async def detect(request: Request) -> DetectResponse | Reply[DetectionFailure]:
        try:
            parts = await _read_parts(request, service)
        except RequestError as error:
            return _refused(error.problem)
        failures = [_failure_of(part) for part in parts]
        pictures = [part.data for part, failure in zip(parts, failures, strict=True) if failure is None]
        outcomes: Sequence[Moderation | Problem]
        try:
            outcomes = (await moderate(request, service, settings.misskey.model, pictures)).pictures
        except RequestError as error:  # a model's failure stands in each picture's entry
            outcomes = [error.problem] * len(pictures)
        rest = iter(outcomes)
        results = [failure or _entry(next(rest)) for failure in failures]
        return DetectResponse(success=True, result=Detections(results=results))

    return api.rows


async def _read_parts(request: Request, service: Service) -> list[Part]:
    hint = "Send each picture as a part."
    if media_type(request) != "multipart/form-data":
        await read_body(request, service)  # Misskey expects the size to be judged first
        raise RequestError(Problem("input", "expected multipart/form-data", hint, 415))
    parts = await read_parts(request, service)
    check_count(len(parts), service.settings, hint, "parts")
    return parts


def _failure_of(part: Part) -> DetectionFailure | None:
    """Return what is wrong with a part, before its picture is decoded."""
    if not part.is_file:
        return _failure("INVALID_REQUEST", "the part is not a file")
    if not part.data:
        return _failure("INVALID_REQUEST", "the part is empty")
    kind = part.content_type.partition(";")[0].strip().lower()
    if kind not in _UNTYPED and not kind.startswith("image/"):
        return _failure("UNSUPPORTED_MEDIA_TYPE", f"unknown media type {kind[:100]!r}")
    return None


def _entry(outcome: Moderation | Problem) -> Detection | DetectionFailure:
    if isinstance(outcome, Problem):
        return _failure(_CODES.get(outcome.kind, "DETECTION_FAILED"), outcome.message)
    ordered = sorted(outcome.classes.items(), key=lambda scored: -scored[1])
    predictions = [Prediction(class_name=name, probability=probability) for name, probability in ordered]
    return Detection(success=True, predictions=predictions)


def _failure(code: Code, message: str) -> DetectionFailure:
    return DetectionFailure(success=False, error=DetectionError(code=code, message=message))


def _refused(problem: Problem) -> Reply[DetectionFailure]:
    """Return the answer to a request that can't be read: 400, 413 or 415; 500 for what is our fault."""
    status = problem.status if problem.status in _REQUEST_CODES else 400 if problem.kind == "input" else 500
    code = _REQUEST_CODES.get(status) or ("INVALID_REQUEST" if status == 400 else "DETECTION_FAILED")
    return Reply(_failure(code, problem.message), status)
