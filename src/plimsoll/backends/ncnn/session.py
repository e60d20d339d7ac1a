"""A network that ncnn has loaded, behind the session that presents it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import translate
from plimsoll.core.model import TensorInfo, Tensors
from plimsoll.errors import RunError
from plimsoll.onnx.signature import Signature
from plimsoll.system import native_output

Array = NDArray[Any]


class NcnnSession:
    """ncnn knows no batches: the pictures of one go through one after another. All streams share the weights."""

    concurrent = True

    def __init__(self, network: LoadedNetwork, signature: Signature, streams: int) -> None:
        self.inputs = signature.inputs
        self.outputs = signature.outputs
        self._network: LoadedNetwork | None = network
        self._turn = threading.Semaphore(streams)

    def run(self, feeds: Mapping[str, Array]) -> Tensors:
        arrays = [np.ascontiguousarray(feeds[info.name], np.float32) for info in self.inputs]
        with self._turn, translate(RunError, "ncnn failed"):
            answers = [self._picture([array[index] for array in arrays]) for index in range(len(arrays[0]))]
        return {info.name: np.stack([answer[number] for answer in answers]) for number, info in enumerate(self.outputs)}

    def _picture(self, values: list[Array]) -> list[Array]:
        if self._network is None:
            raise RunError("ncnn failed: the session is closed")
        blobs = self._network.extract(values, [f"out{number}" for number in range(len(self.outputs))])
        return [_shaped(value, info) for value, info in zip(blobs, self.outputs, strict=True)]

    def close(self) -> None:
        self._network = None


class LoadedNetwork:
    """A network that ncnn has loaded. pnnx calls its inputs in0, in1 …, its outputs out0 …"""

    def __init__(self, ncnn: ModuleType, net: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._ncnn = ncnn
        self._net = net
        self._shapes = shapes

    def extract(self, values: list[Array], names: list[str]) -> list[Array]:
        """Feed one picture, without its batch axis, and return copies of the blobs that are wanted; raises RunError."""
        with self._net.create_extractor() as extractor:
            for number, value in enumerate(values):
                if code := extractor.input(f"in{number}", self._blob(value, self._shapes[f"in{number}"])):
                    raise RunError(f"ncnn failed: the network takes no input 'in{number}'", "Build it again.")
            blobs = []
            for name in names:
                code, blob = extractor.extract(name)
                if code:
                    reason = native_output.recent() or f"its error code is {code}"
                    raise RunError(f"ncnn failed at '{name}': {reason}", "Choose another runtime.")
                blobs.append(np.array(blob))
            return blobs

    def _blob(self, value: Array, shape: tuple[int, ...]) -> Any:
        """Return a copy in ncnn's own memory, where each channel begins at a multiple of 16 bytes."""
        blob = self._ncnn.Mat(*reversed(shape))
        np.asarray(blob)[...] = value.reshape(shape)
        return blob


def _shaped(value: Array, info: TensorInfo) -> Array:
    """Give a blob the shape that the network's output has, without the batch axis: ncnn drops axes of one."""
    sizes = info.shape[1:]
    known = math.prod(size for size in sizes if size is not None)
    unknown = [size for size in sizes if size is None]
    if value.size % max(known, 1) or (not unknown and value.size != known):
        raise RunError(
            f"ncnn failed: its output '{info.name}' has {value.size:,} values, the network's {known:,}",
            "Choose another runtime.",
        )
    if not unknown or (len(unknown) == 1 and known):
        return value.reshape([-1 if size is None else size for size in sizes])
    if value.ndim != len(sizes):
        raise RunError(f"ncnn failed: the output '{info.name}' has {value.ndim} axes, expected {len(sizes)}")
    return value
