"""Specs as TOML files: reading, with errors that name the key, the value and what is allowed; writing; JSON Schema.

An anchors file named by a Spec is read with it, so that the Spec contains the anchors wherever it goes: into bundles,
jobs and web packages.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from plimsoll.core.wording import explain_item, shown
from plimsoll.errors import SpecError
from plimsoll.spec import Spec
from plimsoll.spec.spec import MAX_ANCHORS, Anchor, Detect
from plimsoll.system import files

MAX_BYTES = 8_000_000
"""A Spec with 20,000 labels, or with 40,000 anchors, stays below this."""

MAX_MISTAKES = 50
"""At most this many are listed."""

_HEADER = re.compile(r"\{'descr': '(<f[48])', 'fortran_order': False, 'shape': \(([0-9]{1,9}), 4\), \} *\n")
_HINT = (
    "It holds [N, 4]: centre y, centre x, height, width; as .npy (float32 or float64) or as text, four numbers a line."
)


def read(path: Path) -> Spec:
    """Read a Spec from a TOML file, and the anchors file that it names; raises SpecError that lists every mistake."""
    try:
        text = files.read_text(path, MAX_BYTES)
    except OSError as error:
        raise SpecError(
            f"{path}: can't read the Spec: {error.strerror}",
            "A Spec is a TOML file; `plimsoll spec show open_nsfw` prints one.",
        ) from error
    return _with_anchors(loads(text, str(path)), path.parent)


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
    """Return the docstring under each field of a model, in one line each.

    pydantic can do this too, but at every import; here they are read on demand.
    """
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


def _with_anchors(spec: Spec, folder: Path) -> Spec:
    """Return the Spec with its `anchors_file` read from its folder or below; raises SpecError. A Spec without one
    is returned unchanged."""
    output = spec.output
    if not isinstance(output, Detect) or output.anchors_file is None:
        return spec
    anchors = _read_anchors(folder, output.anchors_file)
    return spec.model_copy(update={"output": output.model_copy(update={"anchors": anchors, "anchors_file": None})})


def _read_anchors(folder: Path, name: str) -> tuple[Anchor, ...]:
    """Return the anchors in a file of the folder or below; raises SpecError for a path that leads out of it, and for
    every other content."""
    where = f"output.anchors_file '{name}'"
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise SpecError(f"{where}: the path leads out of the Spec's folder", "Put the file beside the Spec.")
        if not file.is_file():
            raise SpecError(f"{where}: no such file beside the Spec", _HINT)
        data = files.read_bytes(file, MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"{where}: can't read it: {reason}", "The path is relative to the Spec's file.") from error
    anchors = _from_npy(data, where) if data.startswith(b"\x93NUMPY") else _from_text(data, where)
    if not 1 <= len(anchors) <= MAX_ANCHORS:
        raise SpecError(f"{where}: {len(anchors):,} anchors, expected 1 to {MAX_ANCHORS:,}", _HINT)
    if not all(abs(value) < float("inf") for anchor in anchors for value in anchor):
        raise SpecError(f"{where}: some of its values are NaN or infinite", _HINT)
    return anchors


def _from_npy(data: bytes, where: str) -> tuple[Anchor, ...]:
    """Read what `numpy.save` writes; its header is matched exactly, since NumPy would parse it as Python."""
    import numpy as np

    wide = 2 if data[6:7] == b"\x01" else 4
    start = 8 + wide + int.from_bytes(data[8 : 8 + wide], "little")
    match = _HEADER.fullmatch(data[8 + wide : start].decode("latin-1"))
    if match is None:
        raise SpecError(f"{where}: not a plain array of [N, 4]", _HINT)
    dtype, count = np.dtype(match[1]), int(match[2])
    if len(data) - start != count * 4 * dtype.itemsize:
        raise SpecError(
            f"{where}: its header says {count:,} anchors, it has {len(data) - start:,} bytes of them", _HINT
        )
    # The shortest decimals that read back as the same float32 keep the Spec's text short.
    values = [float(str(value)) for value in np.frombuffer(data, dtype, offset=start)]
    return tuple(zip(*[iter(values)] * 4, strict=True))


def _from_text(data: bytes, where: str) -> tuple[Anchor, ...]:
    anchors: list[Anchor] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        text = line.partition("#")[0].replace(",", " ").split()
        if not text:
            continue
        try:
            y, x, height, width = map(float, text)
        except ValueError as error:
            raise SpecError(f"{where}, line {number}: found {line[:60]!r}, expected four numbers", _HINT) from error
        anchors.append((y, x, height, width))
    return tuple(anchors)
