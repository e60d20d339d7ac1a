"""The Open Inference Protocol, version 2, over HTTP: `/v2/…`.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with Triton's
extensions for binary tensors, classification, statistics, configuration and the model repository.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from plimsoll.serve.http import oip_body
from plimsoll.serve.http.body import read_body, while_connected
from plimsoll.serve.http.endpoints import (
    FILE,
    PNG,
    Answer,
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
from plimsoll.serve.http.oip_body import LENGTH_HEADER
from plimsoll.serve.oip import models, schema
from plimsoll.serve.oip.inference import infer, whole_body
from plimsoll.serve.service import Service

_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"
_MAX_JSON_BYTES = 1_000_000
"""Of a request to the model repository."""
_M = TypeVar("_M", bound=BaseModel)
_H = TypeVar("_H", bound=Callable[[Request], Awaitable[Any]])

_UNKNOWN = {404: "There is no such model, or not in this version."}
_NOT_NOW = {503: "The model does not answer now."}
_BODY = {
    400: "The request contradicts itself, or is not what is read here; the text says where.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body's compression is unknown.",
    503: "Too much is being received at once, or the model does not answer now.",
}
_INFER_ERRORS = {
    **_UNKNOWN,
    **_BODY,
    413: "The body is too large, also when inflated, or its JSON holds too many values.",
    415: "A picture is of a kind that is not read, or can't be; or the body's compression is unknown.",
    500: "A worker ended, twice, while it computed this, or the network gave what its Spec does not allow.",
    503: "There is no room, or no worker.",
    504: "There was no answer within `timeout`.",
}
_INFER_DETAILS = f"""A model takes pictures under its own name: the input `image`, BYTES `[-1]`, files of JPEG, PNG,
WebP …; `NAME.tensor` takes the network's own inputs.

* JSON alone: without the header `{LENGTH_HEADER}`.
* JSON with tensors behind it (the binary tensor extension): the header says how many bytes of the body are JSON; each
  input with `parameters.binary_data_size` has so many bytes behind it, in the inputs' order. An element of BYTES
  follows its length (4 bytes, little-endian).
* One bare input: the header is 0, and the whole body is one picture, or one row of a network with one input. The
  outputs come as bytes.

The header decides; the content type is not looked at."""
_EXAMPLE: Mapping[str, Any] = {
    "model_name": "open_nsfw",
    "model_version": "1",
    "id": "a1",
    "outputs": [{"name": "outputs", "datatype": "FP32", "shape": [1, 2], "data": [0.972, 0.028]}],
}


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoints; that for inference first, as the first that fits is taken."""
    names = [named.name for named in models.all_models(service)]
    return [
        *_inference(service, names),
        *_server(service),
        *_models(service, names),
        *_repository(service, names),
    ]


def _inference(service: Service, names: Sequence[str]) -> list[Endpoint]:
    api = Endpoints("oip")
    limit = service.settings.max_items

    @_both(api.post, "/infer", _infer_description(), names)
    async def inference(request: Request) -> Response:
        named = _named(service, request, models.choose_model)
        question = await _read_request(request, named, service)
        context = context_of(request)
        context.pictures = question.rows(limit)
        result = await while_connected(request, infer(named, question, question.options(), limit))
        context.milliseconds = result.milliseconds
        body, length = await oip_body.write_response(result)
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={LENGTH_HEADER: str(length)}, media_type="application/octet-stream")

    return api.rows


def _server(service: Service) -> list[Endpoint]:
    api = Endpoints("oip")
    not_ready = Answer(503, "Not now.", [Content(schema.ServerReady)])

    @api.get(
        "/v2",
        Description("oipServer", "What the server is, and its extensions.", [ok(schema.ServerMetadata, "The server.")]),
        right="predict",
    )
    async def server(_: Request) -> schema.ServerMetadata:
        return models.server_metadata()

    @api.get(
        "/v2/health/live",
        Description("oipLive", "Whether the server is alive.", [ok(schema.ServerLive, "It is.")]),
        right=None,
        probe=True,
    )
    async def live(_: Request) -> schema.ServerLive:
        return schema.ServerLive(live=True)

    @api.get(
        "/v2/health/ready",
        Description("oipReady", "Whether every model answers.", [ok(schema.ServerReady, "It is."), not_ready]),
        right=None,
        probe=True,
    )
    async def ready(_: Request) -> Reply[schema.ServerReady]:
        # The specification names the field `live` here too; one client reads that, another `ready`, a third the status
        # alone.
        return Reply(schema.ServerReady(live=service.ready, ready=service.ready), 200 if service.ready else 503)

    @api.get(
        "/v2/models/stats",
        Description("oipAllStatistics", "What all models did.", [ok(schema.Statistics, "Their statistics.")]),
        right="predict",
    )
    async def all_statistics(_: Request) -> schema.Statistics:
        await service.refresh()
        return models.statistics(models.all_models(service))

    return api.rows


def _models(service: Service, names: Sequence[str]) -> list[Endpoint]:
    api = Endpoints("oip")
    unknown, not_now = errors(OipError, _UNKNOWN), errors(OipError, _UNKNOWN | _NOT_NOW)

    @_both(
        api.get,
        "",
        Description(
            "oipModel", "What a model takes and gives.", [ok(schema.ModelDescription, "Its metadata."), *not_now]
        ),
        names,
    )
    async def metadata(request: Request) -> schema.ModelDescription:
        return models.describe(_named(service, request))

    @_both(
        api.get,
        "/ready",
        Description("oipModelReady", "Whether a model answers.", [ok(schema.ModelReady, "It does."), *not_now]),
        names,
    )
    async def ready(request: Request) -> schema.ModelReady:
        named = _named(service, request)
        if not named.ready:
            raise named.unavailable()
        return schema.ModelReady(name=named.name, ready=True)

    @_both(
        api.get,
        "/config",
        Description(
            "oipConfiguration",
            "A model's configuration, as Triton writes it.",
            [ok(schema.ModelConfiguration, "The configuration."), *not_now],
        ),
        names,
    )
    async def configuration(request: Request) -> schema.ModelConfiguration:
        return models.configuration(_named(service, request), service.settings.max_items)

    @_both(
        api.get,
        "/stats",
        Description("oipStatistics", "What a model did.", [ok(schema.Statistics, "Its statistics."), *unknown]),
        names,
    )
    async def statistics(request: Request) -> schema.Statistics:
        await service.refresh()
        return models.statistics([_named(service, request)])

    return api.rows


