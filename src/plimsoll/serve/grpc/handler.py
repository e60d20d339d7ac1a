"""What every request over gRPC goes through, whatever it asks for: as over HTTP, from the outside in.

```
its id                 and a line, a count and a span when it is over
keys and rates         before anything of its message is read
limits                 its size, its time, and all that is being received
the procedure
```

A call is one request. Of a stream each message is one: it is answered, counted and told by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from plimsoll.errors import PlimsollError
from plimsoll.serve.access.authorizer import Admission, Authorizer, Need
from plimsoll.serve.grpc.call import Call, Context
from plimsoll.serve.grpc.status import GIVEN_UP, GOOD, MISTAKE, TOO_LATE, Outcome
from plimsoll.serve.grpc.telemetry import GrpcTelemetry
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.oip.request import bad_request, shown
from plimsoll.serve.service import Service

_log = logging.getLogger("plimsoll.serve")
_MOMENT_S = 0.2
"""A call that was given up, or whose message gRPC finds too large, reads as one without a message; that it is cancelled
is told right after."""


@dataclass(frozen=True)
class Procedure:
    """What callers may call, once or in a stream of requests."""

    act: Callable[[Any, Call], Awaitable[Any]]
    """Returns the response to a request; raises PlimsollError."""
    read: Callable[[bytes], Any]
    """Returns the request that a message is; raises DecodeError or RequestError."""
    need: Need | None
    """What a caller needs the right to do; None where everybody may."""
    in_stream: Callable[[bytes, Any, Outcome], Any] | None = None
    """Of a stream: returns what is written for a message, its response (None where there is none), and what came of it.
    """


class GrpcHandler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers all calls; one of what doesn't exist too, so that it is told as any other."""

    def __init__(
        self, service: Service, procedures: Mapping[str, Procedure], door: Authorizer | None, journal: GrpcTelemetry
    ) -> None:
        self._procedures = procedures
        self._door = door
        self._journal = journal
        self._received = service.received
        self._seconds = service.settings.body_timeout

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return what answers a call.

        Messages are read and written here and not by gRPC, whatever the procedure: so its caller is let in before.
        """
        path: str = handler_call_details.method
        procedure = self._procedures.get(path, _NOTHING)

        async def single(_: object, context: Context) -> bytes:
            return await self._single(procedure, context, path)

        async def stream(_: object, context: Context) -> None:
            await self._stream(procedure, context, path)

        return (
            grpc.stream_unary_rpc_method_handler(single)
            if procedure.in_stream is None
            else grpc.stream_stream_rpc_method_handler(stream)
        )

    async def _single(self, procedure: Procedure, context: Context, path: str) -> bytes:
        call = Call(context, path)
        with self._told(call):
            response = await self._answer(
                procedure, call, _nothing(path) if procedure is _NOTHING else lambda: self._message(context)
            )
            written: bytes = b"" if response is None else response.SerializeToString()
            call.bytes_out = len(written)
        await _finish(context, call)
        return written

    async def _stream(self, procedure: Procedure, context: Context, path: str) -> None:
        """Answer one request after another; who isn't let in at its beginning may send none."""
        assert procedure.in_stream is not None  # noqa: S101
        opening = Call(context, path)
        ticket = await self._opened(procedure, opening)
        await _finish(context, opening)
        while (message := await context.read()) is not grpc.aio.EOF:
            call = Call(context, path, opening.id)
            with self._told(call):
                response = await self._answer(procedure, call, _there(message), ticket)
                written = procedure.in_stream(message, response, call.outcome).SerializeToString()
                call.bytes_out = len(written)
            ticket = None
            await context.write(written)

    async def _opened(self, procedure: Procedure, call: Call) -> Admission | None:
        """Admit the first request of a stream; one that isn't let in ends it."""
        try:
            ticket = await self._admitted(procedure, call)
        except RequestError as refused:
            with self._told(call):
                call.outcome = Outcome.of(refused)
            return None
        call.outcome = GOOD
        return ticket

    @contextmanager
    def _told(self, call: Call) -> Iterator[None]:
        """Write down what came of a request, whatever that is."""
        try:
            yield
        except asyncio.CancelledError:
            remaining = call.time_remaining()
            call.outcome, call.gone = GIVEN_UP if remaining is None or remaining > 0 else TOO_LATE, True
            raise
        finally:
            self._journal.end(call)

    async def _answer(
        self, procedure: Procedure, call: Call, receive: Callable[[], Awaitable[bytes]], ticket: Admission | None = None
    ) -> Any:
        """Return the response to a request, None where there is none; `call.outcome` says why. `ticket`: its admission,
        where it has one already."""
        try:
            ticket = ticket or await self._admitted(procedure, call)
            if ticket.key is not None:
                call.state["key"] = ticket.key.name
            try:
                self._journal.begin(call)
                response = await self._acted(procedure, call, receive)
            finally:
                ticket.settle(call.state.get("pictures", 1))
        except PlimsollError as error:
            call.outcome = Outcome.of(error)
        except Exception as error:  # noqa: BLE001 - whatever it is: the caller is told that it is ours, and the log says more
            _log.exception("a mistake of ours at %s", call.path)
            call.outcome, call.failure = MISTAKE, error
        else:
            call.outcome = GOOD
            return response

    async def _admitted(self, procedure: Procedure, call: Call) -> Admission:
        if self._door is None or procedure.need is None:
            return Admission()
        return await self._door.admit(call.caller(), procedure.need)

    async def _acted(self, procedure: Procedure, call: Call, receive: Callable[[], Awaitable[bytes]]) -> Any:
        """Let the procedure answer. Its message counts as being received from when it is whole (gRPC doesn't tell of
        parts) until it is answered."""
        message = await receive()
        call.received(len(message))
        async with self._received.counted() as share:
            share.add(len(message))
            try:
                request = procedure.read(message)
            except DecodeError as error:
                raise bad_request("the message can't be read as what this procedure takes") from error
            return await procedure.act(request, call)

    async def _message(self, context: Context) -> bytes:
        """Return a call's message; raises RequestError where it isn't there in time, or where there is none."""
        reading = asyncio.ensure_future(context.read())
        try:
            await asyncio.wait({reading}, timeout=self._seconds)
        finally:
            # It is never cancelled: gRPC's core would go on writing into what is then freed. It ends with its call.
            reading.add_done_callback(_forget)
        if not reading.done():
            raise RequestError(
                Problem("input", f"the message was not there after {self._seconds:g} s", "Send it faster.", 408)
            )
        message = reading.result()
        if message is grpc.aio.EOF:
            await asyncio.sleep(_MOMENT_S)
            raise bad_request("the call brought no message")
        return bytes(message)


def _there(message: bytes) -> Callable[[], Awaitable[bytes]]:
    async def receive() -> bytes:
        return message

    return receive


def _forget(reading: asyncio.Future[Any]) -> None:
    """Take a failure as known: the call says what came of it."""
    if not reading.cancelled():
        reading.exception()


async def _finish(context: Context, call: Call) -> None:
    """End a call that has no answer; give it the request's id in any case."""
    about = (("x-request-id", call.id),)
    if call.outcome.code is grpc.StatusCode.OK:
        context.set_trailing_metadata(about)
    else:
        await context.abort(call.outcome.code, call.outcome.details, (*about, *call.outcome.trailer))


def _nothing(path: str) -> Callable[[], Awaitable[bytes]]:
    async def receive() -> bytes:
        raise RequestError(Problem("input", f"there is no procedure {shown(path)}", status=501))

    return receive


async def _unreachable(_: object, __: Call) -> None:
    """Stand for what doesn't exist: no message gets so far."""


_NOTHING = Procedure(_unreachable, bytes, None)
"""What doesn't exist; everybody is told so, as gRPC does: clients of `Health/Watch` go on without."""
