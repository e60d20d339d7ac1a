"""The Open Inference Protocol, version 2, over HTTP: `/v2/…`.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with Triton's
extensions for binary tensors, classification, statistics, configuration and the model repository.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll.serve.http.body import read_body
from plimsoll.serve.http.waiting import while_connected
from plimsoll.serve.messages import RequestOptions
from plimsoll.serve.oip import binary, description, repository
from plimsoll.serve.oip.compression import inflated
from plimsoll.serve.oip.inference import Answer, infer, whole_body
from plimsoll.serve.oip.models import Served, all_served, served
from plimsoll.serve.oip.request import InferRequest, asked, bad_request, shown
from plimsoll.serve.oip.statistics import statistics
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings

_Endpoint = Callable[[Request], Awaitable[Response]]

_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"
_MOST_JSON = 1_000_000
"""Bytes of a request to the model repository."""


def routes(service: Service) -> list[Route]:
    """Return the endpoints; that for inference first, as the first that fits is taken and each takes its time."""
    return [
        *_inference_routes(service),
        *_server_routes(service),
        *_model_routes(service),
        *_repository_routes(service),
    ]


def _inference_routes(service: Service) -> list[Route]:
    async def inference(request: Request) -> Response:
        model = _served(service, request)
        question, when = await _question(request, model, service.settings)
        request.scope["state"]["pictures"] = question.rows(service.settings.max_items)
        answer = await while_connected(request, infer(model, question, when, service.settings.max_items))
        request.scope["state"]["milliseconds"] = answer.milliseconds
        return _answered(answer)

    return _both("/infer", inference, "POST")


def _server_routes(service: Service) -> list[Route]:
    async def server(_: Request) -> Response:
        return _json(description.server())

    async def live(_: Request) -> Response:
        return _json({"live": True})

    async def ready(_: Request) -> Response:
        # The specification names the field `live` here too; one client reads that, another `ready`, a third the status
        # alone.
        return _json({"live": service.ready, "ready": service.ready}, 200 if service.ready else 503)

    async def all_stats(_: Request) -> Response:
        return _json(statistics(all_served(service)))

    return [
        Route("/v2", server, methods=["GET"]),
        Route("/v2/health/live", live, methods=["GET"]),
        Route("/v2/health/ready", ready, methods=["GET"]),
        Route("/v2/models/stats", all_stats, methods=["GET"]),
    ]


def _model_routes(service: Service) -> list[Route]:
    async def metadata(request: Request) -> Response:
        return _json(description.metadata(_served(service, request)))

    async def ready(request: Request) -> Response:
        model = _served(service, request)
        if not model.ready:
            raise model.unavailable()
        return _json({"name": model.name, "ready": True})

    async def config(request: Request) -> Response:
        return _json(description.configuration(_served(service, request), service.settings.max_items))

    async def stats(request: Request) -> Response:
        return _json(statistics([_served(service, request)]))

    return [
        *_both("", metadata, "GET"),
        *_both("/ready", ready, "GET"),
        *_both("/config", config, "GET"),
        *_both("/stats", stats, "GET"),
    ]


def _repository_routes(service: Service) -> list[Route]:
    settings = service.settings

    async def index(request: Request) -> Response:
        ready = binary.read_json(await read_body(request, settings), _MOST_JSON).get("ready", False)
        if not isinstance(ready, bool):
            raise bad_request(f"'ready' is {shown(ready)}; expected true or false")
        return _json(repository.index(service, ready))

    async def load(request: Request) -> Response:
        asked_for = binary.read_json(await read_body(request, settings), _MOST_JSON)
        await repository.load(service, request.path_params["name"], binary.parameters_of(asked_for, "the request"))
        return _json({})

    async def unload(request: Request) -> Response:
        binary.read_json(await read_body(request, settings), _MOST_JSON)
        await repository.unload(service, request.path_params["name"])
        return _json({})

    return [
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", unload, methods=["POST"]),
    ]


def _both(tail: str, endpoint: _Endpoint, method: str) -> list[Route]:
    """Return the endpoint's two routes: with a version and without."""
    return [Route(prefix + tail, endpoint, methods=[method]) for prefix in (_MODEL, _VERSION)]


def _served(service: Service, request: Request) -> Served:
    found = served(service, request.path_params["name"], request.path_params.get("version"))
    request.scope["state"]["model"] = found.deployment.name
    return found


async def _question(request: Request, model: Served, settings: Settings) -> tuple[InferRequest, RequestOptions]:
    """Read the body, however it is written; raises RequestError."""
    body = await read_body(request, settings)
    encoding = request.headers.get("content-encoding")
    if encoding is not None:
        body = await inflated(body, encoding, settings.max_body_bytes)
    length = binary.header_length(request.headers.getlist(binary.HEADER), len(body))
    question = whole_body(model, body) if length == 0 else binary.read_request(body, length)
    return question, asked(question.parameters)


def _answered(answer: Answer) -> Response:
    body, length = binary.write_answer(answer)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={binary.HEADER: str(length)}, media_type="application/octet-stream")


def _json(data: object, status: int = 200) -> Response:
    return Response(to_json(data), status, media_type="application/json")
