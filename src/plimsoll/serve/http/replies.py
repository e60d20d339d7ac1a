"""Answers over HTTP: pydantic models as JSON, and errors in the shape of each interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from plimsoll.serve.api_models import ReplyModel
from plimsoll.serve.messages import Problem, ProblemKind
from plimsoll.serve.pipeline import Interface

ModelT = TypeVar("ModelT", bound=BaseModel, covariant=True)


class ErrorInfo(ReplyModel):
    """A problem. None of its kinds says anything about what the picture shows."""

    kind: ProblemKind
    message: str
    hint: str

    @classmethod
    def of(cls, problem: Problem) -> ErrorInfo:
        """Return what a caller reads of a problem."""
        return cls(kind=problem.kind, message=problem.message, hint=problem.hint)


class ErrorResponse(ReplyModel):
    """Why there is no answer."""

    error: ErrorInfo


class OipError(ReplyModel):
    """Why there is no answer, as the Open Inference Protocol writes it."""

    error: str


@dataclass(frozen=True, slots=True)
class Reply(Generic[ModelT]):
    """A model that is answered with a status other than 200, or with headers; a problem's with `Retry-After`."""

    body: ModelT
    status: int = 200
    problem: Problem | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def respond(result: BaseModel | Reply[BaseModel] | Response) -> Response:
    """Return the response for what a handler returned. Of a model those keys are written that were set."""
    if isinstance(result, Response):
        return result
    reply = result if isinstance(result, Reply) else Reply(result)
    headers = dict(reply.headers)
    if reply.problem is not None and reply.problem.retry_seconds is not None:
        headers["Retry-After"] = str(reply.problem.retry_seconds)
    body = reply.body.__pydantic_serializer__.to_json(reply.body, by_alias=True, exclude_unset=True)
    return Response(body, reply.status, headers, media_type="application/json")


def error_reply(problem: Problem, interface: Interface, headers: Mapping[str, str] | None = None) -> Reply[BaseModel]:
    """Return an error in the shape of an interface: the Open Inference Protocol has a text, everything else says more.

    Other products' interfaces have shapes of their own for what they answer themselves; who isn't admitted to them, or
    meets a bug, reads this service's.
    """
    body = OipError(error=problem.text) if interface == "oip" else ErrorResponse(error=ErrorInfo.of(problem))
    return Reply(body, problem.status, problem, headers or {})
