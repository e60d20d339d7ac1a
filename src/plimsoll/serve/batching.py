"""`Queue`: what waits for a model. Bounded, with priorities and deadlines; its batches grow with what waits, and a lone
picture never waits for others."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plimsoll.serve.messages import Problem, RequestError, RequestOptions

_SMOOTHING = 0.2
"""Weight of the newest value in a moving average."""


@dataclass(eq=False)
class Item:
    """A picture, or rows of tensors, on its way: exactly one answer comes of it."""

    kind: Literal["row", "raw", "tensors"]
    """What is wanted: a row from a picture, the network's outputs from a picture, or its outputs from tensors."""
    frame: Mapping[str, Any]
    """Where its bytes lie; goes to the worker."""
    blocks: tuple[int, ...]
    """What it holds in shared memory."""
    rows: int
    asked: RequestOptions
    future: asyncio.Future[Any]
    """An `InferenceResult`, or for `raw` and `tensors` a `RawOutputs`."""
    arrived: float
    attempts: int = 0
    """How many workers died or hung while they had it."""
    queued: bool = False
    waited: float = 0.0
    """Seconds in the queue before it was sent."""

    def settle(self, answer: object) -> None:
        """Give the answer, unless nobody waits any more."""
        if not self.future.done():
            self.future.set_result(answer)


@dataclass
class Queue:
    """Items that wait, by priority. `limit` counts rows."""

    limit: int
    clock: Callable[[], float]
    rows: int = 0
    """How many wait; what nobody waits for any more isn't counted."""
    _waiting: dict[int, deque[Item]] = field(default_factory=lambda: {1: deque(), 0: deque(), -1: deque()})
    _gap: float = math.inf
    """Moving average of the seconds between arrivals."""
    _last: float = -math.inf

    def admit(self, rows: int, retry_after: float) -> None:
        """Raise RequestError where so many more find no room."""
        if self.rows + rows > self.limit:
            message = f"{self.rows:,} pictures wait already and {rows:,} more came; {self.limit:,} may wait"
            raise RequestError(
                Problem("overloaded", message, "Try again later, or send fewer at once.", 503, retry_after)
            )

    def put(self, item: Item) -> None:
        """Add one at the end of those of its priority."""
        now = self.clock()
        gap = now - self._last
        self._gap = gap if math.isinf(self._gap) else (1 - _SMOOTHING) * self._gap + _SMOOTHING * gap
        self._last = now
        self._waiting[item.asked.priority].append(item)
        self._enter(item)

    def put_back(self, item: Item) -> None:
        """Put one that lost its worker before all others of its priority."""
        self._waiting[item.asked.priority].appendleft(item)
        self._enter(item)

    def _enter(self, item: Item) -> None:
        item.queued = True
        self.rows += item.rows

    def forget(self, item: Item) -> bool:
        """Stop counting one that nobody waits for; whether it was waiting here."""
        if item.queued:
            item.queued = False
            self.rows -= item.rows
            return True
        return False

    @property
    def suspect(self) -> bool:
        """Whether the one that is next lost a worker: it may be what ended it, so it goes to an idle worker, and
        nothing behind it."""
        for waiting in self._waiting.values():
            for item in waiting:
                if item.queued:
                    return item.attempts > 0
        return False

    def take(self, most: int) -> list[Item]:
        """Return the next batch, at most `most` rows of one kind of work (at least one item); one that lost a worker
        goes alone."""
        batch: list[Item] = []
        rows = 0
        for waiting in self._waiting.values():
            while waiting:
                item = waiting[0]
                if not item.queued:
                    waiting.popleft()
                    continue
                if batch and (
                    rows + item.rows > most or item.attempts or batch[0].attempts or _work(item) != _work(batch[0])
                ):
                    return batch
                waiting.popleft()
                self.forget(item)
                item.waited += self.clock() - item.arrived
                batch.append(item)
                rows += item.rows
        return batch

    def oldest(self) -> float | None:
        """Return when the one arrived that waits longest; None where nothing waits."""
        heads = [next((item.arrived for item in waiting if item.queued), None) for waiting in self._waiting.values()]
        return min((head for head in heads if head is not None), default=None)

    def hold(self, most: int, delay: float) -> float:
        """Return for how many seconds it is worth to wait for more, though a worker is free: 0 for a full batch, or
        where nothing more is to be expected."""
        oldest = self.oldest()
        if delay <= 0 or oldest is None or self.rows >= most or self._gap > delay:
            return 0.0
        return max(0.0, oldest + delay - self.clock())

    def drain(self) -> list[Item]:
        """Take all out."""
        items = [item for waiting in self._waiting.values() for item in waiting if self.forget(item)]
        for waiting in self._waiting.values():
            waiting.clear()
        return items


def _work(item: Item) -> bool:
    return item.kind == "tensors"
