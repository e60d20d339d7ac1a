"""`POST /v1/predict`: pictures in, answers by the model's task out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from plimsoll.serve.http import streaming, urls
from plimsoll.serve.http.answers import PictureResult, PredictError, PredictResponse, StreamedResult
from plimsoll.serve.http.body import check_count, media_type, read_body, read_parts, while_connected
from plimsoll.serve.http.endpoints import (
    PICTURE_AS_BODY,
    PNG,
    TEXT,
    Content,
    Description,
    Endpoint,
    Endpoints,
    ErrorInfo,
    ErrorResponse,
    Reply,
    context_of,
    errors,
    ok,
    parameter,
    picture_parts,
)
from plimsoll.serve.http.multipart import Part
from plimsoll.serve.messages import (
    InferenceResult,
    Problem,
    RequestError,
    RequestOptions,
    validated,
)
from plimsoll.serve.parsing import JsonLimits, decode_base64, off_loop, read_json
from plimsoll.serve.request import RequestContext
from plimsoll.serve.service import ServedModel, Service


class PredictOptions(BaseModel):
    """What is asked for besides the pictures: in the query, or in a JSON body."""

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

    def options(self) -> RequestOptions:
        """Return them as the service takes them."""
        return RequestOptions(self.top, self.threshold, self.priority, self.timeout, self.masks)


class PictureSource(BaseModel):
    """A picture, or where it is."""

    model_config = ConfigDict(extra="forbid", title="Picture")

    data: str | None = Field(None, description="The picture file in base64.")
    url: str | None = Field(
        None,
        max_length=8192,
        description="Where the picture is, in place of `data`; only for hosts that the service was told to trust.",
    )
    name: str | None = Field(None, max_length=4096, description="Comes back beside its answer.")

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.data is None) == (self.url is None):
            raise ValueError("a picture has either data or url")
        return self


class PredictRequest(PredictOptions):
    """A JSON body."""

    images: list[PictureSource] = Field(min_length=1, fail_fast=True)


@dataclass(frozen=True)
class SentPicture:
    """A picture as it was sent, or what is wrong with it."""

    name: str | None
    data: bytes | None
    problem: Problem | None = None


_Options = TypeVar("_Options", bound=PredictOptions)
_MAX_OPTION = 1000
"""Bytes of an option."""
_EXPECTED_JSON = 'Send {"images": [{"data": "<base64>"}]}.'
_EXPECTED = "Send a picture's bytes, parts named `file`, or JSON with `images`."
_EXAMPLE: Mapping[str, Any] = {
    "model": "open_nsfw",
    "version": "1",
    "results": [
        {
            "name": "photo.png",
            "answer": {"label": "sfw", "score": 0.028, "scores": {"sfw": 0.972, "nsfw": 0.028}},
            "error": None,
            "milliseconds": {"queue": 0.2, "decode": 2.1, "infer": 5.3, "answer": 0.1},
            "batch": 1,
        }
    ],
}
_ERRORS = {
    400: "The request can't be read.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large, or holds too many pictures.",
    415: "The body is of a kind that is not read.",
    422: "What is asked is not allowed.",
    503: "There is no room, or no worker.",
}
_PICTURE_ERRORS = {
    400: "The only picture can't be read.",
    413: "The only picture is too large.",
    415: "The only picture is of a kind that is not read.",
    500: "A worker ended, twice, while it computed the only picture, or the network gave what its Spec does not allow.",
    503: "No worker answers now.",
    504: "There was no answer within `timeout`.",
}


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoint."""
    api = Endpoints("native")

    @api.post("/v1/predict", _description(service), right="predict")
    async def predict(request: Request) -> PredictResponse | Reply[PredictError] | Response:
        form = streaming.form_of(request.headers.get("accept", ""))
        options, sent = await _read(request, service)
        model = service.choose(options.model)
        context = context_of(request)
        context.model, context.pictures = model.name, len(sent)
        pictures = [picture.data for picture in sent if picture.data is not None]
        if form is not None:
            rows = _rows(model, sent, model.stream(pictures, options.options()), context)
            return await while_connected(request, streaming.response(form, rows))
        results = await while_connected(request, model.predict(pictures, options.options())) if pictures else []
        context.milliseconds = [result.milliseconds for result in results]
        return _response(model, sent, results)

    return api.rows


