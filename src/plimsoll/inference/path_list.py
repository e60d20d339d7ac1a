"""Lists of paths on standard input: one a line, or separated by NUL characters."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator

from plimsoll.inference.walk import UnreadablePath

_CHUNK = 1 << 16
_MAX_LINE = 1 << 16
_EXAMPLE_LENGTH = 60
_MARKS = {codecs.BOM_UTF8: "", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
"""Byte-order marks, and the encoding that a list has to be turned from."""


def listed_paths(descriptor: int, separator: bytes) -> Iterator[str]:
    """Yield the paths of a list as they arrive.

    Not through sys.stdin: a thread blocked in its buffer would keep the interpreter from exiting.
    """
    rest, too_long = b"", False
    for chunk in _without_mark(descriptor):
        *lines, rest = (rest + chunk).split(separator)
        for line in lines:
            yield from () if too_long else path_of_line(line, separator)
            too_long = False
        if len(rest) > _MAX_LINE:
            yield from () if too_long else path_of_line(rest, separator)
            rest, too_long = b"", True
    yield from () if too_long else path_of_line(rest, separator)


def path_of_line(line: bytes, separator: bytes) -> Iterator[str]:
    """Yield the path that a line of a list holds, if it holds any."""
    if separator == b"\n":
        line = line.removesuffix(b"\r")
    if len(line) > _MAX_LINE:
        yield UnreadablePath(os.fsdecode(line[:_EXAMPLE_LENGTH]) + "…", "a line of more than 65,536 bytes in the list")
    elif b"\0" in line:
        reason = "a NUL character in the list of paths; a list that is separated by them needs --null"
        yield UnreadablePath(os.fsdecode(line[:_EXAMPLE_LENGTH]).partition("\0")[0], reason)
    elif line.strip() or (line and separator == b"\0"):
        yield os.fsdecode(line)


def _without_mark(descriptor: int) -> Iterator[bytes]:
    """Yield what a descriptor gives, without a byte-order mark, and UTF-16 (as PowerShell writes) as UTF-8."""
    head = b""
    while any(mark.startswith(head) and mark != head for mark in _MARKS) and (more := os.read(descriptor, _CHUNK)):
        head += more
    mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "")
    chunks = _chunks(head[len(mark) :], descriptor)
    if not encoding:
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "replace")


def _chunks(head: bytes, descriptor: int) -> Iterator[bytes]:
    yield head
    while chunk := os.read(descriptor, _CHUNK):
        yield chunk
