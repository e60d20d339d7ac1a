"""What an endpoint says of itself: the pieces from which `openapi` writes the document.

A shape is a pydantic model, which becomes a component of its name, or a schema as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

Schema = Mapping[str, Any]
Shape = type[BaseModel] | Schema

JSON = "application/json"
RETRY: Mapping[str, Any] = {
    "Retry-After": {
        "description": "Seconds until it is worth trying again, where that is known.",
        "schema": {"type": "integer"},
    }
}
TEXT: Schema = {"type": "string"}
FILE: Schema = {"type": "string", "format": "binary"}
"""Any bytes: OpenAPI has no better word for a file."""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mOsWHCCARtgYsABBqcEAHoHAfCY5IuSAAAAAElFTkSuQmCC"
"""A PNG of 8 × 8 blue pixels in base64: examples hold a picture that a service really answers."""


@dataclass(frozen=True)
class Content:
    """What a body holds in one media type."""

    shape: Shape
    media: str = JSON
    examples: Mapping[str, Any] = field(default_factory=dict)
    """By their names."""


@dataclass(frozen=True)
class Answer:
    """A status, and what comes with it. An endpoint may have several of one status: any of them can come."""

    status: int
    meaning: str
    contents: Sequence[Content] = ()
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """What an endpoint does."""

    name: str
    """Its operation id."""
    summary: str
    answers: Sequence[Answer]
    details: str = ""
    parameters: Sequence[Schema] = ()
    takes: Sequence[Content] = ()
    """The media types of its request's body; none where it has no body."""
    may_be_empty: bool = False
    """Whether the body may be left out."""


PICTURE_AS_BODY = tuple(
    Content(FILE, media) for media in ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
)
"""A picture's file as the whole body."""


def picture_parts(name: str) -> Content:
    """Return a multipart body with pictures in its parts of this name."""
    pictures = {"type": "array", "items": FILE, "minItems": 1}
    return Content({"type": "object", "properties": {name: pictures}, "required": [name]}, "multipart/form-data")


def ok(shape: Shape, meaning: str, media: str = JSON, **examples: Any) -> Answer:
    """Return the answer 200; examples by their names, in which underscores stand for spaces."""
    named = {name.replace("_", " "): value for name, value in examples.items()}
    return Answer(200, meaning, [Content(shape, media, named)])


def errors(shape: type[BaseModel], meanings: Mapping[int, str]) -> list[Answer]:
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
    described = {"name": name, "in": where, "description": description, "schema": dict(schema)}
    return (
        described | ({"required": True} if where == "path" else {}) | ({} if example is None else {"example": example})
    )
