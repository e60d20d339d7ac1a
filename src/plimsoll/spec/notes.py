"""The JSON Schema of a Spec, with the notes that stand under each key in the source.

pydantic could read those notes itself, but would do so at every import; here they are read when somebody asks.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from pydantic import BaseModel

from plimsoll.spec import Spec


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a Spec."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    classes = {one.__name__: one for one in _subclasses(BaseModel)}
    for name, part in [(Spec.__name__, made), *made["$defs"].items()]:
        for key, note in notes(classes[name]).items():
            if key in part.get("properties", {}):
                part["properties"][key]["description"] = note
    return made


def notes(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field of a model, in one line each."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - it is the source of a class
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def _subclasses(model: type[BaseModel]) -> list[type[BaseModel]]:
    return [one for child in model.__subclasses__() for one in (child, *_subclasses(child))]
