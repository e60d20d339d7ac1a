"""Read what callers send without holding anybody up: counted before it is built, and off the event loop where it is
large.

A call into C holds Python's lock until it returns, in whatever thread: so what one call may have to build is limited
here, and what takes long in all goes in pieces through a thread. There is one such thread: two would not be faster, and
the event loop would have to wait for both.
"""

from __future__ import annotations

import asyncio
import binascii
import gc
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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
_LONG_LIST = 512
"""Bytes of numbers in a list from which they are read apart from the rest."""
_MARK = f"long-{os.urandom(16).hex()}-"
"""Stands in the JSON for a long text or list, with its number."""
_ESCAPES = {rb"\/": b"/", rb"\u002B": b"+", rb"\u002b": b"+", rb"\n": b"\n", rb"\r": b"\r"}
"""What libraries write in base64 that they put into JSON."""
_LONGEST_ESCAPE = 5
"""Bytes of the longest of them, but for its backslash."""
_IN_NUMBERS = b"0123456789+-.eE, \t\r\ntrufalsn"
"""What lists of numbers hold, and of true, false and null."""
SMALL_BYTES = 256 * 1024
"""What is smaller is read where it is: a thread would take longer."""
QUICK_COPY = 4 * 1024 * 1024
"""What is smaller is copied where it is, in about a millisecond."""
_SLICE = 512 * 1024
_SWITCH_S = 0.0005
_reading = ThreadPoolExecutor(1, "reading")
_T = TypeVar("_T")


def share_fairly() -> None:
    """Have the event loop wait half a millisecond where a thread has Python's lock, not five: it needs the lock anew
    for each of the connections that are ready."""
    sys.setswitchinterval(_SWITCH_S)


async def off_loop(size: int, function: Callable[..., _T], *arguments: Any) -> _T:
    """Return what a function returns, called in a thread where it has more than a few bytes to do."""
    if size <= SMALL_BYTES:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(_reading, function, *arguments)


async def joined(pieces: Sequence[bytes], size: int) -> bytes:
    """Return the pieces of a body of this size in one."""
    if len(pieces) == 1:
        return pieces[0]
    if size <= QUICK_COPY:
        return b"".join(pieces)
    return await off_loop(size, _joined, pieces, size)


def _joined(pieces: Sequence[bytes], size: int) -> bytes:
    whole = io.BytesIO(bytes(size))  # nobody else has these bytes, so that they are written to and returned uncopied
    for piece in pieces:
        whole.write(piece)
    return whole.getvalue()


async def copy(source: bytes | memoryview, target: memoryview) -> None:
    """Copy bytes to other memory, which nobody may free meanwhile, even where the caller gives up."""
    if len(source) <= QUICK_COPY:
        target[:] = source
        return
    copying = asyncio.ensure_future(off_loop(len(source), _copy, memoryview(source), target))
    try:
        await asyncio.shield(copying)
    finally:
        while not copying.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({copying})


def _copy(source: memoryview, target: memoryview) -> None:
    for start in range(0, len(source), _SLICE):
        target[start : start + _SLICE] = source[start : start + _SLICE]


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


TENSOR_JSON = JsonLimits(values=800_000, lists=100_000, members=20_000)
"""A tensor of 512 × 512 pixels in three colours has fewer values, and one of 256 × 256 as nested lists fewer lists."""
_AT_ONCE = 400_000
"""Values of a JSON body without its long lists, which are read in one call."""


async def read_json(body: bytes, hint: str = "", limits: JsonLimits = TENSOR_JSON) -> Any:
    """Return what a body holds as JSON; raises RequestError: 400 if it is not JSON, 413 if it is more than the limits
    allow."""
    return await off_loop(len(body), parse_json, body, hint, limits)


def parse_json(body: bytes, hint: str = "", limits: JsonLimits = TENSOR_JSON) -> Any:
    """Return what a body holds as JSON, as `read_json` does."""
    if len(body) > MAX_JSON_BYTES:
        raise _too_much(f"has {len(body):,} bytes; at most {MAX_JSON_BYTES:,} are read", hint)
    _check_counts(body, hint, limits)
    if len(body) > SMALL_BYTES:
        other, long = _take_long(body)
        if long:
            try:
                return _put_back(_parsed(other, hint), long, hint)
            except _NotTakenRightlyError:
                pass
            except RequestError as error:
                if error.problem.status != 400 or len(body) > _MAX_WIDE_BYTES:
                    raise  # else all of it is read, which says where the mistake is
    return _parsed(body, hint)


def _check_counts(body: bytes, hint: str, limits: JsonLimits) -> None:
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


