"""Protobuf's text format, as Triton reads its `config.pbtxt` in.

Only what a configuration needs: strings, numbers, truth values, names of enums, messages, and lists of those. A map is
a list of messages with `key` and `value`. The grammar: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
"""A field's name and what it holds; None leaves the field out."""

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_INDENT = "  "


class Word(str):
    """The name of an enum's value: written without quotes."""

    __slots__ = ()


def dumps(message: Message) -> str:
    """Return a message as text, a field a line, in the order that it has them."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> list[str]:
    lines: list[str] = []
    for field, value in message.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            lines += _block(field, value)
        elif _is_list(value):
            lines += _repeated(field, value)
        else:
            lines.append(f"{field}: {_scalar(value)}")
    return lines


def _repeated(field: str, values: Sequence[Any]) -> list[str]:
    if all(isinstance(one, Mapping) for one in values):
        return [line for one in values for line in _block(field, one)]
    return [f"{field}: [ {', '.join(map(_scalar, values))} ]"]


def _block(field: str, message: Message) -> list[str]:
    return [f"{field} {{", *(_INDENT + line for line in _lines(message)), "}"]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _scalar(value: Any) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    raise TypeError(f"{type(value).__name__} has no text format here")


def _escaped(character: str) -> str:
    """Write what isn't printable ASCII as the octal numbers of its UTF-8 bytes, as protobuf itself does."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if " " <= character <= "~":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def entries(values: Mapping[str, Any]) -> list[Message]:
    """Return a map in the form that the text format has for it."""
    return [{"key": key, "value": value} for key, value in values.items()]
