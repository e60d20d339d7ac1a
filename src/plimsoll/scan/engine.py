"""Where shards run: `Engine` is the seam, `LocalEngine` the processes of this machine."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from plimsoll.scan.shard_run import Event, ShardRunner, Task
from plimsoll.scan.table import PartWriter, Table
from plimsoll.scan.worker import WorkerSettings
from plimsoll.system import host

CORES_A_PROCESS = 8
"""A worker's threads share Python's lock, but each worker holds the models. Not measured: only machines of two cores
were at hand, where one process is what `predict` has."""


class Engine(Protocol):
    """Runs shards until each has its part. A shard may be run twice, by a machine that was thought lost too: both write
    the same part."""

    def run(self, tasks: Iterator[Task], work: WorkerSettings, writer: PartWriter, table: Table) -> Iterator[Event]:
        """Yield what comes of each picture and shard, in any order. When the iterator is closed, all work ends, and
        what was stored stays."""
        ...


class LocalEngine:
    """Processes of this machine, one for every 8 cores."""

    def __init__(self, processes: int | None = None) -> None:
        self._cores = host.cores()
        self.processes = processes or max(1, self._cores // CORES_A_PROCESS)

    def run(self, tasks: Iterator[Task], work: WorkerSettings, writer: PartWriter, table: Table) -> Iterator[Event]:
        """Run shards; raises what a `ShardRunner` raises."""
        work = replace(work, cores=max(1, self._cores // self.processes))
        events = queue.SimpleQueue[Event | BaseException | None]()
        shared = _Locked(tasks)
        runners = [ShardRunner(work, writer, table.partial) for _ in range(self.processes)]
        threads = [
            threading.Thread(target=_drain, args=(runner, shared, events.put), daemon=True) for runner in runners
        ]
        for thread in threads:
            thread.start()
        try:
            left = len(runners)
            while left:
                event = events.get()
                if event is None:
                    left -= 1
                elif isinstance(event, BaseException):
                    raise event
                else:
                    yield event
        finally:
            for runner in runners:
                runner.stop()
            for thread in threads:
                thread.join()


class _Locked:
    """An iterator that threads share."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks, self._lock = tasks, threading.Lock()

    def __iter__(self) -> _Locked:
        return self

    def __next__(self) -> Task:
        with self._lock:
            return next(self._tasks)


def _drain(runner: ShardRunner, tasks: Iterator[Task], put: Callable[[Event | BaseException | None], None]) -> None:
    try:
        with contextlib.closing(runner.run(tasks)) as events:  # type: ignore[type-var]  # a generator
            for event in events:
                put(event)
    except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
        put(error)
    else:
        put(None)
