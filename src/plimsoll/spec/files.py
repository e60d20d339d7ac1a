"""Specs as TOML files: reading, with errors that name the key, the value and what is allowed; writing; JSON Schema.

Files that a Spec names are read with it (`plimsoll.spec.beside`).
"""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from plimsoll.core.wording import explain_item, shown
from plimsoll.errors import SpecError
from plimsoll.spec import Spec, beside
from plimsoll.system import files

MAX_BYTES = 8_000_000
"""A Spec with 20,000 labels, or with 40,000 anchors, stays below this."""

MAX_MISTAKES = 50
"""At most this many are listed."""


def read(path: Path) -> Spec:
    """Read a Spec from a TOML file, and the files that it names; raises SpecError that lists every mistake."""
    try:
        text = files.read_text(path, MAX_BYTES)
    except OSError as error:
        raise SpecError(
            f"{path}: can't read the Spec: {error.strerror}",
            "A Spec is a TOML file; `plimsoll spec show open_nsfw` prints one.",
        ) from error
    return beside.resolved(loads(text, str(path)), path.parent)


def loads(text: str, where: str = "Spec") -> Spec:
    """Read a Spec from TOML text; `where` names it in errors."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # A plain ValueError: an integer of more digits than Python reads.
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise SpecError(
            f"{where}: not valid TOML: {reason}", "A Spec is a TOML file; `plimsoll spec show open_nsfw` prints one."
        ) from error
    return validate(data, where)


def validate(data: dict[str, Any], where: str = "Spec") -> Spec:
    """Return the Spec of plain data; raises SpecError that lists every mistake."""
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        mistakes = _causes(error)
        lines = [_explain(mistake, data) for mistake in mistakes[:MAX_MISTAKES]]
        if len(mistakes) > MAX_MISTAKES:
            lines.append(f"… and {len(mistakes) - MAX_MISTAKES:,} more")
        count = f"{len(mistakes):,} mistakes" if len(mistakes) > 1 else "1 mistake"
        listed = "\n".join(f"  - {line}" for line in lines)
        raise SpecError(
            f"{where}: {count} in the Spec\n{listed}",
            "`plimsoll spec schema` prints all keys and their allowed values.",
        ) from error


def dumps(spec: Spec) -> str:
    """Return the Spec as TOML text; keys at their default are omitted, except each step's and task's name."""
    return tomli_w.dumps(_plain(spec))


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a Spec; the docstring under each field describes its key."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    classes = {model.__name__: model for model in _subclasses(BaseModel)}
    for name, part in [(Spec.__name__, document), *document["$defs"].items()]:
        for key, doc in field_docs(classes[name]).items():
            if key in part.get("properties", {}):
                part["properties"][key]["description"] = doc
    return document


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field of a model and of those that it extends, in one line each.

    pydantic can do this too, but at every import; here they are read on demand.
    """
    docs: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if issubclass(part, BaseModel) and part is not BaseModel:
            docs |= _own_field_docs(part)
    return docs


def _own_field_docs(model: type[BaseModel]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - it is the source of a class
    docs = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            docs[field.target.id] = " ".join(str(after.value.value).split())
    return docs


def _subclasses(model: type[BaseModel]) -> list[type[BaseModel]]:
    return [model for child in model.__subclasses__() for model in (child, *_subclasses(child))]


def _plain(value: BaseModel) -> dict[str, Any]:
    always = {"step", "task", "schema_version"}
    out: dict[str, Any] = {}
    for key in type(value).model_fields:
        item = getattr(value, key)
        if key in always or item != type(value).model_fields[key].get_default():
            out[key] = _plain_item(item)
    return {key: item for key, item in out.items() if item is not None}


def _plain_item(item: Any) -> Any:
    if isinstance(item, BaseModel):
        return _plain(item)
    if isinstance(item, tuple):
        return [_plain_item(element) for element in item]
    return item


def _causes(error: ValidationError) -> list[Any]:
    """Return the mistakes, without "too short" for a list that is short only because an item was refused."""
    mistakes: list[Any] = list(error.errors(include_url=False))
    inside = {item["loc"][:length] for item in mistakes for length in range(len(item["loc"]))}
    return [item for item in mistakes if item["type"] != "too_short" or item["loc"] not in inside]


def _explain(item: Any, data: dict[str, Any]) -> str:
    """Describe a mistake in one line: the key, what was found there, and what is allowed."""
    where = _location(item["loc"], data)
    kind: str = item["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_did_you_mean(str(item['loc'][-1]))}"
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        context = item["ctx"]
        tag = str(context["discriminator"]).strip("'")
        given = item["input"].get(tag) if isinstance(item["input"], dict) else item["input"]
        allowed = context.get("expected_tags", _tags(tag))
        return f"{where}.{tag}: {'missing' if given is None else 'found ' + shown(given)}, allowed: {allowed}"
    return f"{where}: {explain_item(item, values=True)}"


@cache
def _tags(discriminator: str) -> str:
    definitions = schema()["$defs"].values()
    tags = [
        definition["properties"][discriminator]["const"]
        for definition in definitions
        if "const" in definition.get("properties", {}).get(discriminator, {})
    ]
    return ", ".join(f"'{tag}'" for tag in tags)


def _location(location: tuple[int | str, ...], data: Any) -> str:
    """Format a location as `input.steps[2].width`, without the union tags that pydantic adds."""
    text = ""
    here = data
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
            here = here[part] if isinstance(here, (list, tuple)) and part < len(here) else None
        elif isinstance(here, dict) and part not in here and part in (here.get("step"), here.get("task")):
            continue
        else:
            text += f".{part}" if text else str(part)
            here = here.get(part) if isinstance(here, dict) else None
    return text or "the Spec"


@cache
def _known_keys() -> frozenset[str]:
    return frozenset(key for part in [schema(), *schema()["$defs"].values()] for key in part.get("properties", {}))


def _did_you_mean(key: str) -> str:
    """Suggest the most similar key of the schema."""
    near = difflib.get_close_matches(key[:100], _known_keys(), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
