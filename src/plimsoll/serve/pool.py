"""`WorkerPlan`: how many workers and threads a model gets on this machine, and why. `Pool`: the workers of one version
of a model; one that dies, hangs or holds too much memory is replaced, and what it was computing is queued again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from plimsoll.core import duration
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.serve.background import lasting, next_backoff
from plimsoll.serve.folders import ServiceFolder
from plimsoll.serve.ipc import Arena
from plimsoll.serve.messages import ModelMetadata, RequestError
from plimsoll.serve.settings import MEBIBYTE, Settings
from plimsoll.serve.worker_handle import Batch, Item, WorkerHandle
from plimsoll.system import host

Objective = Literal["throughput", "latency"]

_INT8_BATCH = 4
_DEVICE_BATCH = 32
_DEVICE_DELAY = 0.002
_MEMORY_SHARE = 0.6
_WORKER_BYTES = 150_000_000
_MODEL_COPIES = 4
"""What a worker holds beside its runtime, as a multiple of the model's files: weights as read, as packed for the
processor, and its tensors."""


@dataclass(frozen=True)
class PlanOptions:
    """What the operator asked for; None is left to the plan."""

    workers: int | None = None
    threads: int | None = None
    max_batch: int | None = None
    max_delay: float | None = None
    """Seconds."""
    objective: Objective = "throughput"


@dataclass(frozen=True)
class WorkerPlan:
    """How a model is run on this machine."""

    workers: int
    """Processes, each with a session of its own."""
    threads: int
    """Threads that compute one batch."""
    decoders: int
    """Threads of a worker that decode and preprocess pictures; 0 where the computing thread does that too."""
    max_batch: int
    max_delay: float
    """Seconds that a picture may wait for others while a worker is free; only where others are expected."""
    why: tuple[str, ...]

    @classmethod
    def of(cls, target: Target, model_bytes: int, options: PlanOptions, cores: int | None = None) -> WorkerPlan:
        """Return the plan for this machine's share of cores and memory; raises InputError for options out of range."""
        count = cores or host.cores()
        for name, value in (
            ("--workers", options.workers),
            ("--threads", options.threads),
            ("--max-batch", options.max_batch),
        ):
            if value is not None and not 1 <= value <= 1024:
                raise InputError(f"{name} {value}: expected 1 to 1024")
        return _on_device(count, options) if target.device != "cpu" else _on_cpu(count, model_bytes, target, options)


