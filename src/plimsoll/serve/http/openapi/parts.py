"""The pieces of an OpenAPI document, and how they are written.

A shape is a pydantic model, which becomes a component of its name, or a schema as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

Schema = Mapping[str, Any]
Shape = type[BaseModel] | Schema
Mode = Literal["validation", "serialization"]
References = Mapping[tuple[Any, Mode], Schema]

JSON = "application/json"
RETRY: Mapping[str, Any] = {
    "Retry-After": {
        "description": "Seconds until it is worth trying again, where that is known.",
        "schema": {"type": "integer"},
    }
}


@dataclass(frozen=True)
class Content:
    """What a body holds in one media type."""

    shape: Shape
    media: str = JSON
    examples: Mapping[str, Any] = field(default_factory=dict)
    """By their names."""


@dataclass(frozen=True)
class Answer:
    """A status, and what comes with it. An operation may have several of one status: any of them can come."""

    status: int
    meaning: str
    contents: Sequence[Content] = ()
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """What a method does at a path."""

    method: Literal["get", "post"]
    path: str
    name: str
    summary: str
    answers: Sequence[Answer]
    tag: str
    description: str = ""
    parameters: Sequence[Schema] = ()
    takes: Sequence[Content] = ()
    """The media types of its request's body; none where it has no body."""
    may_be_empty: bool = False
    """Whether the body may be left out."""
    security: Sequence[Schema] = ()

    def with_access(self, answers: Sequence[Answer], security: Sequence[Schema]) -> Operation:
        """Return it behind a door: with the answers to who isn't let in."""
        return replace(self, answers=[*self.answers, *answers], security=security)


def refusals(shape: type[BaseModel], meanings: Mapping[int, str]) -> list[Answer]:
    """Return answers of one shape, each with its status and meaning; those that may pass by themselves say when to try
    again."""
    return [
        Answer(status, meaning, [Content(shape)], RETRY if status in (429, 503) else {})
        for status, meaning in meanings.items()
    ]


def parameter(
    name: str, where: Literal["query", "path", "header"], schema: Schema, description: str, example: object = None
) -> dict[str, Any]:
    """Return a parameter; those in the path are required."""
    shown = {"name": name, "in": where, "description": description, "schema": dict(schema)}
    return shown | ({"required": True} if where == "path" else {}) | ({} if example is None else {"example": example})


def written(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return `paths` and `components`. Of two operations with one method and path the first is written: it is the one
    that answers."""
    references, definitions = models_json_schema(
        list(dict.fromkeys(_models(operations))), ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {}).setdefault(one.method, _operation(one, references))
    return {"paths": paths, "components": {"schemas": definitions.get("$defs", {})}}


def _models(operations: Iterable[Operation]) -> Iterator[tuple[type[BaseModel], Mode]]:
    for one in operations:
        yield from ((content.shape, "validation") for content in one.takes if isinstance(content.shape, type))
        yield from (
            (content.shape, "serialization")
            for answer in one.answers
            for content in answer.contents
            if isinstance(content.shape, type)
        )


def _operation(one: Operation, references: References) -> dict[str, Any]:
    shown: dict[str, Any] = {"operationId": one.name, "summary": one.summary, "tags": [one.tag]}
    if one.description:
        shown["description"] = one.description
    if one.parameters:
        shown["parameters"] = list(one.parameters)
    if one.takes:
        shown["requestBody"] = {
            "required": not one.may_be_empty,
            "content": _contents(one.takes, "validation", references),
        }
    by_status: dict[int, list[Answer]] = {}
    for answer in one.answers:
        by_status.setdefault(answer.status, []).append(answer)
    shown["responses"] = {str(status): _response(answers, references) for status, answers in sorted(by_status.items())}
    return shown | ({"security": list(one.security)} if one.security else {})


def _response(answers: Sequence[Answer], references: References) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": " Or: ".join(dict.fromkeys(answer.meaning for answer in answers))}
    if headers := {name: header for answer in answers for name, header in answer.headers.items()}:
        shown["headers"] = headers
    if contents := [content for answer in answers for content in answer.contents]:
        shown["content"] = _contents(contents, "serialization", references)
    return shown


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
