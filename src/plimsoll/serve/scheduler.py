"""`Scheduler`: where a model's requests wait. It stores what came in, hands batches to workers, and gives every picture
exactly one answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.serve.arena import Arena, Blocks
from plimsoll.serve.batching import Item, Queue
from plimsoll.serve.messages import InferenceResult, Problem, RawOutputs, RequestError, RequestOptions
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.pool import Pool, unavailable
from plimsoll.serve.settings import Settings
from plimsoll.serve.statistics import ModelStatistics
from plimsoll.serve.worker_handle import Batch, WorkerHandle

Array = NDArray[Any]
Kind = Literal["row", "raw", "tensors"]


class Memory:
    """The shared memory of what came in."""

    def __init__(self, size: int) -> None:
        self.arena = Arena.create(size)
        self.blocks = Blocks(size)

    def put(self, data: bytes | memoryview) -> int:
        """Store bytes and return where they are; raises RequestError where there is no room."""
        at = self.blocks.allocate(len(data))
        if at is None:
            raise RequestError(
                Problem(
                    "overloaded",
                    f"{self.blocks.used / 1e6:,.0f} MB of pictures wait already",
                    "Try again later.",
                    503,
                    1.0,
                )
            )
        self.arena.view[at : at + len(data)] = data
        return at


class Scheduler:
    """The requests of one model, whichever version of it answers."""

    def __init__(self, name: str, settings: Settings, memory: Memory, metrics: Metrics) -> None:
        self.name = name
        self.statistics = ModelStatistics()
        self.pool: Pool | None = None
        """The workers of the version that answers now; None while there is none."""
        self.closed_because = "it is being loaded"
        """Why there is no pool, where there is none."""
        self._settings, self._memory, self._metrics = settings, memory, metrics
        self._queue = Queue(settings.max_queue, time.monotonic)
        self._timer: asyncio.TimerHandle | None = None
        self._row_seconds = 0.05
        """Moving average of what a row costs one worker, for estimates."""

    @property
    def waiting(self) -> int:
        """How many rows wait in the queue."""
        return self._queue.rows

    async def ask(self, kind: Kind, inputs: Sequence[Any], asked: RequestOptions) -> list[Any]:
        """Queue pictures (or feeds, rows of tensors by name), and wait for what comes of each: an `InferenceResult`, or
        a `RawOutputs`. Raises RequestError."""
        started = time.monotonic()
        self._admit(kind, inputs)
        items: list[Item] = []
        try:
            for one in inputs:
                items.append(self._stored(kind, one, asked, started))
        except RequestError:
            for item in items:
                self._release(item)
            raise
        for item in items:
            self._queue.put(item)
        expiry = asyncio.get_running_loop().call_later(asked.timeout or self._settings.timeout, self._expire, items)
        self.pump()
        try:
            settled = [await item.future for item in items]
        finally:
            expiry.cancel()
            for item in items:
                item.future.cancel()  # Where we were: nobody waits for the others either.
                if self._queue.forget(item):
                    self._release(item)
        took = time.monotonic() - started
        failed = any(isinstance(one, InferenceResult) and one.problem is not None for one in settled)
        (self.statistics.fail if failed else self.statistics.success).add(took)
        return settled

    def _admit(self, kind: str, inputs: Sequence[Any]) -> None:
        if self.pool is None:
            raise unavailable(f"{self.name}: {self.closed_because}")
        if (
            not self.pool.ready and self.pool.failing
        ):  # One that is only being replaced is there in a second: that is worth waiting for.
            raise unavailable(f"{self.name}: no worker is ready: {self.pool.failing}", self.pool.pause + 1)
        rows = len(inputs) if kind != "tensors" else sum(len(next(iter(one.values()))) for one in inputs)
        try:
            self._queue.admit(rows, self.retry_after())
        except RequestError:
            self._metrics.rejected.labels(self.name, "queue").inc()
            raise

    def retry_after(self) -> float:
        """Estimate in how many seconds what waits now will have been answered: 1 to 30."""
        workers = max(1, len(self.pool.ready)) if self.pool is not None else 1
        return float(min(30, max(1, math.ceil(self._queue.rows * self._row_seconds / workers))))

    def _stored(self, kind: Kind, one: Any, asked: RequestOptions, started: float) -> Item:
        future = asyncio.get_running_loop().create_future()
        if kind == "tensors":
            frame, blocks, rows = self._stored_tensors(one)
        else:
            at = self._memory.put(one)
            wanted = {"raw": kind == "raw", "top": asked.top, "threshold": asked.threshold, "masks": asked.masks}
            frame, blocks, rows = {"at": at, "size": len(one), **wanted}, (at,), 1
        return Item(kind, frame, blocks, rows, asked, future, started)

    def _stored_tensors(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Any], tuple[int, ...], int]:
        placed: dict[str, Any] = {}
        try:
            for name, value in feeds.items():
                data = np.ascontiguousarray(value)
                at = self._memory.put(data.reshape(-1).view(np.uint8).data)
                placed[name] = {"at": at, "size": data.nbytes, "dtype": data.dtype.name, "shape": data.shape}
        except RequestError:
            for one in placed.values():
                self._memory.blocks.free(one["at"])
            raise
        return {"feeds": placed}, tuple(one["at"] for one in placed.values()), len(next(iter(feeds.values())))

    def _release(self, item: Item) -> None:
        for at in item.blocks:
            self._memory.blocks.free(at)

    def _expire(self, items: Sequence[Item]) -> None:
        """Answer what is not answered in time; what a worker has is released when that worker is done with it."""
        for item in items:
            if not item.future.done():
                self._metrics.rejected.labels(self.name, "deadline").inc()
                item.settle(
                    InferenceResult(
                        None,
                        Problem(
                            "deadline",
                            "there was no answer within the time that the request had",
                            "Give it more, or try later.",
                            504,
                        ),
                    )
                )
            if self._queue.forget(item):
                self._release(item)

    def fail_waiting(self, reason: str, retry_after: float | None = None) -> None:
        """Answer all that wait: there will be no answer, or none within `retry_after` seconds."""
        for item in self._queue.drain():
            item.settle(
                InferenceResult(
                    None, Problem("unavailable", f"{self.name}: {reason}", status=503, retry_after=retry_after)
                )
            )
            self._release(item)

    def pump(self) -> None:
        """Hand out what waits to workers that have room: first to idle ones, then to those that are on their last
        batch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.pool is None:
            return
        ready = sorted(self.pool.ready, key=lambda link: len(link.in_flight))
        for link in ready * 2:
            if not self._queue.rows:
                return
            if not link.free_places or (link.in_flight and not self._worth_binding(len(ready))):
                continue
            if not link.in_flight and (pause := self._queue.hold(link.warm, self.pool.plan.max_delay)) > 0:
                self._timer = asyncio.get_running_loop().call_later(pause, self.pump)
                return
            share = math.ceil(self._queue.rows / len(ready))
            items = self._queue.take(max(1, min(link.warm, share)))
            if items:
                link.send(items)

    def _worth_binding(self, workers: int) -> bool:
        """Whether what waits may go to a busy worker already: not where the first of several workers that gets free
        would take it sooner."""
        return not self._queue.suspect and (workers == 1 or self._queue.rows > workers)

    def answered(self, link: WorkerHandle, batch: Batch, message: Mapping[str, Any]) -> None:
        """Give everybody in a batch the answer; then the worker has room for the next."""
        rows = sum(item.rows for item in batch.items)
        milliseconds = message["milliseconds"]
        self._measure(batch, rows, milliseconds)
        used: list[int] = []
        for item, came in zip(batch.items, message["items"], strict=True):
            took = {"queue": 1e3 * item.waited, **milliseconds}
            if "outputs" in came:
                outputs = {name: _read(link, placed) for name, placed in came["outputs"].items()}
                used += [placed["at"] for placed in came["outputs"].values()]
                item.settle(RawOutputs(outputs, took))
            else:
                problem = Problem(**came["problem"]) if "problem" in came else None
                item.settle(InferenceResult(came.get("row"), problem, took, rows))
            self._release(item)
        if used:
            link.give_back(used)
        self.pump()

    def _measure(self, batch: Batch, rows: int, milliseconds: Mapping[str, float]) -> None:
        seconds = {stage: 1e-3 * value for stage, value in milliseconds.items()}
        self._row_seconds += 0.1 * (sum(seconds.values()) / rows - self._row_seconds)
        self.statistics.batch(rows, seconds["decode"], seconds["infer"], seconds["answer"])
        for item in batch.items:
            self.statistics.queue.add(item.waited)
        self._metrics.batch(self.name, rows, [item.waited for item in batch.items], seconds)

    def lost(self, items: Sequence[Item], reason: str) -> None:
        """Give what a worker had when it ended to another one, alone and once; the second time the picture is to blame."""
        for item in reversed(items):
            item.attempts += 1
            if item.future.done():
                self._release(item)
            elif item.attempts > 1 or self.pool is None:
                item.settle(
                    InferenceResult(
                        None,
                        Problem(
                            "failed",
                            f"the worker ended while it computed this: {reason}",
                            "Does it happen again with this input alone?",
                            500,
                        ),
                    )
                )
                self._release(item)
            else:
                self._queue.put_back(item)
        self.pump()


def _read(link: WorkerHandle, placed: Mapping[str, Any]) -> Array:
    return np.frombuffer(bytes(link.taken(placed)), placed["dtype"]).reshape(placed["shape"])
