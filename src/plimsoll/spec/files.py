"""Read and write Specs as TOML, with errors that name the key, the value found and what is allowed."""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from plimsoll.core.wording import explain_item, shown
from plimsoll.errors import SpecError
from plimsoll.spec import Spec
from plimsoll.spec.anchors import with_anchors
from plimsoll.spec.notes import schema
from plimsoll.system import files

MAX_BYTES = 8_000_000
"""A Spec with 20,000 labels, or with 40,000 anchors, stays below this."""

MAX_MISTAKES = 50
"""As many are told in full."""


def read(path: Path) -> Spec:
    """Read a Spec from a TOML file, and the anchors beside it that it names; raises SpecError with every mistake in it."""
    try:
        text = files.read_text(path, MAX_BYTES)
    except OSError as error:
        raise SpecError(
            f"{path}: can't read the Spec: {error.strerror}",
            "A Spec is a TOML file; `plimsoll spec show open_nsfw` prints one.",
        ) from error
    return with_anchors(loads(text, str(path)), path.parent)


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
    """Make a Spec of plain data; raises SpecError with every mistake in it."""
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        found = _causes(error)
        lines = [_explain(item, data) for item in found[:MAX_MISTAKES]]
        if len(found) > MAX_MISTAKES:
            lines.append(f"… and {len(found) - MAX_MISTAKES:,} more")
        count = f"{len(found):,} mistakes" if len(found) > 1 else "a mistake"
        listed = "\n".join(f"  - {line}" for line in lines)
        raise SpecError(
            f"{where}: {count} in the Spec\n{listed}",
            "`plimsoll spec schema` prints all keys and values that are allowed.",
        ) from error


def dumps(spec: Spec) -> str:
    """Return the Spec as TOML text; what stands at its default is left out, except for each step's and task's name."""
    return tomli_w.dumps(_plain(spec))


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
        return [_plain_item(one) for one in item]
    return item


def _causes(error: ValidationError) -> list[Any]:
    """Leave out that a list is "too short" where that is only because an item of it was refused."""
    found: list[Any] = list(error.errors(include_url=False))
    inside = {item["loc"][:length] for item in found for length in range(len(item["loc"]))}
    return [item for item in found if item["type"] != "too_short" or item["loc"] not in inside]


def _explain(item: Any, data: dict[str, Any]) -> str:
    """Say in one line which key is wrong, what was found there, and what is allowed."""
    where = _place(item["loc"], data)
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
        one["properties"][discriminator]["const"]
        for one in definitions
        if "const" in one.get("properties", {}).get(discriminator, {})
    ]
    return ", ".join(f"'{tag}'" for tag in tags)


def _place(location: tuple[int | str, ...], data: Any) -> str:
    """Write a location as `input.steps[2].width`, without the union tags that pydantic puts into it."""
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
    return frozenset(key for one in [schema(), *schema()["$defs"].values()] for key in one.get("properties", {}))


def _did_you_mean(key: str) -> str:
    """Suggest the nearest key that the schema knows anywhere."""
    near = difflib.get_close_matches(key[:100], _known_keys(), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
