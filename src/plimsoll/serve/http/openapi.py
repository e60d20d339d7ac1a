"""`GET /openapi.json`: the native interface described for people and machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll import __version__
from plimsoll.serve.http.native import Body, Question
from plimsoll.serve.http.shapes import Models, Predicted, Readiness, Wrong
from plimsoll.serve.service import Service

_PREFIX = "#/components/schemas/"


def routes(service: Service) -> list[Route]:
    """Return the endpoint."""
    document = to_json(describe(sorted(service.models)))

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    return [Route("/openapi.json", openapi)]


def describe(models: list[str]) -> dict[str, Any]:
    """Return the OpenAPI document of a service with these models."""
    _, definitions = models_json_schema(
        [(one, "serialization") for one in (Predicted, Models, Readiness, Wrong)] + [(Body, "validation")], ref_template=_PREFIX + "{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Plimsoll",
            "version": __version__,
            "description": "Answers pictures. The Open Inference Protocol (version 2) is spoken under /v2, for its own clients.",
        },
        "paths": {
            "/v1/predict": {"post": _predict(models)},
            "/v1/models": {"get": _get("The models that are served.", "models", "Models")},
            "/healthz": {"get": _get("Whether the process is alive.", "alive", None)},
            "/readyz": {"get": _get("Whether every model answers.", "ready", "Readiness", unready=True)},
            "/metrics": {"get": _metrics()},
        },
        "components": {"schemas": definitions["$defs"]},
    }


def _predict(models: list[str]) -> dict[str, Any]:
    picture = {"schema": {"type": "string", "format": "binary"}}
    files = {"type": "object", "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}}, "required": ["file"]}
    return {
        "operationId": "predict",
        "summary": "Answer one picture or many.",
        "description": "Each picture has an entry in `results`, in the order in which they were sent, with an answer or an error. "
        "With a JSON body what is asked stands in the body, else in the query.",
        "parameters": [_parameter(name, schema, models) for name, schema in Question.model_json_schema()["properties"].items()],
        "requestBody": {
            "required": True,
            "content": {
                **{f"image/{kind}": picture for kind in ("jpeg", "png", "webp")},
                "application/octet-stream": picture,
                "multipart/form-data": {"schema": files},
                "application/json": {"schema": {"$ref": _PREFIX + "Body"}, "example": {"images": [{"data": "/9j/4AAQ…", "name": "photo.jpg"}]}},
            },
        },
        "responses": {
            "200": _answer("The answers.", "Predicted", _EXAMPLE),
            **{
                status: _answer(what, "Wrong")
                for status, what in {
                    "400": "The request, or its only picture, can't be read.",
                    "404": "There is no such model.",
                    "408": "The body came too slowly.",
                    "413": "The body is too large, or holds too many pictures.",
                    "415": "The body, or its only picture, is of a kind that is not read.",
                    "422": "What is asked is not allowed.",
                    "503": "There is no room, or no worker; `Retry-After` says when to try again.",
                    "504": "There was no answer within `timeout`.",
                }.items()
            },
        },
    }


_EXAMPLE: Mapping[str, Any] = {
    "model": "open_nsfw",
    "version": "1",
    "results": [
        {
            "name": "photo.jpg",
            "answer": {"label": "sfw", "score": 0.028, "scores": {"sfw": 0.972, "nsfw": 0.028}},
            "error": None,
            "milliseconds": {"queue": 0.2, "decode": 2.1, "infer": 5.3, "answer": 0.1},
            "batch": 1,
        }
    ],
}


def _parameter(name: str, schema: Mapping[str, Any], models: list[str]) -> dict[str, Any]:
    described = {"name": name, "in": "query", "description": schema["description"], "schema": {key: schema[key] for key in schema if key != "description"}}
    return described | ({"example": models[0]} if name == "model" else {})


def _get(summary: str, name: str, shape: str | None, *, unready: bool = False) -> dict[str, Any]:
    answer = _answer(summary, shape) if shape else {"description": summary, "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"operationId": name, "summary": summary, "responses": {"200": answer} | ({"503": _answer("Not now.", shape or "")} if unready else {})}


def _metrics() -> dict[str, Any]:
    text = {"description": "For Prometheus.", "content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")}}
    return {"operationId": "metrics", "summary": "What the service does, for Prometheus.", "responses": {"200": text}}


def _answer(description: str, shape: str, example: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": _PREFIX + shape}}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}
