"""Read the value of a JavaScript literal without running JavaScript: what a module exports, as minifiers write it.

JSON, and beyond it: keys without quotes, texts in single quotes or backticks, `!0` and `!1`, `void 0`, numbers like
`.5`, `1e3` and `0x1f`, and commas at the end. An expression of any other kind is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any

from plimsoll.errors import ModelError

MAX_DEPTH = 64
"""A Keras topology nests about 12 deep."""

_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]{1,16}|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w$])")
_WORD = re.compile(r"[A-Za-z_$][\w$]*")
_PLAIN = {quote: re.compile(rf"[^{quote}\\]*") for quote in "\"'`"}
_WORDS: dict[str, Any] = {
    "true": True,
    "false": False,
    "null": None,
    "undefined": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "\n": ""}
_EXPORTS = [re.compile(rf"{begin}\s*(?=[\[{{\"'`])") for begin in (r"\.exports\s*=", r"export\s+default")]


def exported(text: str, where: str) -> Any:
    """Return what a module exports, a literal; raises ModelError where nothing or something else is exported.

    A bundle wraps a module in code that exports too; what counts is the one export whose value is a javascript.
    """
    starts = [match.end() for pattern in _EXPORTS for match in pattern.finditer(text)]
    if len(starts) != 1:
        raise ModelError(
            f"{where}: exports {len(starts)} literals, expected one",
            "Is it a module that holds a TensorFlow.js model or one of its shards?",
        )
    return _read(text, starts[0], where)


def parse(text: str, where: str) -> Any:
    """Return the value of a text that is JSON; raises ModelError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ModelError(f"{where}: not JSON: {reason}", "Is it a TensorFlow.js model.json, and complete?") from error


def _read(text: str, start: int, where: str) -> Any:
    try:
        return _Reader(text, start).value(0)
    except (ValueError, IndexError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it ends early"
        raise ModelError(
            f"{where}: can't be read as a literal of JavaScript: {reason}", "Only values are read; code is never run."
        ) from error


class _Reader:
    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._place = start

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        letter = self._peek()
        if letter == "{":
            return dict(self._entries(depth))
        if letter == "[":
            return list(self._items(depth))
        if letter in _PLAIN:
            return self._string(letter)
        if number := _NUMBER.match(self._text, self._place):
            self._place = number.end()
            digits = number.group()
            if "x" in digits.lower():
                return int(digits, 16)
            return float(digits) if set(digits) & set(".eE") else int(digits[:4000])
        return self._word()

    def _word(self) -> Any:
        for short, meaning in (("!0", True), ("!1", False)):
            if self._text.startswith(short, self._place):
                self._place += len(short)
                return meaning
        sign = -1 if self._text[self._place] == "-" else 1
        word = _WORD.match(self._text, self._place + (sign < 0))
        if word and word.group() == "void" and (number := re.compile(r"void\s+0").match(self._text, self._place)):
            self._place = number.end()
            return None
        if word and word.group() in _WORDS:
            self._place = word.end()
            meaning = _WORDS[word.group()]
            return sign * meaning if isinstance(meaning, float) else meaning
        raise ValueError(f"found {self._text[self._place : self._place + 30]!r}, expected a value")

    def _entries(self, depth: int) -> Any:
        self._place += 1
        while self._peek() != "}":
            letter = self._text[self._place]
            if letter in _PLAIN:
                key = self._string(letter)
            elif name := _WORD.match(self._text, self._place) or re.compile(r"[0-9]{1,10}").match(
                self._text, self._place
            ):
                key, self._place = name.group(), name.end()
            else:
                raise ValueError(f"found {self._text[self._place : self._place + 30]!r}, expected a key")
            if self._peek() != ":":
                raise ValueError(f"found {self._text[self._place : self._place + 30]!r}, expected ':'")
            self._place += 1
            yield key, self.value(depth + 1)
            self._comma("}")
        self._place += 1

    def _items(self, depth: int) -> Any:
        self._place += 1
        while self._peek() != "]":
            yield self.value(depth + 1)
            self._comma("]")
        self._place += 1

    def _comma(self, end: str) -> None:
        if self._peek() == ",":
            self._place += 1
        elif self._peek() != end:
            raise ValueError(f"found {self._text[self._place : self._place + 30]!r}, expected ',' or '{end}'")

    def _peek(self) -> str:
        space = _SPACE.match(self._text, self._place)
        self._place = space.end() if space else self._place
        return self._text[self._place]

    def _string(self, quote: str) -> str:
        parts = []
        self._place += 1
        while True:
            plain = _PLAIN[quote].match(self._text, self._place)
            if plain is None or plain.end() >= len(self._text):
                raise ValueError("a text without an end")
            if quote == "`" and "${" in plain.group():
                raise ValueError("a text with code in it")
            parts.append(plain.group())
            self._place = plain.end() + 1
            if self._text[plain.end()] == quote:
                return "".join(parts)
            parts.append(self._escape())

    def _escape(self) -> str:
        letter = self._text[self._place]
        self._place += 1
        if letter in "ux":
            width = 4 if letter == "u" else 2
            digits = self._text[self._place : self._place + width]
            self._place += width
            return chr(int(digits, 16))
        return _ESCAPES.get(letter, letter)
