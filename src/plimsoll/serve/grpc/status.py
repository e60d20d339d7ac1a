"""Problems as gRPC's status codes.

https://grpc.io/docs/guides/status-codes/
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import grpc

from plimsoll.errors import PlimsollError
from plimsoll.serve.messages import Problem
from plimsoll.serve.pipeline import TooMuchReceivedError, problem_of

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By the HTTP status of the same problem."""

SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What counts as an error of a server in traces. https://opentelemetry.io/docs/specs/semconv/rpc/grpc/"""


@dataclass(frozen=True)
class Outcome:
    """What came of a request."""

    code: grpc.StatusCode
    details: str = ""
    trailer: tuple[tuple[str, str], ...] = ()
    """Metadata for the caller."""

    @classmethod
    def of(cls, error: PlimsollError) -> Outcome:
        """Return what an error means for the caller."""
        problem = problem_of(error)
        # gRPC's core says the same of a single message that is too large.
        code = (
            grpc.StatusCode.RESOURCE_EXHAUSTED
            if isinstance(error, TooMuchReceivedError)
            else _CODES.get(problem.status, grpc.StatusCode.INTERNAL)
        )
        return cls(code, problem.text, _pushback(problem))


OK = Outcome(grpc.StatusCode.OK)
CANCELLED = Outcome(grpc.StatusCode.CANCELLED)
DEADLINE_EXCEEDED = Outcome(grpc.StatusCode.DEADLINE_EXCEEDED)


def _pushback(problem: Problem) -> tuple[tuple[str, str], ...]:
    """Return the metadata that tells a client's own retries how long to wait, rounded up, where that is known.

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
    """
    if problem.retry_after is None:
        return ()
    return (("grpc-retry-pushback-ms", str(math.ceil(1000 * problem.retry_after))),)
