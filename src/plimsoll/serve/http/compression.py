"""`Content-Encoding`: bodies that come compressed are inflated within limits; answers that are text go out in gzip.

Pictures and tensors stay as they are, since they would not become smaller. Compressing gives no secret away (BREACH):
no answer holds one, keys are never returned, and there are no cookies with which another site's page could ask.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib

from starlette.datastructures import Headers
from starlette.responses import Response

from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.parsing import off_loop

_GZIP_OR_ZLIB = 47
"""Bits of the window, plus 32: zlib reads the header and sees which of the two it is."""
_LEAST_BYTES = 1400
"""What fits into one packet takes no less time when it is smaller."""
_LEVEL = 4
_INPUT_BYTES, _PIECE_BYTES = 64 * 1024, 1024 * 1024
"""How much is inflated, and comes of it, in one call: it holds everybody up."""
_TEXT = ("text/", "application/json", "application/javascript", "application/openmetrics-text", "image/svg+xml")


async def compressed(response: Response, headers: Headers) -> Response:
    """Return an answer, in gzip where it is a text of some length and the caller reads that."""
    body = bytes(getattr(response, "body", b""))  # what is streamed has none
    if len(body) < _LEAST_BYTES or not response.headers.get("content-type", "").startswith(_TEXT):
        return response
    response.headers.add_vary_header("Accept-Encoding")
    if "content-encoding" in response.headers or not reads_gzip(headers.get("accept-encoding", "")):
        return response
    response.body = await off_loop(len(body), gzip.compress, body, _LEVEL)
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(len(response.body))
    if tag := response.headers.get("etag"):
        response.headers["ETag"] = tag if tag.startswith("W/") else f"W/{tag}"  # other bytes of the same content
    return response


def reads_gzip(accepted: str) -> bool:
    """Return whether the value of `Accept-Encoding` allows gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, bool] = {}
    for item in accepted[:1000].lower().split(","):
        name, _, parameters = item.partition(";")
        weight = parameters.strip().removeprefix("q=").strip()
        weights[name.strip()] = weight.strip("0.") != "" or not weight
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


async def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body that was sent with this `Content-Encoding`: gzip or deflate (RFC 9110: zlib's format), or none.

    It is inflated in a thread, because a bomb of 60 kB would block all other requests for a tenth of a second. Raises
    RequestError: 415 for another encoding, 413 where it is larger than `limit` bytes, 400 where it is damaged.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        message = f"unknown Content-Encoding {encoding[:80]!r}; expected gzip, deflate or none"
        raise RequestError(Problem("input", message, "", 415))
    return await asyncio.to_thread(_inflate, body, limit)


def _inflate(body: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
    pieces: list[bytes] = []
    size, start, rest = 0, 0, b""
    try:
        while size <= limit and not stream.eof:
            if not rest:
                rest = body[start : start + _INPUT_BYTES]
                start += len(rest)
            piece = stream.decompress(rest, _PIECE_BYTES)
            if not piece and not rest:
                break
            rest = stream.unconsumed_tail
            pieces.append(piece)
            size += len(piece)
    except zlib.error as error:
        raise RequestError(Problem("input", f"the compressed body is damaged: {error}", "", 400)) from error
    if size > limit:
        raise RequestError(
            Problem("input", f"the body inflates to more than {limit:,} bytes", "Send fewer pictures at once.", 413)
        )
    if not stream.eof or stream.unused_data or start < len(body):
        reason = "bytes follow after its end" if stream.eof else "it ends too early"
        raise RequestError(Problem("input", f"the compressed body is damaged: {reason}", "", 400))
    return b"".join(pieces)
