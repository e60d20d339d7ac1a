"""A TensorFlow.js model on disk: `model.json` and its shards, or the same as JavaScript modules.

Formats as in TensorFlow.js 4.22, `io/types.ts` and `io/io_utils.ts`.

A module is read without running JavaScript: it exports a literal, as minifiers write it. That is JSON and beyond it:
keys without quotes, texts in single quotes or backticks, `!0` and `!1`, `void 0`, numbers like `.5`, `1e3` and `0x1f`,
and commas at the end. An expression of any other kind is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.importers.tfjs import face_api
from plimsoll.system import files

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


MAX_TEXT = 512_000_000
"""Bytes of model.json or a module."""

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "uint8": "u1", "uint16": "<u2", "float16": "<f2"}
_WHICH = "Give the model.json beside the shards."
_HINT = "Was it copied completely, with all shards beside it?"

Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Stored:
    """What a model's files hold."""

    topology: Mapping[str, Any]
    """Keras's layers, or TensorFlow's graph."""
    is_graph: bool
    weights: Weights
    """As float32, int32 or bool, by their names."""
    entries: tuple[Mapping[str, Any], ...]
    """What the manifest says about each of the weights: name, shape, dtype, quantization."""
    data: bytes
    """The shards, joined."""
    signature: Mapping[str, Any]
    """A graph model's own names for its inputs and outputs, where it has any."""


def read(path: Path) -> Stored:
    """Read model.json (or model.min.js), or a weights manifest of a network that is known without a topology, and the
    shards that it names, which lie beside it; raises ModelError."""
    document = _document(path)
    topology, manifest = document.get("modelTopology"), document.get("weightsManifest")
    alone = topology is None and "modelTopology" not in document
    if not (isinstance(topology, dict) or alone) or not isinstance(manifest, list):
        raise ModelError(
            f"{path}: not a TensorFlow.js model: no modelTopology with a weightsManifest",
            "Give the model.json beside the shards.",
        )
    try:
        groups = [
            _Group(tuple(group["weights"]), b"".join(_shard(name, path) for name in group["paths"]))
            for group in manifest
        ]
        weights = dict(entry for group in groups for entry in _weights(group, path))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{path}: its weights can't be read: {type(error).__name__}: {error}", _HINT) from error
    if alone:
        topology = face_api.topology(weights)
    if topology is None:
        raise ModelError(
            f"{path}: weights without a topology, of no network that is known: {', '.join(list(weights)[:4])} …",
            "Give the model.json that has both, or face-api.js's manifest for 68 landmarks or expressions.",
        )
    is_graph = document.get("format") == "graph-model" or "node" in topology
    signature = document.get("signature") or (document.get("userDefinedMetadata") or {}).get("signature") or {}
    entries, data = (
        tuple(entry for group in groups for entry in group.entries),
        b"".join(group.data for group in groups),
    )
    return Stored(topology, is_graph, weights, entries, data, signature if isinstance(signature, dict) else {})


def is_model(path: Path) -> bool:
    """Tell by a quick look whether a .json or .js file is a TensorFlow.js model."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(1 << 20)
    except OSError:
        return False
    alone = begin.lstrip().startswith(b"[") and b'"weights"' in begin and b'"paths"' in begin
    return b"modelTopology" in begin or b"weightsManifest" in begin or alone


def _document(path: Path) -> Mapping[str, Any]:
    text = _text(path)
    value = exported(text, str(path)) if path.suffix.lower() == ".js" else parse(text, str(path))
    if isinstance(value, list):  # face-api.js's manifests lie alone in a file
        return {"weightsManifest": value}
    if not isinstance(value, dict):
        raise ModelError(f"{path}: not a TensorFlow.js model: it holds a {type(value).__name__}", _WHICH)
    return value


def _text(path: Path) -> str:
    try:
        return files.read_text(path, MAX_TEXT, regular=True)
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}", _HINT) from error


@dataclass(frozen=True)
class _Group:
    entries: tuple[Mapping[str, Any], ...]
    data: bytes


def _weights(group: _Group, path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    data, start = group.data, 0
    for entry in group.entries:
        name, shape = str(entry["name"]), tuple(int(size) for size in entry["shape"])
        quantization = entry.get("quantization")
        dtype = str((quantization or entry)["dtype"])
        if dtype not in _DTYPES or min(shape, default=1) < 0:
            raise ModelError(
                f"{path}: the weights '{name}' are {dtype} {list(shape)}, which is not supported",
                f"Supported: {', '.join(_DTYPES)}.",
            )
        size = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        if start + size > len(data):
            raise ModelError(
                f"{path}: the shards end within the weights '{name}': {len(data):,} bytes, at least {start + size:,}"
                " expected",
                _HINT,
            )
        values = np.frombuffer(data, _DTYPES[dtype], math.prod(shape), start).reshape(shape)
        start += size
        yield name, _dequantized(values, quantization, str(entry["dtype"])) if quantization else values
    if start != len(data):
        raise ModelError(f"{path}: the shards hold {len(data):,} bytes, {start:,} expected", _HINT)


def _dequantized(values: NDArray[Any], quantization: Mapping[str, Any], dtype: str) -> NDArray[Any]:
    """Return what `decodeWeight` makes of quantized weights: value · scale + min in double precision, stored as the
    dtype."""
    if str(quantization["dtype"]) == "float16":
        return values.astype(np.float32)
    exact = values.astype(np.float64) * float(quantization["scale"]) + float(quantization["min"])
    return np.floor(exact + 0.5).astype(np.int32) if dtype == "int32" else exact.astype(np.float32)


def _shard(name: Any, path: Path) -> bytes:
    """Return a shard's bytes, out of the file of that name or the module that exports it as base64."""
    location = PurePosixPath(str(name))
    if (
        location.is_absolute()
        or ".." in location.parts
        or "\\" in str(name)
        or not str(name).isprintable()
        or ":" in str(name)
    ):
        raise ModelError(
            f"{path}: its shard {name!r} is outside its folder",
            "Download the shards beside model.json and name them by their file names.",
        )
    file = path.parent / location
    module = file.with_name(f"{file.name}.min.js")
    if any(candidate.is_symlink() for candidate in (file, module)):
        raise ModelError(f"{path}: its shard {name!r} is a link", "Copy the shards themselves beside model.json.")
    if file.is_file() and stat.S_ISREG(file.lstat().st_mode):
        try:
            return file.read_bytes()
        except OSError as error:
            raise ModelError(f"{file}: can't be read: {error.strerror or error}", _HINT) from error
    if not module.is_file():
        raise ModelError(f"{path}: its shard {name!r} is missing", _HINT)
    text = exported(_text(module), str(module))
    try:
        return base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ModelError(f"{module}: not a shard in base64: {error}", _HINT) from error
