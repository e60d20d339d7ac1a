"""Read what callers send without holding anybody up: counted before it is built, and off the event loop where it is
large.

A call into C holds Python's lock until it returns, in whatever thread: so what one call may have to build is limited
here, and what takes long in all goes in pieces through a thread.
"""

from __future__ import annotations

import asyncio
import binascii
import gc
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import from_json, to_json

from plimsoll.serve.messages import Problem, RequestError

MAX_JSON_BYTES = 48 * 1024 * 1024
"""Of a JSON body."""
_MAX_OTHER_BYTES = 24 * 1024 * 1024
"""Of a JSON body without its long texts in base64."""
_MAX_WIDE_BYTES = 4 * 1024 * 1024
"""The same where it has characters beyond ASCII: a text takes four bytes for each of its characters then."""
_LONG_TEXT = 8192
_MARK = f"text-{os.urandom(16).hex()}-"
"""Stands in the JSON for a long text, with its number."""
_ESCAPES = {rb"\/": b"/", rb"\u002B": b"+", rb"\u002b": b"+", rb"\n": b"\n", rb"\r": b"\r"}
"""What libraries write in base64 that they put into JSON."""
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
    other, texts = _take_long_texts(body) if len(body) > SMALL_BYTES else (body, {})
    allowed = _MAX_OTHER_BYTES if other.isascii() and rb"\u" not in other else _MAX_WIDE_BYTES
    if len(other) > allowed:
        raise _too_much(f"has {len(other):,} bytes besides long texts in base64; at most {allowed:,} are read", hint)
    try:
        with without_garbage_collection():
            data = from_json(other, cache_strings="keys")
    except ValueError as error:
        raise RequestError(Problem("input", f"the body is not JSON: {error}", hint, 400)) from error
    return _put_back(data, texts, hint) if texts else data


def _take_long_texts(body: bytes) -> tuple[bytes, dict[str, str]]:
    """Return JSON with a mark in place of each long text in base64, and the texts by their marks.

    Reading a text of many megabytes as JSON is one call, which holds everybody up; finding where it ends is not.
    """
    pieces: list[bytes] = []
    texts: dict[str, str] = {}
    taken, middle = 0, _LONG_TEXT
    while middle < len(body):
        start = body.rfind(b'"', max(taken, middle - _LONG_TEXT), middle) + 1
        end = body.find(b'"', middle) if start else middle
        if end < 0:
            break
        if end - start > _LONG_TEXT and start and (text := _plain_text(body[start:end])) is not None:
            mark = f"{_MARK}{len(texts)}"
            texts[mark] = text
            pieces += [body[taken:start], mark.encode()]
            taken = end
        middle = end // _LONG_TEXT * _LONG_TEXT + _LONG_TEXT
    return b"".join([*pieces, body[taken:]]), texts


def _plain_text(run: bytes) -> str | None:
    """Return what stands between two quotation marks, where that is a text and holds nothing that base64 and data URLs
    don't hold; None where it may be anything else, such as what stands between two texts."""
    if run[:1] in b" \t\r\n,:]}" or not run.isascii():
        return None
    for escape, character in _ESCAPES.items() if b"\\" in run else ():
        run = run.replace(escape, character)
    return None if b"\\" in run else run.decode("ascii")


def _put_back(data: Any, texts: Mapping[str, str], hint: str) -> Any:
    """Return data with the long texts in their places; none of them is a name."""
    whole = [data]
    holders: list[Any] = [whole]
    while holders:
        holder = holders.pop()
        if isinstance(holder, dict) and not holder.keys().isdisjoint(texts):
            raise _too_much(f"has a name of more than {_LONG_TEXT:,} characters", hint)
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, str):
                holder[key] = texts.get(value, value)
            elif isinstance(value, (dict, list)):
                holders.append(value)
    return whole[0]


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
