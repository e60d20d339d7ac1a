"""The values that pass between the network side and the workers: what was requested, what came of it, what failed; and
the pydantic models of requests and answers, which also describe them at /openapi.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from plimsoll.core.model import TensorInfo
from plimsoll.core.wording import explain, location, printable
from plimsoll.errors import BackendError, ImageError, PlimsollError

ProblemKind = Literal["input", "image", "overloaded", "unavailable", "deadline", "failed"]
"""None of them says anything about the picture's content: unknown is never "safe"."""


@dataclass(frozen=True)
class RequestOptions:
    """What a caller may set for a request."""

    top: int | None = None
    """Only so many labels, the best ones."""
    threshold: float | None = None
    """Replaces the Spec's."""
    priority: int = 0
    """1 goes before 0, 0 before -1; there are no others."""
    timeout: float | None = None
    """Seconds from now; what is not answered by then gets the problem `deadline`."""
    masks: Literal["rle", "png"] = "rle"
    """How the classes of pixels are written: run lengths of each label, or a PNG in base64."""


@dataclass(frozen=True)
class PixelFrame:
    """A picture that is decoded already: a frame of a clip."""

    data: bytes
    """uint8 `[height, width, 3]`, RGB."""
    height: int
    width: int


Picture = bytes | PixelFrame
"""A picture's file, or its pixels."""


@dataclass(frozen=True)
class Problem:
    """Why there is no answer."""

    kind: ProblemKind
    message: str
    hint: str = ""
    status: int = 500
    """The HTTP status where the whole request has this problem."""
    retry_after: float | None = None
    """Seconds after which it is worth trying again."""

    @classmethod
    def of(cls, error: PlimsollError) -> Problem:
        """Describe an error of Plimsoll's."""
        kind: ProblemKind = (
            "image"
            if isinstance(error, ImageError)
            else "failed"
            if isinstance(error, BackendError) or error.http_status >= 500
            else "input"
        )
        return cls(kind, error.message, error.hint, error.http_status)

    @property
    def text(self) -> str:
        """The message and the hint in one."""
        return f"{self.message}. {self.hint}" if self.hint else self.message

    @property
    def retry_seconds(self) -> int | None:
        """Whole seconds after which it is worth trying again."""
        return None if self.retry_after is None else whole_seconds(self.retry_after)


def whole_seconds(wait: float) -> int:
    """Return a wait in whole seconds, at least 1: rounded up, since a retry a moment too early is rejected again."""
    return max(1, math.ceil(wait))


class RequestError(PlimsollError):
    """A request got no answer; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message, problem.hint)
        self.problem = problem
        self.http_status = problem.status  # type: ignore[misc]  # known only now


def unavailable(reason: str, retry_after: float | None = None) -> RequestError:
    """Return the error for a model that can't answer now."""
    return RequestError(Problem("unavailable", reason, "/readyz says when it can.", 503, retry_after))


@dataclass(frozen=True)
class InferenceResult:
    """What came of one picture: an answer or a problem, never both."""

    row: Mapping[str, Any] | None
    """`Answer.row()`."""
    problem: Problem | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """How long it waited in the queue, and how long its batch took: queue, decode, infer, answer."""
    batch: int = 1
    """How many pictures were computed together."""


@dataclass(frozen=True)
class RawOutputs:
    """The network's own outputs for one picture, or for rows of tensors."""

    outputs: Mapping[str, NDArray[Any]]
    """By name, `[N, …]` each."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """As of `InferenceResult`."""


@dataclass(frozen=True)
class ModelMetadata:
    """What a ready model is, as its first worker reports it."""

    spec: Mapping[str, Any]
    task: str
    labels: tuple[str, ...]
    positive: str | None
    threshold: float | None
    bands: tuple[Mapping[str, Any], ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    target: str
    preprocessing: str
    """reference or fast."""
    picture_input: str
    """The network's input that takes the picture."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Licence, authors and source, where they are known."""
    bundle: str | None = None
    """The bundle's folder (unpacked), where it came from one; it may hold `report/report.json` and `report.html`."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelMetadata:
        """Read what a worker sent."""
        tensors = {
            side: tuple(TensorInfo(tensor["name"], tuple(tensor["shape"]), tensor["dtype"]) for tensor in data[side])
            for side in ("inputs", "outputs")
        }
        return cls(**{**data, "labels": tuple(data["labels"]), "bands": tuple(data["bands"]), **tensors})


_MAX_MISTAKES = 100
_MAX_NAME = 200
_Model = TypeVar("_Model", bound=BaseModel)


class ReplyModel(BaseModel):
    """Base of what the service answers: it has the keys that it describes, and no others."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


@dataclass(frozen=True)
class DescribedAs:
    """Annotates a value that is written unchanged and unchecked, and described as another type.

    For what our own code computed, where checking each number would take longer than all else.
    """

    shape: Any

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter(self.shape).core_schema)


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

    def locate_briefly(parts: tuple[str | int, ...]) -> str:
        return locate(tuple(part[:_MAX_NAME] if isinstance(part, str) else part for part in parts))

    try:
        return model.model_validate(data)
    except ValidationError as error:
        count = error.error_count()  # Millions of them would take many seconds to name.
        text = (
            explain(error, "the body", values=True, locate=locate_briefly)
            if count <= _MAX_MISTAKES
            else f"{count:,} mistakes"
        )
        text = printable(text, 400)
        raise RequestError(Problem("input", text, hint, status)) from error
