"""Read request bodies within limits: their size, all of them together, and their time; and wait for an answer only as
long as its caller does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from plimsoll.serve.http.compression import inflated
from plimsoll.serve.http.multipart import Part, boundary_of, parse_parts
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.parsing import joined, off_loop
from plimsoll.serve.pipeline import too_slow
from plimsoll.serve.service import Service
from plimsoll.serve.settings import Settings

_MAX_FIELDS = 64
"""Parts of a multipart body beside the pictures."""
_T = TypeVar("_T")


async def read_body(request: Request, service: Service) -> bytes:
    """Return a request's body, inflated where it was compressed; raises RequestError: 413 where it is too large, 408
    where it comes too slowly, 503 where too much is received at once, and as `inflated`."""
    settings = service.settings
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_body_bytes:
        raise _too_large(settings)
    chunks: list[bytes] = []
    size = 0
    try:
        with service.receive_limit.counted() as share:
            async with asyncio.timeout(settings.body_timeout):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > settings.max_body_bytes:
                        raise _too_large(settings)
                    share.add(len(chunk))
                    chunks.append(chunk)
            body = await joined(chunks, size)
            encoding = request.headers.get("content-encoding")
            if encoding is None:
                return body
            data = await inflated(body, encoding, settings.max_body_bytes)
            share.add(max(0, len(data) - size))
            return data
    except TimeoutError:
        raise too_slow("body", settings.body_timeout) from None
    except ClientDisconnect:
        raise _hung_up() from None


async def while_connected(request: Request, coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns; cancels it, and raises RequestError, where the client hangs up. The request's
    body must have been read."""
    work = asyncio.ensure_future(coroutine)
    disconnected = asyncio.ensure_future(_disconnection(request))
    try:
        await asyncio.wait({work, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise _hung_up()
        return work.result()
    finally:
        disconnected.cancel()
        work.cancel()
        # An error that comes out of the work holds this frame, which would hold the work, which holds the error: such a
        # ring, and with it all that the request was read into, stays until Python looks for rings.
        del work, disconnected


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _hung_up() -> RequestError:
    return RequestError(Problem("input", "the client hung up", status=499))


def media_type(request: Request) -> str:
    """Return a request's media type in lower case, without its parameters; empty where it has none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _too_large(settings: Settings) -> RequestError:
    message = f"the body is larger than {settings.max_body_bytes:,} bytes"
    return RequestError(Problem("input", message, "Send fewer or smaller pictures at once.", 413))


def check_count(count: int, settings: Settings, hint: str, what: str = "pictures") -> None:
    """Raise RequestError where a request has no pictures (400), or too many (413)."""
    if not count:
        raise RequestError(Problem("input", f"there is no {what.removesuffix('s')} in the request", hint, 400))
    if count > settings.max_items:
        message = f"{count:,} {what} in one request; {settings.max_items:,} are allowed"
        raise RequestError(Problem("input", message, "Send several requests.", 413))


async def read_parts(request: Request, service: Service) -> list[Part]:
    """Return the parts of a multipart/form-data body, in their order; raises RequestError (400, or as `read_body`)."""
    boundary = boundary_of(request.headers.get("content-type", ""))
    body = await read_body(request, service)
    return await off_loop(len(body), parse_parts, body, boundary, service.settings.max_items + _MAX_FIELDS)
