"""A request, whichever protocol it comes by: what is served at its path, and what becomes known of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plimsoll.serve.access.authorizer import Caller, Right, caller_of

Interface = Literal["native", "oip", "operations", "compat", "page", "grpc", "none"]
"""What a request is counted under; `none` for paths at which nothing is served."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Operation:
    """What is served at a path: a row of the table that says who may ask and how it is counted."""

    path: str
    """As its route is written: `/v2/models/{name}`; of gRPC `/service/procedure`."""
    interface: Interface
    right: Right | None = "control"
    """What a caller needs; None where everybody may. What nobody classified needs the most."""
    probe: bool = False
    """Whether it is asked every few seconds by whatever watches the service: not traced, and not logged while it is
    well."""


class RequestContext:
    """A request, and what becomes known of it while it is answered."""

    def __init__(self, operation: Operation, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.operation = operation
        self.method = method
        self.path = path
        self.headers = headers
        """Names in lower case; of gRPC the metadata."""
        self.right = operation.right
        """What this request needs, which settings may have relaxed."""
        self.address = ""
        """The caller's; empty for a Unix socket."""
        self.request_id = request_id(headers)
        self.started = time.perf_counter()
        self.started_ns = time.time_ns()
        self.received_ns: int | None = None
        """When its body was there."""
        self.answered_ns: int | None = None
        """When its answer began."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.options: Mapping[str, str] = {}
        """What was asked for besides the answer, as far as that may be logged."""
        self.model = ""
        self.pictures = 0
        self.milliseconds: Sequence[Mapping[str, float]] = ()
        """How long each picture took in each stage."""
        self.key = ""
        """The name of the caller's key."""
        self.trace_id = ""
        self.status: int | str | None = None
        """HTTP's status, or the name of gRPC's; None where there was no answer."""
        self.gone = False
        """Whether the caller gave up before the answer."""
        self.failure: BaseException | None = None
        """A bug of ours."""
        self.span_name = method
        self.attributes: dict[str, Any] = {}
        """Of its span, in OpenTelemetry's words for the protocol."""
        self.server_fault = False
        """Whether its span is marked as an error."""

    @property
    def succeeded(self) -> bool:
        """Whether it got a good answer."""
        return self.status == "OK" or (isinstance(self.status, int) and self.status < 400)

    def caller(self) -> Caller:
        """Return who asks."""
        return caller_of(self.headers, self.address)


def request_id(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """Return the caller's id for a request where it may stand in the log and go back in the answer, else a new one of
    128 random bits."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return os.urandom(16).hex()
