"""TensorRT 10's calibrators, fed with the user's own tensors or with ranges that were found before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.tensorrt import runtime
from plimsoll.backends.tensorrt.calibration_cache import Cache
from plimsoll.system.gpu import Device


class Feeder:
    """What a calibrator reads and writes; lives in the thread of its device."""

    def __init__(
        self, method: str, tensors: NDArray[Any], table: bytes, device: Device, cache: Path, batch: int
    ) -> None:
        self.method = method
        self.batch = min(batch, len(tensors)) or batch
        """Pictures at once."""
        self.table = table
        """A calibration cache to use instead of calibrating; empty where there is none."""
        self.cache = cache
        """Where TensorRT's calibration cache goes."""
        self._tensors = tensors
        self._place = 0
        self._device = device
        self._size = self.batch * int(np.prod(tensors.shape[1:], dtype=np.int64)) * tensors.dtype.itemsize
        self._address = device.allocate(self._size) if len(tensors) else 0

    @classmethod
    def of(cls, given: dict[str, Any], device: Device, cache: Path, batch: int) -> Self:
        """Read what a build was given: ranges, or a method and a file of tensors."""
        if "ranges" in given:
            return cls("entropy", np.empty((0,), np.float32), table(given["ranges"]), device, cache, batch)
        return cls(given["method"], np.load(given["tensors"], mmap_mode="r"), b"", device, cache, batch)

    def next_batch(self) -> list[int] | None:
        """Return the address, on the GPU, of the next pictures; None after the last. A rest that fills no batch is left
        out."""
        if self._place + self.batch > len(self._tensors):
            return None
        part = np.ascontiguousarray(self._tensors[self._place : self._place + self.batch])
        self._place += self.batch
        self._device.upload(self._address, part.ctypes.data, part.nbytes)
        self._device.wait()
        return [self._address]

    def close(self) -> None:
        """Give its memory back."""
        if self._address:
            self._device.free(self._address)
            self._address = 0


def calibrator(feeder: Feeder) -> Any:
    """Return a calibrator of TensorRT 10 that reads from a feeder."""
    tensorrt = runtime.load()
    base = tensorrt.IInt8MinMaxCalibrator if feeder.method == "minmax" else tensorrt.IInt8EntropyCalibrator2

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return feeder.batch

        def get_batch(self, names: list[str]) -> list[int] | None:
            del names  # there is one input
            return feeder.next_batch()

        def read_calibration_cache(self) -> bytes | None:
            return feeder.table or None

        def write_calibration_cache(self, cache: Any) -> None:
            feeder.cache.write_bytes(bytes(cache))

    return Calibrator()


def table(ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """Return ranges as a calibration cache of the installed version: symmetric, since TensorRT knows no zero point.
    Raises InputError."""
    major, minor, patch = (int(part) for part in runtime.version().split(".")[:3])
    return Cache.of(ranges, version=str(major * 10000 + minor * 100 + patch)).dumps().encode()
