"""Answers calls over gRPC: the pipeline's adapter to that protocol, with problems as gRPC's status codes
(https://grpc.io/docs/guides/status-codes/).

A call is one request. Of a stream each message is one: it is answered, counted and logged by itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from plimsoll.errors import PlimsollError
from plimsoll.serve.access.authorizer import Admission
from plimsoll.serve.access.proxies import TrustedProxies
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.oip.datatypes import bad_request, quoted
from plimsoll.serve.pipeline import MAX_PATH, Pipeline, TooMuchReceivedError, problem_of, too_slow
from plimsoll.serve.request import Operation, RequestContext
from plimsoll.serve.service import Service

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


_MOMENT_S = 0.2
"""A call that was given up, or whose message gRPC finds too large, reads as one without a message; its cancellation
follows right after."""

_WATCH_S = 0.25
"""How often it is looked for a change."""
MAX_WATCHERS = 64
"""Calls that watch at once: they need no key and last for ever, and would else take the room of all other calls."""
Metadata = tuple[tuple[str, str], ...]


class Context(Protocol):
    """As much as is used here of `grpc.aio.ServicerContext`."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller gives up; None where it set no deadline."""
        ...

    def peer(self) -> str:
        """The other side's address: `ipv4:127.0.0.1:50000`, `ipv6:%5B::1%5D:50000`, `unix:…`."""
        ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What the caller sent beside the message, names in lower case."""
        ...

    async def read(self) -> Any:
        """Wait for the next message; `grpc.aio.EOF` at the end."""
        ...

    async def write(self, message: bytes) -> None:
        """Send a message of a stream."""
        ...

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Set what goes back beside the answer."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata) -> NoReturn:
        """End the call."""
        ...


@dataclass(frozen=True, kw_only=True)
class Procedure(Operation):
    """What callers may call, once or in a stream of requests."""

    act: Callable[[Any, GrpcRequest], Awaitable[Any]]
    """Returns the response to a message; raises PlimsollError."""
    read: Callable[[bytes], Any]
    """Parses a message; raises DecodeError or RequestError."""
    in_stream: Callable[[bytes, Any, Outcome], Any] | None = None
    """Of a stream: returns what is written for a message, its response (None where there is none), and what came of it.
    """
    watched: bool = False
    """Whether one message is answered at once, and again whenever the answer changes."""


class GrpcRequest(RequestContext):
    """A request over gRPC: a call, or one message of a stream."""

    def __init__(
        self,
        procedure: Procedure,
        context: Context,
        path: str,
        proxies: TrustedProxies,
        request_id: str | None = None,
    ) -> None:
        headers = [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in context.invocation_metadata() or ()
        ]
        super().__init__(procedure, "gRPC", path, headers)
        self.procedure = procedure
        self.address = proxies.caller(address_of(context.peer()), headers)
        self.request_id = request_id or self.request_id  # of a stream all requests have its id
        self.time_remaining = context.time_remaining
        """How many seconds are left until the caller gives up; None where it set no deadline."""
        self.span_name = path[1 : MAX_PATH + 1]
        service, _, method = self.span_name.rpartition("/")
        self.attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self.outcome = OK
        self.parsed: Any = None
        """Its message."""

    def ended(self, outcome: Outcome) -> None:
        """Note what came of it."""
        self.outcome = outcome
        self.status = outcome.code.name
        self.attributes["rpc.grpc.status_code"] = outcome.code.value[0]
        self.server_fault = outcome.code in SERVER_FAULTS

    @contextmanager
    def noting_cancellation(self) -> Iterator[None]:
        """Note where the caller gives up, or its deadline is over, while a block waits."""
        try:
            yield
        except asyncio.CancelledError:
            remaining = self.time_remaining()
            self.ended(CANCELLED if remaining is None or remaining > 0 else DEADLINE_EXCEEDED)
            self.gone = True
            raise


class GrpcHandler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers all calls; those of what doesn't exist too, so that they are logged and counted as any other."""

    def __init__(self, service: Service, procedures: Mapping[str, Procedure], pipeline: Pipeline) -> None:
        self._procedures = procedures
        self._pipeline = pipeline
        self._service = service
        self._watchers = 0
        self._receive_limit = service.receive_limit
        self._timeout = service.settings.body_timeout

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return what answers a call.

        Messages are read and written here and not by gRPC, whatever the procedure: so its caller is admitted before.
        """
        path: str = handler_call_details.method
        procedure = self._procedures.get(path, _NOT_FOUND)

        async def single(_: object, context: Context) -> bytes:
            return await self._single(GrpcRequest(procedure, context, path, self._pipeline.proxies), context)

        async def stream(_: object, context: Context) -> None:
            await self._stream(procedure, context, path)

        async def watch(_: object, context: Context) -> None:
            self._watchers += 1
            try:
                await self._watch(GrpcRequest(procedure, context, path, self._pipeline.proxies), context)
            finally:
                self._watchers -= 1

        if procedure.watched:
            return grpc.stream_stream_rpc_method_handler(watch)
        return (
            grpc.stream_unary_rpc_method_handler(single)
            if procedure.in_stream is None
            else grpc.stream_stream_rpc_method_handler(stream)
        )

    async def _single(self, request: GrpcRequest, context: Context) -> bytes:
        with self._pipeline.recorded(request), request.noting_cancellation():
            response = await self._answer(request, lambda: self._message(request, context))
            written: bytes = b"" if response is None else response.SerializeToString()
            request.bytes_out = len(written)
        await _finish(context, request)
        return written

    async def _watch(self, request: GrpcRequest, context: Context) -> None:
        """Answer a message, and again at each change, until the caller goes or the service ends."""
        with self._pipeline.recorded(request), request.noting_cancellation():
            response = await self._answer(request, lambda: self._message(request, context))
            written = None
            while request.outcome is OK:
                if (latest := response.SerializeToString()) != written:
                    written = latest
                    await context.write(written)
                if self._service.draining:
                    break
                await asyncio.sleep(_WATCH_S)
                response = await request.procedure.act(request.parsed, request)
        await _finish(context, request)

    async def _stream(self, procedure: Procedure, context: Context, path: str) -> None:
        """Answer one request after another; a caller that isn't admitted at its beginning may send none."""
        assert procedure.in_stream is not None  # noqa: S101
        opening = GrpcRequest(procedure, context, path, self._pipeline.proxies)
        admission = await self._admit(opening)
        await _finish(context, opening)
        while (message := await context.read()) is not grpc.aio.EOF:
            request = GrpcRequest(procedure, context, path, self._pipeline.proxies, opening.request_id)
            request.key = opening.key if admission is not None else ""
            with self._pipeline.recorded(request), request.noting_cancellation():
                response = await self._answer(request, _received(message), admission)
                written = procedure.in_stream(message, response, request.outcome).SerializeToString()
                request.bytes_out = len(written)
            admission = None
            await context.write(written)

    async def _admit(self, opening: GrpcRequest) -> Admission | None:
        """Admit the first request of a stream; one that isn't admitted ends it."""
        try:
            return await self._pipeline.authorize(opening)
        except RequestError as refused:
            with self._pipeline.recorded(opening):
                opening.ended(Outcome.of(refused))
            return None

    async def _answer(
        self, request: GrpcRequest, receive: Callable[[], Awaitable[bytes]], admission: Admission | None = None
    ) -> Any:
        """Return the response to a request, None if there is none to send; `request.outcome` says why."""

        async def handle() -> Any:
            with request.noting_cancellation():
                response = await self._handle(request, receive)
            request.ended(OK)
            return response

        async def fail(error: PlimsollError) -> None:
            request.ended(Outcome.of(error))

        return await self._pipeline.handled(request, handle, fail, admission)

    async def _handle(self, request: GrpcRequest, receive: Callable[[], Awaitable[bytes]]) -> Any:
        """Have the procedure answer. Its message counts as being received from when it is whole (gRPC doesn't report
        parts) until it is answered."""
        message = await receive()
        request.bytes_in, request.received_ns = len(message), time.time_ns()
        with self._receive_limit.counted() as share:
            share.add(len(message))
            try:
                parsed = request.procedure.read(message)
            except DecodeError as error:
                raise bad_request("the message can't be parsed as what this procedure takes") from error
            request.parsed = parsed if request.procedure.watched else None
            return await request.procedure.act(parsed, request)

    async def _message(self, request: GrpcRequest, context: Context) -> bytes:
        """Return a call's message; raises RequestError where it doesn't arrive in time, or there is none."""
        if request.procedure.watched and self._watchers > MAX_WATCHERS:
            raise RequestError(
                Problem("overloaded", "too many calls watch already", "Ask `Check` now and then.", 503, 1.0)
            )
        if request.procedure is _NOT_FOUND:
            raise RequestError(Problem("input", f"there is no procedure {quoted(request.path)}", status=501))
        reading = asyncio.ensure_future(context.read())
        try:
            await asyncio.wait({reading}, timeout=self._timeout)
        finally:
            # It is never cancelled: gRPC's core would go on writing into what is then freed. It ends with its call.
            reading.add_done_callback(_retrieve_exception)
        if not reading.done():
            raise too_slow("message", self._timeout)
        message = reading.result()
        if message is grpc.aio.EOF:
            await asyncio.sleep(_MOMENT_S)
            raise bad_request("the call brought no message")
        return bytes(message)


def address_of(peer: str) -> str:
    """Return the IP address in gRPC's name of the other side; empty for a Unix socket."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")


def _received(message: bytes) -> Callable[[], Awaitable[bytes]]:
    async def receive() -> bytes:
        return message

    return receive


def _retrieve_exception(reading: asyncio.Future[Any]) -> None:
    """Keep asyncio from logging it: the call says what came of it."""
    if not reading.cancelled():
        reading.exception()


async def _finish(context: Context, request: GrpcRequest) -> None:
    """End a call that has no answer; give it the request's id in any case."""
    trailer = (("x-request-id", request.request_id),)
    if request.outcome is OK:
        context.set_trailing_metadata(trailer)
    else:
        outcome = request.outcome
        await context.abort(outcome.code, outcome.details, (*trailer, *outcome.trailer))


async def _unreachable(_: object, __: GrpcRequest) -> None:
    """Stand for what doesn't exist: no message gets so far."""


_NOT_FOUND = Procedure("", "grpc", None, act=_unreachable, read=bytes)
"""What doesn't exist; everybody learns so, as gRPC does it."""