def _on_device(cores: int, options: PlanOptions) -> WorkerPlan:
    workers = options.workers or 1
    decoders = max(1, cores // workers)
    batch = options.max_batch or _DEVICE_BATCH
    delay = _DEVICE_DELAY if options.max_delay is None else options.max_delay
    why = (
        f"{_count(workers, 'worker')}: " + ("as requested" if options.workers else "one process owns the device"),
        f"{_count(decoders, 'thread')} to decode and preprocess pictures, so that the device never waits for them",
        f"batches of up to {batch}; a picture waits up to {duration.describe(delay)} for others, and only while they"
        " keep coming",
    )
    return WorkerPlan(workers, options.threads or 1, decoders, batch, delay, why)


def _on_cpu(cores: int, model_bytes: int, target: Target, options: PlanOptions) -> WorkerPlan:
    if options.workers is None and options.threads is None:
        workers, threads = (cores, 1) if options.objective == "throughput" else (1, cores)
        reason = (
            "one core per worker gives the most answers per second"
            if options.objective == "throughput"
            else "all cores working on one picture give the quickest answer"
        )
    else:
        threads = options.threads or max(1, cores // (options.workers or cores))
        workers = options.workers or max(1, cores // threads)
        reason = "as requested"
    why = [f"{_count(workers, 'worker')} × {_count(threads, 'thread')} on {_count(cores, 'core')}: {reason}"]
    fitting = _fitting(model_bytes)
    if options.workers is None and fitting is not None and fitting < workers:
        workers = fitting
        threads = options.threads or max(1, cores // workers)
        why.append(
            f"reduced to {_count(workers, 'worker')} × {_count(threads, 'thread')}: no more fit in"
            f" {_MEMORY_SHARE:.0%} of the memory"
        )
    batch = options.max_batch or (_INT8_BATCH if target.precision == "int8" else 1)
    delay = options.max_delay or 0.0
    reason = (
        "8-bit networks take less time per picture in batches of four"
        if batch > 1
        else "on one core a batch takes as long as its pictures one by one"
    )
    why.append(f"batches of up to {batch}: {'as requested' if options.max_batch else reason}")
    why.append(
        f"a picture waits up to {duration.describe(delay)} for others"
        if delay
        else "a picture never waits for others while a worker is free"
    )
    return WorkerPlan(workers, threads, 0 if threads == 1 else threads, batch, delay, tuple(why))


def _fitting(model_bytes: int) -> int | None:
    """Return how many workers fit in the memory; None where its size is unknown."""
    memory = host.memory_bytes()
    return (
        None if memory is None else max(1, int(_MEMORY_SHARE * memory / (_WORKER_BYTES + _MODEL_COPIES * model_bytes)))
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_WATCH_S = 0.25
_SILENCE_FACTOR = 3.0
"""A starting worker may be silent so many times as long as the earlier ones were."""

_log = logging.getLogger("plimsoll.serve")


@dataclass(frozen=True)
class PoolCallbacks:
    """What a pool calls when something happens."""

    on_result: Callable[[WorkerHandle, Batch, dict[str, Any]], None]
    """A batch was computed."""
    on_lost: Callable[[Sequence[Item], str], None]
    """A worker ended with these items unfinished."""
    on_change: Callable[[], None]
    """A worker became ready, or is gone."""
    on_restart: Callable[[str], None]
    """A worker is replaced; the reason is died, silent, hung, memory or start_failed."""


@dataclass
class Pool:
    """The workers of one version."""

    name: str
    config: Mapping[str, Any]
    plan: WorkerPlan
    settings: Settings
    inbound: Arena
    folder: ServiceFolder
    callbacks: PoolCallbacks
    workers: list[WorkerHandle] = field(default_factory=list)
    """All that were started and have not ended."""
    start_failure: str = ""
    """Why no worker could be started, twice or more in a row; else empty: a single failure may be a kill by
    chance."""
    backoff: float = 0.0
    """Seconds before the next attempt to start a worker, where attempts fail."""
    _supervisors: list[asyncio.Task[None]] = field(default_factory=list)
    _watcher: asyncio.Task[None] | None = None
    _longest_silence: float | None = None
    """Of the workers that started."""
    _closing: bool = False
    _last_number: int = 0

    async def start(self) -> ModelMetadata:
        """Start all workers; returns what the model is. The first one checks the golden vectors. Raises RequestError
        where the model can't be served."""
        pairs = [self._new_worker(verify=index == 0) for index in range(self.plan.workers)]
        opening = [asyncio.ensure_future(self._open(*pair)) for pair in pairs]
        try:
            started = await asyncio.gather(*opening)
        except BaseException:
            for worker, _ in pairs:  # those that have no process yet end as soon as they have one
                worker.kill("another worker of this version failed to start")
            await asyncio.gather(*opening, return_exceptions=True)
            await self.close()
            raise
        self._supervisors = [asyncio.create_task(self._supervise(worker)) for worker, _ in pairs]
        self._watcher = asyncio.create_task(lasting(f"{self.name}: watching the workers", self._watch))
        return started[0]

    @property
    def ready(self) -> list[WorkerHandle]:
        """The workers that compute batches, now or when they get one."""
        return [worker for worker in self.workers if worker.ready and not worker.retiring]

    async def retire(self) -> None:
        """Let the workers finish what they have, and end."""
        self._closing = True
        for worker in self.workers:
            worker.retire()
        if self._supervisors:
            _, late = await asyncio.wait(self._supervisors, timeout=self.settings.batch_timeout)
            if late:
                _log.warning("%s: %d workers did not finish in time", self.name, len(late))
        await self.close()

    async def close(self) -> None:
        """End the workers now."""
        self._closing = True
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        for worker in list(self.workers):
            worker.kill("the service is closing")
        for task in self._supervisors:
            task.cancel()
        await asyncio.gather(*self._supervisors, return_exceptions=True)
        self._supervisors = []
        for worker in list(self.workers):
            self._remove(worker, await worker.end())

    def _new_worker(self, *, verify: bool) -> tuple[WorkerHandle, dict[str, Any]]:
        """Return a worker that is not started yet, and its configuration."""
        self._last_number += 1
        worker = WorkerHandle(self._last_number, self.folder, self.settings.outbound_bytes)
        self.workers.append(worker)
        return worker, {**self.config, "verify": verify}

    async def _open(self, worker: WorkerHandle, config: dict[str, Any]) -> ModelMetadata:
        await worker.start(config, self.inbound)
        metadata = await worker.wait_ready(self.settings.start_timeout, self._start_heartbeat_timeout)
        self._longest_silence = max(self._longest_silence or 0.0, worker.longest_silence)
        self.start_failure, self.backoff = "", 0.0
        self.callbacks.on_change()
        return metadata

    @property
    def _start_heartbeat_timeout(self) -> float:
        """How many seconds a starting worker may be silent: at first the setting, later a multiple of the longest
        silence of those that did start."""
        limit = self.settings.start_heartbeat_timeout
        if self._longest_silence is None:
            return limit
        return min(limit, max(2 * self.settings.heartbeat_timeout, _SILENCE_FACTOR * self._longest_silence))

    async def _supervise(self, worker: WorkerHandle) -> None:
        """Listen to a worker, and to those that replace it, one after another; nothing but closing ends this."""
        current = [worker]
        await lasting(f"{self.name}: keeping a worker", partial(self._keep, current))

    async def _keep(self, current: list[WorkerHandle]) -> None:
        """Listen to the only worker in a list, and put another one there when it ends."""
        failures = 0
        while True:
            (worker,) = current
            try:
                reason = await worker.listen(self.callbacks.on_result)
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker must be replaced
                _log.exception("%s: a bug while listening to worker %d", self.name, worker.number)
                worker.kill(f"died: {type(error).__name__} in the service")
                reason = await worker.end()
            failures = 0 if worker.batches_done else failures + 1
            self._remove(worker, reason)
            if self._closing:
                return
            self.callbacks.on_restart(worker.kill_reason.partition(":")[0] or "died")
            _log.warning("%s: worker %d is gone (%s); starting another", self.name, worker.number, reason)
            current[:] = [await self._start_replacement(failures)]
            if not current[0].ready:
                return

    async def _start_replacement(self, failures: int) -> WorkerHandle:
        """Return another worker that is ready; waits longer between attempts the more of them fail."""
        while True:
            if failures:
                self.backoff = next_backoff(failures)
                await asyncio.sleep(self.backoff)
            worker, config = self._new_worker(verify=False)
            if self._closing:
                self.workers.remove(worker)
                return worker
            try:
                await self._open(worker, config)
            except Exception as error:  # noqa: BLE001 - a bug is tried again as well, and told
                failures += 1
                text = str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"
                self.start_failure = text if failures > 1 else self.start_failure
                _log.error(
                    "%s: a worker failed to start: %s", self.name, text, exc_info=not isinstance(error, RequestError)
                )
                worker.kill("start_failed")
                self._remove(worker, await worker.end())
                self.callbacks.on_restart("start_failed")
            else:
                return worker

    def _remove(self, worker: WorkerHandle, reason: str) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        lost = [item for batch in worker.in_flight.values() for item in batch.items]
        worker.in_flight.clear()
        if lost:
            self.callbacks.on_lost(lost, reason)
        self.callbacks.on_change()

    async def _watch(self) -> None:
        """End workers that hang or hold too much memory; one that can't be looked at keeps none of the others from
        it."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            late = now - before - _WATCH_S
            for worker in [worker for worker in self.workers if worker.ready]:  # a retiring one can hang as well
                if late > _WATCH_S:  # this process was stopped itself: nobody's silence counts meanwhile
                    worker.last_heard += late
                if reason := self._hang_reason(worker, now):
                    worker.kill(reason)
                elif not worker.retiring and (reason := self._memory_reason(worker)):
                    worker.kill_reason = reason
                    worker.retire()

    def _hang_reason(self, worker: WorkerHandle, now: float) -> str:
        """Return why a worker has to be killed; empty where it is well."""
        if now - worker.last_heard > self.settings.heartbeat_timeout:
            return f"silent: no heartbeat for {now - worker.last_heard:.1f} s"
        oldest = min((batch.sent for batch in worker.in_flight.values()), default=now)
        if now - oldest > self.settings.batch_timeout:
            return f"hung: a batch took longer than {self.settings.batch_timeout:g} s"
        return ""

    def _memory_reason(self, worker: WorkerHandle) -> str:
        """Return why a worker has to be replaced once it has finished what it has; empty where it is well."""
        at_start = worker.resident_at_start
        limit = self.settings.worker_bytes or max(4 * at_start, at_start + 1024 * MEBIBYTE)
        if worker.resident > limit:
            return f"memory: it held {worker.resident / 1e6:,.0f} MB, more than its limit of {limit / 1e6:,.0f} MB"
        return ""
