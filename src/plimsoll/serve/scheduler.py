"""`Scheduler`: one model's requests on their way to its workers. It stores what came in, hands batches to workers, and
gives every item exactly one result.

Its `Queue` is bounded, with priorities and deadlines; batches grow with what waits, and a lone picture never waits for
others.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from plimsoll.serve.inbound import InboundMemory, StoredInput
from plimsoll.serve.messages import InferenceResult, Problem, RawOutputs, RequestError, RequestOptions, unavailable
from plimsoll.serve.metrics import Metrics, ModelStatistics
from plimsoll.serve.pool import Pool
from plimsoll.serve.settings import Settings
from plimsoll.serve.worker_handle import Batch, Item, ItemKind, WorkerHandle

LOADING = "the model is loading"
_LOADING_S = 2.0
"""When to ask again for a model that is loading."""
_SMOOTHING = 0.2
"""Weight of the newest value in a moving average."""


@dataclass
class Queue:
    """Waiting items, by priority. `limit` counts rows."""

    limit: int
    clock: Callable[[], float]
    rows: int = 0
    """How many wait, without those whose request is over."""
    _waiting: dict[int, deque[Item]] = field(default_factory=lambda: {1: deque(), 0: deque(), -1: deque()})
    _gap: float = math.inf
    """Moving average of the seconds between arrivals."""
    _last: float = -math.inf

    def admit(self, rows: int, retry_after: float) -> None:
        """Raise RequestError where the queue is full.

        A request with many pictures needs no more room than one with a single picture, or it would never get in while
        others fill each place that becomes free; so the queue may hold one request more than its limit.
        """
        if self.rows >= self.limit:
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
        """Stop counting an item whose request is over; returns whether it was waiting here."""
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


def _note(settled: asyncio.Queue[int], number: int, _: asyncio.Future[Any]) -> None:
    settled.put_nowait(number)


class Scheduler:
    """The requests of one model, whichever version of it answers."""

    def __init__(self, name: str, settings: Settings, memory: InboundMemory, metrics: Metrics) -> None:
        self.name = name
        self.statistics = ModelStatistics()
        self.pool: Pool | None = None
        """The workers of the current version; None if no version is loaded."""
        self.closed_because = LOADING
        """Why `pool` is None."""
        self._settings, self._memory, self._metrics = settings, memory, metrics
        self._queue = Queue(settings.max_queue, time.monotonic)
        self._timer: asyncio.TimerHandle | None = None
        self._row_seconds = 0.05
        """Moving average of what a row costs one worker, for estimates."""

    @property
    def waiting(self) -> int:
        """How many rows wait in the queue."""
        return self._queue.rows

    async def submit(self, kind: ItemKind, inputs: Sequence[Any], options: RequestOptions) -> list[Any]:
        """Queue pictures (or feeds: rows of tensors by name), and wait for each one's `InferenceResult` or
        `RawOutputs`. Raises RequestError."""
        with self._submitted(kind, await self._store(kind, inputs, options), options) as items:
            return [await item.future for item in items]

    async def stream(
        self, kind: ItemKind, inputs: Sequence[Any], options: RequestOptions
    ) -> AsyncGenerator[tuple[int, Any]]:
        """As `submit`, but yield each result as soon as it is there, with its number among the inputs."""
        with self._submitted(kind, await self._store(kind, inputs, options), options) as items:
            settled: asyncio.Queue[int] = asyncio.Queue()
            for number, item in enumerate(items):
                item.future.add_done_callback(partial(_note, settled, number))
            for _ in items:
                number = await settled.get()
                yield number, await items[number].future

    async def _store(self, kind: ItemKind, inputs: Sequence[Any], options: RequestOptions) -> list[StoredInput]:
        """Put what a request brings into shared memory, where the queue has room. Raises RequestError."""
        self._admit(len(inputs) if kind != "tensors" else sum(len(next(iter(feeds.values()))) for feeds in inputs))
        return await self._memory.store(kind, inputs, options)

    def _submitted(
        self, kind: ItemKind, stored: Sequence[StoredInput], options: RequestOptions
    ) -> AbstractContextManager[list[Item]]:
        """Give the queued items of a request, which is over at the block's end. Raises RequestError."""
        return self.stored(kind, stored, options, self._memory.free)

    @contextmanager
    def stored(
        self,
        kind: ItemKind,
        stored: Sequence[StoredInput],
        options: RequestOptions,
        free: Callable[[Sequence[int]], None],
    ) -> Iterator[list[Item]]:
        """As `submit`, for inputs that another process has stored: give the items, whose futures are their results;
        `free` says which blocks of memory are no longer needed. Raises RequestError."""
        try:
            self._admit(sum(item.rows for item in stored))
        except RequestError:
            free([offset for item in stored for offset in item.blocks])
            raise
        with self._queued(kind, stored, options, free) as items:
            yield items

    @contextmanager
    def _queued(
        self,
        kind: ItemKind,
        stored: Sequence[StoredInput],
        options: RequestOptions,
        free: Callable[[Sequence[int]], None],
    ) -> Iterator[list[Item]]:
        started, loop = time.monotonic(), asyncio.get_running_loop()
        items = [
            Item(kind, value.frame, value.blocks, value.rows, options, loop.create_future(), started, free=free)
            for value in stored
        ]
        for item in items:
            self._queue.put(item)
        expiry = loop.call_later(options.timeout or self._settings.timeout, self._expire, items)
        self.dispatch()
        try:
            yield items
            results = [item.future.result() for item in items]
        finally:
            expiry.cancel()
            for item in items:
                item.future.cancel()  # a cancelled request needs none of the others either
                if self._queue.discard(item):
                    item.free(item.blocks)
        failed = any(isinstance(result, InferenceResult) and result.problem is not None for result in results)
        outcome = self.statistics.fail if failed else self.statistics.success
        outcome.add(time.monotonic() - started)

    def _admit(self, rows: int) -> None:
        if self.pool is None:
            raise unavailable(
                f"{self.name}: {self.closed_because}", _LOADING_S if self.closed_because == LOADING else None
            )
        # A worker that is merely being replaced is back in a second, which is worth waiting for.
        if not self.pool.ready and self.pool.start_failure:
            raise unavailable(f"{self.name}: no worker is ready: {self.pool.start_failure}", self.pool.backoff + 1)
        try:
            self._queue.admit(rows, self.retry_after())
        except RequestError:
            self._metrics.rejected.labels(self.name, "queue").inc()
            raise

    def retry_after(self) -> float:
        """Estimate in how many seconds what waits now will have been answered: 1 to 30."""
        workers = max(1, len(self.pool.ready)) if self.pool is not None else 1
        return float(min(30, max(1, math.ceil(self._queue.rows * self._row_seconds / workers))))

    def _expire(self, items: Sequence[Item]) -> None:
        """Settle what is not answered in time; what a worker has is released when that worker is done with it."""
        problem = Problem("deadline", "no answer within the request's timeout", "Allow more time, or try later.", 504)
        for item in items:
            if not item.future.done():
                self._metrics.rejected.labels(self.name, "deadline").inc()
                item.settle(InferenceResult(None, problem))
            if self._queue.discard(item):
                item.free(item.blocks)

    def fail_waiting(self, reason: str, retry_after: float | None = None) -> None:
        """Settle all that wait: there will be no answer, or none within `retry_after` seconds."""
        problem = Problem("unavailable", f"{self.name}: {reason}", status=503, retry_after=retry_after)
        for item in self._queue.drain():
            item.settle(InferenceResult(None, problem))
            item.free(item.blocks)

    def dispatch(self) -> None:
        """Hand what waits to workers that have room: first to idle ones, then to those on their last batch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.pool is None:
            return
        ready = sorted(self.pool.ready, key=lambda worker: len(worker.in_flight))
        for worker in ready * 2:
            if not self._queue.rows:
                return
            if not worker.has_room or (worker.in_flight and not self._may_queue_ahead(len(ready))):
                continue
            if not worker.in_flight:
                delay = self._queue.batch_delay(worker.warm_batch, self.pool.plan.max_delay)
                if delay > 0:
                    self._timer = asyncio.get_running_loop().call_later(delay, self.dispatch)
                    return
            share = math.ceil(self._queue.rows / len(ready))
            items = self._queue.take(max(1, min(worker.warm_batch, share)))
            if items:
                worker.send(items)

    def _may_queue_ahead(self, workers: int) -> bool:
        """Whether what waits may go to a worker that is still busy: not where another worker may be free sooner."""
        return not self._queue.next_is_suspect and (workers == 1 or self._queue.rows > workers)

    def on_result(self, worker: WorkerHandle, batch: Batch, message: Mapping[str, Any]) -> None:
        """Give every item of a batch its result; then the worker has room for the next."""
        rows = sum(item.rows for item in batch.items)
        milliseconds = message["milliseconds"]
        self._measure(batch, rows, milliseconds)
        read: list[int] = []
        for item, result in zip(batch.items, message["items"], strict=True):
            stages = {"queue": 1e3 * item.waited, **milliseconds}
            if "outputs" in result:
                outputs = {name: worker.read_output(ref) for name, ref in result["outputs"].items()}
                read += [ref["offset"] for ref in result["outputs"].values()]
                item.settle(RawOutputs(outputs, stages))
            else:
                problem = Problem(**result["problem"]) if "problem" in result else None
                item.settle(InferenceResult(result.get("row"), problem, stages, rows))
            item.free(item.blocks)
        if read:
            worker.free_outputs(read)
        self.dispatch()

    def _measure(self, batch: Batch, rows: int, milliseconds: Mapping[str, float]) -> None:
        seconds = {stage: 1e-3 * value for stage, value in milliseconds.items()}
        self._row_seconds += 0.1 * (sum(seconds.values()) / rows - self._row_seconds)
        self.statistics.add_batch(rows, seconds["decode"], seconds["infer"], seconds["answer"])
        for item in batch.items:
            self.statistics.queue.add(item.waited)
        self._metrics.batch(self.name, rows, [item.waited for item in batch.items], seconds)

    def on_lost(self, items: Sequence[Item], reason: str) -> None:
        """Requeue what a worker had when it ended, to be computed alone, once; the second time they fail."""
        for item in reversed(items):
            item.attempts += 1
            if item.future.done():
                item.free(item.blocks)
            elif item.attempts > 1 or self.pool is None:
                message = f"the worker ended while it computed this: {reason}"
                hint = "Does it happen again with this input alone?"
                item.settle(InferenceResult(None, Problem("failed", message, hint, 500)))
                item.free(item.blocks)
            else:
                self._queue.requeue(item)
        self.dispatch()
