"""The service's description of itself: complete, and right in itself."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from helpers.json_schema import problems, resolved
from plimsoll.serve.http.answers import ClipResult, StreamedResult
from plimsoll.serve.http.app import application, endpoints
from plimsoll.serve.http.endpoints import Endpoint
from plimsoll.serve.http.openapi import describe
from plimsoll.serve.oip.schema import InferResponse
from plimsoll.serve.service import ModelConfig, Service
from plimsoll.serve.settings import Settings

ELSEWHERE = {
    "compat": {
        "photoprism": {"prefixes": ["/v1/vision", "/api/v1/vision"]},
        "pictrs": {"path": "/hooks/pictrs", "error_status": 429},
        "misskey": {"enabled": False},
    },
    "access": {"keys": "keys.toml", "open_paths": ["/hooks/*"]},
    "urls": {"hosts": ["media.example.org"]},
}
OFF = {
    "compat": {name: {"enabled": False} for name in ("misskey", "photoprism", "pictrs")},
    "access": {"control": "anybody", "address_rate": "5/s"},
}


def described_of(service: Service) -> dict[str, Any]:
    return describe(endpoints(service), service.settings.access)


@contextmanager
def service(settings: dict[str, Any]) -> Iterator[Service]:
    """Return a service of two models that was not started."""
    unstarted = Service(
        Settings.model_validate(settings), [ModelConfig("spots", "spots"), ModelConfig("open_nsfw", "open_nsfw")]
    )
    try:
        yield unstarted
    finally:
        unstarted.memory.arena.close()


@pytest.fixture(params=[{}, ELSEWHERE, OFF], ids=["as it is", "elsewhere", "off"])
def described(request: pytest.FixtureRequest) -> Iterator[tuple[Service, dict[str, Any]]]:
    with service(request.param) as unstarted:
        yield unstarted, described_of(unstarted)


def document_of(settings: dict[str, Any]) -> dict[str, Any]:
    with service(settings) as unstarted:
        return described_of(unstarted)


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a document."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inside(item)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_route_of_the_application_is_described_and_nothing_else(
    described: tuple[Service, dict[str, Any]],
) -> None:
    unstarted, document = described
    served = {(row.path, row.method.lower()) for row in application(unstarted).table.endpoints}
    assert {(path, method) for path, method, _ in operations(document)} == served


def answered_by(row: Endpoint) -> set[type[BaseModel]]:
    """Return the models that a handler's annotation says it returns, which mypy holds it to."""

    def models(annotation: Any) -> Iterator[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        for argument in typing.get_args(annotation):
            yield from models(argument)

    return set(models(typing.get_type_hints(row.handler)["return"]))


def test_the_described_models_are_those_that_the_handlers_answer_with() -> None:
    """Each handler that returns models returns described ones, and nothing but them is described beside errors."""
    checked = 0
    with service({}) as unstarted:
        for row in endpoints(unstarted):
            assert row.description is not None
            contents = [content for answer in row.description.answers for content in answer.contents]
            described = {content.shape for content in contents if isinstance(content.shape, type)}
            answered = answered_by(row)
            assert answered <= described, row.path
            successes = {
                content.shape
                for answer in row.description.answers
                if answer.status == 200
                for content in answer.contents
                if isinstance(content.shape, type)
            }
            # A response may have tensors behind its JSON, and results may come one by one.
            assert successes <= answered | {ClipResult, InferResponse, StreamedResult}, row.path
            checked += bool(answered)
    assert checked >= 20


def test_the_document_is_right_in_itself(described: tuple[Service, dict[str, Any]]) -> None:
    _, document = described
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for item in inside(document):
        if isinstance(item.get("$ref"), str):
            resolved(item["$ref"], document)
    for path, _, operation in operations(document):
        in_path = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
        assert operation["tags"][0] in {tag["name"] for tag in document["tags"]}
        assert operation["responses"].keys() & {"101", "200"}


def test_every_example_is_as_its_schema_says(described: tuple[Service, dict[str, Any]]) -> None:
    _, document = described
    count = 0
    for content in inside(document["paths"]):
        values = (
            [example["value"] for example in content["examples"].values()]
            if "examples" in content
            else [content["example"]]
            if "example" in content
            else []
        )
        for value in values:
            assert not list(problems(value, content["schema"], document))
            count += 1
    assert count >= 5


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"error": 1}, "OipError"),
        ({"error": "x", "more": 1}, "OipError"),
        ({}, "OipError"),
        ({"live": 1}, "ServerLive"),
        ([{"name": "a", "version": "1", "state": "SLEEPING", "reason": ""}], "RepositoryIndex"),
        ({"inputs": []}, "InferRequest"),
        ({"parameters": {"config": "{}"}}, "LoadRequest"),
        ({"status": "unavailable", "reason": "", "score": 0.1}, "VisionUnavailable"),
    ],
)
def test_what_is_not_as_a_schema_says_is_found(value: Any, schema: str) -> None:
    """The checks of the other tests mean something."""
    document = document_of({})
    assert list(problems(value, {"$ref": f"#/components/schemas/{schema}"}, document))


def test_other_products_interfaces_stand_where_they_are_configured() -> None:
    document = document_of(ELSEWHERE)
    assert {"/v1/vision/nsfw", "/api/v1/vision/nsfw", "/hooks/pictrs"} <= document["paths"].keys()
    assert not {"/v1/detect-images", "/v1/validate"} & document["paths"].keys()
    assert document["paths"]["/hooks/pictrs"]["post"]["responses"].keys() == {"200", "406", "429"}
    assert "compat" not in {tag["name"] for tag in document_of(OFF)["tags"]}


def test_keys_and_rates_are_reported_where_they_are_asked_for(tmp_path: Path) -> None:
    keyed = document_of({"access": {"keys": str(tmp_path / "keys.toml")}, "compat": {"pictrs": {"error_status": 429}}})
    turned_away = {"401", "403", "429"}
    assert keyed["components"]["securitySchemes"].keys() == {"bearer", "key"}
    for path, _, operation in operations(keyed):
        is_open = path in (
            "/",
            "/page/{file}",
            "/healthz",
            "/readyz",
            "/openapi.json",
            "/v2/health/live",
            "/v2/health/ready",
        )
        assert ("security" in operation) is not is_open, path
        assert (turned_away & operation["responses"].keys()) == (set() if is_open else turned_away), path
    shapes = keyed["paths"]["/v1/validate"]["post"]["responses"]["429"]["content"]["application/json"]["schema"][
        "anyOf"
    ]
    assert [shape["$ref"].rpartition("/")[2] for shape in shapes] == ["Unknown", "ErrorResponse"], (
        "both pict-rs's interface and the authorizer answer 429"
    )

    usual, limited = document_of({}), document_of(OFF)
    assert "securitySchemes" not in usual["components"]
    loading = "/v2/repository/models/{name}/load"
    assert turned_away & usual["paths"][loading]["post"]["responses"].keys() == {"403"}
    assert turned_away & limited["paths"][loading]["post"]["responses"].keys() == {"429"}
    assert not turned_away & usual["paths"]["/v1/predict"]["post"]["responses"].keys()
