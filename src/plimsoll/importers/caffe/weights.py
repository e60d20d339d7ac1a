"""Read Caffe's `.caffemodel`: the blobs of each layer, out of the protobuf message `WeightsFile`."""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.importers.caffe.caffe_pb2 import WeightsFile

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
        """Return a layer's blobs, none where the file doesn't have the layer; raises ModelError where one is
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
