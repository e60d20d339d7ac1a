"""How much is held while it is being received, over all connections and both protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from plimsoll.serve.messages import Problem, RequestError


class TooMuchReceivedError(RequestError):
    """More is being received than the service may hold."""


class Received:
    """How many bytes are held while they are being received. One for a service, used from its event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[Share]:
        """Count what one request receives until its block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            self.bytes -= share.bytes

    def add(self, count: int) -> None:
        """Count more; raises TooMuchReceivedError (503) where that is too much."""
        if self.bytes + count > self._limit:
            raise TooMuchReceivedError(
                Problem("overloaded", "too much is being received at once", "Try again later.", 503, 1.0)
            )
        self.bytes += count


@dataclass
class Share:
    """What one request holds of it."""

    whole: Received
    bytes: int = 0

    def add(self, count: int) -> None:
        """Count more; raises TooMuchReceivedError."""
        self.whole.add(count)
        self.bytes += count
