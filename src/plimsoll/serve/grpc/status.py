"""Problems as gRPC's status codes.

https://grpc.io/docs/guides/status-codes/
"""

from __future__ import annotations

import grpc

from plimsoll.errors import PlimsollError
from plimsoll.serve.messages import Problem, Refused

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By the HTTP status of the same problem."""


def problem_of(error: PlimsollError) -> Problem:
    """Return the problem that an error is about."""
    return error.problem if isinstance(error, Refused) else Problem.of(error)


def code_of(problem: Problem) -> grpc.StatusCode:
    """Return its status code; INTERNAL for what is nobody's fault but ours."""
    return _CODES.get(problem.status, grpc.StatusCode.INTERNAL)


def details_of(problem: Problem) -> str:
    """Return its text."""
    return f"{problem.message}. {problem.hint}" if problem.hint else problem.message


def trailer_of(problem: Problem) -> tuple[tuple[str, str], ...]:
    """Return the metadata that tells a client's own retries how long to wait, where that is known.

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
    """
    return () if problem.retry_after is None else (("grpc-retry-pushback-ms", str(round(1000 * problem.retry_after))),)
