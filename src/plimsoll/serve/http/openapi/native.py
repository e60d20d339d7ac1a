"""The native interface described, with the page and what operators ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plimsoll.serve.http.native import Body, Question
from plimsoll.serve.http.openapi import pictures
from plimsoll.serve.http.openapi.parts import Answer, Content, Operation, Schema, parameter, refusals
from plimsoll.serve.http.openapi.shapes import Alive, Models, Predicted, Proof, Readiness, Wrong
from plimsoll.serve.service import Service

_TEXT: Schema = {"type": "string"}
_ANSWER: Mapping[str, Any] = {
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
_NO_REPORT = {
    404: "There is no such model, or it has no report.",
    500: "The report is not one that this version reads.",
    503: "The report can't be read now.",
}


def operations(service: Service) -> list[Operation]:
    """Return what the native interface, the operators' endpoints, this document and the page do."""
    names = sorted(service.models)
    return [_predict(service, names), *_models(names), *_operations(), *_page()]


def _predict(service: Service, names: list[str]) -> Operation:
    images = {"images": [{"data": pictures.EXAMPLE, "name": "photo.png"}]} | (
        {"model": names[0]} if len(names) > 1 else {}
    )
    statuses = {
        400: "The request, or its only picture, can't be read.",
        404: "There is no such model.",
        408: "The body came too slowly.",
        413: "The body is too large, or holds too many pictures.",
        415: "The body, or its only picture, is of a kind that is not read.",
        422: "What is asked is not allowed.",
        500: "A worker ended, twice, while it computed the only picture.",
        503: "There is no room, or no worker.",
        504: "There was no answer within `timeout`.",
    }
    if service.settings.urls.hosts:
        statuses[502] = "The only picture could not be fetched from its URL."
    return Operation(
        "post",
        "/v1/predict",
        "predict",
        "Answer one picture or many.",
        [
            Answer(200, "The answers.", [Content(Predicted, examples={"a classifier": _ANSWER})]),
            *refusals(Wrong, statuses),
        ],
        "native",
        description=(
            "Each picture has an entry in `results`, in the order in which they were sent, with an answer or an error. "
            "With a JSON body what is asked stands in the body, else in the query."
        ),
        parameters=[_asked(name, schema, names) for name, schema in Question.model_json_schema()["properties"].items()],
        takes=[
            *pictures.AS_BODY,
            pictures.parts_of_a_form("file"),
            Content(Body, examples={"one picture": images, "the best label": images | {"top": 1}}),
        ],
    )


def _asked(name: str, schema: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    bare = {key: value for key, value in schema.items() if key != "description"}
    return parameter(name, "query", bare, schema["description"], names[0] if name == "model" and names else None)


def _models(names: list[str]) -> list[Operation]:
    name = [parameter("name", "path", {"type": "string", "enum": names}, "The model's name.")]
    none = refusals(Wrong, _NO_REPORT)
    proof = [Answer(200, "The checks and figures.", [Content(Proof)]), *none]
    report = [Answer(200, "The page, in a sandbox of its own.", [Content(_TEXT, "text/html")]), *none]
    return [
        Operation(
            "get",
            "/v1/models",
            "models",
            "The models that are served.",
            [Answer(200, "The models.", [Content(Models)])],
            "native",
        ),
        Operation(
            "get",
            "/v1/models/{name}/proof",
            "proof",
            "What the report in a model's bundle says, in short.",
            proof,
            "native",
            parameters=name,
        ),
        Operation(
            "get",
            "/v1/models/{name}/report",
            "report",
            "The report in a model's bundle, as a page.",
            report,
            "native",
            parameters=name,
        ),
    ]


def _operations() -> list[Operation]:
    ready = [
        Answer(200, "Every model answers.", [Content(Readiness)]),
        Answer(503, "Not now: a model does not answer, or the service ends.", [Content(Readiness)]),
    ]
    metrics = [
        Answer(
            200,
            "As the Accept header wants it.",
            [Content(_TEXT, kind) for kind in ("text/plain", "application/openmetrics-text")],
        )
    ]
    document = [Answer(200, "The document.", [Content({"type": "object"})])]
    return [
        Operation(
            "get",
            "/healthz",
            "alive",
            "Whether the process is alive.",
            [Answer(200, "It is.", [Content(Alive)])],
            "operations",
        ),
        Operation("get", "/readyz", "ready", "Whether every model answers.", ready, "operations"),
        Operation("get", "/metrics", "metrics", "What the service does, for Prometheus.", metrics, "operations"),
        Operation("get", "/openapi.json", "openapi", "This document.", document, "operations"),
    ]


def _page() -> list[Operation]:
    seen = Answer(304, "What the browser has already is still right.")
    kinds = [Content(_TEXT, kind) for kind in ("text/javascript", "text/css", "image/svg+xml", "text/html")]
    name = parameter("file", "path", _TEXT, "Its name.", "serve.js")
    known = parameter("If-None-Match", "header", _TEXT, "The ETag of what the browser has.")
    file = [Answer(200, "The file.", kinds), seen, *refusals(Wrong, {404: "There is no such file."})]
    return [
        Operation(
            "get",
            "/",
            "page",
            "A page to try the models.",
            [Answer(200, "The page.", [Content(_TEXT, "text/html")]), seen],
            "page",
            parameters=[known],
        ),
        Operation("get", "/page/{file}", "pageFile", "A file of the page.", file, "page", parameters=[name, known]),
    ]