async def _rows(
    model: ServedModel,
    sent: Sequence[SentPicture],
    results: AsyncGenerator[tuple[int, InferenceResult]],
    context: RequestContext,
) -> AsyncGenerator[StreamedResult]:
    """Yield what came of each picture as soon as it is known, beginning with those that could not be read."""

    def row(number: int, result: InferenceResult) -> StreamedResult:
        entry = _entry(sent[number].name, result)
        return StreamedResult(number=number, model=model.name, version=model.version, **dict(entry))

    for number, picture in enumerate(sent):
        if picture.data is None:
            yield row(number, InferenceResult(None, picture.problem))
    numbers = [number for number, picture in enumerate(sent) if picture.data is not None]
    milliseconds: list[Mapping[str, float]] = []
    context.milliseconds = milliseconds
    async with aclosing(results):
        async for number, result in results:
            milliseconds.append(result.milliseconds)
            yield row(numbers[number], result)


def _description(service: Service) -> Description:
    names = sorted(service.models)
    images = {"images": [{"data": PNG, "name": "photo.png"}]} | ({"model": names[0]} if len(names) > 1 else {})
    fetching = {502: "The only picture could not be fetched from its URL."} if service.settings.urls.hosts else {}
    return Description(
        "predict",
        "Answer one picture or many.",
        [
            ok(PredictResponse, "The answers.", a_classifier=_EXAMPLE),
            ok(StreamedResult, "Each answer as a line, as soon as it is known.", streaming.LINES),
            ok(TEXT, "Each answer as an event `result`; at the end an event `done`.", streaming.EVENTS),
            *errors(ErrorResponse, _ERRORS),
            *errors(PredictError, _PICTURE_ERRORS | fetching),
        ],
        "Each picture has an entry in `results`, in the order in which they were sent, with an answer or an error. "
        "With a JSON body the options stand in the body, else in the query. With `Accept: application/x-ndjson` or "
        "`text/event-stream` each answer is sent as soon as it is known; the status is 200 then, whatever came of it.",
        option_parameters(PredictOptions, names),
        [
            *PICTURE_AS_BODY,
            picture_parts("file"),
            Content(PredictRequest, examples={"one picture": images, "the best label": images | {"top": 1}}),
        ],
    )