def _repository(service: Service, names: Sequence[str]) -> list[Endpoint]:
    api = Endpoints("oip")
    name = [parameter("name", "path", {"type": "string", "enum": names}, "The model's name, either of its two.")]
    done = [ok(schema.Empty, "It is done."), *errors(OipError, _UNKNOWN | _BODY)]

    @api.post(
        "/v2/repository/index",
        Description(
            "oipIndex",
            "Every model with its state.",
            [
                ok(schema.RepositoryIndex, "The models."),
                *errors(OipError, _BODY | {503: "Too much is being received at once."}),
            ],
            takes=[Content(schema.IndexRequest, examples={"what answers": {"ready": True}})],
            may_be_empty=True,
        ),
        right="predict",
    )
    async def index(request: Request) -> schema.RepositoryIndex:
        return models.index(service, ready=(await _read_model(schema.IndexRequest, request, service)).ready)

    @api.post(
        "/v2/repository/models/{name}/load",
        Description(
            "oipLoad",
            "Load a model again from where it came from.",
            done,
            "The new version starts beside the old one, which answers until the new one has passed its golden vectors,"
            " and goes on if that fails.",
            parameters=name,
            takes=[Content(schema.LoadRequest)],
            may_be_empty=True,
        ),
        right="control",
    )
    async def load(request: Request) -> schema.Empty:
        parameters = (await _read_model(schema.LoadRequest, request, service)).parameters
        await models.load(service, request.path_params["name"], parameters or {})
        return schema.Empty()

    @api.post(
        "/v2/repository/models/{name}/unload",
        Description(
            "oipUnload",
            "Stop serving a model; what was accepted is finished.",
            done,
            parameters=name,
            takes=[Content(schema.UnloadRequest)],
            may_be_empty=True,
        ),
        right="control",
    )
    async def unload(request: Request) -> schema.Empty:
        await _read_model(schema.UnloadRequest, request, service)
        await models.unload(service, request.path_params["name"])
        return schema.Empty()

    return api.rows


def _infer_description() -> Description:
    header = {LENGTH_HEADER: {"description": "How many bytes of the body are JSON.", "schema": {"type": "integer"}}}
    contents = [
        Content(schema.InferResponse, examples={"the network's numbers": _EXAMPLE}),
        Content(FILE, "application/octet-stream"),
    ]
    return Description(
        "oipInfer",
        "Run a model.",
        [
            Answer(200, "The outputs; as octets where any of them goes as bytes behind the JSON.", contents, header),
            *errors(OipError, _INFER_ERRORS),
        ],
        _INFER_DETAILS,
        [
            parameter(
                LENGTH_HEADER,
                "header",
                {"type": "integer", "minimum": 0},
                "How many bytes of the body are JSON; all of them where it is missing.",
            ),
            parameter(
                "Content-Encoding",
                "header",
                {"type": "string", "enum": ["gzip", "deflate", "identity"]},
                "How the body is compressed.",
            ),
        ],
        [
            Content(schema.PictureRequest, examples={"one picture": _pictures(1), "two pictures": _pictures(2)}),
            Content(schema.InferRequest),
            Content(FILE, "application/octet-stream"),
        ],
    )


def _pictures(count: int) -> dict[str, Any]:
    image = {"name": "image", "shape": [count], "datatype": "BYTES", "data": [PNG] * count}
    return {"id": "a1", "inputs": [image]}


def _both(
    method: Callable[..., Callable[[_H], _H]], tail: str, description: Description, names: Sequence[str]
) -> Callable[[_H], _H]:
    """Decorate a handler that answers at a model's path with a version, and without."""
    model = parameter("name", "path", {"type": "string", "enum": names}, "The model's name.")
    version = parameter(
        "version", "path", {"type": "string"}, "Which load of the model; another than the current one is 404.", "1"
    )
    plain = replace(description, parameters=[model, *description.parameters])
    versioned = replace(
        description, name=f"{description.name}OfVersion", parameters=[model, version, *description.parameters]
    )

    def add(handler: _H) -> _H:
        method(_MODEL + tail, plain, right="predict")(handler)
        return method(_VERSION + tail, versioned, right="predict")(handler)

    return add


def _named(
    service: Service,
    request: Request,
    find: Callable[[Service, str, str | None], models.NamedModel] = models.find_model,
) -> models.NamedModel:
    named = find(service, request.path_params["name"], request.path_params.get("version"))
    context_of(request).model = named.model.name
    return named


async def _read_model(model: type[_M], request: Request, service: Service) -> _M:
    return await oip_body.read_model(model, await read_body(request, service), _MAX_JSON_BYTES)


async def _read_request(request: Request, named: models.NamedModel, service: Service) -> schema.InferRequest:
    """Read the body, however it is written; raises RequestError."""
    body = await read_body(request, service)
    length = oip_body.header_length(request.headers.getlist(LENGTH_HEADER), len(body))
    return whole_body(named, body) if length == 0 else await oip_body.read_request(body, length)
