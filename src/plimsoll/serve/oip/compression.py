"""Compressed HTTP bodies."""

from __future__ import annotations

import asyncio
import zlib

from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.oip.request import shown

_GZIP_OR_ZLIB = 47
"""Bits of the window, plus 32: zlib reads the header and sees which of the two it is."""


async def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body of a request with this `Content-Encoding`: gzip or deflate (RFC 9110: zlib's format), or none.

    It is inflated in a thread, as a bomb of 60 kB would hold up everybody else for a tenth of a second. Raises
    RequestError: 415 for another encoding, 413 where it is larger than `limit` bytes, 400 where it is damaged.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        raise RequestError(
            Problem(
                "input", f"the body's Content-Encoding is {shown(encoding)}; expected gzip, deflate or none", "", 415
            )
        )
    return await asyncio.to_thread(_inflate, body, limit)


def _inflate(body: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
    try:
        data = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(Problem("input", f"the compressed body is damaged: {error}", "", 400)) from error
    if len(data) > limit:
        raise RequestError(
            Problem("input", f"the body inflates to more than {limit:,} bytes", "Send fewer pictures at once.", 413)
        )
    if not stream.eof or stream.unused_data:
        reason = "bytes follow after its end" if stream.eof else "it ends too early"
        raise RequestError(Problem("input", f"the compressed body is damaged: {reason}", "", 400))
    return data
