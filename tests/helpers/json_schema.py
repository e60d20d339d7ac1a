"""Hold values against JSON schemas: the part of JSON Schema (2020-12) that the service's own document uses; anything
else fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_SAYS_NOTHING = {
    "title",
    "description",
    "default",
    "examples",
    "readOnly",
    "format",
    "contentEncoding",
    "required",
    "additionalProperties",
}
"""Of these `required` and `additionalProperties` are looked at together with `properties`."""


def problems(value: Any, schema: Mapping[str, Any], document: Document, at: str = "$") -> Iterator[str]:
    """Yield what about a value is not as a schema says; `document` is where references lead. Raises KeyError for a
    keyword that is not known here."""
    for keyword, said in schema.items():
        if keyword == "$ref":
            yield from problems(value, resolved(said, document), document, at)
        elif keyword == "anyOf":
            branches = [list(problems(value, item, document, at)) for item in said]
            if all(branches):
                yield f"{at}: none of {len(said)} fits: {min(branches, key=len)}"
        elif keyword == "items":
            for index, item in enumerate(value if isinstance(value, list) else ()):
                yield from problems(item, said, document, f"{at}[{index}]")
        elif keyword not in (*_SAYS_NOTHING, "properties") and not _KEYWORDS[keyword](value, said):
            yield f"{at}: {keyword} {said!r}, and it is {str(value)[:100]!r}"
    if isinstance(value, dict):
        yield from _members(value, schema, document, at)


def resolved(reference: str, document: Document) -> Mapping[str, Any]:
    """Return what a reference within a document means; raises KeyError."""
    node: Any = document
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node  # type: ignore[no-any-return]


def _members(value: dict[str, Any], schema: Mapping[str, Any], document: Document, at: str) -> Iterator[str]:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}: {name!r} is missing"
    for name, member in value.items():
        if name in known:
            yield from problems(member, known[name], document, f"{at}.{name}")
        elif rest is False:
            yield f"{at}: {name!r} is not known"
        elif isinstance(rest, dict):
            yield from problems(member, rest, document, f"{at}.{name}")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


_KEYWORDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": _is,
    "enum": lambda value, said: value in said,
    "const": lambda value, said: value == said and type(value) is type(said),
    "minimum": lambda value, said: not _is(value, "number") or value >= said,
    "maximum": lambda value, said: not _is(value, "number") or value <= said,
    "minItems": lambda value, said: not isinstance(value, list) or len(value) >= said,
    "maxItems": lambda value, said: not isinstance(value, list) or len(value) <= said,
    "maxLength": lambda value, said: not isinstance(value, str) or len(value) <= said,
    "maxProperties": lambda value, said: not isinstance(value, dict) or len(value) <= said,
    "pattern": lambda value, said: not isinstance(value, str) or re.search(said, value) is not None,
}