def _parsed(body: bytes, hint: str) -> Any:
    """Return what is read in one call."""
    if _count(body, b",") + _count(body, b"[") > _AT_ONCE:
        raise _too_much(f"has more than {_AT_ONCE:,} values besides long lists of numbers", hint)
    allowed = _MAX_OTHER_BYTES if body.isascii() and rb"\u" not in body else _MAX_WIDE_BYTES
    if len(body) > allowed:
        raise _too_much(f"has {len(body):,} bytes besides long texts in base64; at most {allowed:,} are read", hint)
    try:
        with without_garbage_collection():
            return from_json(body, cache_strings="keys")
    except ValueError as error:
        raise RequestError(Problem("input", f"the body is not JSON: {error}", hint, 400)) from error


_Long = str | list[Any]


class _NotTakenRightlyError(Exception):
    """What was taken for a long text or list was a part of something else, or is not in the result."""


def _take_long(body: bytes) -> tuple[bytes, dict[str, _Long]]:
    """Return JSON with a mark in place of each long text in base64 and of what is in each long list of numbers, and
    these by their marks.

    Reading many megabytes as JSON is one call, which holds everybody up; finding where they end is not.
    """
    long: dict[str, _Long] = {}
    other = _without(body, (b'"', b'"'), _LONG_TEXT, _plain_text, long)
    return _without(other, (b"[", b"]"), _LONG_LIST, _numbers, long), long


def _without(
    body: bytes,
    around: tuple[bytes, bytes],
    least: int,
    read: Callable[[bytes, int, int], _Long | None],
    long: dict[str, _Long],
) -> bytes:
    """Return a body without what stands between two characters where it is long and can be read alone; add that to
    `long`."""
    opening, closing = around
    pieces: list[bytes] = []
    taken, middle = 0, least
    while middle < len(body):
        start = body.rfind(opening, max(taken, middle - least), middle) + 1
        end = body.find(closing, middle) if start else middle
        if end < 0:
            break
        if end - start > least and start and (value := read(body, start, end)) is not None:
            mark = f"{_MARK}{len(long)}"
            long[mark] = value
            pieces += [body[taken:start], (mark if opening == closing else f'"{mark}"').encode()]
            taken = end
        middle = end // least * least + least
    return b"".join([*pieces, body[taken:]]) if pieces else body


def _plain_text(body: bytes, start: int, end: int) -> str | None:
    """Return what stands between two quotation marks, where that is a text and holds nothing that base64 and data URLs
    don't hold; None where it may be anything else, such as what stands between two texts."""
    if body[start : start + 1] in b" \t\r\n,:]}":
        return None
    pieces: list[str] = []
    while start < end:
        cut = min(start + _SLICE, end)
        if cut < end and (escape := body.rfind(b"\\", cut - _LONGEST_ESCAPE, cut)) > start:
            cut = escape
        piece = body[start:cut]
        for escaped, character in _ESCAPES.items() if b"\\" in piece else ():
            piece = piece.replace(escaped, character)
        if b"\\" in piece or not piece.isascii():
            return None
        pieces.append(piece.decode("ascii"))
        start = cut
    return "".join(pieces)


def _numbers(body: bytes, start: int, end: int) -> list[Any] | None:
    """Return what stands between two brackets, where that is a list of numbers; None where it is anything else."""
    values: list[Any] = []
    while start < end:
        cut = body.find(b",", min(start + _SLICE, end), end)
        cut = end if cut < 0 else cut
        piece = body[start:cut]
        if piece.translate(None, _IN_NUMBERS) or piece.isspace():
            return None
        try:
            values += from_json(b"[%b]" % piece)
        except ValueError:
            return None  # reading all of it says where the mistake is
        start = cut + 1
    return values if body[end - 1 : end] != b"," else None


def _put_back(data: Any, long: Mapping[str, _Long], hint: str) -> Any:
    """Return data with the long texts and lists in their places; no text is a name."""
    whole = [data]
    holders: list[Any] = [whole]
    placed = 0
    while holders:
        holder = holders.pop()
        if isinstance(holder, dict) and not holder.keys().isdisjoint(long):
            raise _too_much(f"has a name of more than {_LONG_TEXT:,} characters", hint)
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, (dict, list)):
                holders.append(value)
            elif isinstance(value, str) and value in long:
                placed += 1
                if isinstance(original := long[value], str):
                    holder[key] = original
                elif len(holder) == 1 and holder is not whole and isinstance(holder, list):
                    holder[:] = original
                    break
                else:
                    raise _NotTakenRightlyError
    if placed != len(long):
        raise _NotTakenRightlyError
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
