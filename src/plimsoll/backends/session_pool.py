"""`SessionPool`: a session of a runtime whose interpreters each serve one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from plimsoll.core.foreign import translate
from plimsoll.core.model import TensorInfo, Tensors
from plimsoll.errors import RunError


class PooledSession(Protocol):
    """One interpreter, used by one thread at a time."""

    def run(self, feeds: Mapping[str, NDArray[Any]], /) -> Tensors:
        """Compute all outputs."""
        ...


class SessionPool:
    """Hands each call to the next free interpreter."""

    concurrent = True

    def __init__(
        self,
        runtime: str,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        sessions: Sequence[PooledSession],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._failed = f"{runtime} failed"
        self._free = list(sessions)
        self._turn = threading.Semaphore(len(sessions))
        self._closed = False

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Compute all outputs on the next free interpreter; raises RunError."""
        with self._turn, translate(RunError, self._failed):
            if self._closed:
                raise RunError(f"{self._failed}: the session is closed")
            session = self._free.pop()
            try:
                return session.run(feeds)
            finally:
                if not self._closed:
                    self._free.append(session)

    def close(self) -> None:
        """Release the interpreters; those in use are released when their calls end."""
        self._closed = True
        self._free.clear()
