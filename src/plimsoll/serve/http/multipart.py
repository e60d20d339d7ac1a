"""Multipart bodies (`multipart/form-data`, RFC 7578): split at their boundary, in a time that grows with their size
alone, and with the parts counted before any is copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.parsing import decode_base64

_SLICE = 1024 * 1024
_HEADER_BYTES = 16_384
_MAX_BOUNDARY = 200
_MAX_PADDING = 200
_CHARSETS = ("utf-8", "iso-8859-1", "us-ascii")
"""Of `filename*`. Python knows many more, and some take a time that grows with the square of the text."""
_IDENTITY = ("", "7bit", "8bit", "binary")


@dataclass
class Part:
    """A part of a multipart body."""

    name: str = ""
    filename: str | None = None
    content_type: str = ""
    data: bytes = b""

    @property
    def is_file(self) -> bool:
        """Whether it is sent as a file: it has a file name, or the media type of a picture."""
        return self.filename is not None or self.content_type.lower().startswith("image/")


def boundary_of(content_type: str) -> bytes:
    """Return the boundary in a `Content-Type`; raises RequestError (400) where it is not multipart/form-data."""
    kind = content_type.partition(";")[0].strip().lower()
    boundary = dict(_parameters(content_type)).get("boundary", "").rstrip()
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= _MAX_BOUNDARY:
        raise _unreadable("expected multipart/form-data with a boundary of at most 200 characters", whole=True)
    return boundary.encode("latin-1", "replace")


def parse_parts(body: bytes, boundary: bytes, limit: int) -> list[Part]:
    """Return the parts of a body, in their order; raises RequestError: 400 where it can't be read, 413 where it has
    more than `limit`."""
    delimiter = b"\r\n--" + boundary
    if sum(body.count(delimiter, start, end) for start, end in _slices(body, delimiter, 0)) > limit + 2:
        raise RequestError(
            Problem("input", f"the multipart body has more than {limit:,} parts", "Send several requests.", 413)
        )
    return [_part(body, start, end) for start, end in _spans(body, delimiter)]


def _spans(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each part begins, behind the line of its boundary, and where it ends."""
    opening = delimiter[2:]
    at = 0 if body.startswith(opening) else _find(body, delimiter, 0) + 2
    if at == 1:
        raise _unreadable("its boundary doesn't occur in it")
    line_end = _line_end(body, at + len(opening))
    while line_end is not None:
        at = _find(body, delimiter, line_end - 2)
        if at < 0:
            raise _unreadable("it ends in the middle of a part")
        yield line_end, at
        line_end = _line_end(body, at + len(delimiter))


def _find(body: bytes, text: bytes, start: int) -> int:
    places = (body.find(text, *limits) for limits in _slices(body, text, start))
    return next((at for at in places if at >= 0), -1)


def _slices(body: bytes, text: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yield where to look for a text, piece by piece: a call that looks through all of it would hold everybody up."""
    for at in range(start, len(body), _SLICE):
        yield at, at + _SLICE + len(text) - 1


def _line_end(body: bytes, start: int) -> int | None:
    """Return where the line of a boundary ends, whose delimiter ends at `start`; None for the last boundary."""
    if body.startswith(b"--", start):
        return None
    end = body.find(b"\r\n", start, start + _MAX_PADDING)
    if end < 0 or body[start:end].strip(b" \t"):
        raise _unreadable("other characters follow the boundary on its line")
    return end + 2


def _part(body: bytes, start: int, end: int) -> Part:
    if body.startswith(b"\r\n", start):
        return Part(data=body[start + 2 : end])
    head_end = body.find(b"\r\n\r\n", start, min(end, start + _HEADER_BYTES))
    if head_end < 0:
        raise _unreadable("the head of a part is too long, or does not end")
    part, encoding = Part(), ""
    for line in body[start:head_end].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        text = value.strip().decode("utf-8", "replace")
        match name.strip().lower():
            case b"content-disposition":
                part.name, part.filename = _disposition(text)
            case b"content-type":
                part.content_type = text
            case b"content-transfer-encoding":
                encoding = text.lower()
        if not colon:
            raise _unreadable("a line in the head of a part is not a header")
    part.data = _decoded(body[head_end + 4 : end], encoding)
    return part


def _decoded(data: bytes, encoding: str) -> bytes:
    if encoding in _IDENTITY:
        return data
    if encoding != "base64":
        raise _unreadable(f"a part has the transfer encoding {encoding[:40]!r}; expected none, or base64")
    try:
        return decode_base64(data.decode("latin-1"))
    except ValueError as error:
        raise _unreadable(f"a part is not the base64 that it says it is: {error}") from error


def _disposition(value: str) -> tuple[str, str | None]:
    """Return the name and the file name in a `Content-Disposition`; `filename*` (RFC 5987) goes before `filename`."""
    named = dict(_parameters(value))
    filename = named.get("filename")
    extended = named.get("filename*")
    if extended is not None:
        charset, _, text = extended.partition("'")
        known = charset.lower() if charset.lower() in _CHARSETS else "utf-8"
        try:
            filename = unquote_to_bytes(text.partition("'")[2]).decode(known)
        except ValueError:
            filename = filename if filename is not None else ""
    return named.get("name", ""), filename


def _parameters(value: str) -> Iterator[tuple[str, str]]:
    """Yield the parameters of a header's value. In quotes, a backslash stands before a quote; browsers write `%22`."""
    at = value.find(";")
    while 0 <= at < len(value):
        equals = value.find("=", at)
        if equals < 0:
            return
        name = value[at + 1 : equals].strip().lower()
        if value.startswith('"', equals + 1):
            end = equals + 2
            while end < len(value) and value[end] != '"':
                end += 2 if value[end] == "\\" and value[end + 1 : end + 2] in ('"', "\\") else 1
            yield name, value[equals + 2 : end].replace('\\"', '"').replace("\\\\", "\\")
            at = value.find(";", end)
        else:
            end = value.find(";", equals)
            end = len(value) if end < 0 else end
            yield name, value[equals + 1 : end].strip()
            at = end


def _unreadable(reason: str, *, whole: bool = False) -> RequestError:
    message = reason if whole else f"the multipart body can't be read: {reason}"
    return RequestError(Problem("input", message, status=400))
