"""`GET /openapi.json`: everything that is served, described for people and machines, from the table of endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from plimsoll.core.version import __version__
from plimsoll.serve.access.authorizer import AccessSettings, Right
from plimsoll.serve.http.endpoints import (
    Answer,
    Content,
    Description,
    Endpoint,
    Endpoints,
    EndpointTable,
    ErrorResponse,
    OipError,
    Schema,
    errors,
    ok,
)

Mode = Literal["validation", "serialization"]
References = Mapping[tuple[Any, Mode], Schema]

_ABOUT = """Answers pictures.

Every answer has an `X-Request-Id`, the caller's own where it is well-formed; it is in the service's log. Some answers
come before any interface, and are not JSON: 503 where too many connections are open, 431 where a request's head is too
large, 400 for what is not HTTP. A bug of the service is 500, in the shape of the other errors.

No error says anything about what a picture shows: unknown is never safe."""
_TAGS = {
    "native": ("native", "Pictures in, answers by the model's task out."),
    "operations": ("operations", "For operators and their tools."),
    "oip": (
        "Open Inference Protocol",
        "Version 2, as clients of KServe, Triton, OpenVINO Model Server and MLServer speak it: the numbers are the"
        " network's own. And KServe's first version, with pictures in and answers out.",
    ),
    "page": ("page", "For people."),
    "compat": ("compat", "What existing applications ask: whether a picture is safe to show."),
}
"""The name and description of each interface."""
_SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (`plimsoll keys`)."},
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in a header of its own.",
    },
}
_UNREADABLE = "The path contains control characters, or is not UTF-8."


def document_endpoint(others: Sequence[Endpoint], access: AccessSettings) -> list[Endpoint]:
    """Return the endpoint that serves the document of these endpoints and of itself."""
    api = Endpoints("operations")
    description = Description("openapi", "This document.", [ok({"type": "object"}, "The document.")])

    @api.get("/openapi.json", description, right=None)
    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    document = to_json(describe([*others, *api.rows], access))
    return api.rows


def describe(endpoints: Sequence[Endpoint], access: AccessSettings) -> dict[str, Any]:
    """Return the OpenAPI document of these endpoints. Of two with one method and path the first is described: it is the
    one that answers."""
    table = EndpointTable(endpoints, access)
    described = [(endpoint, endpoint.description) for endpoint in endpoints if endpoint.description is not None]
    answers = {
        endpoint: [*description.answers, *_refusals(endpoint, table, access)] for endpoint, description in described
    }
    references, definitions = models_json_schema(
        list(dict.fromkeys(_models(described, answers))), ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint, description in described:
        operation = _operation(endpoint, description, answers[endpoint], references)
        if access.keys is not None and table.right(endpoint, endpoint.path) is not None:
            operation["security"] = [{name: []} for name in _SCHEMES]
        paths.setdefault(endpoint.path, {}).setdefault(endpoint.method.lower(), operation)
    spoken = {endpoint.interface for endpoint, _ in described}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Plimsoll", "version": __version__, "description": _ABOUT},
        "tags": [
            {"name": name, "description": text} for interface, (name, text) in _TAGS.items() if interface in spoken
        ],
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {})}
        | ({"securitySchemes": dict(_SCHEMES)} if access.keys is not None else {}),
    }


def _refusals(endpoint: Endpoint, table: EndpointTable, access: AccessSettings) -> list[Answer]:
    """Return the answers to who isn't let in."""
    right = table.right(endpoint, endpoint.path)
    meanings = {400: _UNREADABLE} if "{" in endpoint.path else {}
    if right is not None:
        meanings |= _turned_away(access, right)
    return errors(OipError if endpoint.interface == "oip" else ErrorResponse, meanings)


def _turned_away(access: AccessSettings, right: Right) -> dict[int, str]:
    meanings = {}
    if access.keys is not None:
        meanings[401] = "There is no API key, or it is not a valid one."
        meanings[403] = "The key's role may not do this."
    elif right == "control" and access.control != "anybody":
        meanings[403] = "This caller may not load or unload models."
    elif right == "report":
        meanings[403] = "Reports are shown to callers with a key, and on the machine of the service."
    if access.keys is not None or access.address_limit is not None:
        meanings[429] = "The caller asks more often than it may."
    return meanings


def _models(
    described: Iterable[tuple[Endpoint, Description]], answers: Mapping[Endpoint, Sequence[Answer]]
) -> Iterator[tuple[type[BaseModel], Mode]]:
    for endpoint, description in described:
        yield from ((content.shape, "validation") for content in description.takes if isinstance(content.shape, type))
        yield from (
            (content.shape, "serialization")
            for answer in answers[endpoint]
            for content in answer.contents
            if isinstance(content.shape, type)
        )


def _operation(
    endpoint: Endpoint, description: Description, answers: Iterable[Answer], references: References
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": description.name,
        "summary": description.summary,
        "tags": [_TAGS[endpoint.interface][0]],
    }
    if description.details:
        operation["description"] = description.details
    if description.parameters:
        operation["parameters"] = list(description.parameters)
    if description.takes:
        operation["requestBody"] = {
            "required": not description.may_be_empty,
            "content": _contents(description.takes, "validation", references),
        }
    by_status: dict[int, list[Answer]] = {}
    for answer in answers:
        by_status.setdefault(answer.status, []).append(answer)
    operation["responses"] = {str(status): _response(alike, references) for status, alike in sorted(by_status.items())}
    return operation


def _response(answers: Sequence[Answer], references: References) -> dict[str, Any]:
    meanings = dict.fromkeys(answer.meaning for answer in answers)
    response: dict[str, Any] = {"description": " Or: ".join(meanings)}
    if headers := {name: header for answer in answers for name, header in answer.headers.items()}:
        response["headers"] = headers
    if contents := [content for answer in answers for content in answer.contents]:
        response["content"] = _contents(contents, "serialization", references)
    return response


def _contents(contents: Iterable[Content], mode: Mode, references: References) -> dict[str, Any]:
    by_media: dict[str, list[Content]] = {}
    for content in contents:
        by_media.setdefault(content.media, []).append(content)
    return {media: _content(alike, mode, references) for media, alike in by_media.items()}


def _content(alike: Sequence[Content], mode: Mode, references: References) -> dict[str, Any]:
    schemas: list[Schema] = []
    for content in alike:
        schema = references[content.shape, mode] if isinstance(content.shape, type) else content.shape
        if schema not in schemas:
            schemas.append(schema)
    examples = {name: {"value": value} for content in alike for name, value in content.examples.items()}
    return {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}} | (
        {"examples": examples} if examples else {}
    )
