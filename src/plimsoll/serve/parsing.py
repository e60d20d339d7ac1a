"""Read what callers send without holding anybody up: counted before it is built, and off the event loop where it is
large.

A call into C holds Python's lock until it returns, in whatever thread: so what one call may have to build is limited
here, and what takes long in all goes in pieces through a thread.
"""

from __future__ import annotations

import asyncio
import binascii
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import from_json, to_json

from plimsoll.serve.messages import Problem, RequestError

MAX_JSON_BYTES = 48 * 1024 * 1024
"""Of a JSON body: reading a text of this size takes a tenth of the time that everybody may be held up."""
SMALL_BYTES = 256 * 1024
"""What is smaller is read where it is: a thread would take longer."""
_SLICE = 1024 * 1024
_T = TypeVar("_T")


async def off_loop(size: int, function: Callable[..., _T], *arguments: Any) -> _T:
    """Return what a function returns, called in a thread where it has more than a few bytes to do."""
    return await asyncio.to_thread(function, *arguments) if size > SMALL_BYTES else function(*arguments)


@dataclass(frozen=True)
class JsonLimits:
    """How much one JSON body may hold."""

    values: int
    lists: int
    """Lists and objects."""
    members: int
    """Names in objects."""
    escapes: int = 1_000_000
    """Backslashes in texts; some libraries write one before each slash of base64."""

    @classmethod
    def for_items(cls, count: int) -> JsonLimits:
        """Return the limits of a body that lists so many things, each with a handful of members."""
        return cls(64 * count + 1000, 4 * count + 200, 32 * count + 1000)


TENSOR_JSON = JsonLimits(values=800_000, lists=200_000, members=20_000)
"""A tensor of 512 × 512 pixels in three colours has fewer values, and one of 256 × 256 as nested lists fewer lists."""


async def read_json(body: bytes, hint: str = "", limits: JsonLimits = TENSOR_JSON) -> Any:
    """Return what a body holds as JSON; raises RequestError: 400 if it is not JSON, 413 if it is more than the limits
    allow."""
    return await off_loop(len(body), parse_json, body, hint, limits)


def parse_json(body: bytes, hint: str = "", limits: JsonLimits = TENSOR_JSON) -> Any:
    """Return what a body holds as JSON, as `read_json` does."""
    if len(body) > MAX_JSON_BYTES:
        raise _too_much(f"has {len(body):,} bytes; at most {MAX_JSON_BYTES:,} are read", hint)
    # Upper bounds, since texts hold such characters as well; those that are close to a limit are of no honest caller.
    lists = _count(body, b"[") + _count(body, b"{")
    if lists > limits.lists:
        raise _too_much(f"has more than {limits.lists:,} lists and objects", hint)
    if _count(body, b",") + lists > limits.values:
        raise _too_much(f"has more than {limits.values:,} values", hint)
    if _count(body, b":") > limits.members:
        raise _too_much(f"has more than {limits.members:,} named values", hint)
    if _count(body, b"\\") > limits.escapes:
        raise _too_much(f"has more than {limits.escapes:,} escaped characters", hint)
    try:
        with without_garbage_collection():
            return from_json(body, cache_strings="keys")
    except ValueError as error:
        raise RequestError(Problem("input", f"the body is not JSON: {error}", hint, 400)) from error


def _count(body: bytes, character: bytes) -> int:
    return sum(body.count(character, start, start + _SLICE) for start in range(0, len(body), _SLICE))


def _too_much(what: str, hint: str) -> RequestError:
    return RequestError(Problem("input", f"the body's JSON {what}", hint, 413))


_building = threading.Lock()


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Have Python not look for cycles while a block builds many objects that hold none: it would look at all of them
    again and again, which takes five times as long as building them."""
    if not gc.isenabled() or not _building.acquire(blocking=False):
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        _building.release()


_BLANKS = b" \t\r\n"
_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """Return the bytes that a text in base64 stands for: standard or URL-safe, with line breaks or none, padded or not.
    Raises ValueError."""
    if len(text) <= SMALL_BYTES:
        return _decoded(_without_blanks(text))
    decoded: list[bytes] = []
    rest = b""
    for start in range(0, len(text), _SLICE):
        piece = rest + _without_blanks(text[start : start + _SLICE])
        whole = len(piece) // 4 * 4 - 4  # the last four may hold the padding
        if whole > 0:
            decoded.append(_decoded(piece[:whole], padded=False))
            piece = piece[whole:]
        rest = piece
    return b"".join([*decoded, _decoded(rest)])


def _without_blanks(text: str) -> bytes:
    try:
        return text.encode("ascii").translate(_STANDARD, _BLANKS)
    except UnicodeEncodeError:
        raise ValueError("it has characters that are not ASCII") from None


def _decoded(data: bytes, *, padded: bool = True) -> bytes:
    bare = data.rstrip(b"=") if padded else data
    padding = len(data) - len(bare)
    if b"=" in bare or padding > 2 or (padding and len(data) % 4) or len(bare) % 4 == 1:
        raise ValueError("its padding is wrong, or its end is missing")
    try:
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error as error:
        raise ValueError(str(error).lower()) from None


def json_numbers(values: Sequence[Any], step: int = 50_000) -> bytes:
    """Return a list's values as JSON, written piece by piece; NaN and infinity are null."""
    if len(values) <= step:
        return to_json(values, inf_nan_mode="null")
    pieces = (to_json(values[start : start + step], inf_nan_mode="null")[1:-1] for start in range(0, len(values), step))
    return b"[" + b",".join(pieces) + b"]"
