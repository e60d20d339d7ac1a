"""Limits of what is received: how much is held at once, over all connections and both protocols, and for how long a
request may take to arrive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from plimsoll.serve.messages import Problem, RequestError


class TooMuchReceivedError(RequestError):
    """More is being received than the service may hold."""


class ReceiveLimit:
    """How many bytes are held while they are being received. One for a service, used from its event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0

    @contextmanager
    def counted(self) -> Iterator[ReceivedShare]:
        """Count what one request receives until its block ends."""
        share = ReceivedShare(self)
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
class ReceivedShare:
    """What one request holds of the limit."""

    whole: ReceiveLimit
    bytes: int = 0

    def add(self, count: int) -> None:
        """Count more; raises TooMuchReceivedError."""
        self.whole.add(count)
        self.bytes += count


def too_slow(what: str, seconds: float) -> RequestError:
    """Return the refusal (408) of a request that doesn't arrive in time."""
    return RequestError(Problem("input", f"the {what} had not arrived after {seconds:g} s", "Send it faster.", 408))
