"""`Queue`: the items that wait for a model. Bounded, with priorities and deadlines; batches grow with what waits, and a
lone picture never waits for others."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plimsoll.serve.messages import Problem, RequestError, RequestOptions

ItemKind = Literal["answer", "raw", "tensors"]
"""What is computed: an answer from a picture, the network's outputs from a picture, or its outputs from tensors."""

_SMOOTHING = 0.2
"""Weight of the newest value in a moving average."""


@dataclass(eq=False)
class Item:
    """A picture, or rows of tensors, on its way to exactly one result."""

    kind: ItemKind
    frame: Mapping[str, Any]
    """What the worker gets: where the bytes lie, and what to return."""
    blocks: tuple[int, ...]
    """What it occupies in shared memory."""
    rows: int
    options: RequestOptions
    future: asyncio.Future[Any]
    """An `InferenceResult`, or for `raw` and `tensors` a `RawOutputs`."""
    arrived: float
    attempts: int = 0
    """How many workers died or hung while they had it."""
    queued: bool = False
    waited: float = 0.0
    """Seconds in the queue before it was sent."""

    def settle(self, result: object) -> None:
        """Set the result, unless nobody waits for it any more."""
        if not self.future.done():
            self.future.set_result(result)


@dataclass
class Queue:
    """Waiting items, by priority. `limit` counts rows."""

    limit: int
    clock: Callable[[], float]
    rows: int = 0
    """How many wait, without those that nobody waits for any more."""
    _waiting: dict[int, deque[Item]] = field(default_factory=lambda: {1: deque(), 0: deque(), -1: deque()})
    _gap: float = math.inf
    """Moving average of the seconds between arrivals."""
    _last: float = -math.inf

    def admit(self, rows: int, retry_after: float) -> None:
        """Raise RequestError where there is no room for so many more."""
        if self.rows + rows > self.limit:
            message = f"the queue is full: {self.rows:,} of {self.limit:,} pictures are waiting, and {rows:,} more came"
            raise RequestError(
                Problem("overloaded", message, "Try again later, or send fewer at once.", 503, retry_after)
            )

    def put(self, item: Item) -> None:
        """Add an item behind those of its priority."""
        now = self.clock()
        gap = now - self._last
        self._gap = gap if math.isinf(self._gap) else (1 - _SMOOTHING) * self._gap + _SMOOTHING * gap
        self._last = now
        self._waiting[item.options.priority].append(item)
        self._enter(item)

    def requeue(self, item: Item) -> None:
        """Put an item that lost its worker before all others of its priority."""
        self._waiting[item.options.priority].appendleft(item)
        self._enter(item)

    def _enter(self, item: Item) -> None:
        item.queued = True
        self.rows += item.rows

    def discard(self, item: Item) -> bool:
        """Stop counting an item that nobody waits for; returns whether it was waiting here."""
        if item.queued:
            item.queued = False
            self.rows -= item.rows
            return True
        return False

    @property
    def next_is_suspect(self) -> bool:
        """Whether the next item lost a worker: it may be what ended it, so it goes to an idle worker, with nothing
        behind it."""
        for waiting in self._waiting.values():
            for item in waiting:
                if item.queued:
                    return item.attempts > 0
        return False

    def take(self, max_rows: int) -> list[Item]:
        """Return the next batch: at most `max_rows` rows that can be computed together (at least one item); an item
        that lost a worker goes alone."""
        batch: list[Item] = []
        rows = 0
        for waiting in self._waiting.values():
            while waiting:
                item = waiting[0]
                if not item.queued:
                    waiting.popleft()
                    continue
                if batch and (rows + item.rows > max_rows or not _compatible(batch[0], item)):
                    return batch
                waiting.popleft()
                self.discard(item)
                item.waited += self.clock() - item.arrived
                batch.append(item)
                rows += item.rows
        return batch

    def oldest_arrival(self) -> float | None:
        """Return when the item that waits longest arrived; None where nothing waits."""
        heads = [next((item.arrived for item in waiting if item.queued), None) for waiting in self._waiting.values()]
        return min((head for head in heads if head is not None), default=None)

    def batch_delay(self, max_rows: int, max_delay: float) -> float:
        """Return for how many seconds it is worth waiting for more, though a worker is free: 0 for a full batch, or
        where nothing more is expected."""
        oldest = self.oldest_arrival()
        if max_delay <= 0 or oldest is None or self.rows >= max_rows or self._gap > max_delay:
            return 0.0
        return max(0.0, oldest + max_delay - self.clock())

    def drain(self) -> list[Item]:
        """Take all items out."""
        items = [item for waiting in self._waiting.values() for item in waiting if self.discard(item)]
        for waiting in self._waiting.values():
            waiting.clear()
        return items


def _compatible(first: Item, item: Item) -> bool:
    suspect = first.attempts or item.attempts
    return not suspect and (first.kind == "tensors") == (item.kind == "tensors")
