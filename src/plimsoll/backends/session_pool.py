"""`SessionPool`: a session of a runtime whose interpreters each serve one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from plimsoll.core.foreign import translate
from plimsoll.core.model import TensorInfo, Tensors
from plimsoll.errors import RunError


class Lane(Protocol):
    """One interpreter. Only one thread uses it at a time."""

    def run(self, feeds: Mapping[str, NDArray[Any]], /) -> Tensors:
        """Compute all outputs."""
        ...


class SessionPool:
    """Hands each call to the next free lane."""

    concurrent = True

    def __init__(
        self, runtime: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], streams: Sequence[Lane]
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._failed = f"{runtime} failed"
        self._lanes = list(streams)
        self._turn = threading.Semaphore(len(streams))
        self._closed = False

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Compute all outputs on the next free lane; raises RunError."""
        with self._turn, translate(RunError, self._failed):
            if self._closed:
                raise RunError(f"{self._failed}: the session is closed")
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
