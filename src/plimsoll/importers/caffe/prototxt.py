"""Read Caffe's `.prototxt`: protobuf's text format, without its schema.

A message is its fields by name, each with all its values in order. What a value means is decided by who asks for it,
and `unread` says which fields nobody asked for: a setting that Plimsoll doesn't know must not be passed over in
silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from plimsoll.errors import ModelError

MAX_DEPTH = 32
"""Caffe's own messages nest 4 deep."""
MAX_TOKENS = 4_000_000

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*                                    # passed over
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<word>[A-Za-z0-9_.+\-/]+)
    |(?P<mark>[:{}<>,;\[\]])""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass
class Message:
    """The fields of a message, by name."""

    values: dict[str, list[str | Message]] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)
    _ignored: set[str] = field(default_factory=set)

    def all(self, name: str) -> list[str]:
        """Return all values of a field that holds no messages; raises ValueError where it does."""
        self._read.add(name)
        found = self.values.get(name, [])
        plain = [one for one in found if isinstance(one, str)]
        if len(plain) != len(found):
            raise ValueError(f"'{name}' is a message, expected a value")
        return plain

    def text(self, name: str, default: str = "") -> str:
        """Return the last value of a field, as text; protobuf takes the last, too."""
        found = self.all(name)
        return found[-1] if found else default

    def number(self, name: str, default: float) -> float:
        """Return the last value of a field as a finite number; raises ValueError."""
        text = self.text(name)
        return default if not text else _number(name, text)

    def integer(self, name: str, default: int) -> int:
        """Return the last value of a field as a whole number within 32 bits; raises ValueError."""
        text = self.text(name)
        return default if not text else _integer(name, text)

    def integers(self, name: str) -> list[int]:
        """Return all values of a field as whole numbers; raises ValueError."""
        return [_integer(name, one) for one in self.all(name)]

    def numbers(self, name: str) -> list[float]:
        """Return all values of a field as finite numbers; raises ValueError."""
        return [_number(name, one) for one in self.all(name)]

    def flag(self, name: str, default: bool) -> bool:
        """Return the last value of a field as true or false; raises ValueError."""
        text = self.text(name).lower()
        if text not in ("", "true", "false", "t", "f", "1", "0"):
            raise ValueError(f"'{name}' is '{text}', expected true or false")
        return default if not text else text in ("true", "t", "1")

    def message(self, name: str) -> Message:
        """Return the last message of a field, an empty one where there is none; raises ValueError."""
        found = self.messages(name)
        return found[-1] if found else Message()

    def messages(self, name: str) -> list[Message]:
        """Return all messages of a field; raises ValueError where it holds plain values."""
        self._read.add(name)
        found = self.values.get(name, [])
        if any(isinstance(one, str) for one in found):
            raise ValueError(f"'{name}' is a plain value, expected a message in braces")
        return [one for one in found if isinstance(one, Message)]

    def has(self, name: str) -> bool:
        """Tell whether the field is there; asking counts as no reading."""
        return name in self.values

    def ignore(self, *names: str) -> None:
        """Say that these fields make no difference to what is computed."""
        self._ignored.update(names)

    def unread(self) -> list[str]:
        """Return the fields that nobody asked for, also in messages that were asked for."""
        parts = [(name, part) for name in self._read - self._ignored for part in self.values.get(name, [])]
        inside = [f"{name}.{one}" for name, part in parts if isinstance(part, Message) for one in part.unread()]
        return sorted([*(name for name in self.values if name not in self._read | self._ignored), *inside])


def parse(text: str, where: str) -> Message:
    """Read a file's text; raises ModelError with the line where it can't be read."""
    try:
        return _Reader(text).message(end="", depth=0)
    except _Unreadable as error:
        line = text.count("\n", 0, error.place) + 1
        raise ModelError(
            f"{where}: not a Caffe network description: line {line}: {error}",
            "Is it the deploy .prototxt, and complete?",
        ) from error


class _Unreadable(Exception):  # noqa: N818 - it never leaves this file
    def __init__(self, reason: str, place: int) -> None:
        super().__init__(reason)
        self.place = place


class _Reader:
    def __init__(self, text: str) -> None:
        self._end = len(text)
        self._tokens = self._split(text)
        self._kind, self._token, self._place = next(self._tokens)

    def _split(self, text: str) -> Iterator[tuple[str, str, int]]:
        place = count = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise _Unreadable(f"can't read {text[place : place + 20]!r}", place)
            if found.lastgroup:
                count += 1
                if count > MAX_TOKENS:
                    raise _Unreadable(f"more than {MAX_TOKENS:,} words", place)
                yield found.lastgroup, found.group(), place
            place = found.end()
        while True:
            yield "end", "", self._end

    def _next(self) -> str:
        token = self._token
        self._kind, self._token, self._place = next(self._tokens)
        return token

    def _fail(self, expected: str) -> _Unreadable:
        return _Unreadable(
            f"found {self._token[:40]!r}, expected {expected}"
            if self._kind != "end"
            else f"it ends early, expected {expected}",
            self._place,
        )

    def message(self, end: str, depth: int) -> Message:
        if depth > MAX_DEPTH:
            raise _Unreadable(f"messages lie more than {MAX_DEPTH} deep", self._place)
        message = Message()
        while self._token != end or (not end and self._kind != "end"):
            if self._kind != "word":
                raise self._fail("the name of a field")
            values = message.values.setdefault(self._next(), [])
            has_colon = self._token == ":"
            if has_colon:
                self._next()
            if self._token in _CLOSING:
                values.append(self.message(_CLOSING[self._next()], depth + 1))
                self._next()
            elif not has_colon:
                raise self._fail("':' or '{'")
            elif self._token == "[":
                values.extend(self._listed())
            else:
                values.append(self._value())
            if self._token in (",", ";"):
                self._next()
        return message

    def _listed(self) -> Iterator[str]:
        self._next()
        while self._token != "]":
            yield self._value()
            if self._token == ",":
                self._next()
        self._next()

    def _value(self) -> str:
        if self._kind == "word":
            return self._next()
        if self._kind != "text":
            raise self._fail("a value")
        parts = []
        while self._kind == "text":  # Adjacent texts are one, as in C.
            parts.append(re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), self._next()[1:-1]))
        return "".join(parts)


def _number(name: str, text: str) -> float:
    try:
        value = float(text.rstrip("fF"))
    except ValueError:
        raise ValueError(f"'{name}' is '{text[:40]}', expected a number") from None
    if not abs(value) < 3.5e38:
        raise ValueError(f"'{name}' is {text[:40]}, expected a finite number")
    return value


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,10}", text):
        raise ValueError(f"'{name}' is '{text[:40]}', expected a whole number")
    return int(text)
