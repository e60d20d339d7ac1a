"""Read Caffe's `.caffemodel`: the blobs of each layer, out of the protobuf message `NetParameter`, by hand.

Field numbers are those of Caffe's `caffe.proto`. No schema is needed and nothing is copied until a blob is asked for.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.system import protobuf_wire

_HINT = "Is it the .caffemodel that belongs to the .prototxt, and was it copied completely?"
_LAYERS = {100: (1, 7), 2: (4, 6)}
"""The fields of NetParameter that hold layers (today's, and those of before 2015): where a layer keeps its name and its
blobs."""
_LEGACY_SHAPE = (1, 2, 3, 4)
_DATA, _DOUBLES, _SHAPE = 5, 8, 7


@dataclass(frozen=True)
class Blob:
    """Stored values and the shape that the file gives them (older files always four sizes)."""

    values: NDArray[np.float32]
    shape: tuple[int, ...]


class Weights:
    """The blobs of a `.caffemodel`, by layer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = _bytes(path)
        try:
            self._layers = dict(self._read())
        except (ValueError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: not a Caffe weights file: {error}", _HINT) from error
        if not self._layers:
            raise ModelError(f"{path}: not a Caffe weights file: it holds no layer with a name", _HINT)

    def blobs(self, layer: str) -> list[Blob]:
        """Return a layer's blobs, none where the file doesn't have the layer; raises ModelError where one is damaged."""
        try:
            return [self._blob(where) for where in self._layers.get(layer, [])]
        except ValueError as error:
            raise ModelError(
                f"{self.path}: the weights of the layer '{layer}' can't be read: {error}", _HINT
            ) from error

    def names(self) -> tuple[str, ...]:
        """Return the names of the layers that have weights."""
        return tuple(name for name, blobs in self._layers.items() if blobs)

    def _read(self) -> Iterator[tuple[str, list[slice]]]:
        for number, value in protobuf_wire.fields(self._data, slice(0, len(self._data))):
            if number in _LAYERS and isinstance(value, slice):
                name, blobs = _LAYERS[number]
                inside = list(protobuf_wire.fields(self._data, value))
                names = [
                    bytes(self._data[one]).decode() for key, one in inside if key == name and isinstance(one, slice)
                ]
                if names:
                    yield names[-1], [one for key, one in inside if key == blobs and isinstance(one, slice)]

    def _blob(self, where: slice) -> Blob:
        shape: tuple[int, ...] = ()
        legacy = dict.fromkeys(_LEGACY_SHAPE, 1)
        parts: list[NDArray[np.float32]] = []
        for number, value in protobuf_wire.fields(self._data, where):
            if number in legacy and isinstance(value, int):
                legacy[number] = value
            elif number in (_DATA, _DOUBLES) and isinstance(value, slice):
                parts.append(
                    np.frombuffer(self._data[value], "<f4" if number == _DATA else "<f8").astype(np.float32, copy=False)
                )
            elif number == _SHAPE and isinstance(value, slice):
                shape = tuple(self._sizes(value))
        values = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])
        shape = shape or tuple(legacy.values())
        if math.prod(shape) != values.size:
            raise ValueError(f"its shape {list(shape)} is of {math.prod(shape):,} values, {values.size:,} are there")
        return Blob(values, shape)

    def _sizes(self, where: slice) -> Iterator[int]:
        """Yield the sizes of a BlobShape, packed or one by one."""
        for number, value in protobuf_wire.fields(self._data, where):
            if number != 1:
                continue
            if isinstance(value, int):
                yield value
                continue
            place = value.start
            while place < value.stop:
                size, place = protobuf_wire.varint(self._data, place)
                yield size


def _bytes(path: Path) -> memoryview:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            raise ModelError(f"{path}: empty, or no regular file; expected a Caffe weights file", _HINT)
        return memoryview(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: can't read the file: {error.strerror or error}", "Check the path.") from error
