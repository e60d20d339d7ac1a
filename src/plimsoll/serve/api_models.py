"""Reading and writing JSON with pydantic models, which also describe it at /openapi.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema, from_json

from plimsoll.core.wording import explain, location, printable
from plimsoll.serve.messages import Problem, RequestError

MAX_JSON_VALUES = 1_250_000
"""Values in a JSON body: a tensor of 640 × 640 pixels in three colours has fewer. In Python's memory an empty list
takes 25 times its size in the JSON, and reading it keeps everybody else waiting."""
BASE64 = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
"""Reads base64 two to four times as fast as Python's own module, and as strictly."""
_MAX_MISTAKES = 100
_Model = TypeVar("_Model", bound=BaseModel)


class ReplyModel(BaseModel):
    """Base of what the service answers: it has the keys that it describes, and no others."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class DescribedAs:
    """Annotates a value that is written as it stands, without being checked, and described as another type.

    For what our own code computed, where checking each number would take longer than all else.
    """

    shape: Any

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter(self.shape).core_schema)


def read_json(body: bytes, hint: str = "") -> Any:
    """Return what a body holds as JSON; raises RequestError: 400 where it is none, 413 where it has more values than
    anybody needs."""
    if len(body) > 2 * MAX_JSON_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise RequestError(Problem("input", f"the body's JSON has more than {MAX_JSON_VALUES:,} values", hint, 413))
    try:
        return from_json(body)
    except ValueError as error:
        raise RequestError(Problem("input", f"the body is not JSON: {error}", hint, 400)) from error


def validated(
    model: type[_Model],
    data: object,
    *,
    status: int,
    hint: str = "",
    locate: Callable[[tuple[str | int, ...]], str] = location,
) -> _Model:
    """Return a caller's data as a model; raises RequestError with this status, which says what is wrong and where.

    `locate` writes where: by default `inputs[0].shape`.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        count = error.error_count()  # Millions of them would take many seconds to name.
        text = (
            explain(error, "the body", values=True, locate=locate) if count <= _MAX_MISTAKES else f"{count:,} mistakes"
        )
        text = printable(text, 400)
        raise RequestError(Problem("input", text, hint, status)) from error
