"""Read Caffe's `.prototxt` and `.caffemodel`: protobuf's text format and wire format, by the schema in `caffe.proto`.

No relevant setting may be ignored silently. So a layer that runs must not have a field that the schema lacks
(`LayerSettings.unknown`), nor one that its converter neither read nor declared harmless (`Settings.unread`). Layers
used only for training are not checked.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from plimsoll.core.wording import printable
from plimsoll.errors import ModelError
from plimsoll.importers.caffe.caffe_pb2 import NetParameter, V1LayerParameter, WeightsFile

MAX_DEPTH = 32
"""Caffe's own messages nest 4 deep."""
_MAX_REASON = 200

_PIECES = re.compile(
    r"""
    "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | \#[^\n]*  # texts and comments may hold braces
    | (?P<open>[{<\[]) | (?P<close>[}>\]]) | (?P<word>\w+)""",
    re.VERBOSE,
)

_POSITION = re.compile(r"\A\d+:\d+ : (?:'.*' ?: )?", re.DOTALL)


class Settings:
    """The fields of a message, and which of them were read. What is not set has the schema's default."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._read: dict[str, list[Settings]] = {}
        self._harmless: set[str] = set()

    def has(self, name: str) -> bool:
        """Tell whether a field is set, without marking it as read."""
        return any(field.name == name for field, _ in self._message.ListFields())

    def text(self, name: str) -> str:
        """Return a field that holds text."""
        return str(self._value(name))

    def texts(self, name: str) -> list[str]:
        """Return all values of a field that holds text."""
        return list(self._value(name))

    def choice(self, name: str) -> str:
        """Return the name of an enumeration's value."""
        number = self._value(name)
        return str(self._message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number[number].name)

    def flag(self, name: str) -> bool:
        """Return a field that is true or false."""
        return bool(self._value(name))

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number; where it is not set, `default` or else the schema's."""
        value = int(self._value(name))
        return value if default is None or self.has(name) else default

    def integers(self, name: str) -> list[int]:
        """Return all values of a field of whole numbers; none where it is not set."""
        value = self._value(name)
        return ([value] if self.has(name) else []) if isinstance(value, int) else list(value)

    def number(self, name: str) -> float:
        """Return a number; raises ValueError if it is not finite."""
        return _finite(name, self._value(name))

    def numbers(self, name: str) -> list[float]:
        """Return all numbers of a field; raises ValueError if one is not finite."""
        return [_finite(name, value) for value in self._value(name)]

    def message(self, name: str) -> Settings:
        """Return the message in a field, an empty one where it is not set."""
        return self._parts(name, [self._value(name)])[0]

    def messages(self, name: str) -> list[Settings]:
        """Return all messages in a field."""
        return self._parts(name, self._value(name))

    def ignore(self, *names: str) -> None:
        """Declare that these fields don't affect the result."""
        self._harmless.update(names)

    def unread(self) -> list[str]:
        """Return the fields that are set but were not read, also in messages that were read."""
        names = [field.name for field, _ in self._message.ListFields() if field.name not in self._harmless]
        inside = [
            {f"{name}.{field}" for part in self._read[name] for field in part.unread()}
            for name in names
            if self._read.get(name)
        ]
        return sorted({name for name in names if name not in self._read}.union(*inside))

    def _parts(self, name: str, messages: Sequence[Any]) -> list[Settings]:
        self._read[name] = self._read[name] or [Settings(message) for message in messages]
        return self._read[name]

    def _value(self, name: str) -> Any:
        self._read.setdefault(name, [])
        return getattr(self._message, name)


class LayerSettings(Settings):
    """The fields of a layer, and the text that they came from."""

    def __init__(self, message: Any, text: str, line: int) -> None:
        super().__init__(message)
        self._text, self._line = text, line

    @property
    def is_legacy(self) -> bool:
        """Whether the layer has the format from before 2015."""
        return isinstance(self._message, V1LayerParameter)

    def unknown(self) -> str:
        """Return the first field that the schema lacks, in words; nothing if it knows them all."""
        try:
            text_format.Merge(self._text, NetParameter())
        except text_format.ParseError as error:
            return _reason(error, self._line)
        return ""


