"""`LaneSession`: a session of a runtime whose interpreters each serve one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from plimsoll.backend import TensorInfo, Tensors, translate
from plimsoll.errors import RunFailed


class Lane(Protocol):
    """One interpreter. Only one thread uses it at a time."""

    def run(self, feeds: Mapping[str, NDArray[Any]], /) -> Tensors:
        """Compute all outputs."""
        ...


class LaneSession:
    """Hands each call to the next free lane."""

    concurrent = True

    def __init__(self, runtime: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], lanes: Sequence[Lane]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._failed = f"{runtime} failed"
        self._lanes = list(lanes)
        self._turn = threading.Semaphore(len(lanes))
        self._closed = False

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Compute all outputs on the next free lane; raises RunFailed."""
        with self._turn, translate(RunFailed, self._failed):
            if self._closed:
                raise RunFailed(f"{self._failed}: the session is closed")
            lane = self._lanes.pop()
            try:
                return lane.run(feeds)
            finally:
                if not self._closed:
                    self._lanes.append(lane)

    def close(self) -> None:
        """Give the interpreters' memory back; those at work are given back when they are done."""
        self._closed = True
        self._lanes.clear()
