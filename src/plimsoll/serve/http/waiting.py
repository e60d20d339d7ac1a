"""Wait for an answer only as long as somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from plimsoll.serve.messages import Problem, RequestError

_T = TypeVar("_T")


async def while_connected(request: Request, coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns; cancels it, and raises RequestError, where the client hangs up. The request's
    body must have been read."""
    work = asyncio.ensure_future(coroutine)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise RequestError(Problem("input", "the client hung up", status=499))
        return work.result()
    finally:
        gone.cancel()
        work.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
