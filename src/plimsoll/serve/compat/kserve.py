"""KServe's first protocol, which TensorFlow Serving speaks too: `POST /v1/models/NAME:predict` with `instances`.

An instance is a picture's file in base64: text, `{"b64": text}`, or an object with one of these as its only member, as
`{"image_bytes": {"b64": text}}`. A prediction is what `/v1/predict` answers. The protocol has no errors for single
instances, so a picture without an answer fails its request.
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.requests import Request

from plimsoll.serve.http.body import check_count, read_body, while_connected
from plimsoll.serve.http.endpoints import (
    PNG,
    Content,
    Description,
    Endpoint,
    Endpoints,
    OipError,
    Reply,
    context_of,
    errors,
    ok,
    parameter,
)
from plimsoll.serve.messages import DescribedAs, Problem, ReplyModel, RequestError, RequestOptions, validated
from plimsoll.serve.parsing import JsonLimits, decode_base64, off_loop, read_json
from plimsoll.serve.service import Service

_EXPECTED = 'Send {"instances": [{"b64": "<base64>"}]}.'
_MAX_NESTING = 3
_ERRORS = {
    400: "The request can't be read, or a picture in it.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large, or holds too many pictures.",
    415: "A picture is of a kind that is not read, or the body's compression is unknown.",
    422: "A picture is not allowed.",
    500: "A worker ended, twice, while it computed this, or the network gave what its Spec does not allow.",
    503: "There is no room, or no worker.",
    504: "There was no answer in time.",
}


class InstancesRequest(BaseModel):
    """Pictures."""

    instances: list[Any] = Field(min_length=1, description="Files of pictures in base64, as text or `{b64: text}`.")


class Predictions(ReplyModel):
    """An answer for each picture, in their order, by the model's task."""

    predictions: Annotated[list[Any], DescribedAs(list[dict[str, Any]])]


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoint."""
    api = Endpoints("oip")

    @api.post("/v1/models/{name}:predict", _description(service), right="predict")
    async def predict(request: Request) -> Predictions | Reply[OipError]:
        try:
            return await _predictions(request, service)
        except RequestError as error:
            return Reply(OipError(error=error.problem.text), error.problem.status, error.problem)

    return api.rows


async def _predictions(request: Request, service: Service) -> Predictions:
    model = service.choose(request.path_params["name"])
    limits = JsonLimits.for_items(service.settings.max_items)
    data = await read_json(await read_body(request, service), _EXPECTED, limits)
    question = validated(InstancesRequest, data, status=400, hint=_EXPECTED)
    check_count(len(question.instances), service.settings, _EXPECTED)
    texts = [_text_of(instance, number) for number, instance in enumerate(question.instances)]
    pictures = await off_loop(sum(map(len, texts)), _decoded, texts)
    context = context_of(request)
    context.model, context.pictures = model.name, len(pictures)
    results = await while_connected(request, model.predict(pictures, RequestOptions()))
    context.milliseconds = [result.milliseconds for result in results]
    for number, result in enumerate(results):
        if (problem := result.problem) is not None:
            message = f"instances[{number}]: {problem.message}"
            raise RequestError(Problem(problem.kind, message, problem.hint, problem.status, problem.retry_after))
    return Predictions(predictions=[result.row for result in results])


def _text_of(instance: Any, number: int) -> str:
    """Return the base64 of an instance; raises RequestError (400)."""
    inner = instance
    for _ in range(_MAX_NESTING):
        if isinstance(inner, str):
            return inner
        if not isinstance(inner, dict) or len(inner) != 1:
            break
        inner = next(iter(inner.values()))
    raise RequestError(Problem("input", f"instances[{number}] is not a picture in base64", _EXPECTED, 400))


def _decoded(texts: list[str]) -> list[bytes]:
    pictures = []
    for number, text in enumerate(texts):
        try:
            pictures.append(decode_base64(text))
        except ValueError as error:
            message = f"instances[{number}] is not base64: {error}"
            raise RequestError(Problem("input", message, _EXPECTED, 400)) from error
    return pictures


def _description(service: Service) -> Description:
    names = sorted(service.models)
    example = {"predictions": [{"label": "sfw", "score": 0.03}]}
    return Description(
        "kserveV1Predict",
        "KServe's first protocol, and TensorFlow Serving's: answer pictures.",
        [
            ok(
                Predictions,
                "An answer for each picture.",
                a_classifier=example,
            ),
            *errors(OipError, _ERRORS),
        ],
        "A picture without an answer fails the whole request, since the protocol has no errors for single pictures.",
        [parameter("name", "path", {"type": "string", "enum": names}, "The model's name.")],
        [Content(InstancesRequest, examples={"one picture": {"instances": [{"b64": PNG}]}})],
    )