class Description:
    """A description: the network's own settings, and its layers in the order in which they run."""

    def __init__(self, text: str, where: str) -> None:
        """Read a file's text; raises ModelError with the line if it can't be read."""
        self._where = where
        net = NetParameter()
        today: list[LayerSettings] = []
        legacy: list[LayerSettings] = []
        for fragment, line in self._fragments(text):
            message = self._parse(fragment, line, allow_unknown=True)
            today += [LayerSettings(layer, fragment, line) for layer in message.layer]
            legacy += [LayerSettings(layer, fragment, line) for layer in message.layers]
            if not message.layer and not message.layers:
                net.MergeFrom(self._parse(fragment, line))
        self.net = Settings(net)
        self.layers = [*today, *legacy]

    def _parse(self, text: str, line: int, *, allow_unknown: bool = False) -> NetParameter:
        message = NetParameter()
        try:
            text_format.Merge(text, message, allow_unknown_field=allow_unknown)
        except (text_format.ParseError, ValueError) as error:
            layer = next((f"in the layer '{layer.name}', " for layer in (*message.layer, *message.layers)), "")
            raise self._unreadable(f"{layer}{_reason(error, line)}") from error
        return message

    def _fragments(self, text: str) -> Iterator[tuple[str, int]]:
        """Cut a text before and after each field with braces; yield the fragments and the lines that they start on."""
        start, line = 0, 1
        for end in self._cuts(text):
            fragment = text[start:end]
            stripped = fragment.lstrip(" \t\r\n,;")
            first = line + fragment.count("\n", 0, len(fragment) - len(stripped))
            if stripped:
                yield stripped, first
            line += fragment.count("\n")
            start = end

    def _cuts(self, text: str) -> Iterator[int]:
        depth = name = 0
        for piece in _PIECES.finditer(text):
            if piece["word"] and not depth:
                name = piece.start()
            elif piece["open"]:
                if not depth:
                    yield name
                depth += 1
                if depth > MAX_DEPTH:
                    line = text.count("\n", 0, piece.start()) + 1
                    raise self._unreadable(f"line {line}: messages lie more than {MAX_DEPTH} deep")
            elif piece["close"]:
                depth = max(0, depth - 1)
                if not depth:
                    name = piece.end()
                    yield name
        yield len(text)

    def _unreadable(self, reason: str) -> ModelError:
        return ModelError(
            f"{self._where}: not a Caffe network description: {reason}", "Is it the deploy .prototxt, and complete?"
        )


def _reason(error: Exception, first_line: int) -> str:
    """Say what text_format says, without the schema's package and the text of the line, and with the line's number in
    the whole file."""
    text = str(error)
    line = error.GetLine() if isinstance(error, text_format.ParseError) else None
    if line is not None:
        text = f"line {first_line + line - 1}: {_POSITION.sub('', text)}"
    return printable(text.replace("plimsoll.caffe.", ""), _MAX_REASON)


def _finite(name: str, value: float) -> float:
    if not abs(value) < float("inf"):
        raise ValueError(f"'{name}' is {value}, expected a finite number")
    return value


_HINT = "Is it the .caffemodel that belongs to the .prototxt, and was it copied completely?"


@dataclass(frozen=True)
class Blob:
    """Stored values and the shape that the file gives them (older files always four sizes)."""

    values: NDArray[np.float32]
    shape: tuple[int, ...]


class Weights:
    """The blobs of a `.caffemodel`, by layer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file = WeightsFile.FromString(_read(path))
            layers = [*file.layers, *file.layer]
            self._layers = {layer.name: layer for layer in layers if layer.HasField("name")}
            if not all(isinstance(name, str) for name in self._layers):
                raise ValueError("the name of a layer is not UTF-8 text")
        except (DecodeError, ValueError) as error:
            raise ModelError(f"{path}: not a Caffe weights file: {error}", _HINT) from error
        if not self._layers:
            raise ModelError(f"{path}: not a Caffe weights file: it holds no layer with a name", _HINT)

    def blobs(self, layer: str) -> list[Blob]:
        """Return a layer's blobs, none where the file doesn't have the layer; raises ModelError if one is
        damaged."""
        if layer not in self._layers:
            return []
        try:
            return [_blob(message) for message in self._layers[layer].blobs]
        except ValueError as error:
            raise ModelError(
                f"{self.path}: the weights of the layer '{layer}' can't be read: {error}", _HINT
            ) from error

    def names(self) -> tuple[str, ...]:
        """Return the names of the layers that have weights."""
        return tuple(name for name, layer in self._layers.items() if layer.blobs)


def _blob(message: Any) -> Blob:
    parts = [np.frombuffer(data, "<f4") for data in message.data]
    parts += [np.frombuffer(data, "<f8").astype(np.float32) for data in message.double_data]
    values = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])
    shape = tuple(message.shape.dim) or (message.num, message.channels, message.height, message.width)
    if min(shape) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"its shape {list(shape)} is of {math.prod(shape):,} values, {values.size:,} are there")
    return Blob(values, shape)


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            raise ModelError(f"{path}: empty, or no regular file; expected a Caffe weights file", _HINT)
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: can't read the file: {error.strerror or error}", "Check the path.") from error
