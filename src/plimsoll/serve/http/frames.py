"""`/v1/frames`: frames of a camera over a WebSocket, each a picture's file, and each answered or dropped.

One frame of a connection is under way. What comes meanwhile is dropped, not queued: an answer to an old frame is worth
less than one to the next.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from starlette.datastructures import QueryParams
from starlette.requests import Request

from plimsoll.serve.http import sockets
from plimsoll.serve.http.answers import FrameResult
from plimsoll.serve.http.endpoints import (
    Answer,
    Content,
    Description,
    Endpoint,
    Endpoints,
    ErrorInfo,
    ErrorResponse,
    Reply,
    errors,
)
from plimsoll.serve.http.following import Following, FrameOptions
from plimsoll.serve.http.predict import option_parameters, query_options
from plimsoll.serve.http.sockets import POLICY, Socket
from plimsoll.serve.messages import InferenceResult, Problem, RequestError, whole_seconds
from plimsoll.serve.service import Service

_BUSY_S = 5.0


_ERRORS = {
    400: "The request can't be read, or its protocol isn't WebSocket.",
    404: "There is no such model.",
    422: "What is asked is not allowed.",
    426: "Something else than a WebSocket was asked for.",
    503: "There is no room.",
}


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoint."""
    api = Endpoints("native")
    settings = service.settings.live
    open_sockets: set[Socket] = set()

    async def talk(socket: Socket) -> None:
        options = query_options(FrameOptions, QueryParams(socket.scope["query_string"]))
        following = Following(service.find(options.model), options)
        if len(open_sockets) >= settings.connections:
            message = f"{len(open_sockets)} connections send frames, and no more do at once"
            raise RequestError(Problem("overloaded", message, "Try again later.", 503, _BUSY_S))
        open_sockets.add(socket)
        try:
            await socket.accept()
            await _Conversation(service, socket, options, following).run(settings.idle_timeout)
        finally:
            open_sockets.discard(socket)

    @api.get("/v1/frames", _description(service), right="predict", socket=talk)
    async def frames(_: Request) -> Reply[ErrorResponse]:
        message = "this answers WebSockets" if sockets.available() else "this service speaks no WebSocket"
        hint = "Open it as ws:// or wss://." if sockets.available() else "Who runs it may install `websockets`."
        problem = Problem("input", message, hint, 426)
        return Reply(ErrorResponse(error=ErrorInfo.of(problem)), 426, problem, {"Upgrade": "websocket"})

    return api.rows


class _Conversation:
    """What goes to and fro on a connection."""

    def __init__(self, service: Service, socket: Socket, options: FrameOptions, following: Following) -> None:
        self._service, self._socket, self._options = service, socket, options
        self._following = following
        self._dropped = 0

    async def run(self, idle_timeout: float) -> None:
        """Answer frames until the connection ends."""
        under_way: asyncio.Task[None] | None = None
        number = 0
        try:
            async with aclosing(self._socket.messages(idle_timeout)) as messages:
                async for data in messages:
                    if under_way is not None and not under_way.done():
                        self._dropped += 1
                    else:
                        if under_way is not None:
                            under_way.result()
                        under_way = asyncio.ensure_future(self._answer(number, data, time.monotonic()))
                    number += 1
        finally:
            if under_way is not None:
                under_way.cancel()

    async def _answer(self, number: int, data: bytes, arrived: float) -> None:
        socket, context = self._socket, self._socket.context
        model = self._service.find(self._options.model)
        result: InferenceResult
        try:
            admission = await socket.admit()
            model = self._service.choose(self._options.model)
            context.model = model.name
            if model.version != self._following.version:
                self._following = Following(model, self._options)
            (result,) = await model.predict([data], self._following.options)
            result = await self._following.update(result, arrived)
            context.pictures += 1
            context.milliseconds = [result.milliseconds]
            admission.settle(1)
        except RequestError as error:
            result = InferenceResult(None, error.problem)
        problem = result.problem
        retry_after = problem.retry_after if problem is not None else None
        row = FrameResult(
            number=number,
            dropped=self._dropped,
            answer=result.row,
            error=ErrorInfo.of(problem) if problem is not None else None,
            retry_after=whole_seconds(retry_after) if retry_after is not None else None,
            milliseconds={stage: round(value, 3) for stage, value in result.milliseconds.items()},
            batch=result.batch,
            model=model.name,
            version=model.version,
        )
        await socket.send(row.__pydantic_serializer__.to_json(row))
        if problem is not None and problem.status in (401, 403):
            await socket.close(POLICY, "the key isn't valid any more")


def _description(service: Service) -> Description:
    names = sorted(service.models)
    settings = service.settings.live
    return Description(
        "frames",
        "Answer the frames of a camera, over a WebSocket.",
        [
            Answer(101, "The connection speaks WebSocket from here on.", [Content(FrameResult)]),
            *errors(ErrorResponse, _ERRORS),
        ],
        "A WebSocket (RFC 6455). Each binary message is a picture's file, and has an answer as a text of JSON. One is "
        "under way; those that come meanwhile are dropped, and counted in `dropped`. Browsers, which can't send "
        'headers, give a key as a subprotocol: `new WebSocket(url, ["plimsoll", "key.KEY"])`. Pages of other origins '
        "are refused. With `track` the objects of a connection keep their numbers, and `smooth` steadies its points. "
        f"A message has at most {settings.max_frame_bytes:,} bytes.",
        option_parameters(FrameOptions, names),
    )