def option_parameters(options: type[PredictOptions], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the description of options in a query; `names` are those of the models."""
    return [
        parameter(
            name,
            "query",
            {key: value for key, value in schema.items() if key != "description"},
            schema["description"],
            names[0] if name == "model" and names else None,
        )
        for name, schema in options.model_json_schema()["properties"].items()
    ]


def query_options(options: type[_Options], query: Mapping[str, str]) -> _Options:
    """Return the options in a query; raises RequestError (422)."""
    return _validated(options, dict(query))


async def _read(request: Request, service: Service) -> tuple[PredictOptions, list[SentPicture]]:
    """Return the options and the pictures: raw bytes, multipart files or base64 in JSON; raises RequestError."""
    kind = media_type(request)
    if kind == "application/json":
        return await _read_json(request, service)
    fields = dict(request.query_params) if request.scope["query_string"] else {}
    if kind == "multipart/form-data":
        _validated(PredictOptions, fields)  # before a body of many megabytes is read for nothing
        sent = _sent_parts(await read_parts(request, service), fields)
    elif kind.startswith("image/") or kind in ("application/octet-stream", "application/x-www-form-urlencoded", ""):
        _validated(PredictOptions, fields)
        body = await read_body(request, service)
        sent = [SentPicture(None, body)] if body else []
    else:
        hint = "Send a picture's bytes (image/jpeg …), multipart/form-data with files, or application/json."
        raise RequestError(Problem("input", f"unknown media type {kind[:100]!r}", hint, 415))
    check_count(len(sent), service.settings, _EXPECTED)
    return _validated(PredictOptions, fields), sent


def _sent_parts(parts: Sequence[Part], fields: dict[str, str]) -> list[SentPicture]:
    """Return the pictures among the parts: those that are files, or called `file`. Any other is an option, and is added
    to `fields`; raises RequestError where it can't be, since nothing that was sent is dropped silently."""
    sent = []
    for part in parts:
        if part.is_file or part.name == "file":
            sent.append(SentPicture(part.filename, part.data))
            continue
        if part.name not in PredictOptions.model_fields or part.name in fields or len(part.data) > _MAX_OPTION:
            raise RequestError(
                Problem(
                    "input",
                    f"the part {part.name[:100]!r} is neither a file nor an option, or an option that comes twice",
                    f"{_EXPECTED} Options: {', '.join(PredictOptions.model_fields)}.",
                    422,
                )
            )
        fields[part.name] = part.data.decode("utf-8", "replace")
    return sent


async def _read_json(request: Request, service: Service) -> tuple[PredictOptions, list[SentPicture]]:
    settings = service.settings
    data = await read_json(await read_body(request, service), _EXPECTED_JSON, JsonLimits.for_items(settings.max_items))
    if isinstance(data, dict) and isinstance(data.get("images"), list):
        check_count(len(data["images"]) or 1, settings, _EXPECTED)  # before any is looked at
    body = _validated(PredictRequest, data)
    named = [picture.url for picture in body.images if picture.url is not None]
    fetched = iter(await while_connected(request, urls.fetch_all(named, settings.urls)) if named else ())
    size = sum(len(picture.data or "") for picture in body.images)
    decoded = await off_loop(size, lambda: [_decoded(picture) for picture in body.images])
    return body, [
        picture if picture is not None else _fetched(source, next(fetched))
        for source, picture in zip(body.images, decoded, strict=True)
    ]


def _validated(model: type[_Options], data: object) -> _Options:
    return validated(model, data, status=422, hint=f"Allowed: {', '.join(model.model_fields)}.")


def _fetched(picture: PictureSource, fetched: bytes | Problem) -> SentPicture:
    if isinstance(fetched, Problem):
        return SentPicture(picture.name, None, fetched)
    return SentPicture(picture.name, fetched)


def _decoded(picture: PictureSource) -> SentPicture | None:
    """Return the picture, None where it is named by its URL."""
    if picture.data is None:
        return None
    try:
        return SentPicture(picture.name, decode_base64(picture.data))
    except ValueError as error:
        problem = Problem("input", f"its data is not base64: {error}", "Without a prefix such as `data:`.", 400)
        return SentPicture(picture.name, None, problem)


def _response(
    model: ServedModel, sent: Sequence[SentPicture], results: Sequence[InferenceResult]
) -> PredictResponse | Reply[PredictError]:
    """Return the answer to a request: an entry for each picture in the order in which they were sent.

    A lone picture's problem is the request's; of several each has its own.
    """
    rest = iter(results)
    all_results = [
        next(rest) if picture.data is not None else InferenceResult(None, picture.problem) for picture in sent
    ]
    entries = [_entry(picture.name, result) for picture, result in zip(sent, all_results, strict=True)]
    problem = all_results[0].problem if len(sent) == 1 else None
    if problem is None:
        return PredictResponse(model=model.name, version=model.version, results=entries)
    failed = PredictError(error=ErrorInfo.of(problem), model=model.name, version=model.version, results=entries)
    return Reply(failed, problem.status, problem)


def _entry(name: str | None, result: InferenceResult) -> PictureResult:
    return PictureResult(
        name=name,
        answer=result.row,
        error=ErrorInfo.of(result.problem) if result.problem is not None else None,
        milliseconds={stage: round(value, 3) for stage, value in result.milliseconds.items()},
        batch=result.batch,
    )
