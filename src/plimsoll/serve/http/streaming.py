"""Answers that are sent one by one, as soon as each is known: lines of JSON, or server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

MediaType = Literal["application/x-ndjson", "text/event-stream"]
LINES: MediaType = "application/x-ndjson"
EVENTS: MediaType = "text/event-stream"
_DONE = b"event: done\ndata: {}\n\n"
"""Without it a browser takes the end for a lost connection, and asks again."""


def form_of(accepted: str) -> MediaType | None:
    """Return the form that the value of `Accept` names, None where it asks for neither."""
    names = [item.partition(";")[0].strip() for item in accepted[:1000].lower().split(",")]
    return next((form for form in (LINES, EVENTS) if form in names), None)


async def response(form: MediaType, rows: AsyncGenerator[BaseModel]) -> Response:
    """Return the response that sends these rows. It waits for the first one, so that what is wrong with the request as
    a whole is raised here, and has its status."""
    try:
        first = await anext(rows)
    except BaseException:
        await rows.aclose()
        raise
    return _Streamed(_written(form, first, rows), media_type=form, headers={"X-Accel-Buffering": "no"})


async def _written(form: MediaType, first: BaseModel, rows: AsyncGenerator[BaseModel]) -> AsyncGenerator[bytes]:
    async with aclosing(rows):
        yield _piece(form, first)
        async for row in rows:
            yield _piece(form, row)
    if form == EVENTS:
        yield _DONE


def _piece(form: MediaType, row: BaseModel) -> bytes:
    text = row.__pydantic_serializer__.to_json(row, by_alias=True)
    return text + b"\n" if form == LINES else b"event: result\ndata: " + text + b"\n\n"


class _Streamed(StreamingResponse):
    """A response whose generator ends with it, also where the caller hangs up before it was asked for anything."""

    def __init__(self, content: AsyncGenerator[bytes], **arguments: object) -> None:
        super().__init__(content, **arguments)  # type: ignore[arg-type]
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            if scope.get("http_version") == "1.0":  # which has no chunks, so the length must be known before
                whole = b"".join([piece async for piece in self._content])
                await Response(whole, headers=dict(self.headers))(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
