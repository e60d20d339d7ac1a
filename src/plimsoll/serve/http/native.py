"""The native interface: `POST /v1/predict`, `GET /v1/models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll.core.wording import explain
from plimsoll.serve.http import urls
from plimsoll.serve.http.body import read_body, read_parts
from plimsoll.serve.http.waiting import while_connected
from plimsoll.serve.json_body import read_json
from plimsoll.serve.messages import InferenceResult, Problem, RequestError, RequestOptions
from plimsoll.serve.served_model import ServedModel
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings


class Question(BaseModel):
    """What is asked besides the pictures: in the query, or in a JSON body."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("", description="The model's name; may be left out where there is only one.")
    top: Annotated[int, Field(ge=1, le=100_000)] | None = Field(None, description="Only the best so many labels.")
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="Replaces the model's threshold.")
    priority: Annotated[int, Field(ge=-1, le=1)] = Field(0, description="1 goes before 0, 0 before -1.")
    timeout: Annotated[float, Field(ge=0.1, le=3600)] | None = Field(
        None, description="Seconds; what is not answered by then has the problem `deadline`."
    )
    masks: Literal["rle", "png"] = Field(
        "rle", description="How the classes of pixels are written: run lengths of each label, or a PNG in base64."
    )

    def asked(self) -> RequestOptions:
        """Return it as the service takes it."""
        return RequestOptions(self.top, self.threshold, self.priority, self.timeout, self.masks)


class _Picture(BaseModel):
    model_config = ConfigDict(extra="forbid", title="Picture")

    data: str | None = Field(None, description="The picture file in base64.")
    url: str | None = Field(
        None, description="Where the picture is, in place of `data`; only for hosts that the service was told to trust."
    )
    name: str | None = Field(None, description="Comes back beside its answer.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.data is None) == (self.url is None):
            raise ValueError("a picture has either data or url")
        return self


_BASE64 = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
"""Reads base64 two to four times as fast as Python's own module, and as strictly."""


class Body(Question):
    """A JSON body."""

    images: list[_Picture] = Field(min_length=1)


@dataclass(frozen=True)
class Sent:
    """A picture as it was sent, or what is wrong with it."""

    name: str | None
    data: bytes | None
    problem: Problem | None = None


def routes(service: Service) -> list[Route]:
    """Return the endpoints."""

    async def predict(request: Request) -> Response:
        question, sent = await _read(request, service.settings)
        deployment = service.find(question.model)
        request.scope["state"] |= {"model": deployment.name, "pictures": len(sent)}
        good = [one.data for one in sent if one.data is not None]
        answered = await while_connected(request, deployment.predict(good, question.asked())) if good else []
        request.scope["state"]["milliseconds"] = [one.milliseconds for one in answered]
        return _shown(deployment, sent, answered)

    async def models(_: Request) -> Response:
        return Response(
            to_json({"models": [described(model) for model in service.models.values()]}), media_type="application/json"
        )

    return [Route("/v1/predict", predict, methods=["POST"]), Route("/v1/models", models, methods=["GET"])]


async def _read(request: Request, settings: Settings) -> tuple[Question, list[Sent]]:
    """Return what is asked and the pictures: raw bytes, multipart files or base64 in JSON; raises RequestError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await _of_json(request, settings)
    question = _checked(Question, dict(request.query_params)) if request.scope["query_string"] else Question()
    if kind == "multipart/form-data":
        parts = await read_parts(request, settings)
        sent = [Sent(part.filename, part.data) for part in parts if part.filename is not None or part.name == "file"]
    elif kind.startswith("image/") or kind in ("application/octet-stream", "application/x-www-form-urlencoded", ""):
        body = await read_body(request, settings)
        sent = [Sent(None, body)] if body else []
    else:
        message = f"a body of type {kind[:100]!r} is not read"
        raise RequestError(
            Problem(
                "input",
                message,
                "Send a picture's bytes (image/jpeg …), multipart/form-data with files, or application/json.",
                415,
            )
        )
    _check_count(len(sent), settings)
    return question, sent


async def _of_json(request: Request, settings: Settings) -> tuple[Question, list[Sent]]:
    data = read_json(await read_body(request, settings), 'Send {"images": [{"data": "<base64>"}]}.')
    body = _checked(Body, data)
    _check_count(len(body.images), settings)
    named = [one.url for one in body.images if one.url is not None]
    fetched = iter(await while_connected(request, urls.fetch_all(named, settings.urls)) if named else ())
    return body, [_decoded(one) if one.url is None else _fetched(one, next(fetched)) for one in body.images]


def _fetched(picture: _Picture, came: bytes | Problem) -> Sent:
    return Sent(picture.name, None, came) if isinstance(came, Problem) else Sent(picture.name, came)


def _check_count(count: int, settings: Settings) -> None:
    if not count:
        raise RequestError(
            Problem(
                "input",
                "there is no picture in the request",
                "Send a picture's bytes, parts named `file`, or JSON with `images`.",
                400,
            )
        )
    if count > settings.max_items:
        raise RequestError(
            Problem(
                "input",
                f"{count:,} pictures in one request; {settings.max_items:,} are allowed",
                "Send several requests.",
                413,
            )
        )


def _decoded(picture: _Picture) -> Sent:
    try:
        return Sent(picture.name, _BASE64.validate_strings(picture.data))
    except ValidationError as error:
        return Sent(picture.name, None, Problem("input", explain(error, "its data"), status=400))


def _checked(kind: type[Any], data: object) -> Any:
    try:
        return kind.model_validate(data, strict=False)
    except ValidationError as error:
        hint = f"Allowed: {', '.join(kind.model_fields)}."
        raise RequestError(Problem("input", explain(error, "the body"), hint, 422)) from error


def _shown(deployment: ServedModel, sent: Sequence[Sent], answered: Sequence[InferenceResult]) -> Response:
    """Return the answer to a request: an entry for each picture in the order in which they were sent."""
    rest = iter(answered)
    results = []
    for one in sent:
        came = next(rest) if one.data is not None else InferenceResult(None, one.problem)
        results.append(
            {
                "name": one.name,
                "answer": came.row,
                "error": came.problem.to_dict() if came.problem is not None else None,
                "milliseconds": {stage: round(value, 3) for stage, value in came.milliseconds.items()},
                "batch": came.batch,
            }
        )
    shown: dict[str, Any] = {"model": deployment.name, "version": deployment.version, "results": results}
    problem = (answered[0] if answered else InferenceResult(None, sent[0].problem)).problem if len(sent) == 1 else None
    if problem is None:
        return Response(to_json(shown), media_type="application/json")
    # A lone picture's problem is the request's; of several each has its own.
    headers = {"Retry-After": str(max(1, round(problem.retry_after)))} if problem.retry_after else None
    return Response(
        to_json({"error": problem.to_dict(), **shown}), problem.status, headers, media_type="application/json"
    )


def described(model: ServedModel) -> Mapping[str, Any]:
    """Return a model as `GET /v1/models` shows it."""
    metadata = model.metadata
    shown: dict[str, Any] = {"name": model.name, "version": model.version, "state": model.state, "reason": model.reason}
    if metadata is None:
        return shown
    return shown | {
        "task": metadata.task,
        "labels": metadata.labels,
        "positive": metadata.positive,
        "threshold": metadata.threshold,
        "bands": metadata.bands,
        "target": metadata.target,
        "preprocessing": metadata.preprocessing,
        "report": metadata.bundle is not None and Path(metadata.bundle, "report", "report.json").is_file(),
        "origin": metadata.origin,
    }
